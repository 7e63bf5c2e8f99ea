"""What the engine costs beyond the training itself; run with ``make bench``."""

from __future__ import annotations

import math
import os
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


class Bare:
    """The step of digits-cnn's reference as one would write it without the suite."""

    def __init__(self) -> None:
        spec = RunSpec("digits-cnn", "reference", "quick")
        self.workload = make_workload(spec)
        self.model, data = self.workload.model, self.workload.data
        self.x, self.y = data.train_x, data.train_y
        plain = [p for m in self.model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
        plain.append(self.model[-1].bias)
        decayed = [p for p in self.model.parameters() if all(p is not q for q in plain)]
        groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: max(0.0, 1.0 - step / 1e6))
        self.order = torch.empty(0, dtype=torch.long)

    def step(self) -> Tensor:
        if len(self.order) < 64:
            self.order = torch.randperm(len(self.x))
        rows, self.order = self.order[:64], self.order[64:]
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.model(self.x[rows]), self.y[rows])
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()


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


def timed(step: Callable[[], Any], count: int = 20) -> Callable[[], float]:
    """Seconds of one step, a mean over `count`."""

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - started) / count

    return measure


def test_a_step_against_a_bare_loop(benchmark: Any) -> None:
    """Ratio of the suite's step to a bare PyTorch step of the same recipe, in A B B A order; 1.01 is the mark."""
    spec = RunSpec("digits-cnn", "reference", "quick", budget=1e6)
    workload = make_workload(spec)
    trainer = Trainer(workload, spec.recipe, 1e6)
    bare = Bare()
    ours, theirs = timed(trainer.step), timed(bare.step)
    ours(), theirs()
    ratio = paired_ratio(ours, theirs, seconds=20.0)
    benchmark.extra_info.update({k: ratio[k] for k in ("cost_ratio", "cost_low", "cost_high", "pairs")})
    benchmark(trainer.step)


def test_the_loop_itself(benchmark: Any) -> None:
    """Microseconds that the loop adds to zero_grad, loss, backward and step of a single weight."""
    recipe = Recipe({"optimizer": Choice("sgd", {"lr": 0.0}), "schedule": Choice("constant", {})})
    trainer = Trainer(Empty(), recipe, 1e9)
    model, x = nn.Linear(1, 1, bias=False), torch.ones(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def bare() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x).sum().backward()
        optimizer.step()

    ours, theirs = timed(trainer.step, 200), timed(bare, 200)
    differences = []
    for _ in range(20):
        a, b, c, d = ours(), theirs(), theirs(), ours()
        differences.append(0.5e6 * (a - b + d - c))
    centre, half = trimmed_interval(np.array(differences))
    benchmark.extra_info.update({"added_microseconds": centre, "half_width": half})
    benchmark(trainer.step)


# ---------------------------------------------------------------- a run


def test_a_run_of_nothing_through_the_pool(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds a run of one empty step takes from plan to row: fork, training, scoring, two files; 100 in one pool."""
    file = tmp_path / "nothing.py"
    file.write_text(NOTHING)
    monkeypatch.setenv("LEVELFIELD_ENTRY", str(file))
    times: list[float] = []
    turn = iter(range(100))

    def run() -> None:
        specs = [RunSpec("nothing", "reference", "smoke", seed) for seed in range(100)]
        pool = Pool(tmp_path / str(next(turn)), workers=1)
        marks: list[float] = []
        pool.report = lambda progress: marks.append(time.perf_counter()) if progress.phase == "running" else None
        progress = pool.run(specs)
        assert (progress.done, progress.failed) == (100, 0)
        times.append((marks[-1] - marks[0]) / 100)

    benchmark.pedantic(run, rounds=3, iterations=1)
    benchmark.extra_info["milliseconds_a_run"] = 1e3 * min(times)


# ---------------------------------------------------------------- plans and tables


def test_a_plan_and_the_scan_of_10000_finished_runs(benchmark: Any, tmp_path: Path) -> None:
    """Seconds until a launcher knows that a plan of 10,000 runs is done (its ids, and the names in the folder)."""
    specs, _ = plan(["digits-cnn"], ["gelu", "silu", "mish", "golu"], "quick", range(2000))
    assert len(specs) == 10_000
    (tmp_path / "runs").mkdir()
    for spec in specs:
        (tmp_path / "runs" / f"{spec.run_id}.parquet").touch()

    def resume() -> None:
        again, _ = plan(["digits-cnn"], ["gelu", "silu", "mish", "golu"], "quick", range(2000))
        progress = Pool(tmp_path).run(again)
        assert progress.cached == 10_000

    benchmark.pedantic(resume, rounds=3, iterations=1)
    assert len(finished_ids(tmp_path)) == 10_000


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
