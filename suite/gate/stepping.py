"""Step times of two source trees, taken in turn: a resident process a tree, the clock in the parent."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from suite.gate.sides import GateError, Tree
from suite.gate.speed import Timing
from suite.stats.intervals import median_interval

MIN_PAIRS, MAX_PAIRS = 10, 200
PRECISION = 0.03  # half width of the interval of the log ratio that ends a measurement
LEAST_SECONDS = 0.02  # a timed batch of steps takes at least this long, so that the pipe costs nothing
PATIENCE = 300.0  # seconds a process may take for one answer


class Stepper:
    """A resident process of a tree that takes training steps on request; its end is the context's.

    Parameters
    ----------
    tree : whose code steps.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.buffer = b""
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self.process = subprocess.Popen(
            self.tree.command("-"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            bufsize=0,
            cwd=self.tree.root,
            env=self.tree.environment,
            start_new_session=True,
        )

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def ready(self) -> None:
        """Wait until the process has imported what it needs."""
        self._answer()

    def open(self, spec: dict[str, Any]) -> None:
        """Build a run in a fresh fork and take its first steps."""
        self._send(spec)

    def counts(self) -> dict[str, float]:
        """Wait until the run is open; returns the exact counts of one step."""
        return self._answer()["counts"]

    def steps(self, count: int) -> float:
        """Seconds that `count` steps take by this process's clock, per unit of budget they use."""
        started = time.perf_counter()
        self._send({"steps": count})
        units = self._answer()["units"]
        return (time.perf_counter() - started) / max(units, 1e-12)

    def close(self) -> None:
        """End the run."""
        self._send({"steps": 0})
        self._answer()

    def _send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise GateError(f"{self.tree.label}: the stepping process is gone: {self._tail()}") from None

    def _tail(self) -> str:
        """The last line of what the process said."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else "no output"

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        deadline, descriptor = time.monotonic() + PATIENCE, self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise GateError(f"{self.tree.label}: no answer of the stepping process in {PATIENCE:g} s")
            data = os.read(descriptor, 1 << 16)
            if not data:
                raise GateError(f"{self.tree.label}: the stepping process ended: {self._tail()}")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise GateError(f"{self.tree.label}: {answer['error']}")
        return answer


@dataclass(frozen=True)
class Measured:
    """Exact counts of one step of each side, and the step times in turn (None where they were not asked for)."""

    base: dict[str, float]
    head: dict[str, float]
    timing: Timing | None
    seconds: float


class Bench:
    """Fresh processes of both trees, and a second one of base for the A/A arm.

    Use as a context; a confirming measurement takes a new one.
    """

    def __init__(self, base: Tree, head: Tree, arm: bool = True) -> None:
        self.trees = (base, head, base) if arm else (base, head)

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            self.steppers = [stack.enter_context(Stepper(tree)) for tree in self.trees]
            for stepper in self.steppers:
                stepper.ready()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def measure(self, base: dict[str, Any], head: dict[str, Any], seconds: float) -> Measured:
        """Counts of a run of either side and, when `seconds` is not 0, their step times in turn.

        Parameters
        ----------
        base, head : specifications.
        seconds : the measurement ends when the intervals are within 3%, or after this long.

        Raises
        ------
        GateError : a side cannot take its steps.
        """
        started = time.monotonic()
        for stepper, spec in zip(self.steppers, (base, head, base), strict=False):
            stepper.open(spec)
        counts = [stepper.counts() for stepper in self.steppers]
        timing = None
        if seconds and len(self.steppers) == 3:
            first = self.steppers[0]
            once = time.perf_counter()
            first.steps(1)
            count = max(1, math.ceil(LEAST_SECONDS / (time.perf_counter() - once)))
            ours, theirs, again = (partial(stepper.steps, count) for stepper in self.steppers)
            timing = interleaved(ours, theirs, again, seconds)
        for stepper in self.steppers:
            stepper.close()
        return Measured(counts[0], counts[1], timing, time.monotonic() - started)


def interleaved(
    base: Callable[[], float], head: Callable[[], float], again: Callable[[], float], seconds: float
) -> Timing:
    """Ratio of the times that `head` and `base` return, and of `again` (base's code too) to `base`, measured in turn.

    A round is base head head base, then base again again base: a machine that
    slows down steadily slows all of them down alike. Each round gives one log
    ratio an arm; the value is their median, the interval the median's own
    (order statistics), since a preempted step is no property of the code.
    """
    logs: list[tuple[float, float]] = []
    started = time.perf_counter()
    while True:
        logs.append((_quad(base, head), _quad(base, again)))
        late = time.perf_counter() - started > seconds or len(logs) >= MAX_PAIRS
        if len(logs) >= MIN_PAIRS and (late or len(logs) % 5 == 0):
            ours, itself = (median_interval(column) for column in np.array(logs).T)
            if late or max(i.high - i.low for i in (ours, itself)) < 2 * PRECISION:
                break
    spent = time.perf_counter() - started
    return Timing(ours.value, ours.low, ours.high, abs(itself.value), len(logs), spent)


def _quad(a: Callable[[], float], b: Callable[[], float]) -> float:
    """Log ratio of b's time to a's from the order a b b a."""
    first, second = a(), b()
    third, fourth = b(), a()
    return 0.5 * (math.log(second / first) + math.log(third / fourth))
