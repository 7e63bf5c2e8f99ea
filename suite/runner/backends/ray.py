"""Runs on a Ray cluster: the one of ``RAY_ADDRESS``, or one started on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from suite.runner.backends import Needs, passed_on, run_command


class Ray:
    """Ray's tasks, its own retries off: what is lost is started again, and counted, by the launcher."""

    def __init__(self) -> None:
        try:
            import ray
        except ImportError:
            raise ValueError("--backend ray needs the package ray: pip install 'levelfield[ray]'") from None
        self.ray = ray
        if not ray.is_initialized():
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
        self.task = ray.remote(run_command)
        self.jobs = int(ray.cluster_resources().get("CPU", 1))

    def submit(self, command: Sequence[str], needs: Needs) -> Any:
        resources = {"num_cpus": 1, "num_gpus": needs.gpus, "memory": needs.memory}
        return self.task.options(max_retries=0, **resources).remote(list(command), passed_on())

    def ended(self, job: Any) -> bool:
        return bool(self.ray.wait([job], timeout=0)[0])

    def cancel(self, job: Any) -> None:
        self.ray.cancel(job, force=True)
