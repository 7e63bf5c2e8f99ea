"""Parameter roles, inferred from the modules that own the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

ROLES = ("matrix", "conv", "embedding", "head", "norm", "bias", "other")
UNDECAYED = ("norm", "bias", "other")

_NORMS: tuple[type, ...] = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm,
) + ((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ())
_CONVS = (nn.modules.conv._ConvNd,)


@dataclass(frozen=True)
class ParamInfo:
    """What is known of one parameter from the module that owns it.

    Attributes
    ----------
    name : dotted name in the model.
    role : one of `ROLES`.
    module : the owning module.
    fan_in, fan_out : as in torch.nn.init, receptive field included; 0 for 0-d and 1-d tensors.
    residual_out : True for the weight that writes a residual branch back to its stream.
    depth : number of residual branches in the model (0 where there is none).
    branch : 1 for parameters up to the end of the first residual branch, 2 up to the second, and so on.
    """

    name: str
    role: str
    module: nn.Module
    fan_in: int
    fan_out: int
    residual_out: bool = False
    depth: int = 0
    branch: int = 1


def mark(module: nn.Module, role: str) -> nn.Module:
    """State the role of every parameter below `module` (a norm or activation of a recipe, the head)."""
    for part in module.modules():
        part.levelfield_role = role  # type: ignore[assignment]
    return module


def mark_activation(module: nn.Module) -> nn.Module:
    """State that `module` is the recipe's activation at one site."""
    module.levelfield_activation = True  # type: ignore[assignment]
    return mark(module, "other")


def activations(model: nn.Module) -> list[nn.Module]:
    """The recipe's activations, one a site, in registration order."""
    return [m for m in model.modules() if getattr(m, "levelfield_activation", False)]


def mark_residual(module: nn.Module) -> nn.Module:
    """State that `module` is the last layer of a residual branch."""
    module.levelfield_residual = True  # type: ignore[assignment]
    return module


def named_parameters(model: nn.Module) -> Iterator[tuple[Tensor, ParamInfo]]:
    """Every parameter once, with its role, in registration order."""
    seen: set[int] = set()
    head = None if any(_stated(m) == "head" for m in model.modules()) else _last_linear(model)
    depth = sum(bool(getattr(m, "levelfield_residual", False)) for m in model.modules())
    branch = 1
    for prefix, module in model.named_modules():
        ended = bool(getattr(module, "levelfield_residual", False))
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            owner, tensor = _owner(model, prefix, module, name)
            role = _role(owner, tensor, parameter, owner is head) if _stands_for_weight(module, parameter) else "other"
            fan_in, fan_out = fans(parameter)
            residual = bool(getattr(owner, "levelfield_residual", False)) and parameter.ndim > 1
            full = f"{prefix}.{name}" if prefix else name
            yield parameter, ParamInfo(full, role, owner, fan_in, fan_out, residual, depth, branch)
        branch += ended


def _owner(model: nn.Module, prefix: str, module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module and name that a parameter has, or that its parametrized weight has."""
    if not isinstance(module, ParametrizationList):
        return module, name
    parent, _, tensor = f".{prefix}".rpartition(".parametrizations.")
    return model.get_submodule(parent.lstrip(".")), tensor


def _stands_for_weight(module: nn.Module, parameter: Tensor) -> bool:
    """False for what a parametrization keeps beside the weight (gains, radii), or for all of one marked "other"."""
    if not isinstance(module, ParametrizationList):
        return True
    kept = list(module.parameters(recurse=False))
    return not any(_stated(part) == "other" for part in module) and parameter is max(reversed(kept), key=Tensor.numel)


def fans(parameter: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) as in torch.nn.init; (0, 0) for tensors of fewer than two dimensions."""
    if parameter.ndim < 2:
        return 0, 0
    field = math.prod(parameter.shape[2:])
    return parameter.shape[1] * field, parameter.shape[0] * field


def param_groups(model: nn.Module) -> list[dict[str, Any]]:
    """torch parameter groups, one a role present, with a 'role' key.

    Norms, biases and activation parameters get ``weight_decay = 0.0``.
    """
    groups: dict[str, dict[str, Any]] = {}
    for parameter, info in named_parameters(model):
        if parameter.requires_grad:
            group = groups.setdefault(info.role, {"params": [], "role": info.role})
            group["params"].append(parameter)
    for role in set(groups) & set(UNDECAYED):
        groups[role]["weight_decay"] = 0.0
    return [groups[role] for role in ROLES if role in groups]


def without_roles(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups of `param_groups` for an optimizer that knows no roles: one decayed, one not."""
    merged: dict[Any, dict[str, Any]] = {}
    for group in groups:
        rest = {key: value for key, value in group.items() if key not in ("params", "role")}
        merged.setdefault(tuple(sorted(rest.items())), {**rest, "params": []})["params"].extend(group["params"])
    return list(merged.values())


def _stated(module: nn.Module) -> str:
    return getattr(module, "levelfield_role", "")


def _role(module: nn.Module, name: str, parameter: Tensor, is_head: bool) -> str:
    if _stated(module) in ("norm", "other"):
        return _stated(module)
    if isinstance(module, _NORMS):
        return "norm"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if parameter.ndim >= 3:
        return "conv" if isinstance(module, _CONVS) or parameter.ndim >= 4 else "matrix"
    if parameter.ndim == 2:
        return "head" if is_head or _stated(module) == "head" else "matrix"
    return "bias" if name.endswith("bias") and parameter.ndim == 1 else "other"


def _last_linear(model: nn.Module) -> nn.Module | None:
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return linears[-1] if linears else None
