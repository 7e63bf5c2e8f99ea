"""ReLU6, min(max(0, x), 6)."""

from torch import nn

from suite import Paper, activation

relu6 = activation(
    "relu6",
    paper=Paper("Convolutional Deep Belief Networks on CIFAR-10", year=2010),
    families=("vision", "language"),
)(nn.ReLU6)
