from suite import Paper, Uniform, pde_method
from suite.train.pinn import PdeMethod, Problem


@pde_method(
    "curriculum-pde",
    paper=Paper(
        "Characterizing possible failure modes in physics-informed neural networks", arxiv="2109.01050", year=2021
    ),
    defaults={"ramp": 0.5},
    space={"ramp": Uniform(0.1, 0.9)},
    families=("pde",),
    confidence="verified",
)
class CurriculumPde(PdeMethod):
    """The equation's coefficient grows linearly from 0 to its target over the first `ramp` of the budget."""

    def __init__(self, problem: Problem, *, ramp: float) -> None:
        super().__init__(problem)
        self.ramp = ramp
        problem.stage(0.0)

    def set_progress(self, fraction: float) -> None:
        self.problem.stage(fraction / self.ramp)
