"""Finding the tensors to re-express and attaching torch parametrizations to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn.utils import parametrize

from suite.train.roles import ParamInfo, named_parameters

HIDDEN = ("matrix", "conv")
WEIGHTS = (*HIDDEN, "head")


def weights(model: nn.Module, roles: tuple[str, ...] = WEIGHTS) -> Iterator[tuple[nn.Module, str, ParamInfo]]:
    """(module, attribute, info) of every weight of these roles, in registration order."""
    for _, info in list(named_parameters(model)):  # a list: the caller changes the model
        if info.role in roles:
            yield info.module, info.name.rpartition(".")[2], info


class Factor(nn.Module):
    """A constant times a tensor."""

    factor: Tensor

    def __init__(self, like: Tensor, factor: float) -> None:
        super().__init__()
        self.register_buffer("factor", like.new_tensor(factor))

    def forward(self, tensor: Tensor) -> Tensor:
        return self.factor * tensor


def residual_ends(model: nn.Module) -> list[nn.Module]:
    """The last layer of every residual branch, in registration order."""
    return [m for m in model.modules() if getattr(m, "levelfield_residual", False)]


def residual_layers(model: nn.Module) -> list[list[nn.Module]]:
    """The ends of the residual branches, those of one layer together, in registration order.

    A layer is a module other than the model, a list or a sequence that holds more than one of
    them (a transformer's attention and feed-forward block); any other branch is one by itself.
    """
    modules, owners = dict(model.named_modules()), {}
    marked = {id(end) for end in residual_ends(model)}
    for name, module in modules.items():
        if name and not isinstance(module, nn.Sequential | nn.ModuleList):
            inside = [m for m in module.modules() if id(m) in marked]
            if len(inside) > 1:
                owners.update({id(end): name for end in inside})  # inner ones come later
    groups: dict[str | int, list[nn.Module]] = {}
    for end in residual_ends(model):
        groups.setdefault(owners.get(id(end), id(end)), []).append(end)
    return list(groups.values())


def branch_norms(model: nn.Module) -> list[nn.Module | None]:
    """The first normalisation with parameters of every residual branch, None where there is none.

    A branch runs, in registration order, from the end of the one before to its own
    end; a norm after the last (a final norm) belongs to none.
    """
    norms = {id(info.module) for _, info in named_parameters(model) if info.role == "norm"}
    ends = {id(layer) for layer in residual_ends(model)}
    found: list[nn.Module | None] = []
    first: nn.Module | None = None
    for module in model.modules():
        if first is None and id(module) in norms and id(module) not in ends:
            first = module
        if id(module) in ends:
            found.append(first)
            first = None
    return found


def scale_output(layer: nn.Module, factor: Callable[[Tensor], nn.Module]) -> None:
    """Scale a layer's output by scaling all of its own parameters.

    Parameters
    ----------
    layer : affine in its parameters taken together (a linear map, convolution or norm).
    factor : makes the module that multiplies, of the data type and device of the tensor it is given.

    Raises
    ------
    ValueError : the layer has no parameters of its own.
    """
    own = dict(layer.named_parameters(recurse=False))
    if not own:
        raise ValueError(f"a residual branch ends in {type(layer).__name__}, which has no parameters to scale")
    scale = factor(next(iter(own.values())))
    for name in own:
        parametrize.register_parametrization(layer, name, scale)


def per_unit(values: Tensor, weight: Tensor) -> Tensor:
    """(out,) values in the shape that broadcasts against a weight (out, ...)."""
    return values.view(-1, *[1] * (weight.ndim - 1))
