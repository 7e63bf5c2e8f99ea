from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.architecture.common import nearest_size
from suite import Choice, IntUniform, Paper, Uniform, architecture
from suite.train.build import Build, Interface
from suite.train.roles import mark
from suite.train.workload import DoesNotApply

HYPERNETWORKS = Paper("HyperNetworks", arxiv="1609.09106", year=2016)
TILE = 16  # channels of the kernels that a hypernetwork makes; larger kernels are tiled
GATES = 4  # input, candidate, forget and output
EPSILON, SCALE, FORGET = 1e-3, 0.1, 1.0  # of the norms; of the recurrent input at the start; added to the forget gate


def truncated_normal(*shape: int, mean: float = 0.0, std: float) -> nn.Parameter:
    """N(mean, std²), cut off two deviations from the mean."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), mean, std, mean - 2 * std, mean + 2 * std))


class HyperNetwork(nn.Module):
    """Kernels of 16 to 16 channels from codes z: h = z W₂ + b₂, a row an input channel, then h W₁ + b₁.

    Parameters
    ----------
    size : of the codes and of each row of h.
    field : side of the kernels.
    """

    def __init__(self, size: int, field: int) -> None:
        super().__init__()
        self.field = field
        self.rows, self.rows_bias = (
            truncated_normal(size, TILE * size, std=0.01),
            nn.Parameter(torch.zeros(TILE * size)),
        )
        self.kernels = truncated_normal(size, TILE * field**2, std=0.01)
        self.kernels_bias = nn.Parameter(torch.zeros(TILE * field**2))
        mark(self, "other")

    def forward(self, codes: Tensor) -> Tensor:
        """(16 m, 16 n, field, field) kernels of codes (m, n, size)."""
        rows = (codes @ self.rows + self.rows_bias).unflatten(-1, (TILE, -1))
        kernels = (rows @ self.kernels + self.kernels_bias).unflatten(-1, (TILE, self.field, self.field))
        return kernels.permute(0, 3, 1, 2, 4, 5).flatten(0, 1).flatten(1, 2)


class Generated(nn.Module):
    """A convolution's kernel as a shared hypernetwork makes it from the layer's codes.

    Parameters
    ----------
    network : the hypernetwork.
    size : of its codes.
    keep : register the network with this layer; one of the layers that share it does.
    """

    def __init__(self, network: HyperNetwork, size: int, *, keep: bool) -> None:
        super().__init__()
        self.size, self.shared = size, (network,)
        if keep:
            self.network = network
        mark(self, "other")

    def forward(self, codes: Tensor) -> Tensor:
        return self.shared[0](codes)

    def right_inverse(self, kernel: Tensor) -> Tensor:
        """New codes for a kernel of this shape; what is in it is not kept."""
        return truncated_normal(kernel.shape[0] // TILE, kernel.shape[1] // TILE, self.size, mean=0.01, std=1.0).data


def is_tiled(module: nn.Module) -> bool:
    """Whether a hypernetwork can make this module's weight."""
    plain = isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size[0] == module.kernel_size[1]
    return plain and not any(n % TILE for n in module.weight.shape[:2])


@architecture(
    "hypernet-conv",
    paper=HYPERNETWORKS,
    system="hypernet",
    defaults={"size": 4},
    space={"size": Choice(4, 8, 16, 32, 64)},
    families=("vision",),
    confidence="verified",
)
def hypernet_conv(build: Build, interface: Interface, size: int = 4) -> nn.Module:
    """The task's own network with its 16-channel kernels made by one hypernetwork, from a learned code each.

    A kernel of more channels is tiled from 16 x 16 blocks with a code each; layers
    whose channels are no multiple of 16 (the first) keep their own weights. Codes are
    N(.01, 1) and the hypernetwork's weights N(0, .01²), both cut off at two
    deviations, as in the authors' notebook. It has far fewer parameters than the
    task's own network by design.

    Parameters
    ----------
    build, interface : as the slot gives them.
    size : of the codes: 4 in the notebook, 64 in the paper's wide residual networks.
    """
    network = interface.own()
    made: dict[int, HyperNetwork] = {}
    for module in list(network.modules()):
        if is_tiled(module):
            field = module.weight.shape[-1]
            fresh = field not in made
            if fresh:
                made[field] = HyperNetwork(size, field)
            generated = Generated(made[field], size, keep=fresh)
            parametrize.register_parametrization(module, "weight", generated, unsafe=True)
    if not made:
        raise DoesNotApply(f"the network has no convolution between multiples of {TILE} channels")
    return network


class GateNorm(nn.Module):
    """Layer normalisation of each of several groups of channels.

    Parameters
    ----------
    groups, features : (..., groups, features) comes in.
    """

    def __init__(self, groups: int, features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(groups, features))
        self.bias = nn.Parameter(torch.zeros(groups, features))
        mark(self, "norm")

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.gain * centred / (centred.square().mean(-1, keepdim=True) + EPSILON).sqrt() + self.bias


class GatedCell(nn.Module):
    """The gates of a layer-normalised LSTM, from pre-activations (batch, 4, units) and the cell.

    Parameters
    ----------
    units : of the cell.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.gate_norm, self.cell_norm = GateNorm(GATES, units), GateNorm(1, units)

    def forward(self, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Next hidden state and cell, (batch, units)."""
        i, j, f, o = self.gate_norm(gates).unbind(-2)
        cell = cell * torch.sigmoid(f + FORGET) + torch.sigmoid(i) * torch.tanh(j)
        return torch.tanh(self.cell_norm(cell[..., None, :])[..., 0, :]) * torch.sigmoid(o), cell


def orthogonal_gates(units: int) -> nn.Linear:
    """The recurrent map to four gates, each orthogonal at the start."""
    layer = nn.Linear(units, GATES * units, bias=False)
    for part in layer.weight.data.chunk(GATES):
        nn.init.orthogonal_(part)
    mark(layer, "other")
    return layer


class Scaling(nn.Module):
    """Factors of the gates' two inputs, and their biases, from the small LSTM's state.

    α = A z with z = W_z h + 1, and β = B z' with z' = W_z' h. At the start W_z and B are
    0, A is .1/size and z' is N(0, .01²) h, so that α = .1 and β = 0.

    Parameters
    ----------
    inputs : units of the small LSTM.
    units : of the main LSTM.
    size : of z and z'.
    """

    def __init__(self, inputs: int, units: int, size: int) -> None:
        super().__init__()
        self.factor_code = nn.Parameter(torch.zeros(2 * GATES, size, inputs))
        self.factor_bias = nn.Parameter(torch.ones(2 * GATES, size))
        self.factor = nn.Parameter(torch.full((2 * GATES, units, size), SCALE / size))
        self.shift_code = nn.Parameter(0.01 * torch.randn(GATES, size, inputs))
        self.shift = nn.Parameter(torch.zeros(GATES, units, size))
        mark(self, "other")

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of the x and h parts and the biases, each (batch, 4, units)."""
        code = torch.einsum("gzi,bi->bgz", self.factor_code, h) + self.factor_bias
        factors = torch.einsum("guz,bgz->bgu", self.factor, code)
        shifts = torch.einsum("guz,gzi,bi->bgu", self.shift, self.shift_code, h)
        return factors[:, :GATES], factors[:, GATES:], shifts


class HyperLSTM(nn.Module):
    """An LSTM whose gates' inputs a smaller LSTM rescales at every time; the token embedding and head around it.

    Parameters
    ----------
    build : makes the head.
    interface : of the task.
    units : of the main LSTM, and channels of the embedding.
    share : units of the small LSTM over `units`.
    size : of the codes from which the factors are made.
    """

    def __init__(self, build: Build, interface: Interface, units: int, share: float, size: int) -> None:
        super().__init__()
        small = max(1, round(share * units))
        self.tokens = nn.Embedding(interface.vocabulary, units)
        self.small_input = nn.Linear(2 * units, GATES * small, bias=False)
        self.small_recurrent = orthogonal_gates(small)
        self.small_cell = GatedCell(small)
        self.scaling = Scaling(small, units, size)
        self.input, self.recurrent = nn.Linear(units, GATES * units), orthogonal_gates(units)
        self.cell = GatedCell(units)
        self.head = build.head(units, interface.outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time, outputs) logits of (batch, time) token indices."""
        x = self.tokens(tokens)
        inputs = (x @ self.input.weight.T).unflatten(-1, (GATES, -1))
        bias = self.input.bias.unflatten(0, (GATES, -1))
        h = c = x.new_zeros(len(x), x.shape[-1])
        small_h = small_c = x.new_zeros(len(x), self.small_recurrent.in_features)
        states = []
        for time in range(x.shape[1]):
            small_gates = self.small_input(torch.cat([x[:, time], h], dim=-1)) + self.small_recurrent(small_h)
            small_h, small_c = self.small_cell(small_gates.unflatten(-1, (GATES, -1)), small_c)
            of_x, of_h, shift = self.scaling(small_h)
            gates = of_x * inputs[:, time] + of_h * self.recurrent(h).unflatten(-1, (GATES, -1)) + shift + bias
            h, c = self.cell(gates, c)
            states.append(h)
        return self.head(torch.stack(states, dim=1))


@architecture(
    "hyperlstm",
    paper=HYPERNETWORKS,
    system="hypernet",
    defaults={"share": 0.25, "size": 16},
    space={"share": Uniform(0.1, 0.5), "size": IntUniform(4, 64)},
    families=("language",),
    confidence="verified",
)
def hyperlstm(build: Build, interface: Interface, share: float = 0.25, size: int = 16) -> nn.Module:
    """LSTM whose gates a smaller LSTM rescales at every time (HyperLSTM), at the parameters of the task's own network.

    Both are layer-normalised and have a forget bias of 1; recurrent maps start
    orthogonal, and the factors at .1. Recurrent dropout is left out, as the
    reference has none.

    Parameters
    ----------
    build, interface : as the slot gives them.
    share : units of the small LSTM over those of the main one; the code's 128 stand beside 1,000.
    size : of the codes that the small LSTM emits for each gate.
    """

    def make(units: int) -> nn.Module:
        return HyperLSTM(build, interface, units, share, size)

    return make(nearest_size(build, interface, make))
