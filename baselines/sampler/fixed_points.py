from torch import Tensor

from suite import sampler
from suite.train.pinn import Sampler


@sampler("fixed-points", families=("pde",), confidence="verified")
class FixedPoints(Sampler):
    """One fixed set of uniform collocation points for the whole run."""

    held: Tensor | None = None

    def points(self) -> Tensor:
        if self.held is None:
            self.held = self.fresh()
        return self.held
