"""CELU, x for x > 0 and α (exp(x/α) - 1) otherwise: an ELU that stays differentiable for every α."""

from torch import nn

from suite import LogUniform, Paper, activation

celu = activation(
    "celu",
    paper=Paper("Continuously Differentiable Exponential Linear Units", arxiv="1704.07483", year=2017),
    defaults={"alpha": 1.0},
    space={"alpha": LogUniform(0.1, 3.0)},
    families=("vision", "language", "pde"),
)(nn.CELU)
