from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from suite import LogUniform, Paper, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, log_ratio, right, trace_mean


@offline_objective(
    "d2o",
    paper=Paper(
        "Negating Negatives: Alignment without Human Positive Samples via Distributional Dispreference Optimization",
        arxiv="2403.03419",
        year=2024,
    ),
    defaults={"alpha": 0.1, "beta": 0.1},
    space={"alpha": LogUniform(0.01, 2.0), "beta": LogUniform(0.01, 2.0)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class D2O(OfflineObjective):
    """Distributional dispreference optimization: a wrong trace against the warm start's other traces of its prompt.

    Mean over wrong traces l of -log sigmoid(beta mean_i lr_i - alpha lr_l), lr a
    trace's log-ratio of policy to warm start and i its prompt's other traces,
    whose own rewards are not looked at. Both of the paper's reference policies
    are the warm start, as in its experiments.
    """

    alpha: float = 0.1
    beta: float = 0.1

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        ratios = log_ratio(batch, logp)
        others = (ratios.sum(1, keepdim=True) - ratios) / (ratios.shape[1] - 1)
        return trace_mean(-functional.logsigmoid(self.beta * others - self.alpha * ratios), ~right(batch))
