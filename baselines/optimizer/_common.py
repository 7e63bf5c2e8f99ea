"""Shared parts of the optimizers: roles of groups, lists of state tensors, norms and reductions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

HIDDEN = ("matrix", "conv")
WEIGHTS = ("matrix", "conv", "embedding", "head")

Group = dict[str, Any]
Groups = Iterable[Tensor] | Iterable[Group]


class StateLists:
    """Mixin of torch optimizers: per-parameter state as lists of tensors, and Adam on such lists."""

    state: Any
    param_groups: list[Group]

    def buffers(
        self, params: list[Tensor], name: str, make: Callable[[Tensor], Tensor] = torch.zeros_like
    ) -> list[Tensor]:
        """State tensor `name` of each parameter, made by `make(parameter)` (zeros) at first."""
        found = []
        for p in params:
            state = self.state[p]
            if name not in state:
                state[name] = make(p)
            found.append(state[name])
        return found

    def advance(self, params: list[Tensor]) -> list[int]:
        """Count one more update of each parameter; returns the counts, 1 at the first."""
        counts = []
        for p in params:
            state = self.state[p]
            state["step"] = count = state.get("step", 0) + 1
            counts.append(count)
        return counts

    def average(self, params: list[Tensor], grads: list[Tensor], beta: float) -> list[Tensor]:
        """Momentum m ← βm + (1 − β)g from m = 0, the live state; `grads` themselves where β = 0."""
        if beta == 0:
            return grads
        momentum = self.buffers(params, "exp_avg")
        torch._foreach_lerp_(momentum, grads, 1 - beta)
        return momentum

    def second_moment(self, params: list[Tensor], grads: list[Tensor], beta: float) -> list[Tensor]:
        """v ← βv + (1 − β)g² from v = 0, the live state."""
        square = self.buffers(params, "exp_avg_sq")
        torch._foreach_mul_(square, beta)
        torch._foreach_addcmul_(square, grads, grads, 1 - beta)
        return square

    def adam_direction(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Advance Adam's moments by `grads` and return m̂/(√v̂ + ε) (arXiv 1412.6980), as new tensors.

        Reads "betas" and "eps" of the group.
        """
        beta1, beta2 = group["betas"]
        mean = self.average(params, grads, beta1)
        denominator = torch._foreach_sqrt(self.second_moment(params, grads, beta2))
        counts = self.advance(params)
        torch._foreach_div_(denominator, [(1 - beta2**t) ** 0.5 for t in counts])
        torch._foreach_add_(denominator, group["eps"])
        torch._foreach_mul_(denominator, [1 - beta1**t for t in counts])
        return list(torch._foreach_div(mean, denominator))

    def adamw(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """One AdamW update with decay w ← w(1 − ηλ), as torch.optim.AdamW; reads lr, betas, eps, weight_decay."""
        direction = self.adam_direction(group, params, grads)
        decay(group, params)
        torch._foreach_add_(params, direction, alpha=-group["lr"])

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, as copies in their own dtype (torch casts to the parameter's)."""
        super().load_state_dict(dict(state_dict))  # type: ignore[misc]
        saved, ids = state_dict["state"], [i for g in state_dict["param_groups"] for i in g["params"]]
        params = [p for g in self.param_groups for p in g["params"]]
        for i, p in zip(ids, params, strict=True):
            for name, value in saved.get(i, {}).items():
                own = self.state[p]
                own[name] = value.to(p.device, copy=True) if isinstance(value, Tensor) else deepcopy(own[name])


class ForeachOptimizer(StateLists, Optimizer):
    """An optimizer whose rule updates the tensors of one group in a few list operations.

    A subclass overrides `update`, and `prepare` where a step needs a quantity of all groups (a
    global norm). Parameters without a gradient are left alone. State is kept per parameter in
    tensors and plain numbers, in the dtype the rule chose; what belongs to the whole run (step
    size estimates, random streams) is kept in the groups, so that a state dict holds everything.

    Parameters
    ----------
    groups : parameters, or torch parameter groups with an optional "role".
    defaults : hyper-parameters of the groups that don't state their own.
    """

    def __init__(self, groups: Groups, **defaults: Any) -> None:
        super().__init__(groups, defaults)
        for group in self.param_groups:
            group.setdefault("initial_lr", group["lr"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.prepare(loss)
        for group, params, grads in self.trained():
            self.update(group, params, grads)
        return loss

    def prepare(self, loss: Tensor | None) -> None:
        """Compute what all groups share in this step; gradients are in place, `loss` is the closure's."""

    def trained(self) -> list[tuple[Group, list[Tensor], list[Tensor]]]:
        """(group, parameters, gradients) of every group that has gradients."""
        found = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                found.append((group, params, [p.grad for p in params]))
        return found

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """Update `params` in place; `grads` are the live gradients and must not be changed."""
        raise NotImplementedError


class Horizon:
    """Mixin of optimizers that need the run's length: group["horizon"], in steps."""

    param_groups: list[Group]

    def set_horizon(self, total: float) -> None:
        """Steps of the whole run."""
        for group in self.param_groups:
            group["horizon"] = total


def by_role(groups: Groups) -> list[Group]:
    """Copies of the groups, each with a "role".

    A group without one, or a plain list of tensors, is split by the number of dimensions:
    2 gives "matrix", 4 gives "conv", anything else "other".
    """
    entries: list[Any] = list(groups)
    if entries and not isinstance(entries[0], dict):
        entries = [{"params": entries}]
    found: list[Group] = []
    for entry in entries:
        tensors = [entry["params"]] if isinstance(entry["params"], Tensor) else list(entry["params"])
        parts: dict[str, list[Tensor]] = {}
        for tensor in tensors:
            role = entry.get("role") or {2: "matrix", 4: "conv"}.get(tensor.ndim, "other")
            parts.setdefault(role, []).append(tensor)
        found += [{**entry, "params": part, "role": role} for role, part in parts.items()]
    return found


def with_companion(groups: Groups, adam_lr: float, roles: tuple[str, ...] = HIDDEN) -> list[Group]:
    """Groups by role in which every role but `roles` has the companion's learning rate."""
    return [g if g["role"] in roles else {"lr": adam_lr, **g} for g in by_role(groups)]


def total(values: list[Tensor]) -> Tensor:
    """Sum of 0-d tensors that may differ in dtype and device, on the first one's device."""
    dtype = torch.promote_types(values[0].dtype, torch.float32)
    return torch.stack([v.to(values[0].device, dtype) for v in values]).sum()


def norms(tensors: list[Tensor], order: int = 2) -> list[Tensor]:
    """ℓ2 (or ℓ1) norm of each tensor, 0-d, in at least float32."""
    return [torch.linalg.vector_norm(t, order, dtype=torch.promote_types(t.dtype, torch.float32)) for t in tensors]


def global_norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all tensors as one vector, 0-d."""
    return total([norm.square() for norm in norms(tensors)]).sqrt()


def global_sum_abs(tensors: list[Tensor]) -> Tensor:
    """ℓ1 norm of all tensors as one vector, 0-d."""
    return total(norms(tensors, 1))


def inner(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """Inner product of two lists of tensors as two vectors, 0-d."""
    return total(
        [(a * b).sum(dtype=torch.promote_types(a.dtype, torch.float32)) for a, b in zip(left, right, strict=True)]
    )


def signs(tensors: list[Tensor]) -> list[Tensor]:
    """Sign of each entry; NaN where it isn't finite (torch gives NaN the sign 0, which would hide a divergence)."""
    found = torch._foreach_sign(tensors)
    torch._foreach_add_(found, torch._foreach_sub(tensors, tensors))
    return list(found)


def inverse_power(norm: Tensor, power: float = 1.0) -> Tensor:
    """norm^(−power) of a 0-d norm or of a tensor of norms, 0 where the norm is 0."""
    return torch.where(norm == 0, 0.0, norm.pow(-power))


def scaled(tensors: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    """Each tensor times its own 0-d factor, in the tensor's dtype."""
    return [t * f.to(t.device, t.dtype) for t, f in zip(tensors, factors, strict=True)]


def flattened(groups: Groups) -> list[Tensor]:
    """All parameters of the groups in one list, for optimizers that know one group only."""
    return [p for g in by_role(groups) for p in g["params"]]


def decay(group: Group, params: list[Tensor]) -> None:
    """Decoupled weight decay w ← w(1 − ηλ), in place."""
    if group["weight_decay"] != 0:
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])


def multiplier(group: Group) -> float:
    """The schedule's multiplier η_t: the group's learning rate over its initial one."""
    return group["lr"] / group["initial_lr"] if group["initial_lr"] else 1.0
