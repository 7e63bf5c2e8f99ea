import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from suite import Paper, Uniform, pde_method
from suite.train.pinn import PdeMethod, Problem
from suite.train.roles import mark


class Factorised(nn.Module):
    """W = diag(exp(s)) V, with V such that W is what it was."""

    def __init__(self, log_scale: Tensor) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(log_scale)

    def forward(self, direction: Tensor) -> Tensor:
        return self.log_scale.exp()[:, None] * direction

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.log_scale.exp()[:, None]


@pde_method(
    "rwf",
    paper=Paper(
        "Random Weight Factorization Improves the Training of Continuous Neural Representations",
        arxiv="2210.01274",
        year=2022,
    ),
    defaults={"mean": 1.0, "spread": 0.1},
    space={"mean": Uniform(0.0, 2.0), "spread": Uniform(0.01, 0.5)},
    families=("pde",),
)
class RandomWeightFactorization(PdeMethod):
    """Every weight matrix becomes diag(exp(s)) V with s ~ N(mean, spread^2), both learnt; the start is unchanged."""

    def __init__(self, problem: Problem, *, mean: float, spread: float) -> None:
        super().__init__(problem)
        self.mean, self.spread = mean, spread

    def prepare(self, network: nn.Module) -> None:
        for layer in [m for m in network.modules() if isinstance(m, nn.Linear)]:
            draw = torch.randn(layer.out_features, generator=self.problem.generator)
            log_scale = (self.mean + self.spread * draw).to(layer.weight)
            parametrize.register_parametrization(layer, "weight", Factorised(log_scale))
            if role := getattr(layer, "levelfield_role", ""):
                mark(layer.parametrizations, role)  # type: ignore[arg-type]
