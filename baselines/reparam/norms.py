"""Where a model's norms are."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from suite.train.roles import named_parameters


def norms(model: nn.Module) -> Iterator[tuple[nn.Module, str, int]]:
    """(parent, name, channels) of every norm that has a parameter for each of its channels."""
    channels = {id(info.module): len(p) for p, info in named_parameters(model) if info.role == "norm" and p.ndim}

    def is_norm(module: nn.Module) -> bool:
        return id(module) in channels or getattr(module, "levelfield_role", "") == "norm"

    for parent in model.modules():
        for name, child in parent.named_children():
            found = [channels[id(part)] for part in child.modules() if id(part) in channels]
            if found and is_norm(child) and not is_norm(parent):
                yield parent, name, found[0]
