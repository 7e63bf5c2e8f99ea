"""Logistic sigmoid, 1 / (1 + exp(-x))."""

from torch import nn

from suite import Paper, activation

sigmoid = activation(
    "sigmoid",
    paper=Paper("Learning representations by back-propagating errors", year=1986),
    families=("vision", "pde"),
)(nn.Sigmoid)
