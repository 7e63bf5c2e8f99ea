"""ELU, x for x > 0 and α (exp(x) - 1) otherwise."""

from torch import nn

from suite import LogUniform, Paper, activation

elu = activation(
    "elu",
    paper=Paper(
        "Fast and Accurate Deep Network Learning by Exponential Linear Units (ELUs)", arxiv="1511.07289", year=2015
    ),
    defaults={"alpha": 1.0},
    space={"alpha": LogUniform(0.1, 3.0)},
    families=("vision",),
)(nn.ELU)
