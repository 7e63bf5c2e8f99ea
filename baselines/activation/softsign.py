"""Softsign, x / (1 + |x|)."""

from torch import nn

from suite import Paper, activation

softsign = activation(
    "softsign",
    paper=Paper("Quadratic Polynomials Learn Better Image Features", year=2009),
    families=("vision", "pde"),
)(nn.Softsign)
