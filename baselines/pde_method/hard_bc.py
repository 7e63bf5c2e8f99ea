from torch import Tensor

from suite import Paper, pde_method
from suite.train.pinn import PdeMethod, Problem


@pde_method(
    "hard-bc",
    paper=Paper(
        "Physics-informed neural networks with hard constraints for inverse design", arxiv="2102.04626", year=2021
    ),
    families=("pde",),
)
class HardConditions(PdeMethod):
    """Initial and boundary conditions built into the ansatz; only those that it cannot hold stay in the loss."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        task = problem.target
        problem.require(bool(task.hard_names), "ansatz that holds its conditions")
        problem.require_conditions([c for c in problem.conditions if c.name not in task.hard_names])

    def ansatz(self, x: Tensor, out: Tensor) -> Tensor:
        return self.problem.target.hard(x, out)
