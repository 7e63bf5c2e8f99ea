"""What runs inside a source tree under test, by that tree's code; started by `suite.gate.tree` as a script.

    python -P inside.py ROOT RULER ANSWER < request.json     one request, its answer into the file ANSWER
    python -P inside.py ROOT RULER -                         requests and answers as JSON lines, until end of file

The tree stands first on the import path. Only the suite's oldest interfaces are used, so that a
tree of an older release can be measured; the exact counters are those of the gate's own code (RULER,
the file of `suite.runner.cost`), so that both trees meet one ruler.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

WARM_STEPS = 3
Request = dict[str, Any]


def main() -> None:
    root, ruler, answer = sys.argv[1:]
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import suite

    if not Path(str(suite.__file__)).resolve().is_relative_to(Path(root).resolve()):
        sys.exit(f"{root} was to be run, but its `suite` is {suite.__file__}")
    if answer == "-":
        serve(ruler)
        return
    request = json.load(sys.stdin)
    found = {"list": listing, "run": run, "measure": measure}[request["do"]](request)
    Path(answer).write_text(json.dumps(found))


# ---------------------------------------------------------------- one request


def listing(request: Request) -> Request:
    """The tree's cells at a tier: each task's facts, and (task, method, hash of the method's code).

    Names that the tree does not have are left out; the caller compares.
    """
    from suite.fingerprint import engine_hash
    from suite.recipe import REFERENCE
    from suite.registry import registry
    from suite.runner.spec import plan

    known, tier = registry(), request["tier"]
    found = {name: known.find_task(name) for name in request["tasks"] or known.tasks}
    tasks = {name: info for name, info in found.items() if info is not None and tier in info.tiers}
    methods = [m for m in request["methods"] or known.methods if all(part in known.methods for part in m.split("+"))]
    specs, _ = plan(list(tasks), [REFERENCE, *(m for m in methods if m != REFERENCE)], tier, [0])
    facts = {}
    for name, info in tasks.items():
        noise = asdict(info.noise[tier]) if tier in info.noise else {}
        facts[name] = {
            "direction": info.metric.direction,
            "best": info.metric.floor,
            "sd": noise.get("sd"),
            "floor": noise.get("floor"),
            "budget": float(info.tiers[tier].budget),
        }
    return {
        "facts": facts,
        "cells": [[s.task, s.method, s.code] for s in specs],
        "tasks": sorted({*known.tasks, *tasks}),
        "methods": sorted(known.methods),
        "engine": engine_hash(),
        "problems": [str(p) for p in known.problems],
    }


def _spec(stated: Request) -> Any:
    """The run specification of stated fields; a budget that is the tier's own is left to the tier."""
    from suite.runner.spec import RunSpec

    spec = RunSpec(**stated)
    if spec.tier not in spec.info.tiers:
        raise ValueError(f"task {spec.task!r} has no tier {spec.tier!r}")
    spec.recipe  # noqa: B018 (resolves every name)
    return replace(spec, budget=None) if spec.budget == spec.info.tiers[spec.tier].budget else spec


def _specs(request: Request) -> Iterator[tuple[int, Any]]:
    """(place, specification) of each that the tree knows; refusals go into request["refused"]."""
    from suite.registry import RegistryError

    request["refused"] = {}
    for i, stated in enumerate(request["specs"]):
        try:
            yield i, _spec(stated)
        except (RegistryError, ValueError, TypeError) as error:
            request["refused"][i] = str(error)


def run(request: Request) -> Request:
    """Make the runs that are not there yet; gives each specification's run id, or why there is none."""
    from suite.runner.pool import Pool

    specs = dict(_specs(request))
    Pool(Path(request["out"]), request["workers"]).run(list(specs.values()), request["cost"])
    return {"ids": {i: spec.run_id for i, spec in specs.items()}, "refused": request["refused"]}


def measure(request: Request) -> Request:
    """Step cost over the reference's, measured afresh, and the reference's over itself."""
    from suite.runner.pool import Pool

    (spec,) = dict(_specs(request)).values()
    pool = Pool(Path(request["out"]), 1)
    (cost,) = pool.measure([spec], request["seconds"])
    (itself,) = pool.measure([spec], request["seconds"], itself=True)
    return {"cost": cost, "itself": itself}


# ---------------------------------------------------------------- a resident process


def serve(ruler: str) -> None:
    """Answer requests; every opened run lives in a fork of its own."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the tree's code prints is no answer

    def say(answer: Request) -> None:
        pipe.write(json.dumps(answer) + "\n")

    counters = _warm(ruler)
    say({"ready": True})
    for line in _lines():
        child = os.fork()
        if child == 0:
            try:
                _stepping(json.loads(line), counters, say)
            except BaseException as error:
                say({"error": f"{type(error).__name__}: {error}"[:500]})
                os._exit(0)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            say({"error": f"the process ended with code {os.waitstatus_to_exitcode(status)}"})


def _lines() -> Iterator[str]:
    """Lines of standard input, none read ahead, so that a fork gets the next one."""
    buffer = b""
    while data := os.read(0, 1):
        buffer += data
        if data == b"\n":
            yield buffer.decode()
            buffer = b""


def _warm(ruler: str) -> Callable[[Any], dict[str, float]]:
    """Import once what every fork needs; returns the gate's own counters."""
    import torch

    import suite.train.supervised  # noqa: F401 (what most tasks build on)
    from suite.registry import registry
    from suite.runner.execute import one_thread

    one_thread()
    torch.use_deterministic_algorithms(True, warn_only=True)  # its first call imports a second's worth of modules
    registry()
    stated = importlib.util.spec_from_file_location("levelfield_ruler", ruler)
    assert stated and stated.loader
    module = importlib.util.module_from_spec(stated)
    stated.loader.exec_module(module)
    return module.counters


def _stepping(spec: Request, counters: Callable[[Any], dict[str, float]], say: Callable[[Request], None]) -> None:
    """Open one run, tell its exact counts, then take as many steps as each line asks for."""
    import torch

    from suite.runner.execute import _state_bytes, make_workload, one_thread
    from suite.train.loop import Trainer

    one_thread()
    run_spec = _spec(spec)
    workload = make_workload(run_spec)
    trainer = Trainer(workload, run_spec.recipe, run_spec.given)
    counts = counters(trainer) | {"state_bytes": _state_bytes(trainer.optimizer.state)}
    cuda = run_spec.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(run_spec.device)
    for _ in range(WARM_STEPS):
        trainer.step()
    if cuda:
        counts["peak_cuda_bytes"] = torch.cuda.max_memory_allocated(run_spec.device)
    say({"counts": counts})
    for line in _lines():
        count = json.loads(line)["steps"]
        if not count:
            say({"closed": True})
            return
        before = workload.spent
        for _ in range(count):
            trainer.step()
        if cuda:
            torch.cuda.synchronize(run_spec.device)
        say({"units": float(workload.spent - before)})


if __name__ == "__main__":
    main()
