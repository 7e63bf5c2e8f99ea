"""Runs as jobs of a cluster: the same command, the same folder, and what a lost job leaves undone is done again."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from suite.runner.backends import NAMES, Needs, backend
from suite.runner.cluster import Cluster
from suite.runner.spec import RunSpec
from suite.store.files import read

Levelfield = Callable[..., tuple[int, str, str]]

PLAN = [("toy-plain", 0), ("toy-raises", 0), ("toy-missing", 0)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.runner.cluster.POLL_SECONDS", 0.02)


def specs(*cells: tuple[str, int]) -> list[RunSpec]:
    return [RunSpec("toy", method, "smoke", seed) for method, seed in cells or PLAN]


class Here:
    """Jobs as processes of this machine, the first few of which are killed before they begin."""

    jobs = 2

    def __init__(self, losses: int = 0) -> None:
        self.losses, self.commands, self.needs = losses, list[Sequence[str]](), list[Needs]()

    def submit(self, command: Sequence[str], needs: Needs) -> subprocess.Popen[bytes]:
        self.commands.append(command)
        self.needs.append(needs)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if len(self.commands) <= self.losses:
            process.kill()
        return process

    def ended(self, job: Any) -> bool:
        return job.poll() is not None

    def cancel(self, job: Any) -> None:
        job.send_signal(signal.SIGTERM)
        job.wait(60)


def statuses(out: Path) -> Counter[tuple[str, str, int]]:
    return Counter((r["method"], r["status"], r["attempts"]) for r in read(out).table.to_pylist())


def only_results(out: Path) -> bool:
    return {p.suffix for p in out.rglob("*") if p.is_file()} <= {".parquet"} and not (out / ".specs").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_jobs_make_the_runs_of_a_plan_and_a_second_plan_makes_none_again(tmp_path: Path) -> None:
    out, here = tmp_path / "out", Here()
    progress = Cluster(out, here, jobs=1, memory=2**30).run(specs())
    assert (progress.planned, progress.cached, progress.done) == (3, 0, 3)
    assert (progress.failed, progress.skipped, progress.retried) == (1, 1, 0)
    assert statuses(out) == {
        ("toy-plain", "ok", 1): 1, ("toy-raises", "error", 1): 1, ("toy-missing", "skipped", 1): 1,
    }  # fmt: skip
    assert only_results(out)
    again = Here()
    progress = Cluster(out, again, jobs=1, memory=2**30).run(specs())
    assert (progress.cached, progress.done, progress.skipped) == (2, 1, 1)  # what was skipped is tried again
    assert len(again.commands) == 1


@pytest.mark.usefixtures("toy")
def test_a_lost_job_is_started_again_and_its_attempt_recorded(tmp_path: Path) -> None:
    out, here = tmp_path / "out", Here(losses=1)
    progress = Cluster(out, here, jobs=1, memory=2**30).run(specs(("toy-plain", 0)))
    assert (progress.done, progress.failed, progress.retried) == (1, 0, 1)
    assert statuses(out) == {("toy-plain", "ok", 2): 1}


@pytest.mark.usefixtures("toy")
def test_a_run_whose_jobs_are_lost_three_times_is_an_error_that_says_so(tmp_path: Path) -> None:
    out, here = tmp_path / "out", Here(losses=9)
    progress = Cluster(out, here, jobs=1, memory=2**30).run(specs(("toy-plain", 0)))
    assert (progress.done, progress.failed, progress.retried) == (1, 1, 2)
    assert len(here.commands) == 3
    (row,) = read(out).table.to_pylist()
    assert (row["status"], row["attempts"]) == ("error", 3)
    assert row["message"] == "the job that was to make the run ended without a result in each of 3 attempts"


@pytest.mark.usefixtures("toy")
def test_a_job_asks_for_what_its_runs_may_use(tmp_path: Path) -> None:
    class Nowhere(Here):
        def submit(self, command: Sequence[str], needs: Needs) -> subprocess.Popen[bytes]:
            self.commands.append(command)
            self.needs.append(needs)
            return subprocess.Popen(["true"])

    many = [RunSpec("toy", "toy-plain", "smoke", seed, device="cuda") for seed in range(40)]
    nowhere = Nowhere()
    Cluster(tmp_path / "out", nowhere, jobs=2, memory=2**30, limit=100.0).run(many)
    assert len(nowhere.commands) == 3 * 8  # five runs a job, four jobs for each of two places, three attempts
    assert set(nowhere.needs) == {Needs(memory=3 * 2**30, seconds=120.0 + 3 * 5 * 100.0, gpus=1)}


@pytest.mark.parametrize("name", [n for n in NAMES if n != "local"])
def test_a_backend_whose_package_is_missing_is_one_sentence(
    name: str, levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"ray": "ray", "slurm": "submitit"}[name]
    monkeypatch.setitem(sys.modules, package, None)
    arguments = ("run", "--tasks", "digits-cnn", "--methods", "relu", "--tier", "smoke", "--out", tmp_path / "out")
    code, out, err = levelfield(*arguments, "--backend", name)
    assert (code, out) == (2, "")
    assert err == (f"levelfield: --backend {name} needs the package {package}: pip install 'levelfield[{name}]'\n")


def test_what_no_backend_can_do_is_refused(levelfield: Levelfield, tmp_path: Path) -> None:
    arguments = ("run", "--tasks", "digits-cnn", "--methods", "relu", "--tier", "smoke", "--out", tmp_path / "out")
    assert "--backend takes local, ray, slurm; got 'moon'" in levelfield(*arguments, "--backend", "moon")[2]
    refused = levelfield(*arguments, "--backend", "ray", "--budget", "seconds")
    assert refused[0] == 2
    assert "--budget seconds needs --backend local" in refused[2]


# ---------------------------------------------------------------- the schedulers themselves


def needs_package(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"the package {name} is not installed")


@needs_package("submitit")
@pytest.mark.usefixtures("toy")
def test_submitit_makes_the_runs_of_a_plan(tmp_path: Path) -> None:
    from suite.runner.backends.slurm import Slurm

    out = tmp_path / "out"
    progress = Cluster(out, Slurm(tmp_path / "jobs", cluster="local"), jobs=2, memory=2**30).run(specs())
    assert (progress.done, progress.failed, progress.skipped) == (3, 1, 1)
    assert only_results(out)


@needs_package("submitit")
def test_slurm_without_sbatch_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no sbatch here"):
        backend("slurm", tmp_path)


@needs_package("ray")
@pytest.mark.usefixtures("toy")
def test_ray_makes_the_runs_of_a_plan_and_starts_nothing_again_by_itself(
    levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the runs kills its worker's process, one the whole job."""
    import ray

    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        out = tmp_path / "out"
        arguments = ("run", "--tasks", "toy", "--methods", "toy-plain,toy-killed-once", "--tier", "smoke")
        code, said, _ = levelfield(*arguments, "--seeds", "2", "--out", out, "--backend", "ray", "--json")
    finally:
        ray.shutdown()
    assert code == 0
    assert json.loads(said)["done"] == 6
    begun = (tmp_path / "log").read_text().splitlines()
    assert len(begun) == 7
    assert only_results(out)
    assert os.getpid() not in {int(line.split()[-1]) for line in begun}
