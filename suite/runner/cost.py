"""What a step costs: time against the reference, interleaved, and exact counters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch.utils._python_dispatch import TorchDispatchMode

from suite.recipe import REFERENCE, Recipe
from suite.runner import flops
from suite.runner.execute import make_workload, require
from suite.runner.spec import RunSpec
from suite.train.loop import Trainer
from suite.trust import traps

MIN_PAIRS, MAX_PAIRS = 10, 400
PRECISION = 0.03  # half width of the interval of the log ratio that ends the measurement
WARM_STEPS = 3
PERIODS = ("every", "interval", "period", "refresh")  # hyper-parameters that say how often a costlier step comes
LONGEST_PERIOD = 100
BLOCK = 3  # steps of the reference beside a whole period of the method


def measure(spec: RunSpec, seconds: float = 2.0, itself: bool = False) -> dict[str, Any]:
    """Cost of the method's training step relative to the reference's.

    The two step in turn, in the order A B B A, in one process on one device.
    The time is charged per budget unit, so that a method whose steps use more
    of the budget (closure calls, longer responses) is not charged twice. Of a
    method with a costlier step now and then (a preconditioner renewed every
    tenth), whole periods are timed and counted.

    Parameters
    ----------
    spec : the method's run; its tier sets the sizes.
    seconds : the measurement ends when the 95% interval of the ratio is within
        3%, or after this long (it says which).
    itself : measure the reference against the reference: how far this machine is from telling nothing apart.

    Returns
    -------
    cost_ratio, cost_low, cost_high : exp of the centre of the paired log ratios and of its interval.
    pairs : number of pairs; precise : whether the interval reached 3%.
    step_seconds : median seconds of the method's step, per unit of budget.
    flops, elementwise, saved_bytes : exact counts of one training step.
    """
    if itself:
        spec = replace(spec, method=REFERENCE, hp={})
    trainer, steps = _trainer(spec), period(spec.recipe)
    cost: dict[str, Any] = {**counters(trainer, steps)}
    if spec.method == REFERENCE and not itself:
        return cost | {"cost_ratio": 1.0, "cost_low": 1.0, "cost_high": 1.0, "pairs": 0, "precise": True}
    standard = replace(spec, method=REFERENCE, hp={})
    reference, beside = _trainer(standard), max(min(steps, BLOCK), period(standard.recipe))
    for _ in range(WARM_STEPS):
        trainer.step()
        reference.step()
    clock = _seconds_cuda if spec.device.startswith("cuda") else _seconds
    return cost | paired_ratio(
        lambda: clock(trainer, steps),
        lambda: clock(reference, beside),
        seconds,
        pairs=MIN_PAIRS if steps == 1 else MIN_PAIRS // 2,
    )


def guarded_measure(spec: RunSpec, seconds: float, itself: bool = False) -> dict[str, Any]:
    """`measure`, for a process that does nothing else.

    Raises
    ------
    Skipped : a package that the method needs is not there.
    Tampered : the method changed what is not its own, such as a clock.
    """
    require(spec)
    with traps.guard(spec, spec.info.factory(spec.info)):
        return measure(spec, seconds, itself)


def period(recipe: Recipe) -> int:
    """Steps after which the recipe's work repeats, by the hyper-parameters that say so; at most 100."""
    return max((repeats(choice.hp) for choice in recipe.choices.values()), default=1)


def repeats(hp: Mapping[str, Any]) -> int:
    """Steps after which one method's work repeats, by its hyper-parameters; at most 100."""
    return min(max([1, *(v for k, v in hp.items() if k in PERIODS and isinstance(v, int))]), LONGEST_PERIOD)


def paired_ratio(
    a: Callable[[], float],
    b: Callable[[], float],
    seconds: float,
    *,
    pairs: int = MIN_PAIRS,
    precision: float = PRECISION,
) -> dict[str, Any]:
    """Ratio of the times that `a` and `b` return, measured in A B B A order.

    Each pair's log ratio averages one A B and one B A. The centre is their mean
    after the outer tenth on each side is trimmed, with its t interval (Tukey
    and McLaughlin): as robust as the median against a preempted step, which is
    no property of the code, and with an interval that holds for few pairs.

    Parameters
    ----------
    seconds : the measurement ends after this long,
    pairs : but not with fewer pairs,
    precision : or when the interval's half width is below this.
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
        if len(logs) >= pairs and (late or len(logs) % 5 == 0):
            centre, half = trimmed_interval(np.array(logs))
            if late or half < precision:
                break
    return {
        "cost_ratio": math.exp(centre),
        "cost_low": math.exp(centre - half),
        "cost_high": math.exp(centre + half),
        "pairs": len(logs),
        "precise": bool(half < precision),
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


def _seconds(trainer: Trainer, steps: int) -> float:
    """Seconds of training steps per unit of budget they use."""
    before = trainer.workload.spent
    started = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    return (time.perf_counter() - started) / max(trainer.workload.spent - before, 1e-12)


def _seconds_cuda(trainer: Trainer, steps: int) -> float:
    """The same by the device's own clock, from an idle device to an idle device, whatever streams were used."""
    before = trainer.workload.spent
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(steps):
        trainer.step()
    torch.cuda.synchronize()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / max(trainer.workload.spent - before, 1e-12)


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
            written = args[0] if out is None and args else out  # lists changed in place are not returned
            for part in written if isinstance(written, tuple | list) else (written,):
                if isinstance(part, torch.Tensor):
                    self.elements += part.numel()
        return out


def operations(work: Callable[[], Any]) -> dict[str, float]:
    """Exact counts of what `work` computes, the same on every machine.

    Returns
    -------
    flops : floating-point operations of matrix products, convolutions and
        attention (torch.utils.flop_counter), and of linear algebra and Fourier
        transforms (`suite.runner.flops`).
    elementwise : elements written by every other operation, so that two
        activations do not cost the same by definition.
    """
    with flops.counter() as products, ElementCounter() as elements:
        work()
    return {"flops": float(products.get_total_flops()), "elementwise": float(elements.elements)}


def saved_bytes(work: Callable[[], Any], without: Iterable[torch.Tensor] = ()) -> int:
    """Bytes of distinct storages that `work` keeps for a backward pass, those of the tensors `without` left out."""
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    left_out = {tensor.untyped_storage().data_ptr() for tensor in without}
    return sum(size for pointer, size in saved.items() if pointer not in left_out)


def counters(trainer: Trainer, steps: int = 1) -> dict[str, float]:
    """Exact counts of one training step, a mean over `steps` of them: the same on every machine.

    Returns
    -------
    flops, elementwise : as `operations` counts them; forward, backward and optimizer.
    saved_bytes : bytes of distinct storages kept for one backward pass.
    """
    trainer.step()  # lazily made state and buffers are not counted
    whole = operations(lambda: [trainer.step() for _ in range(steps)])
    counted = {name: count / steps for name, count in whole.items()}

    def pass_of_one_batch() -> None:
        trainer.workload.next()
        trainer.closure()

    return counted | {"saved_bytes": saved_bytes(pass_of_one_batch, trainer.workload.model.parameters())}
