from __future__ import annotations

from torch import Tensor

from baselines.attention.common import Mixer, causal_bias
from suite import LogUniform, Paper, attention


@attention(
    "idw-attention",
    paper=Paper("Inverse distance weighting attention", arxiv="2310.18805", year=2023),
    defaults={"eps": 1e-3},
    space={"eps": LogUniform(1e-6, 1.0)},
    confidence="partly",
)
class InverseDistanceAttention(Mixer):
    """Weights (1/d_ts)/Σ(1/d_ts), d_ts = √(‖q_t - k_s‖² + eps): softmax of -log d.

    The paper's keys are learnt prototypes; here they are the tokens' own.
    """

    def __init__(self, features: int, heads: int, causal: bool, *, eps: float = 1e-3) -> None:
        super().__init__(features, heads, causal)
        self.eps = eps

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        squares = q.square().sum(-1)[..., :, None] + k.square().sum(-1)[..., None, :] - 2 * q @ k.mT
        scores = -0.5 * (squares.clamp(min=0) + self.eps).log()
        if self.causal:
            scores = scores + causal_bias(q.shape[-2], q.device, q.dtype)
        return scores.softmax(-1) @ v
