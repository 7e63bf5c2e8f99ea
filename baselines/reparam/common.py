"""Finding the tensors to re-express and attaching torch parametrizations to them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils import parametrize

from suite.train.roles import ParamInfo, named_parameters

HIDDEN = ("matrix", "conv")
WEIGHTS = (*HIDDEN, "head")


def weights(model: nn.Module, roles: tuple[str, ...] = WEIGHTS) -> Iterator[tuple[nn.Module, str, ParamInfo]]:
    """(module, attribute, info) of every weight of these roles, in registration order."""
    for _, info in list(named_parameters(model)):
        if info.role in roles:
            yield info.module, info.name.rpartition(".")[2], info


def residual_ends(model: nn.Module) -> list[nn.Module]:
    """The last layer of every residual branch, in registration order."""
    return [m for m in model.modules() if getattr(m, "levelfield_residual", False)]


def scale_output(layer: nn.Module, factor: nn.Module) -> None:
    """Let `factor`, a module that multiplies, act on all of the layer's own parameters, hence on its output."""
    for name, _ in list(layer.named_parameters(recurse=False)):
        parametrize.register_parametrization(layer, name, factor)


def per_unit(values: Tensor, weight: Tensor) -> Tensor:
    """(out,) values in the shape that broadcasts against a weight (out, ...)."""
    return values.view(-1, *[1] * (weight.ndim - 1))
