from collections.abc import Callable

import torch
from torch import Tensor

from baselines.optimizer._common import Groups, StateLists, flattened
from suite import LogUniform, Paper, Uniform, optimizer


@optimizer(
    "adam-lbfgs",
    paper=Paper("Challenges in Training PINNs: A Loss Landscape Perspective", arxiv="2402.01868", year=2024),
    families=("pde",),
    vmap=False,
    defaults={"lr": 1e-3, "switch": 0.25, "history": 100, "max_iter": 20},
    space={"lr": LogUniform(3e-5, 3e-2), "switch": Uniform(0.05, 0.75)},
)
class AdamLBFGS(StateLists, torch.optim.LBFGS):
    """Adam for the first `switch` share of the budget, then L-BFGS with a strong Wolfe line search.

    The usual recipe of physics-informed fits. `lr` and the schedule act on Adam; the line search
    starts from step 1. An Adam step evaluates the closure once, an L-BFGS step runs up to `max_iter`
    iterations over up to `history` pairs of vectors and costs about 150 of AdamW's on a GPT of 27,000
    weights, in some 25 evaluations. Without `set_progress` it stays Adam.
    """

    needs_closure = True

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        switch: float = 0.25,
        history: int = 100,
        max_iter: int = 20,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(
            flattened(groups),
            lr=lr,
            history_size=history,
            max_iter=max_iter,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )
        self.param_groups[0].update(switch=switch, progress=0.0, betas=betas, eps=eps)

    def set_progress(self, fraction: float) -> None:
        """Share of the budget used so far."""
        self.param_groups[0]["progress"] = fraction

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One update by the phase's rule; returns the closure's loss before it."""
        group = self.param_groups[0]
        if group["progress"] < group["switch"]:
            return self._adam(closure)
        lr, group["lr"] = group["lr"], 1.0
        try:
            return super().step(closure)
        finally:
            group["lr"] = lr

    @torch.no_grad()
    def _adam(self, closure: Callable[[], Tensor]) -> Tensor:
        with torch.enable_grad():
            loss = closure()
        group = self.param_groups[0]
        params = [p for p in group["params"] if p.grad is not None]
        if params:
            direction = self.adam_direction(group, params, [p.grad for p in params])
            torch._foreach_add_(params, direction, alpha=-group["lr"])
        return loss
