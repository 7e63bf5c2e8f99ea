"""Leaky ReLU, x for x > 0 and a x otherwise, with a fixed slope a."""

from torch import nn

from suite import LogUniform, Paper, activation

leaky_relu = activation(
    "leaky-relu",
    paper=Paper("Rectifier Nonlinearities Improve Neural Network Acoustic Models", year=2013),
    defaults={"negative_slope": 0.01},
    space={"negative_slope": LogUniform(0.001, 0.3)},
    families=("vision", "language", "pde"),
)(nn.LeakyReLU)
