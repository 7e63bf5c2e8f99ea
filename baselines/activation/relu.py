"""ReLU, max(0, x)."""

from torch import nn

from suite import Paper, activation

relu = activation(
    "relu",
    paper=Paper("Rectified Linear Units Improve Restricted Boltzmann Machines", year=2010),
    families=("vision", "language", "pde"),
)(nn.ReLU)
