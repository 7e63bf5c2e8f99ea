"""What every test shares: one compute thread, a cache folder of the session's own, and a task of two parameters."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

settings.register_profile("levelfield", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("levelfield")


def pytest_configure(config: pytest.Config) -> None:
    """Give the session, its xdist workers included, one cache folder, unless there is one already."""
    if not os.environ.get("LEVELFIELD_CACHE"):
        config.stash[_CACHE] = os.environ["LEVELFIELD_CACHE"] = tempfile.mkdtemp(prefix="levelfield-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if (folder := config.stash.get(_CACHE, None)) is not None:
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ["LEVELFIELD_CACHE"]


_CACHE = pytest.StashKey[str]()


# A task that trains in milliseconds, and methods that go wrong in each way there is. What a run does
# leaves traces in the folder TOY_FOLDER: a line a training in `log`, marks in files of their own.
TOY = '''
"""A line through points: the smallest task there is, and methods that go wrong."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from suite import LogUniform, Metric, Tier, activation, define_task, optimizer, schedule
from suite.train.build import Build
from suite.train.workload import Task, Workload

SLOTS = ("activation", "optimizer", "gradient", "schedule", "averaging")
RECIPE = {"activation": "toy-plain", "optimizer": ("toy-descent", {"lr": 0.1}), "schedule": "toy-schedule"}
ERROR = Metric("mse", "squared units", "min", floor=0.0)


def folder():
    return Path(os.environ.get("TOY_FOLDER", "/nowhere"))


def note(file, text):
    if folder().is_dir():
        with open(folder() / file, "a") as log:
            log.write(text + "\\n")


def await_leave():
    """Wait where a file `allowed` says how many trainings of the log may go on, and this is a later one."""
    while (folder() / "allowed").exists():
        begun = [line.split()[-1] for line in (folder() / "log").read_text().splitlines()]
        if begun.index(str(os.getpid())) < int((folder() / "allowed").read_text()):
            break
        time.sleep(0.01)


def first_time(mark):
    try:
        os.close(os.open(folder() / mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Line(Workload):
    def __init__(self, context):
        self.context = context
        chosen = context.recipe["activation"].method
        note("log", f"{context.task.name} {chosen} {context.seed} {os.getpid()}")
        time.sleep(context.tier.sizes.get("seconds", 0))
        await_leave()
        build = Build(context)
        self.x = torch.randn(16, 1, generator=context.generator("points"))
        self.stream = context.generator("order")
        self.model = build.finish(nn.Sequential(build.head(1, 1), build.activation(1)))
        with torch.no_grad():
            for parameter in self.model[0].parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=context.generator("init")))

    def next(self):
        self.rows = torch.randint(16, (4,), generator=self.stream)
        self.examples += 4

    def loss(self):
        return ((self.model(self.x[self.rows]) - 2 * self.x[self.rows]) ** 2).mean()

    def validate(self):
        with torch.no_grad():
            return {"mse": float(((self.model(self.x) - 2 * self.x) ** 2).mean())}

    def predict(self):
        return {"y": self.model(torch.linspace(-1, 1, 5)[:, None]).numpy()[:, 0]}


class Toy(Task):
    """Learns y = 2 x."""

    def workload(self, context):
        return Line(context)

    def answers(self, tier):
        return 2 * np.linspace(-1, 1, 5)

    def score(self, predictions, answers):
        return {"mse": float(np.mean((predictions["y"].astype(np.float64) - answers) ** 2))}


@define_task("toy", family="vision", version=1, metric=ERROR, slots=SLOTS, recipe=RECIPE,
             tiers={"smoke": Tier(3, evals=1, limit=90.0)})
class Plain(Toy):
    """Learns y = 2 x in three steps."""


@define_task("toy-long", family="vision", version=1, metric=ERROR, slots=SLOTS, recipe=RECIPE,
             tiers={"smoke": Tier(100, evals=4, limit=90.0)})
class Long(Toy):
    """Learns y = 2 x in a hundred steps."""


@define_task("toy-slow", family="vision", version=1, metric=ERROR, slots=SLOTS, recipe=RECIPE,
             tiers={"smoke": Tier(3, evals=1, sizes={"seconds": 0.4}, limit=90.0)})
class Slow(Toy):
    """Learns y = 2 x after a nap."""


@define_task("toy-brief", family="vision", version=1, metric=ERROR, slots=SLOTS, recipe=RECIPE,
             tiers={"smoke": Tier(3, evals=1, limit=2.0)})
class Brief(Toy):
    """Learns y = 2 x within two seconds."""


@define_task("toy-misjudged", family="rlvr", version=1, metric=Metric("other", "units", "min"), slots=SLOTS,
             recipe=RECIPE, tiers={"smoke": Tier(3, evals=1, limit=90.0)})
class Misjudged(Toy):
    """A task whose score lacks its own metric."""


@define_task("toy-folderless", family="pde", version=1, metric=ERROR, slots=SLOTS, recipe=RECIPE,
             tiers={"smoke": Tier(3, evals=1, limit=90.0)})
class Folderless(Toy):
    """A task during whose scoring the results folder turns into a file."""

    def score(self, predictions, answers):
        runs = Path(os.environ["TOY_OUT"], "runs")
        runs.rmdir()
        runs.write_text("in the way")
        return super().score(predictions, answers)


@optimizer("toy-descent", defaults={"lr": 0.1})
class Descent(torch.optim.Optimizer):
    """w <- w - lr g."""

    def __init__(self, groups, lr):
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])


@optimizer("toy-rated", defaults={"lr": 0.1}, space={"lr": LogUniform(1e-3, 1e3)})
class Rated(Descent):
    """w <- w - lr g, its rate to be searched."""


@schedule("toy-schedule")
def level(step, total):
    """1 throughout."""
    return 1.0


@activation("toy-plain")
class Identity(nn.Module):
    """x."""

    def forward(self, x):
        return x


@activation("toy-more")
class OneMore(Identity):
    """x + 0, one more operation."""

    def forward(self, x):
        return x + 0.0


@activation("toy-nan")
class NotANumber(Identity):
    """x times NaN."""

    def forward(self, x):
        return x * float("nan")


@activation("toy-raises")
class Raises(Identity):
    """Raises."""

    def forward(self, x):
        raise ValueError("no line today <b>&amp;</b> \\u2192 \\U0001f600")


@activation("toy-misfit")
class Misfit(Identity):
    """Does not apply to toys."""

    def __init__(self):
        from suite.train.workload import DoesNotApply

        raise DoesNotApply("toys have no such thing")


@activation("toy-missing", requires="a_package_that_is_not_there")
class Missing(Identity):
    """Needs a package that is not there."""


@activation("toy-killed-once")
class KilledOnce(Identity):
    """Is killed in its first run."""

    def forward(self, x):
        if first_time("killed-once"):
            os.kill(os.getpid(), signal.SIGKILL)
        return x


@activation("toy-killed")
class Killed(Identity):
    """Is killed in every run."""

    def forward(self, x):
        os.kill(os.getpid(), signal.SIGKILL)


@activation("toy-killed-late")
class KilledLate(Identity):
    """Notes each step; is killed in the sixtieth of its first run."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == 60 and first_time("killed-late"):
                os.kill(os.getpid(), signal.SIGKILL)
            note("steps", str(os.getpid()))
        return x


@activation("toy-exits")
class Exits(Identity):
    """Ends the process as if all were well."""

    def forward(self, x):
        os._exit(0)


@activation("toy-sleeps")
class Sleeps(Identity):
    """Never comes back."""

    def forward(self, x):
        time.sleep(600)


@activation("toy-asks")
class Asks(Identity):
    """Asks for 100 GB at once."""

    def forward(self, x):
        return x + torch.ones(100 * 2**30, dtype=torch.uint8).sum()


@activation("toy-grows")
class Grows(Identity):
    """Takes memory bit by bit."""

    def forward(self, x):
        self.hoard = [torch.ones(2**20) for _ in range(230)]
        time.sleep(600)


@activation("toy-leaves-a-child")
class LeavesAChild(Identity):
    """Leaves a process behind."""

    def forward(self, x):
        if self.training and first_time("child"):
            note("children", str(subprocess.Popen(["sleep", "600"]).pid))
        return x


@activation("toy-prints")
class Prints(Identity):
    """Prints what looks like a report."""

    def forward(self, x):
        print('{"event": "done", "id": "x"}', flush=True)
        return x
'''


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that registers the toy tasks and methods."""
    file = tmp_path_factory.mktemp("toy") / "toy.py"
    file.write_text(TOY)
    return file


@pytest.fixture(scope="session")
def toy_environment(toy_file: Path) -> Callable[[Path], dict[str, str]]:
    """Environment variables under which the toys are registered and leave their traces in a folder."""

    def environment(folder: Path) -> dict[str, str]:
        return {"LEVELFIELD_ENTRY": str(toy_file), "TOY_FOLDER": str(folder)}

    return environment


@pytest.fixture
def toy(toy_environment: Callable[[Path], dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register the toys in this process and the workers it starts; returns the folder of their traces."""
    for name, value in toy_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Register source text as an entry file of this process; later texts are added to it."""
    files: list[str] = []

    def add(text: str, name: str = "mine.py") -> Path:
        file = tmp_path / name
        file.write_text(text)
        files.append(str(file))
        monkeypatch.setenv("LEVELFIELD_ENTRY", os.pathsep.join(files))
        return file

    return add


@pytest.fixture
def levelfield(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: (exit code, standard output, standard error).

    Files it registers are forgotten after the test.
    """
    from suite.cli.main import main

    monkeypatch.setenv("LEVELFIELD_ENTRY", os.environ.get("LEVELFIELD_ENTRY", ""))

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code: object = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert isinstance(code, int)
        return code, out, err

    return call
