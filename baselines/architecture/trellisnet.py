from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from baselines.architecture.common import nearest_size
from suite import IntUniform, Paper, architecture
from suite.train.build import Build, Interface
from suite.train.roles import mark

STD = 0.01  # of the convolutions' start


class Trellis(nn.Module):
    """Levels of one weight-normalised causal convolution with LSTM gates, shared by all levels.

    At every level i, o, g, f = W₁ * x + W₂ * z + b over each time and the one before
    it; c ← σ(f) c' + σ(i) tanh(g) with the cell c' of the time before and the level
    below; z ← σ(o) tanh(c). The first level and the time before the first have z = c = 0.

    Parameters
    ----------
    inputs : channels of x.
    hidden : channels of z and c.
    levels : number of levels.
    """

    def __init__(self, inputs: int, hidden: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.inject = nn.Conv1d(inputs, 4 * hidden, 2, bias=False)
        self.mix = nn.Conv1d(hidden, 4 * hidden, 2)
        for parameter in (self.inject.weight, self.mix.weight, self.mix.bias):
            nn.init.normal_(parameter, std=STD)
        for convolution in (self.inject, self.mix):
            parametrizations.weight_norm(convolution)
        mark(self, "other")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, hidden, time) states of the last level, of x (batch, inputs, time)."""
        injected = self.inject(F.pad(x, (1, 0)))
        weight, bias = self.mix.weight, self.mix.bias
        z = c = x.new_zeros(x.shape[0], weight.shape[1], x.shape[2])
        for _ in range(self.levels):
            i, o, g, f = (injected + F.conv1d(F.pad(z, (1, 0)), weight, bias)).chunk(4, dim=1)
            before = F.pad(c, (1, 0))[..., :-1]
            c = f.sigmoid() * before + i.sigmoid() * torch.tanh(g)
            z = o.sigmoid() * torch.tanh(c)
        return z


class TrellisModel(nn.Module):
    """Token embedding, `Trellis`, linear head on the last `outputs` channels.

    Parameters
    ----------
    build : makes the head.
    interface : of the task.
    features : channels of the embedding, of the output and, twice over, of the hidden state.
    levels : of the trellis.
    """

    def __init__(self, build: Build, interface: Interface, features: int, levels: int) -> None:
        super().__init__()
        self.features = features
        self.tokens = nn.Embedding(interface.vocabulary, features)
        self.trellis = Trellis(features, 2 * features, levels)
        self.head = build.head(features, interface.outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time, outputs) logits of (batch, time) token indices."""
        states = self.trellis(self.tokens(tokens).mT)
        return self.head(states[:, -self.features :].mT)


@architecture(
    "trellisnet",
    paper=Paper("Trellis Networks for Sequence Modeling", arxiv="1810.06682", year=2018),
    defaults={"levels": 20},
    space={"levels": IntUniform(8, 40)},
    families=("language",),
    confidence="verified",
)
def trellisnet(build: Build, interface: Interface, levels: int = 20) -> nn.Module:
    """Trellis network: one causal convolution with LSTM gates at all levels, at equal parameters.

    The published character model has 140 levels, an embedding and output of 200
    channels and 1,250 hidden ones; here the hidden state has twice the embedding's
    channels. Its dropout and auxiliary losses are left out, as the reference has none.

    Parameters
    ----------
    build, interface : as the slot gives them.
    levels : levels; a prediction sees this many tokens and one more.
    """

    def make(features: int) -> nn.Module:
        return TrellisModel(build, interface, features, levels)

    return make(nearest_size(build, interface, make))
