from __future__ import annotations

from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups
from suite import LogUniform, Paper, optimizer

SCALE, POWER = 1.084, -0.527


@optimizer(
    "powerlines-wd",
    paper=Paper(
        "Power Lines: Scaling Laws for Weight Decay and Batch Size in LLM Pre-training", arxiv="2505.13738", year=2025
    ),
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "ratio": 20.0, "factor": 1.0},
    space={"lr": LogUniform(3e-5, 3e-2), "factor": LogUniform(0.1, 10.0)},
    families=("language",),
    confidence="partly",
)
class PowerLines(ForeachOptimizer):
    """AdamW whose decay follows from tokens per parameter and steps: λ = 1/(ητS), τ = 1.084 (D/N)^(−0.527).

    τ is AdamW's time scale as a share of the run, D the tokens that the run trains on, N the
    parameters (embeddings included, which is open in the paper), η the peak learning rate and S the
    steps. The training loop says S and D; until then there is no decay. Groups whose own decay is 0
    (norms, biases) keep it. Betas and rate are AdamW's usual ones; the paper's runs decay the rate linearly.

    Parameters
    ----------
    ratio : D/N where nobody says D.
    factor : multiplies λ; 1 is the rule.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        ratio: float = 20.0,
        factor: float = 1.0,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=None)
        self.ratio, self.factor, self.steps = ratio, factor, 0.0
        self.ruled = [group for group in self.param_groups if group["weight_decay"] is None]
        self.set_decay()

    def set_horizon(self, total: float) -> None:
        """Steps of the whole run."""
        self.steps = total
        self.set_decay()

    def set_targets(self, total: float) -> None:
        """Tokens that the whole run trains on."""
        self.ratio = total / sum(p.numel() for group in self.param_groups for p in group["params"])
        self.set_decay()

    def set_decay(self) -> None:
        """Give the groups that follow the rule their decay."""
        for group in self.ruled:
            time = group["initial_lr"] * self.steps * SCALE * self.ratio**POWER
            group["weight_decay"] = self.factor / time if time else 0.0

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        self.adamw(group, params, grads)
