import torch
from torch import Tensor, nn

from suite import IntUniform, Paper, pde_method
from suite.train.derivatives import EstimatedLaplacian, Field, autograd_fields
from suite.train.pinn import PdeMethod, Problem


@pde_method(
    "sdgd",
    paper=Paper(
        "Tackling the Curse of Dimensionality with Physics-Informed Neural Networks", arxiv="2307.12306", year=2024
    ),
    defaults={"dimensions": 16},
    space={"dimensions": IntUniform(1, 64)},
    families=("pde",),
)
class SDGD(PdeMethod):
    """Stochastic dimension gradient descent: each loss keeps `dimensions` of the Laplacian's terms.

    One set of coordinates is drawn without replacement for all points; the sum
    of their second derivatives, by nested differentiation, is scaled by d/B.
    """

    def __init__(self, problem: Problem, *, dimensions: int) -> None:
        super().__init__(problem)
        problem.require(problem.target.laplacian, "Laplacian to sample")
        self.dimensions = min(dimensions, problem.domain.dims)

    def fields(self, network: nn.Module, points: Tensor) -> tuple[Field, ...]:
        d = points.shape[1]
        axes = torch.randperm(d, generator=self.problem.generator)[: self.dimensions].tolist()
        return tuple(
            EstimatedLaplacian(field.value, d / len(axes) * field.laplacian(axes))
            for field in autograd_fields(network, points)
        )
