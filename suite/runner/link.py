"""A server process and the JSON lines that go to and from it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class Link:
    """A running server.

    Parameters
    ----------
    command : what starts it.
    environment : its environment variables.
    log : file that its standard error is added to.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout
        self.input, self.output = self.process.stdin, self.process.stdout
        os.set_blocking(self.output.fileno(), False)
        self.buffer = b""

    def send(self, request: Mapping[str, Any]) -> None:
        """Hand a request over; where the server has ended, that shows as the event "gone"."""
        with contextlib.suppress(BrokenPipeError):
            self.input.write(json.dumps(request).encode() + b"\n")
            self.input.flush()

    def read(self) -> list[dict[str, Any]]:
        """Events that have arrived, after `wait` found some."""
        data = os.read(self.output.fileno(), 1 << 20)
        if not data:
            return [{"event": "gone"}]
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        """Let it end, with every process that it has started."""
        with contextlib.suppress(OSError):
            self.input.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()


def events(links: Iterable[Link], timeout: float, wait_for: str = "") -> list[dict[str, Any]]:
    """Events of any of the servers, waiting up to `timeout` seconds for the first, or for one of kind `wait_for`."""
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for link in links:
            selector.register(link.output, selectors.EVENT_READ, link)
        while True:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return []
            found = [event for key, _ in ready for event in key.data.read()]
            if any(e["event"] in ("gone", wait_for) for e in found) or (found and not wait_for):
                return found


def log_tail(path: Path, size: int = 2000) -> str:
    """The end of a server's log."""
    return path.read_text(errors="replace")[-size:].strip()
