"""What a step costs: time against the reference, interleaved, and exact counters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from suite.recipe import REFERENCE
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.loop import Trainer
from suite.trust import traps

MIN_PAIRS, MAX_PAIRS = 10, 400
PRECISION = 0.03  # half width of the interval of the log ratio that ends the measurement
WARM_STEPS = 3


def measure(spec: RunSpec, seconds: float = 2.0, itself: bool = False) -> dict[str, Any]:
    """Cost of the method's training step relative to the reference's.

    The two step in turn, in the order A B B A, in one process on one device.
    The time is charged per budget unit, so that a method whose steps use more
    of the budget (closure calls, longer responses) is not charged twice.

    Parameters
    ----------
    spec : the method's run; its tier sets the sizes.
    seconds : the measurement ends when the 95% interval of the ratio is within
        3%, or after this long (it says which).
    itself : measure the reference against the reference: how far this machine is from telling nothing apart.

    Returns
    -------
    cost_ratio, cost_low, cost_high : exp of the mean paired log ratio and its t interval.
    pairs : number of pairs; precise : whether the interval reached 3%.
    step_seconds : median seconds of the method's step.
    flops, elementwise, saved_bytes : exact counts of one training step.
    """
    if itself:
        spec = replace(spec, method=REFERENCE, hp={})
    trainer = _trainer(spec)
    cost: dict[str, Any] = {**counters(trainer)}
    if spec.method == REFERENCE and not itself:
        return cost | {"cost_ratio": 1.0, "cost_low": 1.0, "cost_high": 1.0, "pairs": 0, "precise": True}
    reference = _trainer(replace(spec, method=REFERENCE, hp={}))
    for _ in range(WARM_STEPS):
        trainer.step()
        reference.step()
    device = torch.device(spec.device)
    return cost | paired_ratio(lambda: _timed(trainer, device), lambda: _timed(reference, device), seconds)


def guarded_measure(spec: RunSpec, seconds: float, itself: bool = False) -> dict[str, Any]:
    """`measure`, for a process that does nothing else.

    Raises
    ------
    Tampered : the method changed what is not its own, such as a clock.
    """
    with traps.guard(spec, spec.info.factory(spec.info)):
        return measure(spec, seconds, itself)


def paired_ratio(a: Callable[[], float], b: Callable[[], float], seconds: float) -> dict[str, Any]:
    """Ratio of the times that `a` and `b` return, measured in A B B A order.

    Each pair's log ratio averages one A B and one B A; the centre is their
    median, the interval the t interval of the mean of the log ratios after
    the outer tenth on each side is trimmed (Yuen's trimmed mean), since a
    preempted step is no property of the code.
    """
    logs: list[float] = []
    steps: list[float] = []
    started = time.perf_counter()
    while True:
        first, second = a(), b()
        third, fourth = b(), a()
        logs.append(0.5 * (math.log(first / second) + math.log(fourth / third)))
        steps += [first, fourth]
        late = time.perf_counter() - started > seconds or len(logs) >= MAX_PAIRS
        if len(logs) >= MIN_PAIRS and (late or len(logs) % 5 == 0):
            centre, half = trimmed_interval(np.array(logs))
            if late or half < PRECISION:
                break
    return {
        "cost_ratio": math.exp(centre),
        "cost_low": math.exp(centre - half),
        "cost_high": math.exp(centre + half),
        "pairs": len(logs),
        "precise": bool(half < PRECISION),
        "step_seconds": float(np.median(steps)),
    }


def trimmed_interval(values: np.ndarray, trim: float = 0.1, level: float = 0.95) -> tuple[float, float]:
    """Trimmed mean and the half width of its interval (Tukey and McLaughlin 1963).

    Parameters
    ----------
    values : (n,) observations, n >= 3.
    trim : share cut off at each end.
    """
    n = len(values)
    cut = int(trim * n)
    ordered = np.sort(values)
    kept = ordered[cut : n - cut]
    winsorized = np.clip(values, ordered[cut], ordered[n - cut - 1])
    error = winsorized.std(ddof=1) / ((1 - 2 * cut / n) * math.sqrt(n))
    return float(kept.mean()), float(stdtrit(n - 2 * cut - 1, 0.5 + level / 2) * error)


def _trainer(spec: RunSpec) -> Trainer:
    workload = make_workload(spec)
    return Trainer(workload, workload.context.recipe, spec.given)


def _timed(trainer: Trainer, device: torch.device) -> float:
    """Seconds of one training step per unit of budget it uses."""
    _wait(device)
    before = trainer.workload.spent
    started = time.perf_counter()
    trainer.step()
    _wait(device)
    return (time.perf_counter() - started) / max(trainer.workload.spent - before, 1e-12)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---------------------------------------------------------------- exact counters


class ElementCounter(TorchDispatchMode):
    """Counts the elements that every operation writes, matrix products left out."""

    PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward")
    FREE = ("view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "detach", "alias",
            "unsqueeze", "squeeze", "reshape", "as_strided", "split", "unbind", "empty", "empty_like")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2].rstrip("_") if hasattr(func, "_schema") else ""
        if name not in self.PRODUCTS and name not in self.FREE:
            for part in out if isinstance(out, tuple | list) else (out,):
                if isinstance(part, torch.Tensor):
                    self.elements += part.numel()
        return out


def counters(trainer: Trainer) -> dict[str, float]:
    """Exact counts of one training step: the same on every machine.

    Returns
    -------
    flops : floating-point operations of matrix products and convolutions
        (torch.utils.flop_counter; forward, backward and optimizer).
    elementwise : elements written by every other operation, so that two
        activations do not cost the same by definition.
    saved_bytes : bytes of distinct storages kept for one backward pass.
    """
    trainer.step()  # lazily made state and buffers are not counted
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as flops, ElementCounter() as elements:
        trainer.step()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.workload.next()
        trainer.closure()
    weights = {p.untyped_storage().data_ptr() for p in trainer.workload.model.parameters()}
    kept = sum(size for pointer, size in saved.items() if pointer not in weights)
    return {"flops": float(flops.get_total_flops()), "elementwise": float(elements.elements), "saved_bytes": kept}
