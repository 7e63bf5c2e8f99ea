"""Hard Swish, x min(max(0, x + 3), 6) / 6."""

from torch import nn

from suite import Paper, activation

hardswish = activation(
    "hardswish",
    paper=Paper("Searching for MobileNetV3", arxiv="1905.02244", year=2019),
    families=("vision", "language"),
)(nn.Hardswish)
