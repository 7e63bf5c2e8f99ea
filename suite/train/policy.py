"""The small causal transformer that RLVR tasks train, with a key-value cache for sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.train.roles import mark, mark_residual

END = 0  # token that ends a completion and fills what follows


class Cache:
    """Keys and values of the tokens a policy has read, layer by layer.

    Attributes
    ----------
    length : tokens read so far.
    room : tokens that still fit into memory set aside by `repeat`; without
        room, what is appended is concatenated, which autograd can follow.
    """

    def __init__(self, layers: int) -> None:
        self.length = 0
        self.room = 0
        self.keys: list[Tensor] = [torch.empty(0)] * layers
        self.values: list[Tensor] = [torch.empty(0)] * layers

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (batch, heads, new, width) keys and values; returns all of the layer's so far."""
        if self.room:
            end = self.length + keys.shape[2]
            self.keys[layer][:, :, self.length : end] = keys
            self.values[layer][:, :, self.length : end] = values
            return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]
        if self.length:
            keys = torch.cat([self.keys[layer], keys], dim=2)
            values = torch.cat([self.values[layer], values], dim=2)
        self.keys[layer], self.values[layer] = keys, values
        return keys, values

    def read(self, count: int) -> None:
        """Note that every layer has stored `count` more tokens."""
        self.length += count
        self.room = max(0, self.room - count)

    def repeat(self, times: int, room: int = 0) -> Cache:
        """A cache in which every sequence stands `times` times in a row, with room for so many more tokens."""
        copy = Cache(len(self.keys))
        copy.length, copy.room = self.length, room
        copy.keys = [_with_room(k.repeat_interleave(times, dim=0), room) for k in self.keys]
        copy.values = [_with_room(v.repeat_interleave(times, dim=0), room) for v in self.values]
        return copy


def _with_room(stored: Tensor, room: int) -> Tensor:
    """(batch, heads, time + room, width): `stored`, then unset memory."""
    if not room:
        return stored
    batch, heads, time, width = stored.shape
    grown = stored.new_empty(batch, heads, time + room, width)
    grown[:, :, :time] = stored
    return grown


class CausalAttention(nn.Module):
    """Multi-head causal softmax attention over (batch, time, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        mark_residual(self.output)

    def forward(self, x: Tensor, cache: Cache | None, layer: int) -> Tensor:
        batch, time, width = x.shape
        split = self.projection(x).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.append(layer, key, value)
        scores = query @ key.transpose(-2, -1) * (1.0 / math.sqrt(width // self.heads))
        if time > 1:
            past = key.shape[2] - time
            hidden = torch.ones(time, past + time, dtype=torch.bool, device=x.device).triu(past + 1)
            scores = scores.masked_fill(hidden, -math.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, time, width)
        return self.output(mixed)


class Layer(nn.Module):
    """Pre-norm attention and feed-forward branches on one residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.norm_feedforward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        mark_residual(self.contract)

    def forward(self, x: Tensor, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.attention(self.norm_attention(x), cache, layer)
        return x + self.contract(functional.gelu(self.expand(self.norm_feedforward(x))))


class Policy(nn.Module):
    """A GPT with learned positions.

    Parameters
    ----------
    vocabulary : number of tokens, `END` among them.
    context : longest sequence, prompt and completion together.
    width, heads, layers : model size; the feed-forward width is 4 * width.
    """

    def __init__(self, vocabulary: int, context: int, width: int = 64, heads: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        mark(self.head, "head")

    def new_cache(self) -> Cache:
        """An empty cache that fits this model."""
        return Cache(len(self.layers))

    def forward(self, tokens: Tensor, cache: Cache | None = None, last: int = 0) -> Tensor:
        """Logits after each token.

        Parameters
        ----------
        tokens : (batch, time) token indices; with a cache, those that follow what it has read.
        cache : read and extended, or None to read the sequence from its start.
        last : give the logits of only the last so many tokens; 0 gives all.

        Returns
        -------
        (batch, time or last, vocabulary) logits.
        """
        start = cache.length if cache is not None else 0
        time = tokens.shape[1]
        x = self.tokens(tokens) + self.positions.weight[start : start + time]
        for index, layer in enumerate(self.layers):
            x = layer(x, cache, index)
        if cache is not None:
            cache.read(time)
        return self.head(self.norm(x[:, -last:]))
