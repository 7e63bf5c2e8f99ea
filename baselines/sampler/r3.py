import torch
from torch import Tensor

from suite import Paper, sampler
from suite.train.pinn import Sampler


@sampler(
    "r3",
    paper=Paper(
        "Mitigating Propagation Failures in Physics-informed Neural Networks "
        "using Retain-Resample-Release (R3) Sampling",
        arxiv="2207.02338",
        year=2023,
    ),
    families=("pde",),
    confidence="verified",
)
class R3(Sampler):
    """Retain-resample-release: points whose |residual| exceeds the mean stay, the others are drawn anew."""

    held: Tensor | None = None

    def points(self) -> Tensor:
        if self.held is None:
            self.held = self.fresh()
        return self.held

    def update(self, points: Tensor, residual: Tensor) -> None:
        retained = residual > residual.mean()
        self.held = torch.where(retained[:, None], points, self.fresh().to(points))
