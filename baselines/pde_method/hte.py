from typing import Any

from torch import Tensor

from baselines.pde_method.directional import DirectionalLaplacian, rademacher
from suite import Choice, IntUniform, Paper, pde_method
from suite.train.pinn import Problem


@pde_method(
    "hte",
    paper=Paper(
        "Hutchinson Trace Estimation for High-Dimensional and High-Order Physics-Informed Neural Networks",
        arxiv="2312.14499",
        year=2024,
    ),
    defaults={"directions": 16, "unbiased": False},
    space={"directions": IntUniform(1, 64), "unbiased": Choice(False, True)},
    families=("pde",),
)
class HutchinsonTrace(DirectionalLaplacian):
    """Hutchinson's trace estimator: the mean of v^T H v over Rademacher v, by backward Hessian-vector products."""

    def __init__(self, problem: Problem, **hp: Any) -> None:
        super().__init__(problem, **hp, taylor=False)

    def draw(self, points: Tensor) -> tuple[Tensor, float]:
        return rademacher(self.directions, points, self.problem.generator), 1 / self.directions
