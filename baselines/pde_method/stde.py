import torch
from torch import Tensor

from baselines.pde_method.directional import DirectionalLaplacian, rademacher
from suite import Choice, IntUniform, Paper, pde_method

STDE = Paper(
    "Stochastic Taylor Derivative Estimator: Efficient amortization for arbitrary differential operators",
    arxiv="2412.00088",
    year=2024,
)
DEFAULTS = {"directions": 16, "unbiased": False}
SPACE = {"directions": IntUniform(1, 64), "unbiased": Choice(False, True)}


@pde_method(
    "stde-sparse", paper=STDE, defaults=DEFAULTS, space=SPACE, families=("pde",), system="stde", confidence="verified"
)
class SparseSTDE(DirectionalLaplacian):
    """Coordinate directions, drawn without replacement at each point: d/B times the sum of their second derivatives."""

    def draw(self, points: Tensor) -> tuple[Tensor, float]:
        n, d = points.shape
        axes = torch.rand(n, d, generator=self.problem.generator).topk(self.directions, dim=1).indices
        unit = points.new_zeros(self.directions, n, d)
        return unit.scatter_(2, axes.T[..., None].to(points.device), 1.0), d / self.directions


@pde_method(
    "stde-dense", paper=STDE, defaults=DEFAULTS, space=SPACE, families=("pde",), system="stde", confidence="verified"
)
class DenseSTDE(DirectionalLaplacian):
    """Rademacher directions at each point, in Taylor mode: the mean of v^T H v."""

    def draw(self, points: Tensor) -> tuple[Tensor, float]:
        return rademacher(self.directions, points, self.problem.generator), 1 / self.directions
