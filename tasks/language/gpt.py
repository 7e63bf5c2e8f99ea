"""A small GPT whose every replaceable part comes from the recipe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suite.train.build import Build


class TransformerLayer(nn.Module):
    """Pre-norm residual layer: x + attention(norm(x)), then x + block(norm(x)).

    Parameters
    ----------
    build : makes the norms, the attention and the feed-forward block.
    features : channels of the residual stream.
    heads : attention heads; divides `features`.
    hidden : hidden channels of the feed-forward block.
    causal : whether a token sees only itself and earlier ones.
    normalise : False leaves both norms out.
    """

    def __init__(
        self, build: Build, features: int, heads: int, hidden: int, *, causal: bool, normalise: bool = True
    ) -> None:
        super().__init__()
        self.attention_norm = build.norm(features) if normalise else nn.Identity()
        self.attention = build.attention(features, heads, causal)
        self.block_norm = build.norm(features) if normalise else nn.Identity()
        self.block = build.block(features, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.block(self.block_norm(x))


class GPT(nn.Module):
    """Decoder-only transformer with learned positions and an untied output layer.

    As GPT-2 (Radford et al. 2019) but for the untied head, which has no bias.

    Parameters
    ----------
    build : makes every replaceable part.
    inputs : size of the input vocabulary (a start token included).
    outputs : number of classes.
    context : longest sequence.
    features, layers, heads : width, depth and attention heads; the blocks have 4 * features hidden channels.
    normalise : False leaves out every norm.
    """

    def __init__(
        self,
        build: Build,
        *,
        inputs: int,
        outputs: int,
        context: int,
        features: int,
        layers: int,
        heads: int,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(inputs, features)
        self.positions = nn.Embedding(context, features)
        self.layers = nn.Sequential(
            *(
                TransformerLayer(build, features, heads, 4 * features, causal=True, normalise=normalise)
                for _ in range(layers)
            )
        )
        self.norm = build.norm(features) if normalise else nn.Identity()
        self.head = build.head(features, outputs, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time, outputs) logits of (batch, time) token indices."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.layers(self.tokens(tokens) + self.positions(places))))
