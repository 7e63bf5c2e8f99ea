"""Linear warm-up, shared by the schedules: shares of the budget, whatever its unit."""

from __future__ import annotations

START = 0.01


def warmup_factor(step: float, total: float, share: float) -> float:
    """Factor of the warm-up, min(1, w + (1 - w)/100) with w = step / (share * total).

    It starts at 1 % of the peak rather than at 0, so that the first update moves
    the weights, and it does not depend on the budget's unit. The form is the
    released code's of "Scaling Laws and Compute-Optimal Training Beyond Fixed
    Training Durations" (arXiv 2405.18392).

    Parameters
    ----------
    step, total : budget used before the update, and in all, in the same unit.
    share : share of the budget the ramp takes; 0 for none.
    """
    if step >= share * total:
        return 1.0
    done = step / (share * total)
    return done + START * (1.0 - done)


def after_warmup(step: float, total: float, share: float) -> float:
    """Progress in [0, 1] through the budget that the warm-up leaves; 0 during the warm-up."""
    ramp = share * total
    return 0.0 if step <= ramp else min(1.0, (step - ramp) / (total - ramp))
