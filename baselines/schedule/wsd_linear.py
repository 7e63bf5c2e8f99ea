"""Linear cooldown, s = 1 - t: `wsd` under the name that the other shapes follow."""

from baselines.schedule.wsd import wsd
from suite import Paper, Uniform, schedule

wsd_linear = schedule(
    "wsd-linear",
    paper=Paper(
        "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", arxiv="2405.18392", year=2024
    ),
    defaults={"warmup": 0.05, "cooldown": 0.2, "floor": 0.0},
    space={"warmup": Uniform(0.0, 0.2), "cooldown": Uniform(0.05, 0.8), "floor": Uniform(0.0, 0.2)},
    families=("language", "vision", "pde"),
    system="wsd",
    confidence="verified",
)(wsd)
