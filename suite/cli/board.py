def board() -> None:
    """later"""
