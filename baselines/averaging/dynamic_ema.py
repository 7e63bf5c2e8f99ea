from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.averaging.shadow import Shadow, ShadowAverager
from suite import LogUniform, Paper, averaging


@averaging(
    "dynamic-ema",
    paper=Paper("Large Continual Instruction Assistant", arxiv="2410.10868", year=2025),
    defaults={"fallback": 0.01},
    space={"fallback": LogUniform(1e-3, 0.1)},
    families=("language", "vision"),
    confidence="verified",
)
class DynamicEma(ShadowAverager):
    """EMA whose weight follows the gradient, per tensor: alpha = 2 (1 + ||g||_1) / (||w - a||_1 ||g - g_prev||_1).

    a <- a + alpha (w - a) after every update, from a copy of the initial weights. The
    norms are sums of absolute values over the tensor, so that alpha depends on its
    size. Where alpha is not inside (0, 1), at the first update, and for tensors
    without a gradient (buffers), the fallback is taken.

    Parameters
    ----------
    fallback : alpha where the formula gives none.
    """

    def __init__(self, model: nn.Module, *, fallback: float) -> None:
        super().__init__(model)
        self.fallback = fallback
        self.average = Shadow(self.live())
        self.previous = Shadow({name: torch.zeros_like(t) for name, t in self.live().items() if name in self.trained})
        self.updates = 0

    @torch.no_grad()
    def update(self, step: float, total: float) -> None:
        live = self.live()
        gradients = self._gradients()
        weights = self._weights(live, gradients) if self.updates else {}
        for name, average in self.average.tensors.items():
            average.lerp_(live[name], weights.get(name, self.fallback))
        self.previous.copy(gradients)
        self.updates += 1

    def _gradients(self) -> dict[str, Tensor]:
        """Gradients by parameter name, zero where there is none."""
        named = self.model.named_parameters(remove_duplicate=False)
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named}

    def _weights(self, live: dict[str, Tensor], gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """alpha of each parameter, scalar tensors."""
        names = list(self.previous.tensors)
        now = [gradients[name] for name in names]
        travel = torch._foreach_sub([live[name] for name in names], [self.average.tensors[name] for name in names])
        turn = torch._foreach_sub(now, list(self.previous.tensors.values()))
        a, b, c = (torch.stack(torch._foreach_norm(tensors, 1)) for tensors in (travel, now, turn))
        alpha = 2.0 * (1.0 + b) / (a * c)
        return dict(zip(names, torch.where((alpha > 0) & (alpha < 1), alpha, self.fallback).unbind(), strict=True))

    def weights(self) -> dict[str, Tensor]:
        return self.average.tensors

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, **self.average.save("average"), **self.previous.save("previous")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.average.load(state, "average")
        self.previous.load(state, "previous")
