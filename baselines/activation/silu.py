"""SiLU, x σ(x): Swish with β = 1."""

from torch import nn

from suite import Paper, activation

silu = activation(
    "silu",
    paper=Paper("Searching for Activation Functions", arxiv="1710.05941", year=2017),
    system="swish",
    families=("vision", "language", "pde"),
)(nn.SiLU)
