"""Verifiers that err: training rewards are flipped at random, evaluation is always by the exact verifier.

The same uniform numbers are drawn whatever the rates, so that two rates differ
only in the answers that one of them flips.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from suite import Paper, Uniform, data_method
from suite.train.data import DataMethod


@dataclass
class ImperfectVerifier(DataMethod):
    """A right answer is called wrong with probability `false_negatives`, a wrong one right with `false_positives`."""

    false_negatives: float = 0.0
    false_positives: float = 0.0

    def rewards(self, rewards: Tensor, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(rewards.shape, generator=generator).to(rewards.device)
        missed, believed = uniform < self.false_negatives, uniform < self.false_positives
        right = rewards > 0
        return ((right & ~missed) | (~right & believed)).to(rewards.dtype)


@data_method(
    "verifier-false-negatives",
    paper=Paper(
        "TinyV: Reducing False Negatives in Verification Improves RL for LLM Reasoning", arxiv="2505.14625", year=2025
    ),
    defaults={"rate": 0.3},
    space={"rate": Uniform(0.0, 0.6)},
    families=("rlvr",),
    confidence="known",
)
class FalseNegatives(ImperfectVerifier):
    """A verifier that calls a share `rate` of the right answers wrong."""

    def __init__(self, rate: float = 0.3) -> None:
        super().__init__(false_negatives=rate)


@data_method(
    "verifier-false-positives",
    paper=Paper(
        "Inference Scaling fLaws: The Limits of LLM Resampling with Imperfect Verifiers", arxiv="2411.17501", year=2024
    ),
    defaults={"rate": 0.1},
    space={"rate": Uniform(0.0, 0.6)},
    families=("rlvr",),
    confidence="known",
)
class FalsePositives(ImperfectVerifier):
    """A verifier that calls a share `rate` of the wrong answers right."""

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__(false_positives=rate)
