"""Where runs are made: on this machine, on a Ray cluster or through SLURM; ``levelfield run-one`` everywhere."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

NAMES = ("local", "ray", "slurm")
PASSED_ON = ("LEVELFIELD_", "HF_", "PYTHONPATH")  # environment variables a job needs, by how they begin


@dataclass(frozen=True)
class Needs:
    """What a job asks of the machine it gets, beside one core.

    Attributes
    ----------
    memory : bytes. seconds : longest it may last. gpus : devices.
    """

    memory: int
    seconds: float
    gpus: int = 0


class Backend(Protocol):
    """A scheduler, seen from a launcher: it starts commands on machines that see the results folder.

    Attributes
    ----------
    jobs : how many at once are a good default.
    """

    jobs: int

    def submit(self, command: Sequence[str], needs: Needs) -> Any:
        """Start a command; returns a handle."""

    def ended(self, job: Any) -> bool:
        """Whether the job has ended, in whatever way."""

    def cancel(self, job: Any) -> None:
        """End a job."""


def backend(name: str, folder: Path) -> Backend:
    """The backend of this name.

    Parameters
    ----------
    folder : where it may keep logs.

    Raises
    ------
    ValueError : no such backend, or what it needs is not here.
    """
    if name == "ray":
        from suite.runner.backends.ray import Ray

        return Ray()
    if name == "slurm":
        from suite.runner.backends.slurm import Slurm

        return Slurm(folder)
    raise ValueError(f"--backend takes {', '.join(NAMES)}; got {name!r}")


def passed_on() -> dict[str, str]:
    """The launcher's environment variables that a job on another machine needs."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command in this job's place and end it when the job is ended; returns its exit code."""
    return subprocess.run(command, env={**os.environ, **environment}, preexec_fn=_die_with_parent).returncode


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
