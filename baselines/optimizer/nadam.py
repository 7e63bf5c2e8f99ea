from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from suite import LogUniform, Paper, optimizer


@optimizer(
    "nadam",
    paper=Paper(
        "Incorporating Nesterov Momentum into Adam",
        url="https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ",
        year=2016,
    ),
    defaults={"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 4e-3},
    space={"lr": LogUniform(6e-5, 6e-2)},
)
class NAdam(torch.optim.NAdam):
    """NAdam: Adam with Nesterov's look-ahead and a rising momentum β1(1 − ½·0.96^(tψ)), torch's.

    A run that goes on from a saved state is bit-identical: torch's class rounds its float32
    product of the momenta to the parameters' dtype when it loads a state.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore copies of what `state_dict` gave."""
        saved = deepcopy(state_dict)
        super().load_state_dict(saved)
        for group, numbers in zip(self.param_groups, saved["param_groups"], strict=True):
            for p, i in zip(group["params"], numbers["params"], strict=True):
                if i in saved["state"]:
                    self.state[p]["mu_product"] = saved["state"][i]["mu_product"]
