from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.loss.common import wide
from baselines.loss.heads import FixedDirections, Normalised, equiangular
from suite import Choice, LogUniform, Paper, Uniform, loss


@loss(
    "ebv",
    paper=Paper("Equiangular Basis Vectors", arxiv="2303.11637", year=2023),
    defaults={"dims": 64, "temperature": 0.07, "label_smoothing": 0.1},
    space={
        "dims": Choice(8, 16, 32, 64, 128),
        "temperature": LogUniform(0.02, 1.0),
        "label_smoothing": Uniform(0.0, 0.3),
    },
    families=("vision",),
    confidence="verified",
)
def ebv(logits: Tensor, targets: Tensor, *, dims: int, temperature: float, label_smoothing: float) -> Tensor:
    """Smoothed cross-entropy of cosines to fixed, nearly orthogonal class vectors, divided by a temperature.

    The output layer is its own: a linear map to `dims`, normalised, times equiangular
    basis vectors that are not trained. With as many dims as classes or more they are
    orthonormal; fewer than the classes are what the paper is about.

    Parameters
    ----------
    dims : length of the class vectors.
    temperature : τ of the head, which divides the cosines.
    label_smoothing : share of the target that is spread over all classes.
    """
    return F.cross_entropy(wide(logits), targets, label_smoothing=label_smoothing)


def head(
    features: int, outputs: int, bias: bool, *, dims: int, temperature: float, label_smoothing: float
) -> nn.Module:
    """A linear map to `dims`, its direction, and the cosines to the class vectors over the temperature."""
    classes = FixedDirections(equiangular(outputs, dims), 1.0 / temperature)
    return nn.Sequential(nn.Linear(features, dims, bias=bias), Normalised(), classes)


ebv.head = head  # type: ignore[attr-defined]
