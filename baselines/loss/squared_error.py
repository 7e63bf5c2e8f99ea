from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from baselines.loss.common import wide
from suite import Paper, loss


@loss(
    "squared-error",
    paper=Paper("Evaluation of Neural Architectures Trained with Square Loss vs Cross-Entropy", arxiv="2006.07322"),
    families=("vision", "language"),
    system="mse",
)
def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over classes of (z - onehot)², without a softmax."""
    z = wide(logits)
    return F.mse_loss(z, F.one_hot(targets, z.shape[-1]).to(z.dtype))
