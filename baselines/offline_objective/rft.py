from torch import Tensor

from suite import Paper, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import Imitation, right


@offline_objective(
    "rft",
    paper=Paper(
        "Scaling Relationship on Learning Mathematical Reasoning with Large Language Models",
        arxiv="2308.01825",
        year=2023,
    ),
    families=("rlvr",),
    confidence="known",
)
class RFT(Imitation):
    """Rejection-sampling fine-tuning: mean token loss over the distinct right traces of every prompt.

    Of equal traces of one prompt the first is kept, so that a prompt that the
    warm start answers easily weighs no more than one that it seldom answers.
    """

    def chosen(self, batch: Rollouts) -> Tensor:
        _, completions = batch.tokens
        tokens = completions.masked_fill(~batch.mask, -1).view(*batch.rewards.shape, -1)
        same = (tokens[:, :, None] == tokens[:, None, :]).all(-1)
        repeats = same.tril(-1).any(-1)
        return right(batch) & ~repeats
