from __future__ import annotations

import math

from torch import Tensor

from baselines.loss.common import kept_mean, log_likelihood, power_loss
from suite import LogUniform, Paper, loss

BEYOND = Paper(
    "Beyond Log Likelihood: Probability-Based Objectives for Supervised Fine-Tuning", arxiv="2510.00526", year=2025
)
PROB = ("language", "rlvr")


@loss("prob-p1", paper=BEYOND, families=PROB, system="prob-loss", confidence="verified")
def prob_p1(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - p, p the model's probability of the target token."""
    return power_loss(log_likelihood(logits, targets), 1.0).mean()


@loss(
    "prob-p10",
    paper=BEYOND,
    defaults={"alpha": 10.0},
    space={"alpha": LogUniform(1.0, 30.0)},
    families=PROB,
    system="prob-loss",
    confidence="verified",
)
def prob_p10(logits: Tensor, targets: Tensor, *, alpha: float = 10.0) -> Tensor:
    """(1 - p^α)/α with α = 10: learns mostly from tokens that the model already finds likely."""
    return power_loss(log_likelihood(logits, targets), alpha).mean()


@loss("prob-p-high", paper=BEYOND, defaults={"q": 0.1}, families=PROB, system="prob-loss", confidence="verified")
@loss("prob-p-high-0.5", paper=BEYOND, defaults={"q": 0.5}, families=PROB, system="prob-loss", confidence="verified")
def prob_p_high(logits: Tensor, targets: Tensor, *, q: float = 0.1) -> Tensor:
    """Mean of 1 - p over the tokens with p >= q."""
    log_p = log_likelihood(logits, targets)
    return kept_mean(power_loss(log_p, 1.0), log_p >= math.log(q))


@loss("prob-p-low", paper=BEYOND, defaults={"q": 0.1}, families=PROB, system="prob-loss", confidence="verified")
@loss("prob-p-low-0.5", paper=BEYOND, defaults={"q": 0.5}, families=PROB, system="prob-loss", confidence="verified")
def prob_p_low(logits: Tensor, targets: Tensor, *, q: float = 0.1) -> Tensor:
    """Mean of 1 - p over the tokens with p <= q."""
    log_p = log_likelihood(logits, targets)
    return kept_mean(power_loss(log_p, 1.0), log_p <= math.log(q))


@loss("nll-high", paper=BEYOND, defaults={"q": 0.1}, families=PROB, system="prob-loss", confidence="verified")
@loss("nll-high-0.5", paper=BEYOND, defaults={"q": 0.5}, families=PROB, system="prob-loss", confidence="verified")
def nll_high(logits: Tensor, targets: Tensor, *, q: float = 0.1) -> Tensor:
    """Mean of -log p over the tokens with p >= q."""
    log_p = log_likelihood(logits, targets)
    return kept_mean(-log_p, log_p >= math.log(q))


@loss("nll-low", paper=BEYOND, defaults={"q": 0.1}, families=PROB, system="prob-loss", confidence="verified")
@loss("nll-low-0.5", paper=BEYOND, defaults={"q": 0.5}, families=PROB, system="prob-loss", confidence="verified")
def nll_low(logits: Tensor, targets: Tensor, *, q: float = 0.1) -> Tensor:
    """Mean of -log p over the tokens with p <= q."""
    log_p = log_likelihood(logits, targets)
    return kept_mean(-log_p, log_p <= math.log(q))
