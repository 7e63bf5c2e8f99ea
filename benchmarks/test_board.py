"""The board at scale, on synthetic rows: time, memory and size against the marks.

1,000 rows: under a second and an index under 300 kB. 100,000 rows: under 20 s
and under 1 GB. Times are of this machine; the benchmark prints them and only
sizes and memory are asserted.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from leaderboard.site import pages
from suite.recipe import REFERENCE
from suite.registry import Method, TaskInfo, registry
from suite.store.files import Read
from suite.store.schema import RUNS

INDEX_BYTES = 300_000
PEAK_BYTES = 1_000_000_000
START = datetime(2026, 1, 1, tzinfo=UTC)
ENVIRONMENT = json.dumps({"device": "cpu", "hardware": "synthetic", "threads": 1, "torch": "2.13.0", "python": "3.11"})
LADDER = (0.25, 0.5, 2.0, 4.0)
POINTS = 20
SIDE = 40


def synthetic(count: int, tasks: int, methods: int, seeds: int, maps: bool = True) -> Read:
    """`count` rows at most: methods on the tasks they fit, the reference with its ladder, seeds innermost.

    Parameters
    ----------
    tasks, methods : how many of the registry's, evenly spread over the slots.
    maps : whether the first seed of a PDE cell leaves maps.
    """
    rng = np.random.default_rng(0)
    infos = [t for t in registry().tasks.values() if "quick" in t.tiers][:tasks]
    by_slot: dict[str, list[Method]] = {}
    for method in registry().methods.values():
        by_slot.setdefault(method.slot, []).append(method)
    spread = [m for group in itertools.zip_longest(*by_slot.values()) for m in group if m][:methods]
    rows = itertools.islice(_rows(infos, spread, seeds, rng, maps), count)
    chunks = iter(lambda: list(itertools.islice(rows, 5000)), [])
    return Read(pa.concat_tables([pa.Table.from_pylist(chunk, schema=RUNS) for chunk in chunks]))


def _rows(
    infos: list[TaskInfo], methods: list[Method], seeds: int, rng: np.random.Generator, maps: bool
) -> Iterator[dict[str, Any]]:
    for info in infos:
        budget = float(info.tiers["quick"].budget)
        common = rng.normal(0, 0.05, seeds)
        for share in (1.0, *LADDER):
            for seed in range(seeds):
                yield _row(info, None, budget * share, seed, common[seed] - 0.1 * np.log2(share), rng, maps)
        for method in methods:
            if method.fits(info):
                shift = rng.normal(0, 0.1)
                for seed in range(seeds):
                    yield _row(info, method, budget, seed, common[seed] + shift + rng.normal(0, 0.02), rng, maps)


def _row(
    info: TaskInfo, method: Method | None, budget: float, seed: int, score: float, rng: np.random.Generator, maps: bool
) -> dict[str, Any]:
    name = method.name if method else REFERENCE
    failed = rng.random() < 0.02
    value = 1.0 + (score if info.metric.direction == "min" else -score)
    curve = [
        {
            "spent": budget * i / POINTS,
            "steps": i,
            "examples": i,
            "seconds": 0.1 * i,
            "train_loss": 1.0,
            "score": value + 1 / (1 + i),
        }
        for i in range(POINTS + 1)
    ]
    return {
        "run_id": f"{rng.integers(1 << 62):016x}",
        "schema_version": 1,
        "task": info.name,
        "task_version": 1,
        "task_hash": "a" * 12,
        "family": info.family,
        "method": name,
        "slot": method.slot if method else "",
        "method_hash": "b" * 12 if method else REFERENCE,
        "hp": json.dumps(dict(method.defaults)) if method else "{}",
        "set_hp": "{}",
        "recipe": json.dumps({slot: {"method": "relu", "hp": {"lr": 0.001}} for slot in info.slots}),
        "tier": "quick",
        "budget_kind": "steps",
        "budget": budget,
        "budget_unit": info.unit,
        "seed": seed,
        "trial": -1,
        "trials": 0,
        "status": "diverged" if failed else "ok",
        "message": "training loss is not finite at step 12" if failed else "",
        "attempts": 1,
        "metric": info.metric.name,
        "unit": info.metric.unit,
        "direction": info.metric.direction,
        "score": None if failed else value,
        "metrics": [] if failed else [(info.metric.name, value), ("accuracy", 0.5)],
        "steps": int(budget),
        "spent": budget,
        "parameters": 10_000,
        "train_seconds": 8.0,
        "cost_ratio": 1.0 + 0.1 * (len(name) % 5),
        "cost_low": 0.95 + 0.1 * (len(name) % 5),
        "cost_high": 1.05 + 0.1 * (len(name) % 5),
        "digest": f"{rng.integers(1 << 62):016x}",
        "environment": ENVIRONMENT,
        "environment_hash": "c" * 12,
        "commit": "d" * 40,
        "dirty": False,
        "trust": "reproduced",
        "finished_at": START + timedelta(seconds=seed),
        "curve": curve,
        "exhibits": json.dumps(_exhibits(info, method)) if seed == 0 and maps and not failed else "",
    }


def _exhibits(info: TaskInfo, method: Method | None) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if info.family == "pde":
        grid = np.round(np.sin(np.add.outer(np.arange(SIDE), np.arange(SIDE)) / 7), 4).tolist()
        shown = {"kind": "pde-map", "function": "u", "axes": ["x", "t"], "lows": [0, 0], "highs": [1, 1]}
        shown |= {"solution": grid, "prediction": grid, "error": grid}
    if method is not None and method.slot == "activation":
        x = np.linspace(-6, 6, 121).tolist()
        shown[f"activation {method.name}"] = {"kind": "activation", "x": x, "y": x, "dy": [1.0] * 121}
    return shown


def test_board_of_1000_rows(benchmark: Any) -> None:
    """Build in memory; the mark is one second."""
    read = synthetic(1000, tasks=7, methods=60, seeds=5)
    registry()
    size = benchmark.pedantic(lambda: {path: len(content) for path, content in pages(read)}, rounds=3, warmup_rounds=1)
    assert read.table.num_rows == 1000
    assert size["index.html"] < INDEX_BYTES
    benchmark.extra_info.update(rows=1000, index_bytes=size["index.html"], files=len(size))


@pytest.mark.slow
def test_board_of_100000_rows(benchmark: Any, tmp_path: Path) -> None:
    """Read, build and write in a process of its own; the marks are 20 s and 1 GB."""
    from suite.store.files import table_bytes

    results = tmp_path / "results.parquet"
    read = synthetic(100_000, tasks=40, methods=400, seeds=20)
    results.write_bytes(table_bytes(read.table))
    del read
    program = (
        "import resource, sys; from pathlib import Path; from suite.store.files import read; "
        "from leaderboard.site import write; found = read([Path(sys.argv[1])]); write(found, Path(sys.argv[2])); "
        "print(found.table.num_rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def build() -> list[str]:
        words = [sys.executable, "-c", program, str(results), str(tmp_path / "site")]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    rows, peak = map(int, benchmark.pedantic(build, rounds=1))
    benchmark.extra_info.update(
        rows=rows, peak_bytes=peak * 1024, index_bytes=(tmp_path / "site/index.html").stat().st_size
    )
    assert rows == 100_000
    assert peak * 1024 < PEAK_BYTES
