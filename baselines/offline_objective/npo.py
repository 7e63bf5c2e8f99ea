"""Negative preference optimization, with and without a retain term, and the ascent that it bounds."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from suite import LogUniform, Paper, Uniform, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, log_ratio, right, summed, token_nll, trace_mean

PAPER = Paper(
    "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
    arxiv="2404.05868",
    year=2024,
)
BETA = LogUniform(0.01, 2.0)


@dataclass
class Negative(OfflineObjective):
    """(2/beta) mean over wrong traces of log(1 + (p / p of the warm start)^beta), plus `retain` times SFT's loss."""

    beta: float = 0.1
    retain: float = 0.0

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        costs = functional.softplus(self.beta * log_ratio(batch, logp)) * (2.0 / self.beta)
        return trace_mean(costs, ~right(batch)) + self.retain * token_nll(batch, logp, right(batch))


@offline_objective(
    "npo", paper=PAPER, defaults={"beta": 0.1}, space={"beta": BETA}, families=("rlvr",), confidence="verified"
)
class NPO(Negative):
    """Learns from wrong traces only: (2/beta) mean log(1 + (p / p of the warm start)^beta)."""

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__(beta)


@offline_objective(
    "npo-rt",
    paper=PAPER,
    defaults={"beta": 0.1, "retain": 1.0},
    space={"beta": BETA, "retain": Uniform(0.0, 4.0)},
    families=("rlvr",),
    system="npo",
    confidence="verified",
)
@dataclass
class NPORetain(Negative):
    """NPO on the wrong traces plus `retain` times the mean token negative log-likelihood of the right ones."""

    retain: float = 1.0


@offline_objective("gradient-ascent", paper=PAPER, families=("rlvr",), system="npo", confidence="verified")
class GradientAscent(OfflineObjective):
    """Mean log p of the wrong traces: the limit of NPO's gradient as beta tends to 0, without a bound."""

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return trace_mean(summed(batch, logp), ~right(batch))
