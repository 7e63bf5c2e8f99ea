"""What token mixers share: fused projections, heads and the causal mask."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from suite.train.roles import mark_residual


@functools.lru_cache(maxsize=64)
def visible(time: int, device: torch.device) -> Tensor:
    """(time, time) booleans: may query t see key s, that is s <= t."""
    with torch.inference_mode(False):
        return torch.ones(time, time, dtype=torch.bool, device=device).tril()


@functools.lru_cache(maxsize=64)
def causal_bias(time: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(time, time) addend of attention scores: 0 where s <= t, -inf for the future."""
    with torch.inference_mode(False):
        return torch.zeros(time, time, dtype=dtype, device=device).masked_fill_(~visible(time, device), -torch.inf)


class Mixer(nn.Module):
    """Projections around a token mixing: (batch, time, features) -> the same.

    Subclasses state `mix` on heads. `self.out`, the output projection, ends the
    residual branch.

    Parameters
    ----------
    features : channels.
    heads : divides `features`.
    causal : whether a token sees only itself and the past.
    gates : further scalars a head and token that the fused projection gives.
    bias : biases of both projections.
    inner : modules between the projections, by the attribute they get; the output projection comes after them.

    Raises
    ------
    ValueError : `heads` does not divide `features`.
    """

    def __init__(
        self, features: int, heads: int, causal: bool, *, gates: int = 0, bias: bool = False, **inner: nn.Module
    ) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"{heads} heads do not divide {features} features")
        self.heads, self.causal, self.gates = heads, causal, gates
        self.qkv = nn.Linear(features, 3 * features + gates * heads, bias=bias)
        for name, module in inner.items():
            self.add_module(name, module)
        self.out = mark_residual(nn.Linear(features, features, bias=bias))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values (batch, heads, time, width) and gates (gates, batch, heads, time)."""
        b, t, c = x.shape
        parts = self.qkv(x)
        heads = parts[..., : 3 * c].view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        gates = parts[..., 3 * c :].view(b, t, self.gates, self.heads).permute(2, 0, 3, 1)
        q, k, v = heads.unbind(0)
        return q, k, v, gates

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        """Mixed values (batch, heads, time, width)."""
        raise NotImplementedError

    def finish(self, mixed: Tensor) -> Tensor:
        """Output (batch, time, features) of the concatenated heads (the same shape)."""
        return self.out(mixed)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(*self.split(x))
        return self.finish(mixed.transpose(1, 2).reshape(x.shape))
