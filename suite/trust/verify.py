"""Is a bundle what it says? Its source is admitted without running it, then a random part of it is run again."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from suite.fingerprint import method_hash, task_hash
from suite.recipe import REFERENCE
from suite.registry import Method, RegistryError, TaskInfo, add_entry_file, registry, scan
from suite.runner.execute import curve_digest, facts_of
from suite.runner.spec import RunSpec
from suite.stats import tost
from suite.trust.bundle import BadBundle, Bundle, source_files, unpack
from suite.trust.static import check_files

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
EXIT = {REPRODUCED: 0, NOT_REPRODUCED: 1, INCONCLUSIVE: 4}
MARGIN = 2.0  # seed standard deviations that a rerun may be off
RERUNS = 5  # runs of a task that are made again where the first is not bit-identical
COUNTS = ("spent", "steps", "passes", "examples", "parameters")
_ELSEWHERE = ("timeout", "oom", "skipped")  # ends that say more of the machine than of the method

Row = Mapping[str, Any]


# ---------------------------------------------------------------- admission


def admit(bundle: Bundle, folder: Path) -> Method:
    """Register a bundle's method here; none of its source has been run when this returns.

    Parameters
    ----------
    folder : where its source is unpacked; it must stay until the reruns are done.

    Raises
    ------
    BadBundle : its source is not what its rows come from, does what no method may, registers
        a task, or depends on files that differ here.
    """
    try:
        entry = unpack(bundle, folder)
        files = [folder / name for name in bundle.sources]
        found = [e for file in files for e in scan(file)]
        own = next((e for e in scan(entry) if isinstance(e, Method) and e.name == bundle.method), None)
        if own is None:
            raise BadBundle(f"its source registers no method {bundle.method!r}")
        offences = check_files(files, [own.requires] if own.requires else [])
    except (RegistryError, RecursionError) as error:
        raise BadBundle(f"its source cannot be read: {error}") from None
    if any(isinstance(e, TaskInfo) for e in found):
        raise BadBundle("its source registers a task; a submission is a method")
    if offences:
        raise BadBundle("its source does what no method may: " + "; ".join(map(str, offences[:5])))
    return _registered(bundle, entry)


def _registered(bundle: Bundle, entry: Path) -> Method:
    """The bundle's method in this registry, where it is the same code."""
    here = registry().methods.get(bundle.method)
    if here is None:
        add_entry_file(entry)
        here = registry().methods.get(bundle.method)
        clash = [str(p) for p in registry().problems if str(entry) in str(p)]
        if here is None or clash:
            raise BadBundle("; ".join(clash) or f"{bundle.method!r} cannot be registered here")
    found, stated = method_hash(here), bundle.manifest["method_hash"]
    if found != stated:
        raise BadBundle(f"{bundle.method!r} is other code here ({found}, not {stated}): {_differing(bundle, here)}")
    return here


def _differing(bundle: Bundle, here: Method) -> str:
    """Which files are not the same here, in words."""
    local = source_files(here)
    names = sorted(name for name in bundle.sources if local.get(name) != bundle.sources[name])
    return f"{', '.join(names) or 'files it imports'} differ; verify where they are the same"


def plan(bundle: Bundle) -> tuple[dict[str, RunSpec], list[str]]:
    """The runs that the bundle's rows are of, by run id, and a note for each task that is another version here.

    Raises
    ------
    BadBundle : a row states something else than its run is, or nothing can be verified here.
    """
    specs: dict[str, RunSpec] = {}
    notes: list[str] = []
    tier = bundle.manifest["tier"]
    for task, stated in sorted(bundle.manifest["tasks"].items()):
        info = registry().find_task(task)
        if info is None or tier not in info.tiers:
            notes.append(f"{task} is not known here at tier {tier}")
        elif task_hash(info, tier) != stated["hash"]:
            notes.append(f"{task} is another version here ({info.version}, the rows are of {stated['version']})")
        else:
            for row in rows_of(bundle, task):
                specs[row["run_id"]] = _spec(row)
    if not specs:
        raise BadBundle("no task of it is the same here: " + "; ".join(notes))
    return specs, notes


def rows_of(bundle: Bundle, task: str) -> list[dict[str, Any]]:
    """The rows of the method and of the reference on one task."""
    rows = [*bundle.rows.to_pylist(), *bundle.reference.to_pylist()]
    return [row for row in rows if row["task"] == task]


def _spec(row: Row) -> RunSpec:
    name = f"run {str(row['run_id'])[:40]!r}"
    try:
        device = str(json.loads(row["environment"])["device"])
        spec = RunSpec(row["task"], row["method"], row["tier"], row["seed"], device=device)
        wanted = facts_of(spec)
    except (ValueError, TypeError, KeyError, LookupError, RecursionError, RegistryError) as error:
        raise BadBundle(f"{name} cannot be one: {error}") from None
    for column, value in wanted.items():
        if row[column] != value:
            raise BadBundle(f"{name} states {column} = {str(row[column])[:80]!r}; this run has {value!r}")
    score = row["score"]
    if row["status"] == "ok" and (score is None or not math.isfinite(score)):
        raise BadBundle(f"{name} is ok and has no score")
    if problem := disagreement(row, spec.info.tiers[spec.tier].evals):
        raise BadBundle(f"{name} {problem}")
    return spec


def disagreement(row: Row, evals: int) -> str:
    """How a row's own numbers disagree, as those of no run do; "" when they agree.

    Parameters
    ----------
    evals : evaluations of its curve after the one at the start.
    """
    curve: list[dict[str, Any]] = row["curve"] or []
    if any(point is None or None in (point["spent"], point["steps"], point["examples"]) for point in curve):
        return "has a curve with empty points"
    if row["digest"] != curve_digest(curve, row["score"]):
        return "states a digest that is not of its curve and its score"
    if row["status"] != "ok":
        return ""
    if dict(row["metrics"] or ()).get(row["metric"]) != row["score"]:
        return "states two scores: one alone, another among its metrics"
    marks = [row["budget"] * i / evals for i in range(evals + 1)]
    on_time = len(curve) <= len(marks) and all(p["spent"] >= m for p, m in zip(curve, marks, strict=False))
    if not curve or not on_time or curve[-1]["spent"] < row["budget"]:
        return f"has a curve that is not of {evals} evaluations over its budget"
    ends = ("spent", "steps", "examples")
    return "" if all(curve[-1][k] == row[k] for k in ends) else "ends elsewhere than its curve"


def draw(specs: Mapping[str, RunSpec], every_task: bool, dice: random.Random) -> list[tuple[str, list[int]]]:
    """Tasks to run again, one or every, each with its seeds in random order."""
    seeds: dict[str, set[int]] = {}
    for spec in specs.values():
        if spec.method != REFERENCE:
            seeds.setdefault(spec.task, set()).add(spec.seed)
    tasks = sorted(seeds) if every_task else [dice.choice(sorted(seeds))]
    return [(task, dice.sample(sorted(seeds[task]), len(seeds[task]))) for task in tasks]


# ---------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class Rerun:
    """A run of the bundle and the same run made here."""

    stored: Row
    fresh: Row

    @property
    def same(self) -> bool:
        """Equal to the last bit; ends other than a score are equal when they are of one kind."""
        stored, fresh = self.stored, self.fresh
        return stored["status"] == fresh["status"] and (stored["status"] != "ok" or stored["digest"] == fresh["digest"])

    @property
    def misstated(self) -> str:
        """What a finished run states that the same run here, equal to the last bit, has otherwise; "" for nothing."""
        stored, fresh = self.stored, self.fresh
        if not self.same or stored["status"] != "ok":
            return ""
        for name in COUNTS:
            if stored[name] != fresh[name]:
                return f"{name} = {stored[name]}; this run has {fresh[name]}"
        for name in ("metrics", "val_metrics"):
            if not _alike(dict(stored[name] or ()), dict(fresh[name] or ())):
                return f"other {name} than this run has"
        places = [[[p[k] for k in ("spent", "steps", "examples")] for p in row["curve"]] for row in (stored, fresh)]
        return "" if places[0] == places[1] else "a curve whose evaluations are elsewhere"


def _alike(stated: Mapping[str, float], found: Mapping[str, float]) -> bool:
    """Whether metrics are the same to single precision, which is what a digest covers."""
    same = stated.keys() == found.keys() and not any(v is None for v in stated.values())
    return same and np.allclose([*stated.values()], [found[name] for name in stated], 1e-5, 1e-9, True)


@dataclass(frozen=True)
class Verification:
    """What running a part of a bundle again has shown.

    Attributes
    ----------
    verdict : "reproduced", "not reproduced" or "inconclusive".
    rule : what decided it, in words.
    effect, low, high : mean difference rerun minus stored with its 90% interval, signed so that
        + is worse than stated; NaN where no scores were compared.
    margin : what the interval was held against.
    reruns : the runs behind it.
    """

    verdict: str
    rule: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    margin: float = math.nan
    reruns: Sequence[Rerun] = field(default_factory=tuple)


def judge(info: TaskInfo, tier: str, reruns: Sequence[Rerun], spread: float = math.nan) -> Verification:
    """Hold runs made here against the bundle's, of one method on one task.

    Equal digests settle it where the counts and metrics beside them are those
    of the run too: bit for bit, nobody wrote these rows by hand. Else the
    paired differences are held against `MARGIN` seed standard deviations by
    two one-sided tests: a claim that is off by so much passes in at most 5%
    of cases.

    Parameters
    ----------
    spread : seed standard deviation where the task states none.
    """
    made = tuple(reruns)
    for rerun in made:
        if wrong := rerun.misstated:
            rule = f"seed {rerun.stored['seed']}, bit-identical, states {wrong}"
            return Verification(NOT_REPRODUCED, rule, reruns=made)
    if all(rerun.same for rerun in made):
        return Verification(REPRODUCED, f"{_count(made)} bit-identical", reruns=made)
    for rerun in made:
        stored, fresh = rerun.stored["status"], rerun.fresh["status"]
        if stored != fresh:
            verdict = INCONCLUSIVE if {stored, fresh} & set(_ELSEWHERE) else NOT_REPRODUCED
            told = f"seed {rerun.stored['seed']} is stated {stored} and ends as {fresh} here: {rerun.fresh['message']}"
            return Verification(verdict, told[:400], reruns=made)
    noise = info.noise.get(tier)
    sd = noise.margin if noise else spread
    if not sd > 0:
        return Verification(INCONCLUSIVE, "not bit-identical, and the task's noise is not known", reruns=made)
    d = [info.metric.sign * (r.fresh["score"] - r.stored["score"]) for r in made if r.stored["status"] == "ok"]
    return _equivalence(np.array(d), sd, made)


def _equivalence(d: np.ndarray, sd: float, made: tuple[Rerun, ...]) -> Verification:
    margin = MARGIN * sd
    if len(d) > 1:
        found = tost(d, margin)
        mean, low, high = found.difference, found.low, found.high
    else:  # one pair says nothing of its spread: at most that of two independent seeds
        mean, half = float(d.mean()), float(ndtri(0.95)) * math.sqrt(2.0) * sd
        low, high = mean - half, mean + half
    verdict = INCONCLUSIVE
    if -margin < low and high < margin:
        verdict = REPRODUCED
    elif low > margin or high < -margin:
        verdict = NOT_REPRODUCED
    within = {REPRODUCED: "inside", NOT_REPRODUCED: "outside", INCONCLUSIVE: "across"}[verdict]
    rule = f"{_count(made)}, not bit-identical: off by {mean:.3g} [{low:.3g}, {high:.3g}], {within} +-{margin:.3g}"
    if verdict == NOT_REPRODUCED and mean < 0:
        rule += " (better than stated)"
    return Verification(verdict, rule, mean, low, high, margin, made)


def _count(made: Sequence[Rerun]) -> str:
    return f"{len(made)} run{'s' if len(made) > 1 else ''}"


def settled(found: Sequence[Verification]) -> str:
    """The verdict on several methods and tasks: the worst of them."""
    verdicts = {v.verdict for v in found}
    return next(v for v in (NOT_REPRODUCED, INCONCLUSIVE, REPRODUCED) if v in verdicts)


def spread_of(rows: Sequence[Row]) -> float:
    """Seed standard deviation of finished rows; NaN for fewer than three."""
    scores = [row["score"] for row in rows if row["status"] == "ok"]
    return float(np.std(scores, ddof=1)) if len(scores) > 2 else math.nan
