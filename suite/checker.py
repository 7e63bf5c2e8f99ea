"""The contract half of ``levelfield check``: runs one method's contracts in a process of its own.

``python -m suite.checker NAME`` prints a JSON line before and after each
contract, so that the parent knows which one a process hung or died in.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

TIME_LIMIT = 40.0
MEMORY_LIMIT = 4 * 2**30
OUTPUT_LIMIT = 64 * 2**20
_TOO_MUCH = f"asked for more than {MEMORY_LIMIT / 2**30:g} GiB of memory"
_TOO_LONG = f"wrote more than {OUTPUT_LIMIT / 2**20:g} MiB of output; does it print in every call?"


@dataclass(frozen=True)
class Finding:
    """One contract's outcome.

    Attributes
    ----------
    name : the contract.
    verdict : "passed", "broken", "timeout", "memory" or "crashed".
    message : what is wrong; "" when passed.
    """

    name: str
    verdict: str
    message: str = ""


def check_contracts(method: str, seconds: float = TIME_LIMIT) -> list[Finding]:
    """Run a method's contracts under a time and a memory limit.

    A method that hangs, dies or takes all memory gives a finding; the caller
    is not harmed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "suite.checker", method],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill(process)
        out.seek(0)
        events = [json.loads(line) for line in out if line.endswith(b"\n")]
        size = err.seek(0, os.SEEK_END)
        err.seek(max(0, size - 600))
        tail = err.read().decode(errors="replace").strip()
    findings = [Finding(e["name"], e["verdict"], e["message"]) for e in events if "verdict" in e]
    last = events[-1] if events else {"name": "import"}
    if "end" not in last:
        findings.append(_stopped(last["name"], code, tail, seconds))
    return findings


def _stopped(name: str, code: int | None, tail: str, seconds: float) -> Finding:
    if code is None:
        return Finding(name, "timeout", f"did not finish within {seconds:g} s; does it loop or wait for something?")
    if code == -signal.SIGXFSZ or "File too large" in tail:
        return Finding(name, "crashed", _TOO_LONG)
    if "MemoryError" in tail or "can't allocate memory" in tail:
        return Finding(name, "memory", _TOO_MUCH)
    cause = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Finding(name, "crashed", f"ended the process with {cause}: {tail.splitlines()[-1] if tail else 'no output'}")


def _kill(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcomes(name: str, say: Callable[..., None]) -> Iterator[Finding]:
    import torch

    from suite.contract import ContractError, contracts
    from suite.registry import registry

    torch.set_num_threads(1)
    method = registry().method(name)
    for contract in contracts(method):
        say(name=contract.__name__)
        try:
            contract(method)
        except ContractError as error:
            yield Finding(contract.__name__, "broken", str(error))
        except MemoryError:
            yield Finding(contract.__name__, "memory", _TOO_MUCH)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EFBIG:
                yield Finding(contract.__name__, "crashed", _TOO_LONG)
                continue
            memory = "can't allocate memory" in str(error)
            message = f"raises {type(error).__name__}: {error}" if not memory else _TOO_MUCH
            yield Finding(contract.__name__, "memory" if memory else "broken", message[:600])
        else:
            yield Finding(contract.__name__, "passed")


def main(name: str) -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_LIMIT, OUTPUT_LIMIT))
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the method prints does not mix with the findings

    def say(**facts: Any) -> None:
        events.write(json.dumps(facts) + "\n")
        events.flush()

    say(name="import")
    for finding in _outcomes(name, say):
        say(name=finding.name, verdict=finding.verdict, message=finding.message)
    say(name="end", end=True)


if __name__ == "__main__":
    main(sys.argv[1])
