from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.init.common import for_weights
from suite import IntUniform, Paper, Uniform, init
from suite.train.roles import ParamInfo

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@init(
    "lsuv",
    paper=Paper("All you need is a good init", arxiv="1511.06422", year=2015),
    defaults={"tolerance": 0.1, "attempts": 10},
    space={"tolerance": Uniform(0.02, 0.5), "attempts": IntUniform(1, 20)},
    families=("vision", "language", "pde"),
    confidence="verified",
)
@for_weights
def lsuv(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, tolerance: float, attempts: int) -> None:
    """Layer-sequential unit variance: orthonormal weights, rescaled until every layer's output has deviation 1.

    Weights start as the orthonormal factor, in the singular value decomposition, of a Gaussian
    matrix (out, rest). Then layer by layer, in registration order and in evaluation mode,
    the output on one batch is measured: while its standard deviation s is off 1 by more
    than `tolerance`, the weight is multiplied by 1/s and the bias shifted so that the mean
    becomes 0, at most `attempts` + 1 times. As in the authors' PyTorch code, the head is
    included and layers within the tolerance keep their bias. The forward passes are counted.
    """
    drawn = torch.empty(len(tensor), tensor[0].numel(), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(drawn.normal_(generator=generator), full_matrices=False)
    tensor.copy_((u if u.shape == drawn.shape else vh).reshape(tensor.shape))


def calibrate(model: nn.Module, inputs: Tensor, *, tolerance: float, attempts: int) -> int:
    """Rescale the layers of an initialised model on a batch; returns the number of forward passes it took."""
    training, forwards = model.training, 0
    model.eval()
    for layer in [m for m in model.modules() if isinstance(m, LAYERS)]:
        for _ in range(attempts + 1):
            output = output_of(layer, model, inputs)
            forwards += 1
            deviation = output.std(correction=0).item() if output is not None else 0.0
            if output is None or deviation == 0.0 or abs(deviation - 1.0) <= tolerance:
                break
            layer.weight.mul_(1.0 / (deviation + 1e-8))
            if layer.bias is not None:
                layer.bias.sub_(output.mean().item() / (deviation + 1e-8))
    model.train(training)
    return forwards


lsuv.calibrate = calibrate  # type: ignore[attr-defined]


def output_of(layer: nn.Module, model: nn.Module, inputs: Tensor) -> Tensor | None:
    """What `layer` gives, the last time it is called, in a forward pass of `model`; None where it isn't called."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        model(inputs)
    finally:
        handle.remove()
    return seen[-1] if seen else None
