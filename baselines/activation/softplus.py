"""Softplus, ln(1 + exp(βx)) / β; torch returns x where βx > 20."""

from torch import nn

from suite import LogUniform, Paper, activation

softplus = activation(
    "softplus",
    paper=Paper("Incorporating Second-Order Functional Knowledge for Better Option Pricing", year=2000),
    defaults={"beta": 1.0},
    space={"beta": LogUniform(0.3, 10.0)},
    families=("vision", "pde"),
)(nn.Softplus)
