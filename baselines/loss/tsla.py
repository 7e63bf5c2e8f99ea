import torch
import torch.nn.functional as F
from torch import Tensor

from suite import Paper, Uniform, loss


@loss(
    "tsla",
    paper=Paper("Towards Understanding Label Smoothing", arxiv="2006.11653", year=2020),
    defaults={"theta": 0.1, "switch": 0.25},
    space={"theta": Uniform(0.02, 0.9), "switch": Uniform(0.1, 0.9)},
    families=("vision", "language"),
    confidence="partly",
)
def tsla(logits: Tensor, targets: Tensor, *, theta: float = 0.1, switch: float = 0.25, progress: float = 0.0) -> Tensor:
    """Two-stage label smoothing: smoothing `theta` for the first `switch` share of the budget, then none.

    Parameters
    ----------
    theta : label smoothing of the first stage, from 0 to 1.
    switch : share of the budget after which the labels are plain.
    progress : share of the budget used, from the training loop.
    """
    smoothing = theta if progress < switch else 0.0
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return F.cross_entropy(wide, targets, label_smoothing=smoothing)
