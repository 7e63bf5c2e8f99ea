from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from suite import IntUniform, LogUniform, Paper, Tier, pde_method
from suite.train.build import Build
from suite.train.jets import AxisJets, concatenate, through
from suite.train.pinn import PdeMethod, Problem

OPERATOR = Paper(
    "An operator preconditioning perspective on training in physics-informed machine learning",
    arxiv="2310.05801",
    year=2024,
)
QUADRATURE = 1024  # exact for products of up to 256 waves
EQUATION_ORDERS = AxisJets({0: 4})


@pde_method(
    "fourier-pinn",
    paper=OPERATOR,
    defaults={"modes": 128},
    space={"modes": IntUniform(16, 256)},
    families=("pde",),
    system="op-precond",
    confidence="partly",
)
class FourierPinn(PdeMethod):
    """A linear model in place of the network: coefficients of the domain's orthonormal Fourier basis, from zero.

    The basis is 1/sqrt(L), then cos and sin of 2 pi k x / L over sqrt(L/2), k = 1 .. modes, on a domain of
    length L. The condition number of its normal matrix grows like modes^4 on Poisson's equation.
    """

    def __init__(self, problem: Problem, *, modes: int) -> None:
        super().__init__(problem)
        problem.require(problem.domain.dims == 1, "Fourier basis in one dimension")
        (low,), (high,) = problem.domain.lows, problem.domain.highs
        self.length = high - low
        waves = 2 * torch.pi / self.length * torch.arange(1, modes + 1)[:, None]
        self.register_buffer("waves", waves, persistent=False)
        self.register_buffer("conditioner", torch.ones(1 + 2 * modes), persistent=False)

    @property
    def features(self) -> int:
        return len(self.conditioner)

    def basis(self, x: Any) -> Any:
        """The basis functions (n, 1 + 2 * modes) at points or jets (n, 1)."""
        phase = nn.functional.linear(x - self.problem.domain.lows[0], self.waves)
        constant = x[:, :1] * 0.0 + self.length**-0.5
        scale = (2 / self.length) ** 0.5
        return concatenate([constant, through(torch.cos, phase) * scale, through(torch.sin, phase) * scale])

    def embed(self, x: Tensor) -> Tensor:
        return self.basis(x) * self.conditioner

    def network(self, build: Build, tier: Tier) -> nn.Module:
        return build.head(self.features, 1, bias=False)

    def prepare(self, network: nn.Module) -> None:
        with torch.no_grad():
            for coefficients in network.parameters():
                coefficients.zero_()


@pde_method(
    "fourier-pinn-precond",
    paper=OPERATOR,
    defaults={"modes": 128, "gamma": 10.0},
    space={"modes": IntUniform(16, 256), "gamma": LogUniform(1.0, 100.0)},
    families=("pde",),
    system="op-precond",
    confidence="partly",
)
class PreconditionedFourierPinn(FourierPinn):
    """`fourier-pinn` on scaled coefficients, so that the equation's normal matrix A has a unit diagonal.

    P_kk = A_kk^(-1/2), on Poisson's equation a multiple of 1/k^2; the constant, which the equation does not
    see, gets gamma P_11, and the conditions the weight L A_11 / gamma^2. The condition number is then
    1 + O(1/gamma), whatever the number of modes.
    """

    def __init__(self, problem: Problem, *, modes: int, gamma: float) -> None:
        super().__init__(problem, modes=modes)
        diagonal = self.normal_diagonal()
        self.conditioner[1:] = diagonal.rsqrt()
        self.conditioner[0] = gamma * self.conditioner[1]
        weight = self.length * float(diagonal[0]) / gamma**2
        problem.require_conditions([replace(stated, weight=weight) for stated in problem.conditions])

    def normal_diagonal(self) -> Tensor:
        """A_kk (2 * modes,): mean square of the linear equation applied to each wave of the basis."""
        x = torch.as_tensor(self.problem.domain.grid(QUADRATURE + 1)[:-1], dtype=torch.float32)
        equation = self.problem.target.residual
        source = equation(x, *EQUATION_ORDERS(lambda points: points * 0.0, x))
        waves = EQUATION_ORDERS(self.basis, x)[1:]
        return torch.stack([(equation(x, wave) - source).square().mean() for wave in waves])
