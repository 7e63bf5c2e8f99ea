"""A second process that starts with everything this one holds in memory, where the system allows that safely."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

T = TypeVar("T")


def room_beside() -> bool:
    """Whether a forked process would gain anything: on Linux, with a second processor that we may use."""
    if sys.platform != "linux" or multiprocessing.current_process().daemon:  # a daemonic process may have no children
        return False
    return len(os.sched_getaffinity(0)) > 1


@contextlib.contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Run `work` in a forked process while the block runs; what the block gets, called, waits for its result.

    Leaving the block ends the process, whatever it has left to do.

    Raises
    ------
    Exception : in the block, by the call: what `work` raised, with its traceback as a note.
    RuntimeError : likewise: the process was killed.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, sender), daemon=True)
    with warnings.catch_warnings():
        # Python >= 3.12 warns of every thread; those here are Arrow's, which a forked process makes anew
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    try:
        yield functools.partial(_result, process, receiver)
    finally:
        process.terminate()
        process.join()
        receiver.close()


def _answer(work: Callable[[], Any], sender: Connection) -> None:
    """In the second process: send (True, result) or (False, exception)."""
    try:
        answer = True, work()
    except KeyboardInterrupt:
        return  # the first process got it too, and reports it
    except Exception as error:
        error.add_note(f"in a second process:\n{traceback.format_exc()}")
        answer = False, error
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        sender.send(answer)


def _result(process: BaseProcess, receiver: Connection) -> Any:
    try:
        done, value = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"a second process ended without a result, with status {process.exitcode}") from None
    if not done:
        raise value
    return value
