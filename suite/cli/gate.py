def gate() -> None:
    """later"""
