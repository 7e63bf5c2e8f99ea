"""``make demo``: the whole path on embedded data, from training to the board."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from suite.cli.main import main
from suite.cli.run import describe, launch
from suite.runner.spec import RunSpec, plan

OUT = Path("runs/demo")
SITE = Path("runs/demo-site")
SEEDS = range(2)
COST_SECONDS = 0.6
# Which methods run where; the longest task first, so that no core waits for one of its runs at the end.
PLAN = {
    "add2-rlvr": "dr-grpo ngrpo",
    "convection": "uniform r3",
    "dyck-gpt": "lion muon grams swiglu",
    "digits-cnn": "relu gelu silu mish golu crrelu smelu ema",
}


def demo() -> None:
    """Run the plan at two seeds, then write the board and print its top."""
    started = time.monotonic()
    specs: list[RunSpec] = []
    for task, methods in PLAN.items():
        sys.stdout.write(f"{task}: {methods.replace(' ', ', ')}\n")
        specs += plan([task], methods.split(), "quick", SEEDS)[0]
    sys.stdout.write(f"{len(specs)} runs, each on one core, {len(SEEDS)} seeds a method\n\n")
    sys.stdout.flush()
    progress, _ = launch(specs, OUT, cost=COST_SECONDS)
    if progress.phase == "stopped":
        sys.exit("stopped: the same command goes on where this one ended")
    sys.stdout.write(f"{describe(progress)}\n\n")
    sys.stdout.flush()
    try:
        main(["board", str(OUT), "--out", str(SITE)])
    except SystemExit as end:
        if end.code:
            raise
    sys.stdout.write(f"\nall of it took {time.monotonic() - started:.0f} s; the same command resumes\n")


if __name__ == "__main__":
    demo()
