from torch import Tensor, nn

from suite import Paper, pde_method
from suite.train.derivatives import Field, autograd_fields
from suite.train.pinn import PdeMethod, Problem


@pde_method(
    "full-laplacian",
    paper=Paper("Physics-informed neural networks", url="https://doi.org/10.1016/j.jcp.2018.10.045", year=2019),
    families=("pde",),
)
class FullLaplacian(PdeMethod):
    """The exact Laplacian by double backward, one nested derivative a dimension: `pinn` at another cost."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        problem.require(problem.target.laplacian, "Laplacian")

    def fields(self, network: nn.Module, points: Tensor) -> tuple[Field, ...]:
        return autograd_fields(network, points)
