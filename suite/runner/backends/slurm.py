"""Runs as SLURM jobs, through submitit; partition, account and the like come from sbatch's own variables."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.runner.backends import Needs, passed_on, run_command


class Slurm:
    """submitit's executor.

    Parameters
    ----------
    folder : takes the jobs' scripts and logs.
    cluster : submitit's name of the scheduler; "local" starts processes of this machine in its place.
    """

    jobs = 64

    def __init__(self, folder: Path, cluster: str = "slurm") -> None:
        try:
            import submitit
        except ImportError:
            raise ValueError("--backend slurm needs the package submitit: pip install 'levelfield[slurm]'") from None
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise ValueError("--backend slurm: there is no sbatch here; start it on a machine that submits to SLURM")
        self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)

    def submit(self, command: Sequence[str], needs: Needs) -> Any:
        self.executor.update_parameters(
            name="levelfield",
            timeout_min=math.ceil(needs.seconds / 60),
            mem_gb=math.ceil(needs.memory / 2**30),
            cpus_per_task=1,
            gpus_per_node=needs.gpus,
        )
        return self.executor.submit(run_command, list(command), passed_on())

    def ended(self, job: Any) -> bool:
        return job.done()

    def cancel(self, job: Any) -> None:
        job.cancel(check=False)
