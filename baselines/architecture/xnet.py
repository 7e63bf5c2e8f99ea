from __future__ import annotations

from torch import Tensor, nn

from baselines.activation.cauchy import CauchyActivation
from baselines.architecture.common import nearest_size
from suite import LogUniform, Paper, architecture
from suite.train.build import Build, Interface
from suite.train.jets import through
from suite.train.roles import mark


class WideCauchy(nn.Module):
    """Linear layer, Cauchy activation with a learned triple a unit, linear head.

    Parameters
    ----------
    build : makes the head.
    interface : of the task.
    width : units.
    start : initial λ₁, λ₂ and d.
    """

    def __init__(self, build: Build, interface: Interface, width: int, start: tuple[float, float, float]) -> None:
        super().__init__()
        self.first = nn.Sequential(interface.first(), nn.Flatten()) if len(interface.shape) > 1 else interface.first()
        inputs = 1
        for size in interface.shape:
            inputs *= size
        self.inner = nn.Linear(inputs, width)
        self.activation = mark(CauchyActivation(width, *start), "other")
        self.head = build.head(width, interface.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(through(self.activation, self.inner(self.first(x))))


@architecture(
    "xnet",
    paper=Paper("Model Comparisons: XNet Outperforms KAN", arxiv="2410.02033", year=2024),
    defaults={"lambda1": 0.01, "lambda2": 0.01, "d": 1.0, "matched": True},
    space={"lambda1": LogUniform(1e-3, 3.0), "lambda2": LogUniform(1e-3, 3.0), "d": LogUniform(0.3, 3.0)},
    families=("pde", "vision"),
    confidence="partly",
)
def xnet(
    build: Build,
    interface: Interface,
    lambda1: float = 0.01,
    lambda2: float = 0.01,
    d: float = 1.0,
    matched: bool = True,
) -> nn.Module:
    """One wide layer of Cauchy units (λ₁ x + λ₂) / (x² + d²) and a linear head, at the task's own parameters.

    Images are flattened. The paper takes 20 to 200 units and prints no initial
    values; these are the Cauchy activation's.

    Parameters
    ----------
    build, interface : as the slot gives them.
    lambda1, lambda2, d : initial values, one learned triple a unit.
    matched : as many units as give the parameters of the task's own network, else 200.
    """

    def make(width: int) -> nn.Module:
        return WideCauchy(build, interface, width, (lambda1, lambda2, d))

    return make(nearest_size(build, interface, make) if matched else 200)
