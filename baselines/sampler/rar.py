import torch
from torch import Tensor

from baselines.sampler.adaptive import AdaptiveSampler, GrowingSampler
from suite import IntUniform, Paper, Uniform, sampler
from suite.train.pinn import Domain

RESIDUAL_BASED = Paper(
    "A comprehensive study of non-adaptive and residual-based adaptive sampling for physics-informed neural networks",
    arxiv="2207.10289",
    year=2023,
)
GROWTH = {"start": 0.5, "add": 0.05, "period": 100, "dense": 5}
GROWTH_SPACE = {
    "start": Uniform(0.2, 0.9),
    "add": Uniform(0.01, 0.2),
    "period": IntUniform(20, 500),
    "dense": IntUniform(2, 20),
}


@sampler("rar-g", paper=RESIDUAL_BASED, defaults=GROWTH, space=GROWTH_SPACE, families=("pde",), confidence="verified")
class RarG(GrowingSampler):
    """Greedy residual-based refinement: appends the candidates of largest |residual|."""

    def added(self, candidates: Tensor, magnitude: Tensor, count: int) -> Tensor:
        return candidates[magnitude.nan_to_num().topk(count).indices]


@sampler(
    "rar-d",
    paper=RESIDUAL_BASED,
    defaults={**GROWTH, "power": 2.0, "offset": 0.0},
    space={**GROWTH_SPACE, "power": Uniform(0.5, 4.0), "offset": Uniform(0.0, 2.0)},
    families=("pde",),
    confidence="verified",
)
class RarD(GrowingSampler):
    """Refinement with a distribution: appends candidates drawn with p ~ r^power / mean(r^power) + offset."""

    def __init__(
        self,
        domain: Domain,
        count: int,
        generator: torch.Generator,
        *,
        power: float,
        offset: float,
        start: float,
        add: float,
        period: int,
        dense: int,
    ) -> None:
        super().__init__(domain, count, generator, start=start, add=add, period=period, dense=dense)
        self.power, self.offset = power, offset

    def added(self, candidates: Tensor, magnitude: Tensor, count: int) -> Tensor:
        return self.drawn(candidates, magnitude, count, self.power, self.offset)


@sampler(
    "rad",
    paper=RESIDUAL_BASED,
    defaults={"power": 1.0, "offset": 1.0, "period": 100, "dense": 5},
    space={
        "power": Uniform(0.5, 4.0),
        "offset": Uniform(0.0, 2.0),
        "period": IntUniform(20, 500),
        "dense": IntUniform(2, 20),
    },
    families=("pde",),
    confidence="verified",
)
class Rad(AdaptiveSampler):
    """Residual-based adaptive distribution: all points drawn anew with p ~ r^power / mean(r^power) + offset."""

    def __init__(
        self,
        domain: Domain,
        count: int,
        generator: torch.Generator,
        *,
        power: float,
        offset: float,
        period: int,
        dense: int,
    ) -> None:
        super().__init__(domain, count, generator, period=period, dense=dense)
        self.power, self.offset = power, offset

    def change(self, candidates: Tensor, magnitude: Tensor) -> Tensor:
        return self.drawn(candidates, magnitude, self.count, self.power, self.offset)
