"""RMSProp: the gradient over a running root mean square, w ← w − η g/(√v + ε), v ← αv + (1 − α)g²."""

import torch

from suite import LogUniform, Paper, optimizer

rmsprop = optimizer(
    "rmsprop",
    paper=Paper(
        "Lecture 6.5, RMSProp (Neural Networks for Machine Learning)",
        url="https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
        year=2012,
    ),
    defaults={"lr": 1e-3, "alpha": 0.99, "eps": 1e-8},
    space={"lr": LogUniform(3e-5, 3e-2)},
)(torch.optim.RMSprop)
