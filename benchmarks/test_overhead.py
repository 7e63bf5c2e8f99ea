"""What the engine costs beyond the training itself; run with ``make bench``."""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.recipe import Choice, Recipe
from suite.registry import Registry
from suite.runner.cost import paired_ratio, trimmed_interval
from suite.runner.execute import failed_row, make_workload
from suite.runner.pool import Pool, finished_ids
from suite.runner.spec import RunSpec, plan
from suite.store.files import compact, read, table_bytes, write_rows
from suite.train.loop import Trainer
from suite.train.workload import Workload

NOTHING = """
import numpy as np
import torch
from torch import nn
from suite import Metric, Tier, activation, define_task
from suite.train.build import Build
from suite.train.workload import Task, Workload

class Line(Workload):
    def __init__(self, context):
        self.model = nn.Linear(1, 1)
    def next(self):
        pass
    def loss(self):
        return self.model(torch.ones(1, 1)).sum()
    def validate(self):
        return {"mse": 1.0}
    def predict(self):
        return {"y": np.zeros(1)}

@define_task("nothing", family="vision", version=1, metric=Metric("mse", "units", "min"), slots=("optimizer",),
             recipe={"optimizer": "sgd", "schedule": "constant"}, tiers={"smoke": Tier(1, evals=1)})
class Nothing(Task):
    \"\"\"One step of nothing.\"\"\"
    def workload(self, context):
        return Line(context)
    def answers(self, tier):
        return None
    def score(self, predictions, answers):
        return {"mse": 1.0}
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One compute thread, and a registry cache of the benchmarks' own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------- a step

HORIZON = 10**6  # steps of the schedule, more than any measurement makes
BLOCK = 32  # steps of one timing


class Bare:
    """The training of digits-cnn's reference as one would write it without the suite.

    Parameters
    ----------
    workload : whose model and data it trains; its own unless given.
    """

    def __init__(self, workload: Any = None) -> None:
        from suite.seeds import seed_for

        workload = workload or make_workload(RunSpec("digits-cnn", "reference", "quick"))
        self.model, self.x, self.y = workload.model, workload.data.train_x, workload.data.train_y
        matrices, vectors = ([p for p in self.model.parameters() if (p.ndim > 1) is big] for big in (True, False))
        groups = [{"params": matrices, "weight_decay": 5e-4}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
        self.stream = torch.Generator().manual_seed(seed_for("digits-cnn", "order", 0))
        self.order = torch.empty(0, dtype=torch.long)
        self.steps = 0

    def train(self, steps: int) -> list[Tensor]:
        """Losses of so many steps; the rate rises over a tenth of the horizon and falls after it."""
        losses = []
        for _ in range(steps):
            if len(self.order) < 64:
                self.order = torch.randperm(len(self.x), generator=self.stream)
            rows, self.order = self.order[:64], self.order[64:]
            share = self.steps / (0.1 * HORIZON)
            rate = 0.1 * (share + 0.01 * (1.0 - share))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(self.model(self.x[rows]), self.y[rows])
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            self.steps += 1
        return losses


class Empty(Workload):
    """A model of one weight, so that what is left of a step is the loop."""

    def __init__(self) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        self.x = torch.ones(1, 1)

    def next(self) -> None:
        pass

    def loss(self) -> Tensor:
        return self.model(self.x).sum()

    def validate(self) -> dict[str, float]:
        return {}

    def predict(self) -> dict[str, np.ndarray]:
        return {}


def seconds_of(train: Callable[[int], Any]) -> Callable[[], float]:
    """Seconds of one step, a mean over a block."""

    def measure() -> float:
        started = time.perf_counter()
        train(BLOCK)
        return (time.perf_counter() - started) / BLOCK

    return measure


def seconds_of_run(trainer: Trainer) -> Callable[[], float]:
    """Seconds of one step of the suite's whole loop, as the loop itself states them: evaluation left out."""

    def measure() -> float:
        trainer.budget = trainer.workload.spent + BLOCK
        return trainer.run(evals=1).train_seconds / BLOCK

    return measure


def test_a_step_against_a_bare_loop(benchmark: Any) -> None:
    """Ratio of the suite's loop to a bare PyTorch loop that gives the same bits, in A B B A order; 1.01 is the mark.

    Both train one model on one copy of the data: of two equal models one is
    faster by up to 5%, for where its tensors happen to lie in memory.
    """
    spec = RunSpec("digits-cnn", "reference", "quick", budget=HORIZON)
    trainer = Trainer(make_workload(spec), spec.recipe, HORIZON)
    assert [float(trainer.step()) for _ in range(BLOCK)] == [float(loss) for loss in Bare().train(BLOCK)]
    bare = Bare(trainer.workload)
    ratio = paired_ratio(seconds_of_run(trainer), seconds_of(bare.train), seconds=90.0, precision=0.003)
    benchmark.extra_info.update(ratio)
    benchmark(trainer.step)


def test_the_loop_itself(benchmark: Any) -> None:
    """Microseconds that the loop adds to zero_grad, loss, backward and step of a single weight; 50 is the mark."""
    recipe = Recipe({"optimizer": Choice("sgd", {"lr": 0.0, "momentum": 0.9}), "schedule": Choice("constant", {})})
    trainer = Trainer(Empty(), recipe, 1e9)
    model, x = nn.Linear(1, 1, bias=False), torch.ones(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)

    def bare(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            model(x).sum().backward()
            optimizer.step()

    ours, theirs = seconds_of_run(trainer), seconds_of(bare)
    pairs = np.array([(ours(), theirs(), theirs(), ours()) for _ in range(400)])
    centre, half = trimmed_interval(0.5e6 * (pairs[:, 0] - pairs[:, 1] - pairs[:, 2] + pairs[:, 3]), trim=0.25)
    fastest = 1e6 * (pairs[:, [0, 3]].min() - pairs[:, [1, 2]].min())  # of blocks that nothing preempted
    benchmark.extra_info.update({"added_microseconds": centre, "half_width": half, "added_to_the_fastest": fastest})
    benchmark(trainer.step)


# ---------------------------------------------------------------- a run


def test_a_run_of_nothing_through_the_pool(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds a run of one empty step takes from plan to row, each in a process of its own; 30 is the mark.

    CPU time beside wall-clock time, since only the former keeps its meaning on a busy machine.
    """
    file = tmp_path / "nothing.py"
    file.write_text(NOTHING)
    monkeypatch.setenv("LEVELFIELD_ENTRY", str(file))
    turn, times, cpu = iter(range(100)), list[float](), {10: list[float](), 110: list[float]()}

    def run(count: int) -> None:
        specs = [RunSpec("nothing", "reference", "smoke", seed) for seed in range(count)]
        pool = Pool(tmp_path / str(next(turn)), workers=1)
        marks: list[float] = []
        pool.report = lambda progress: marks.append(time.perf_counter()) if progress.phase == "running" else None
        before = _cpu_seconds()
        progress = pool.run(specs)
        assert (progress.done, progress.failed) == (count, 0)
        cpu[count].append(_cpu_seconds() - before)
        times.append((marks[-1] - marks[0]) / count)

    run(10)
    times.clear()
    benchmark.pedantic(lambda: run(110), rounds=3, iterations=1)
    benchmark.extra_info["milliseconds_a_run"] = 1e3 * min(times)
    benchmark.extra_info["cpu_milliseconds_a_run"] = 1e3 * (min(cpu[110]) - min(cpu[10])) / 100


def _cpu_seconds() -> float:
    """CPU time of this process and of every one it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


BARE_PROCESS = """
import resource
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.set_num_threads(1)
digits = load_digits()
x = torch.tensor(digits.images[:1000], dtype=torch.float32)[:, None] / 8 - 1
x, y = x.contiguous(memory_format=torch.channels_last), torch.tensor(digits.target[:1000])
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
    nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
).to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
for step in range(225):
    rows = torch.randperm(1000)[:64]
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
    optimizer.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
RUN_PROCESS = """
import os, sys, tempfile
from pathlib import Path
from suite.runner.execute import execute, one_thread
from suite.runner.server import _warm
from suite.runner.spec import RunSpec

one_thread()
_warm()
folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
if (pid := os.fork()) == 0:
    execute(RunSpec("digits-cnn", "reference", "quick"), folder)
    os._exit(0)
print(os.wait4(pid, 0)[2].ru_maxrss)
"""


def test_the_memory_of_a_runs_process(benchmark: Any, tmp_path: Path) -> None:
    """Peak resident memory of a run's process over that of a bare loop's process on the same task; 1.1 is the mark."""

    def peak(code: str) -> int:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    ours, theirs = peak(RUN_PROCESS), peak(BARE_PROCESS)
    benchmark.extra_info.update({"megabytes": ours / 1024, "bare_megabytes": theirs / 1024, "ratio": ours / theirs})
    benchmark.pedantic(lambda: peak(RUN_PROCESS), rounds=1, iterations=1)


# ---------------------------------------------------------------- plans and tables


@pytest.mark.parametrize("runs", [1_000, 10_000])
def test_a_plan_and_the_scan_of_finished_runs(benchmark: Any, tmp_path: Path, runs: int) -> None:
    """Seconds until a launcher knows that a plan is done (its ids, and the names in the folder); marks 0.3 and 2."""

    def planned() -> list[RunSpec]:
        return plan(["digits-cnn"], ["gelu", "silu", "mish", "golu"], "quick", range(runs // 5))[0]

    specs = planned()
    assert len(specs) == runs
    (tmp_path / "runs").mkdir()
    for spec in specs:
        (tmp_path / "runs" / f"{spec.run_id}.parquet").touch()
    benchmark.pedantic(lambda: Pool(tmp_path).run(planned()), rounds=3, iterations=1)
    assert Pool(tmp_path).run(planned()).cached == runs
    assert len(finished_ids(tmp_path)) == runs


def _rows(count: int) -> list[dict[str, Any]]:
    """Rows as a quick tier leaves them: 20 points of a curve, metrics, no exhibits beyond seed 0."""
    draw = np.random.default_rng(0)
    base = failed_row(RunSpec("digits-cnn", "gelu", "quick"), "ok", "")
    rows = []
    for i in range(count):
        scores, seconds = np.sort(draw.normal(0.3, 0.1, 21))[::-1], np.sort(draw.uniform(0, 9, 21))
        curve = [
            {"spent": 11.0 * k, "steps": 11 * k, "examples": 704 * k, "seconds": float(seconds[k]),
             "train_loss": float(scores[k]) if k else math.nan, "score": float(scores[k])}
            for k in range(21)
        ]  # fmt: skip
        score = float(draw.normal(0.25, 0.02))
        rows.append(
            base
            | {"run_id": f"{draw.integers(2**63):016x}", "method": f"method-{i // 250}", "seed": i % 10, "score": score}
            | {
                "task": f"task-{i // 10 % 25}",
                "method_hash": f"{i // 250:012x}",
                "digest": f"{draw.integers(2**63):016x}",
            }
            | {"metrics": [("ce", score), ("accuracy", 1 - score)], "val_metrics": [("ce", score)], "curve": curve}
            | {"train_seconds": float(seconds[-1]), "steps": 225, "examples": 14400, "flops": 1e9, "peak_bytes": 10**8}
        )
    return rows


def test_the_size_of_10000_runs_in_git(benchmark: Any, tmp_path: Path) -> None:
    """Megabytes of 10,000 compacted runs (40 methods, 25 tasks, 10 seeds; the mark is 10), and seconds to read them."""
    write_rows(tmp_path / "in" / "all.parquet", _rows(10_000))
    files = compact(tmp_path / "in", tmp_path / "results")
    size = sum(file.stat().st_size for file in files)
    benchmark.extra_info.update({"megabytes": size / 1e6, "files": len(files)})
    benchmark.pedantic(lambda: read(tmp_path / "results"), rounds=3, iterations=1)
    assert read(tmp_path / "results").table.num_rows == 10_000


def test_writing_one_row(benchmark: Any) -> None:
    """Bytes and seconds of the file that one run leaves."""
    row = _rows(1)
    benchmark.extra_info["bytes"] = len(table_bytes(row))
    benchmark(lambda: table_bytes(row))


# ---------------------------------------------------------------- the registry


def _entries(folder: Path, count: int) -> list[str]:
    files = []
    for i in range(count):
        file = folder / f"m{i}.py"
        file.write_text(
            "from torch import nn\nfrom suite import Paper, Uniform, activation\n\n\n"
            f'@activation("made-{i}", paper=Paper("Paper {i}", arxiv="2401.{i:05d}", year=2024),\n'
            '            defaults={"a": 0.5}, space={"a": Uniform(0.0, 1.0)}, families=("vision", "pde"))\n'
            'class Made(nn.Module):\n    """max(a x, x)."""\n\n    def __init__(self, a):\n        super().__init__()\n'
        )
        files.append(str(file))
    return files


def test_listing_1000_entries_from_the_cache(benchmark: Any, tmp_path: Path) -> None:
    """Seconds until a registry of 1,000 more files is known, their scans cached."""
    files = tuple(_entries(tmp_path, 1000))
    assert len(Registry(files).methods) > 1000
    found = benchmark(lambda: Registry(files))
    assert "made-999" in found.methods


def test_scanning_1000_entries_for_the_first_time(benchmark: Any, tmp_path: Path) -> None:
    """The same without a cache."""
    files = tuple(_entries(tmp_path, 1000))

    def scan() -> Registry:
        for cache in Path(os.environ["LEVELFIELD_CACHE"]).glob("registry-*.json"):
            cache.unlink()
        return Registry(files)

    found = benchmark.pedantic(scan, rounds=3, iterations=1)
    assert "made-999" in found.methods
