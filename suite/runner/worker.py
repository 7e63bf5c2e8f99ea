"""What a forked process does: one run in a process of its own, or the scoring of many.

A process is forked before there is anything for it to do, and reads what it is
to do from a pipe; so a run does not wait for its fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from suite.runner.spec import RunSpec

LOG_LIMIT = 512 * 2**20  # largest file a run may write, bytes

Request = Mapping[str, Any]


def fork(serve: Callable[[], None], close: list[int]) -> int:
    """Fork a process that serves and ends; returns its pid.

    Parameters
    ----------
    serve : what it does.
    close : descriptors of the parent's that it must not hold.
    """
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        _leave_parent(close)
        serve()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def one_job(pipe: int, held: bool = False) -> None:
    """Take one request from `pipe` and do it; output goes to the log of its folder.

    Parameters
    ----------
    held : hold the process to writing into its run's folder.
    """
    for request in _requests(pipe):
        _confine(request)
        if held:
            _hold(request)
        JOBS[request["do"]](request)
        return


def many_scorings(pipe: int, reply: int) -> None:
    """Take requests from `pipe`, settle each run and answer on `reply` with its status, or with what went wrong."""
    for request in _requests(pipe):
        try:
            answer = {"status": SCORINGS[request["do"]](request)}
        except Exception:
            answer = {"log": traceback.format_exc()[-1500:]}
        os.write(reply, json.dumps(answer).encode() + b"\n")


def _requests(pipe: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(pipe) as lines:
        for line in lines:
            yield json.loads(line)


def _leave_parent(close: list[int]) -> None:
    """A process group of its own that dies with the server, and none of the server's descriptors."""
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    for descriptor in close:
        os.close(descriptor)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LOG_LIMIT, LOG_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _confine(request: Request) -> None:
    """Output to the run's log, and its limit of memory."""
    log = os.open(Path(request["folder"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    memory = int(request.get("memory", 0))
    if memory and sys.platform == "linux" and not str(request.get("device", "cpu")).startswith("cuda"):
        data = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
        ceiling = memory + data  # a single request for too much is refused before the parent has to kill
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))


def _hold(request: Request) -> None:
    """Hold this process to its run's folder and checkpoint."""
    from suite.trust import sandbox

    own = [Path(request["folder"])]
    if request.get("checkpoint"):
        own.append(Path(request["checkpoint"]).parent)
    os.environ["TMPDIR"] = str(own[0])
    sandbox.hold(own, str(request.get("device", "cpu")))


# ---------------------------------------------------------------- jobs


def _train(request: dict[str, Any]) -> None:
    from suite.runner.execute import execute

    kept = (Path(request["checkpoint"]), float(request["every"])) if request.get("checkpoint") else None
    folder, masked = Path(request["folder"]), bool(request.get("masked"))
    execute(RunSpec.from_json(request.pop("spec")), folder, kept, masked)  # a masked name is not left lying about


def _cost(request: dict[str, Any]) -> None:
    from suite.runner.cost import guarded_measure
    from suite.runner.pool import COST
    from suite.store.files import write_bytes

    cost = guarded_measure(RunSpec.from_json(request["spec"]), request["seconds"], request.get("itself", False))
    write_bytes(Path(request["folder"]) / COST, json.dumps(cost, sort_keys=True).encode())


def _settle(request: Request) -> str:
    from suite.runner.execute import settle
    from suite.trust.scoring import Clock

    spec, clock = RunSpec.from_json(request["spec"]), Clock(**request["clock"])
    resumed = bool(request.get("checkpoint"))
    return _store(request, settle(spec, Path(request["folder"]), request["extra"], clock, resumed))


def _fail(request: Request) -> str:
    from suite.runner.execute import failed_row

    spec = RunSpec.from_json(request["spec"])
    known = {**request.get("clock", {}), **request["extra"]}
    return _store(request, failed_row(spec, request["status"], request["message"], known))


def _store(request: Request, row: Mapping[str, Any]) -> str:
    """Write a run's row; a skipped run's goes to a name of its own, so that a later plan tries it again."""
    from suite.runner.stored import row_path
    from suite.store.files import remove_tree, write_rows

    out = Path(request["row"]).parent.parent
    write_rows(row_path(out, row["run_id"], row["status"]), [row])
    if row["status"] != "skipped":
        row_path(out, row["run_id"], "skipped").unlink(missing_ok=True)
    if request.get("checkpoint"):
        remove_tree(Path(request["checkpoint"]).parent)
    remove_tree(Path(request["folder"]))
    return row["status"]


JOBS: dict[str, Callable[[dict[str, Any]], None]] = {"run": _train, "cost": _cost}
SCORINGS: dict[str, Callable[[Request], str]] = {"score": _settle, "fail": _fail}
