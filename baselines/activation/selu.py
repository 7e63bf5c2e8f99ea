"""SELU, λ x for x > 0 and λ α (exp(x) - 1) otherwise, with the fixed point's λ = 1.0507 and α = 1.6733."""

from torch import nn

from suite import Paper, activation

selu = activation(
    "selu",
    paper=Paper("Self-Normalizing Neural Networks", arxiv="1706.02515", year=2017),
    families=("vision", "language", "pde"),
)(nn.SELU)
