"""``levelfield verify``: a submission's hashes, its source, and a random part of its runs made again."""

from __future__ import annotations

import hashlib
import json as jsonlib
import random
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.cli.show import print_json
from suite.recipe import REFERENCE
from suite.registry import registry
from suite.trust.sandbox import HELP, Sandbox, choose

if TYPE_CHECKING:
    from suite.runner.spec import RunSpec
    from suite.trust.bundle import Bundle
    from suite.trust.verify import Rerun, Verification

# Columns of a step-cost measurement, which a rerun does not repeat.
_MEASURED = ("cost_ratio", "cost_low", "cost_high", "cost_precise", "flops", "elementwise", "saved_bytes")


def verify(
    bundle: Annotated[Path, typer.Argument(help="A file of `levelfield submit`.")],
    rerun: Annotated[int, typer.Option(help="Seeds of a task to run again; more follow where one cannot decide.")] = 1,
    every_task: Annotated[bool, typer.Option("--every-task", help="Each task, not one drawn at random.")] = False,
    into: Annotated[Path | None, typer.Option(help="Results folder that receives what is reproduced.")] = None,
    by: Annotated[str, typer.Option(help="Who verifies, for the record.")] = "",
    workers: Annotated[int, typer.Option(help="Runs at once.")] = 2,
    sandbox: Annotated[str, typer.Option(help=HELP)] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a submission and run a random part of it again, its source kept off network and disk.

    Exit codes: 0 reproduced, 1 not reproduced, 2 refused before any run, 4 inconclusive.
    """
    from suite.trust.bundle import read
    from suite.trust.verify import EXIT, REPRODUCED, settled

    if rerun < 1:
        raise ValueError(f"--rerun takes a count of at least 1, got {rerun}")
    held = choose(sandbox)
    submitted = read(bundle)
    with tempfile.TemporaryDirectory(prefix="levelfield-verify-") as folder:
        examiner = Examiner(submitted, Path(folder), held, workers)
        found = examiner.examine(rerun, every_task)
        verdict = settled(found)
        kept = examiner.accept(found, into, by) if into is not None else []
    if json:
        print_json(_as_json(submitted, verdict, found, examiner.notes) | {"kept": kept})
    else:
        for line in (*_lines(submitted, found, examiner.notes), *kept, f"{submitted.method}: {verdict}"):
            sys.stdout.write(f"{line}\n")
        if verdict == REPRODUCED and into is None:
            sys.stdout.write("its rows stay self-reported; --into RESULTS takes them in as reproduced\n")
    raise typer.Exit(EXIT[verdict])


class Examiner:
    """One verification, from the source to the record.

    Parameters
    ----------
    bundle : the submission, its hashes checked.
    folder : temporary; its source and the reruns lie there.
    sandbox : what holds its runs.
    workers : runs at once.
    """

    def __init__(self, bundle: Bundle, folder: Path, sandbox: Sandbox, workers: int) -> None:
        from suite.trust.verify import admit, plan

        self.bundle, self.folder, self.sandbox, self.workers = bundle, folder, sandbox, workers
        self.method = admit(bundle, folder / "source")
        self.specs, self.notes = plan(bundle)
        self.stored = {r["run_id"]: r for r in (*bundle.rows.to_pylist(), *bundle.reference.to_pylist())}
        self.rounds = 0

    def examine(self, count: int, every_task: bool) -> list[Verification]:
        """Run again what chance chooses: a verdict on the method and one on the reference for each task."""
        from suite.trust.verify import draw

        found: list[Verification] = []
        for task, seeds in draw(self.specs, every_task, random.SystemRandom()):
            found += self._task(task, seeds, count)
        return found

    def _task(self, task: str, seeds: list[int], count: int) -> list[Verification]:
        """First a few seeds, the task under another name; then, of what differs, as it is; then more seeds."""
        from suite.trust.verify import INCONCLUSIVE, NOT_REPRODUCED, RERUNS, Verification, judge, rows_of, spread_of

        specs = {(s.method, s.seed): s for s in self.specs.values() if s.task == task}
        sides = {
            name: [specs[name, seed] for seed in seeds if (name, seed) in specs]
            for name in (self.bundle.method, REFERENCE)
        }
        _require(sides[self.bundle.method][0].device)
        info, tier = registry().task(task), self.bundle.manifest["tier"]
        spread = spread_of([r for r in rows_of(self.bundle, task) if r["method"] == REFERENCE])
        first = self._again({name: chosen[:count] for name, chosen in sides.items() if chosen}, masked=True)
        plain = self._again({n: sides[n][:count] for n, made in first.items() if not all(r.same for r in made)})
        found = {name: judge(info, tier, plain.get(name, made), spread) for name, made in first.items()}
        named = [name for name, made in plain.items() if all(r.same for r in made)]
        open_ = [n for n, v in found.items() if v.verdict == INCONCLUSIVE and count < min(len(sides[n]), RERUNS)]
        for name, made in self._again({name: sides[name][count:RERUNS] for name in open_}).items():
            found[name] = judge(info, tier, [*plain[name], *made], spread)
        for name in named:
            rule = f"other results on {task} when that has another name: it looks at what it runs on"
            found[name] = Verification(NOT_REPRODUCED, rule, reruns=tuple(first[name]))
        return list(found.values())

    def _again(self, sides: dict[str, list[RunSpec]], masked: bool = False) -> dict[str, list[Rerun]]:
        """Make runs again, by method."""
        from suite.runner.pool import Pool
        from suite.store.files import read
        from suite.trust.verify import Rerun

        if not sides:
            return {}
        self.rounds += 1
        out = self.folder / f"runs-{self.rounds}"
        Pool(out, self.workers, sandbox=self.sandbox, masked=masked).run([s for specs in sides.values() for s in specs])
        fresh = {r["run_id"]: r for r in read(out / "runs").table.to_pylist()}
        return {
            name: [Rerun(self.stored[spec.run_id], fresh[spec.run_id]) for spec in specs]
            for name, specs in sides.items()
        }

    # ------------------------------------------------------------ acceptance

    def accept(self, found: list[Verification], results: Path, by: str) -> list[str]:
        """Write the record of this verification and, where it is reproduced, the rows and the source.

        Rows that were made here take the place of those submitted. Of the
        others the step costs are left out: nobody here has measured them.
        """
        from suite.store.files import compact, write_bytes, write_rows
        from suite.store.schema import FIRST_HAND
        from suite.trust.bundle import keep_source
        from suite.trust.verify import REPRODUCED, settled

        verdict = settled(found)
        facts = {**_as_json(self.bundle, verdict, found, self.notes), "verified_by": by}
        facts["verified_on"] = datetime.now(UTC).date().isoformat()
        text = (jsonlib.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
        name = f"{self.bundle.method}@{self.bundle.manifest['method_hash']}.{hashlib.sha256(text).hexdigest()[:8]}"
        record = results / "verified" / f"{name}.json"
        write_bytes(record, text)
        if verdict != REPRODUCED:
            return [f"{record}: the record; no row is taken in"]
        write_rows(self.folder / "accepted" / "rows.parquet", self._accepted(found, results))
        files = compact(self.folder / "accepted", results, FIRST_HAND)
        source = keep_source(self.method, results)
        return [
            f"{len(files)} files of {results} hold its rows as {FIRST_HAND}",
            f"{source}: source",
            f"{record}: record",
        ]

    def _accepted(self, found: list[Verification], results: Path) -> list[dict[str, Any]]:
        """The rows to take in; a reference's that is there already stays as it is."""
        from suite.store.files import read

        here = {r.fresh["run_id"]: dict(r.fresh) for v in found for r in v.reruns}
        known = set(read(results).table["run_id"].to_pylist())
        unmeasured = dict.fromkeys(_MEASURED)
        chosen = {i: here.get(i) or {**self.stored[i], **unmeasured} for i in self.specs}
        return [row for i, row in chosen.items() if i not in known or row["method"] != REFERENCE]


def _require(device: str) -> None:
    if device != "cpu":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("its runs were made on a GPU; verify it on a machine that has one")


# ---------------------------------------------------------------- telling


def _lines(bundle: Bundle, found: list[Verification], notes: list[str]) -> list[str]:
    manifest = bundle.manifest
    told = [
        f"{bundle.method} ({manifest['slot']}), source {manifest['method_hash']}: {bundle.rows.num_rows} runs on "
        f"{len(manifest['tasks'])} tasks; hashes, types and source are in order",
        *notes,
    ]
    for v in found:
        first = v.reruns[0]
        seeds = ", ".join(str(r.stored["seed"]) for r in v.reruns)
        told.append(f"{first.stored['method']} on {first.stored['task']}, seed {seeds}: {v.verdict}: {v.rule}")
        if first.stored["environment_hash"] != first.fresh["environment_hash"]:
            told.append("  another environment than the author's: equal bits are not to be expected")
    return told


def _as_json(bundle: Bundle, verdict: str, found: list[Verification], notes: list[str]) -> dict[str, Any]:
    named = ("method", "method_hash", "tier", "author", "licence")
    facts = {name: bundle.manifest[name] for name in named}
    return {**facts, "verdict": verdict, "notes": notes, "tasks": [_told(v) for v in found]}


def _told(v: Verification) -> dict[str, Any]:
    first = v.reruns[0].stored
    numbers = {k: None if (x := getattr(v, k)) != x else x for k in ("effect", "low", "high", "margin")}
    evidence = [
        {
            "run_id": r.stored["run_id"],
            "seed": r.stored["seed"],
            **{
                side: {k: row[k] for k in ("status", "score", "digest", "environment_hash")}
                for side, row in (("stated", r.stored), ("found", r.fresh))
            },
        }
        for r in v.reruns
    ]
    facts = {"task": first["task"], "method": first["method"], "verdict": v.verdict, "rule": v.rule}
    return {**facts, **numbers, "evidence": evidence}
