from dataclasses import dataclass

import torch
from torch import Tensor

from suite import Uniform, data_method
from suite.train.data import DataMethod


@data_method("random-subset", defaults={"share": 0.5}, space={"share": Uniform(0.05, 1.0)}, confidence="known")
@dataclass
class RandomSubset(DataMethod):
    """A random `share` of the training examples, drawn once: what every pruning by difficulty has to beat."""

    share: float = 0.5

    def subset(self, inputs: Tensor, targets: Tensor | None, generator: torch.Generator) -> Tensor:
        kept = max(1, round(self.share * len(inputs)))
        return torch.randperm(len(inputs), generator=generator)[:kept].sort().values
