"""``make demo``: the whole path on embedded data, from training to the board."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from suite.cli.main import main

OUT = Path("runs/demo")
SITE = Path("runs/demo-site")
# Which methods run where: a slot is shown on the task that answers fastest.
PLAN = {
    "digits-cnn": "relu,gelu,silu,mish,golu,crrelu,smelu,sgd,ema,cosine",
    "dyck-gpt": "adamw,lion,muon,grams,swiglu,stablemax,wsd",
    "convection": "uniform,r3",
    "add2-rlvr": "grpo,dr-grpo,ngrpo",
}


def demo() -> None:
    """Run the plan at two seeds, then write the board and print its top."""
    started = time.monotonic()
    for task, methods in PLAN.items():
        sys.stdout.write(f"\n{task}: {methods.replace(',', ', ')}\n")
        sys.stdout.flush()
        command = ["run", "--tasks", task, "--methods", methods, "--seeds", "2", "--out", str(OUT)]
        _levelfield([*command, "--cost", "0.7"])
    _levelfield(["board", str(OUT), "--out", str(SITE)])
    sys.stdout.write(f"\nall of it took {time.monotonic() - started:.0f} s; the same command resumes\n")


def _levelfield(arguments: list[str]) -> None:
    try:
        main(arguments)
    except SystemExit as end:
        if end.code not in (0, 1, None):  # 1: a run failed, and its row says so
            raise


if __name__ == "__main__":
    demo()
