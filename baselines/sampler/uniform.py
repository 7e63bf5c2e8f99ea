from torch import Tensor

from suite import sampler
from suite.train.pinn import Sampler


@sampler("uniform", families=("pde",), system="uniform-resample", confidence="verified")
class Uniform(Sampler):
    """New uniform collocation points at every step."""

    def points(self) -> Tensor:
        return self.fresh()
