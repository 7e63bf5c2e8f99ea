import torch
from torch import Tensor, nn

from suite import IntUniform, LogUniform, Paper, pde_method
from suite.train.jets import concatenate, through
from suite.train.pinn import PdeMethod, Problem


@pde_method(
    "fourier-features",
    paper=Paper(
        "On the eigenvector bias of Fourier feature networks: From regression to solving multi-scale PDEs with PINNs",
        arxiv="2012.10047",
        year=2021,
    ),
    defaults={"sigma": 1.0, "frequencies": 32},
    space={"sigma": LogUniform(0.1, 20.0), "frequencies": IntUniform(16, 128)},
    families=("pde",),
    system="fourier-feature-pinn",
)
class FourierFeatures(PdeMethod):
    """The network sees cos and sin of 2 pi B x, with x scaled to [-1, 1] and frozen B ~ N(0, sigma^2)."""

    def __init__(self, problem: Problem, *, sigma: float, frequencies: int) -> None:
        super().__init__(problem)
        self.frequencies = frequencies
        shape = (frequencies, problem.domain.dims)
        self.register_buffer("matrix", 2 * torch.pi * sigma * torch.randn(shape, generator=problem.generator))

    @property
    def features(self) -> int:
        return 2 * self.frequencies

    def embed(self, x: Tensor) -> Tensor:
        phase = nn.functional.linear(super().embed(x), self.matrix)
        return concatenate([through(torch.cos, phase), through(torch.sin, phase)])
