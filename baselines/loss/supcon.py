from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.loss.common import kept_mean, wide
from baselines.loss.heads import Normalised, Probe
from suite import Choice, LogUniform, Paper, loss

SUPCON = Paper("Supervised Contrastive Learning", arxiv="2004.11362", year=2020)
SYMMETRIC = Paper(
    "Symmetric Neural-Collapse Representations with Supervised Contrastive Loss: The Impact of ReLU and Batching",
    arxiv="2306.07960",
    year=2023,
)
DEFAULTS = {"temperature": 0.1, "dims": 64}
SPACE = {"temperature": LogUniform(0.02, 1.0), "dims": Choice(16, 32, 64, 128)}


def contrast(features: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean over the examples i that share their class of -mean_p log softmax_{a≠i}(z_i·z_a/τ)_p, p of i's class."""
    z = wide(features)
    scores = z @ z.mT / temperature
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_share = scores - scores.masked_fill(own, -torch.inf).logsumexp(1, keepdim=True)
    partners = (targets[:, None] == targets) & ~own
    count = partners.sum(1)
    return kept_mean(-(log_share * partners).sum(1) / count.clamp(min=1), count > 0)


@loss("supcon", paper=SUPCON, defaults=DEFAULTS, space=SPACE, families=("vision",), system="supcon-relu")
def supcon(logits: Tensor, targets: Tensor, *, features: Tensor, temperature: float, dims: int) -> Tensor:
    """Supervised contrastive loss of normalised features, beside a linear probe that gives the logits.

    -(1/|P(i)|) Σ_{p∈P(i)} log [exp(z_i·z_p/τ) / Σ_{a≠i} exp(z_i·z_a/τ)], P(i) the other examples of i's
    class in the batch, averaged over the examples that have any. The output layer is
    its own: a linear map to `dims` and its direction z. The network learns from the contrast
    alone; a linear probe on z learns by cross-entropy, which reaches nothing else.

    Parameters
    ----------
    temperature : τ.
    dims : length of z.
    """
    return contrast(features, targets, temperature) + F.cross_entropy(wide(logits), targets)


@loss(
    "supcon-relu",
    paper=SYMMETRIC,
    defaults=DEFAULTS,
    space=SPACE,
    families=("vision",),
    confidence="partly",
)
def supcon_relu(logits: Tensor, targets: Tensor, *, features: Tensor, temperature: float, dims: int) -> Tensor:
    """`supcon` of rectified features: z is the direction of the linear map's positive part."""
    return contrast(features, targets, temperature) + F.cross_entropy(wide(logits), targets)


@loss(
    "supcon-relu-bind",
    paper=SYMMETRIC,
    defaults=DEFAULTS,
    space=SPACE,
    families=("vision",),
    system="supcon-relu",
    confidence="partly",
)
def supcon_relu_bind(logits: Tensor, targets: Tensor, *, features: Tensor, temperature: float, dims: int) -> Tensor:
    """`supcon-relu` with batch binding: one fixed example of each class joins every batch.

    The first training example of each class, not augmented; they count among the run's examples.
    """
    return contrast(features, targets, temperature) + F.cross_entropy(wide(logits), targets)


def head(features: int, outputs: int, bias: bool, *, temperature: float, dims: int) -> nn.Module:
    """A linear map to `dims`, its direction, and a probe of it."""
    return nn.Sequential(nn.Linear(features, dims, bias=bias), Normalised(), Probe(dims, outputs))


def rectified_head(features: int, outputs: int, bias: bool, *, temperature: float, dims: int) -> nn.Module:
    """A linear map to `dims`, the direction of its positive part, and a probe of it."""
    return nn.Sequential(nn.Linear(features, dims, bias=bias), nn.ReLU(), Normalised(), Probe(dims, outputs))


supcon.head = head  # type: ignore[attr-defined]
supcon_relu.head = supcon_relu_bind.head = rectified_head  # type: ignore[attr-defined]
supcon_relu_bind.binds_examples = True  # type: ignore[attr-defined]
