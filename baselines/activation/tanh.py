"""Hyperbolic tangent, tanh(x)."""

from torch import nn

from suite import Paper, activation

tanh = activation(
    "tanh",
    paper=Paper("Efficient BackProp", year=1998),
    families=("vision", "language", "pde"),
)(nn.Tanh)
