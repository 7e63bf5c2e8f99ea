"""The contract half of ``levelfield check``: runs one method's contracts in a process of its own.

``python -m suite.checker NAME`` prints a JSON line before and after each
contract, so that the parent knows which one a process hung or died in.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TIME_LIMIT = 40.0
MEMORY_LIMIT = 4 * 2**30
_TOO_MUCH = f"asked for more than {MEMORY_LIMIT / 2**30:g} GiB of memory"


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
        err.seek(0)
        events = _events(out.read(1 << 20))
        tail = err.read()[-600:].decode(errors="replace").strip()
    findings = [Finding(e["name"], e["verdict"], e["message"]) for e in events if "verdict" in e]
    last = events[-1] if events else {"name": "import"}
    if "end" not in last:
        findings.append(_stopped(last["name"], code, tail, seconds))
    return findings


def _stopped(name: str, code: int | None, tail: str, seconds: float) -> Finding:
    if code is None:
        return Finding(name, "timeout", f"did not finish within {seconds:g} s; does it loop or wait for something?")
    if "MemoryError" in tail or "can't allocate memory" in tail:
        return Finding(name, "memory", _TOO_MUCH)
    cause = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Finding(name, "crashed", f"ended the process with {cause}: {tail.splitlines()[-1] if tail else 'no output'}")


def _kill(process: subprocess.Popen[Any]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _events(data: bytes) -> list[dict[str, Any]]:
    """The checker's own lines; what the method itself printed is passed over."""
    found = []
    for line in data.split(b"\n"):
        if line.startswith(b'{"levelfield": '):
            try:
                found.append(json.loads(line)["levelfield"])
            except (ValueError, KeyError):
                continue
    return found


def _say(**facts: Any) -> None:
    sys.stdout.write("\n" + json.dumps({"levelfield": facts}) + "\n")
    sys.stdout.flush()


def _outcomes(name: str) -> Iterator[Finding]:
    import torch

    from suite.contract import ContractError, contracts
    from suite.registry import registry

    torch.set_num_threads(1)
    method = registry().method(name)
    for contract in contracts(method):
        _say(name=contract.__name__)
        try:
            contract(method)
        except ContractError as error:
            yield Finding(contract.__name__, "broken", str(error))
        except MemoryError:
            yield Finding(contract.__name__, "memory", _TOO_MUCH)
        except Exception as error:
            memory = "can't allocate memory" in str(error)
            message = f"raises {type(error).__name__}: {error}" if not memory else _TOO_MUCH
            yield Finding(contract.__name__, "memory" if memory else "broken", message[:600])
        else:
            yield Finding(contract.__name__, "passed")


def main(name: str) -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 2**20, 64 * 2**20))
    _say(name="import")
    for finding in _outcomes(name):
        _say(name=finding.name, verdict=finding.verdict, message=finding.message)
    _say(name="end", end=True)


if __name__ == "__main__":
    main(sys.argv[1])
