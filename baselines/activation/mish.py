"""Mish, x tanh(ln(1 + exp(x)))."""

from torch import nn

from suite import Paper, activation

mish = activation(
    "mish",
    paper=Paper("Mish: A Self Regularized Non-Monotonic Activation Function", arxiv="1908.08681", year=2019),
    families=("vision", "language", "pde"),
    confidence="verified",
)(nn.Mish)
