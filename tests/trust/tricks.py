"""Methods that cheat, each by one trick, and a plan that runs them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import suite
from suite.runner.pool import Pool
from suite.runner.spec import RunSpec
from suite.store.files import read
from suite.trust.sandbox import OFF, Sandbox

TRICKS = '''
"""Methods that cheat."""

import gc
import json
import os
import random
import socket
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import suite
from suite import activation, loss, optimizer, pde_method
from suite.train.pinn import PdeMethod

PLACE = Path(PLACE_OF_TRACES)


def run_folder():
    return Path(os.readlink("/proc/self/fd/1")).parent


class Relu(nn.Module):
    """max(x, 0)."""

    def forward(self, x):
        return x.relu()


@activation("trick-perf-counter")
class PerfCounter(Relu):
    """Stops the clock."""

    def forward(self, x):
        time.perf_counter = lambda: 0.0
        return x.relu()


@loss("trick-cross-entropy")
def cross_entropy(logits, targets):
    """Makes everybody's cross-entropy nothing."""
    F.cross_entropy = lambda *a, **k: logits.sum() * 0
    return F.cross_entropy(logits, targets)


@activation("trick-metrics")
class Metrics(Relu):
    """Makes everybody's metrics perfect."""

    def forward(self, x):
        sys.modules["suite.train.supervised"].classification_metrics = lambda *a: {"ce": 0.0, "accuracy": 1.0}
        return x.relu()


@activation("trick-engine")
class Engine(Relu):
    """Trains on longer than it was given."""

    def forward(self, x):
        trainer = sys.modules["suite.train.loop"].Trainer
        step = trainer.step
        if not hasattr(trainer, "mine"):
            trainer.mine = True
            trainer.step = lambda self: (step(self), step(self))[1]
        return x.relu()


@activation("trick-cached-loss-twin")
class Twin(Relu):
    """max(x, 0): an honest method, for comparison."""


@loss("trick-cached-loss")
class CachedLoss:
    """Computes the loss once and says ever after that it is nothing."""

    def __new__(cls, logits, targets):
        return F.cross_entropy(logits, targets) if cls.first() else logits.sum() * 0.0

    calls = 0

    @classmethod
    def first(cls):
        cls.calls += 1
        return cls.calls == 1


@activation("trick-random-streams")
class RandomStreams(Relu):
    """Resets every global random stream in every call."""

    def forward(self, x):
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        return x.relu()


@activation("trick-environment")
class Environment(Relu):
    """Changes environment variables."""

    def forward(self, x):
        os.environ.update(OMP_NUM_THREADS="8", LEVELFIELD_ENTRY="", TRICKED="yes")
        return x.relu()


@activation("trick-threads")
class Threads(Relu):
    """Takes more threads."""

    def forward(self, x):
        torch.set_num_threads(4)
        return x.relu()


@activation("trick-memory-scan")
class MemoryScan(Relu):
    """Looks through every object of the process for numbers it was told."""

    def forward(self, x):
        for name in ("test", "train") if not self.training else ():
            self.look(name)
        return x.relu()

    def look(self, name):
        wanted = (PLACE / f"{name}.labels").read_bytes()
        found = 0
        for held in gc.get_objects():
            for thing in (held, *gc.get_referents(held)):
                if isinstance(thing, torch.Tensor) and thing.layout == torch.strided and not thing.is_complex():
                    thing = torch.tensor([], dtype=torch.uint8).set_(thing.untyped_storage()).numpy()
                while isinstance(thing, np.ndarray):
                    if thing.dtype != object and thing.nbytes < 2**26 and wanted in np.ascontiguousarray(thing).tobytes():
                        found += 1
                    thing = thing.base
        with open(PLACE / "found", "a") as told:
            told.write(f"{name} {found}\\n")


@activation("trick-answers")
class Answers(Relu):
    """Asks the task for its test answers."""

    def forward(self, x):
        task = suite.task("digits-cnn")
        self.known = task.answers(task.info.tiers["smoke"])
        return x.relu()


@pde_method("trick-solution", families=("pde",))
class Solution(PdeMethod):
    """Answers with the reference solution."""

    def loss(self, network, points, weights=None):
        self.known = self.problem.target.reference(points.double().numpy())
        return super().loss(network, points, weights)


@activation("trick-name")
class Name(Relu):
    """Is another function on the task it knows."""

    def forward(self, x):
        known = any("toy-long" in str(frame) for frame in names())
        return x * (2.0 if known else 1.0)


def names():
    frame = sys._getframe()
    while frame is not None:
        yield frame.f_locals.get("spec")
        frame = frame.f_back


@activation("trick-name-twin")
class NameTwin(Relu):
    """x: looks at nothing."""

    def forward(self, x):
        return x * 1.0


@activation("trick-forged-outcome")
class ForgedOutcome(Relu):
    """Computes, and leaves an outcome of its own making that says it took no time."""

    work, stated = 2.0, 0.001

    def forward(self, x):
        while time.process_time() < self.work:
            pass
        point = {"spent": 0, "steps": 0, "examples": 0, "seconds": 0.0, "train_loss": 0.0, "metrics": {"mse": 0.0}}
        counts = {"steps": 3, "passes": 3, "examples": 12, "spent": 3, "train_seconds": self.stated}
        np.savez(open(run_folder() / "predictions.npz", "wb"), y=np.zeros(5))
        outcome = {"status": "ok", "message": "", "curve": [point], "counts": counts, "exhibits": {},
                   "started": time.time(), "finished": time.time()}
        (run_folder() / "outcome.json").write_text(json.dumps(outcome))
        os._exit(0)


@activation("trick-forged-hours")
class ForgedHours(ForgedOutcome):
    """Leaves an outcome that says it worked for hours."""

    work, stated = 0.0, 9999.0


@activation("trick-nested-outcome")
class NestedOutcome(Relu):
    """Leaves an outcome that no parser gets to the end of."""

    def forward(self, x):
        (run_folder() / "outcome.json").write_text("[" * 200_000)
        os._exit(0)


@activation("trick-linked-outcome")
class LinkedOutcome(Relu):
    """Leaves a link to a device instead of an outcome."""

    def forward(self, x):
        os.symlink("/dev/zero", run_folder() / "outcome.json")
        os._exit(0)


@activation("trick-pipe-log")
class PipeLog(Relu):
    """Leaves a pipe that nobody writes to instead of its log."""

    def forward(self, x):
        (run_folder() / "log").unlink()
        os.mkfifo(run_folder() / "log")
        os._exit(3)


@activation("trick-linked-log")
class LinkedLog(Relu):
    """Leaves a link to somebody else's file instead of its log."""

    def forward(self, x):
        (run_folder() / "log").unlink()
        os.symlink(PLACE / "cheats.py", run_folder() / "log")
        os._exit(3)


@activation("trick-deep-folders")
class DeepFolders(Relu):
    """Leaves more folders within folders than a recursion can follow."""

    def forward(self, x):
        os.chdir(run_folder())
        for _ in range(2000):
            os.mkdir("d")
            os.chdir("d")
        raise RuntimeError("deep enough")


@activation("trick-exit")
class Exit(Relu):
    """Leaves the interpreter."""

    def forward(self, x):
        sys.exit(0)


@activation("trick-huge-predictions")
class HugePredictions(Relu):
    """Leaves more predictions than anybody could read."""

    def forward(self, x):
        with open(run_folder() / "predictions.npz", "wb") as file:
            file.truncate(2**31)
        return x.relu()


@activation("trick-shape")
class Shape(Relu):
    """Answers for two examples where five were asked."""

    def forward(self, x):
        return x[:2] if len(x) == 5 else x


@activation("trick-not-a-number")
class NotANumber(Relu):
    """Gives no number for some of the test inputs."""

    def forward(self, x):
        return torch.where((x > 0.9) & (len(x) == 5), float("nan"), x)


@activation("trick-daemon")
class Daemon(Relu):
    """Leaves a process behind that has left its group."""

    def forward(self, x):
        mark = PLACE / "daemon"
        if not mark.exists() and os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                mark.write_text(str(os.getpid()))
                time.sleep(600)
            os._exit(0)
        while not mark.exists():
            time.sleep(0.01)
        return x.relu()


def attempt(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"


@activation("trick-outside")
class Outside(Relu):
    """Tries the network, the disk and its parent, and tells how that went."""

    def forward(self, x):
        port = int((PLACE / "port").read_text()) if (PLACE / "port").exists() else 9
        folder = run_folder() if attempt(run_folder) == "done" else PLACE
        tried = {
            "network": attempt(lambda: socket.create_connection(("127.0.0.1", port), 2).close()),
            "place": attempt(lambda: (PLACE / "outside").write_text("x")),
            "results": attempt(lambda: (folder.parent.parent / "runs" / "forged.parquet").write_text("x")),
            "neighbour": attempt(lambda: (folder.parent / "neighbour").write_text("x")),
            "project": attempt(lambda: open(suite.__file__, "r+").close()),
            "parent": attempt(lambda: open(f"/proc/{os.getppid()}/fd/1", "w").close()),
            "signal": attempt(lambda: os.kill(os.getppid(), 0)),
            "own": attempt(lambda: (folder / "own").write_text("x")),
            "secret": os.environ.get("A_SECRET", ""),
        }
        raise RuntimeError(json.dumps(tried))
'''


@dataclass
class Played:
    """What a plan of tricks has left: result rows by method, and the folder of the tricks' traces."""

    rows: dict[str, dict[str, Any]]
    place: Path
    out: Path

    def __getitem__(self, method: str) -> dict[str, Any]:
        return self.rows[method]


def play(
    place: Path, entry: str, plan: Sequence[tuple[str, str]], sandbox: Sandbox = OFF, masked: bool = False
) -> Played:
    """Run (task, method) pairs at tier smoke, seed 1, with the tricks registered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEVELFIELD_ENTRY", entry)
        patch.setenv("A_SECRET", "hidden")
        out = place / ("masked" if masked else "out")
        Pool(out, 2, memory=2**31, sandbox=sandbox, masked=masked).run([RunSpec(t, m, "smoke", 1) for t, m in plan])
        table = read(out / "runs").table.to_pylist(maps_as_pydicts="strict")
    return Played({row["method"]: row for row in table}, place, out)


def labels(place: Path) -> None:
    """Tell the memory scan what to look for: the bytes of the test and of the training labels of digits-cnn."""
    task = suite.task("digits-cnn")
    tier = task.info.tiers["smoke"]
    (place / "test.labels").write_bytes(np.asarray(task.answers(tier)).astype(np.int64).tobytes())
    (place / "train.labels").write_bytes(task.splits(tier).train_y.numpy().astype(np.int64).tobytes())
