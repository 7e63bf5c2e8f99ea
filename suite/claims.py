"""The claims ledger: what papers say, and what the suite's runs say to it.

``baselines/claims.toml`` holds one table a claim. A claim that tasks of this
suite can test states a comparison, the others the reason why not::

    [mish-vs-relu]
    paper = "Mish: A Self Regularized Non-Monotonic Activation Function"
    arxiv = "1908.08681"
    statement = "Mish beats ReLU"
    published = "about +1 % top-1 (ResNet-50 on ImageNet)"
    a = "mish"                  # a method, "a+b", "reference", or {method = "gce", tau = 2.0}
    b = "relu"
    tasks = ["shapes-cnn", "shapes-vit"]
    tier = "quick"              # the default
    metric = "accuracy"         # default: each task's primary one
    direction = "A better"      # or "B better", "equal", "A no worse"

An id with a slash (``mish-vs-relu/leaky-relu``) is a further comparison of the
same claim. Verdicts come from `suite.stats.claim_table`, which states the rules.
"""

from __future__ import annotations

import difflib
import functools
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from suite.facts import Metric, Noise, Paper
from suite.plain import canonical, read_json
from suite.recipe import REFERENCE, recipe_for
from suite.registry import Method, RegistryError, TaskInfo, registry

if TYPE_CHECKING:
    import pyarrow as pa

    from suite.stats import Board
    from suite.stats.claims import ClaimVerdict, Kind

LEDGER = "claims.toml"
DIRECTIONS = ("A better", "B better", "equal", "A no worse")
# metrics beside the tasks' primary ones that a claim may be about, and the families that state them
METRICS: dict[str, tuple[Metric, tuple[str, ...]]] = {
    "accuracy": (Metric("accuracy", "share", "max"), ("vision", "language")),
    "pass@4": (Metric("pass@4", "share", "max"), ("rlvr",)),
    "pass@16": (Metric("pass@16", "share", "max"), ("rlvr",)),
    "entropy": (Metric("entropy", "nats", "min"), ("rlvr",)),  # of the policy: claims predict of it that it falls
}
_COMPARISON = ("a", "b", "tasks", "tier", "metric", "direction")
_TEXTS = ("paper", "arxiv", "statement", "published", "tier", "metric", "direction", "reason")
FALSE_DISCOVERIES = 0.05  # share of the verdicts that name a better side, over a whole ledger
_NO_RUNS = "no runs of both sides yet"


class ClaimError(ValueError):
    """A claim that is not stated as it should be; the message names it and says what to do."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes
    ----------
    method : registered name, names joined by '+', or ``"reference"``.
    hp : hyper-parameters that the claim sets; the rest are the method's defaults.
    """

    method: str
    hp: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``gce (tau = 2.0)``."""
        return self.method + (f" ({', '.join(f'{k} = {v}' for k, v in self.hp.items())})" if self.hp else "")

    @property
    def entries(self) -> list[Method]:
        """The registered methods it consists of: none for the reference."""
        return [] if self.method == REFERENCE else [registry().method(name) for name in self.method.split("+")]


@dataclass(frozen=True)
class Claim:
    """A paper's statement and how it is tested here.

    Attributes
    ----------
    id : the catalogue's name of the claim, with ``/variant`` for a further comparison of it.
    paper : where it is stated.
    statement, published : what is claimed, and the effect that the paper reports, as text.
    a, b : the two sides; None where it is not tested.
    tasks : where it is tested, those with embedded data first.
    tier : size of those tasks.
    metric : a key of `METRICS`, or "" for each task's primary metric.
    direction : one of `DIRECTIONS`.
    reason : why no task tests it; "" where some do.
    """

    id: str
    paper: Paper
    statement: str
    published: str = ""
    a: Arm | None = None
    b: Arm | None = None
    tasks: tuple[str, ...] = ()
    tier: str = "quick"
    metric: str = ""
    direction: str = ""
    reason: str = ""

    @property
    def arms(self) -> dict[str, Arm]:
        """The sides that are compared, "A" and "B"."""
        return {name: arm for name, arm in (("A", self.a), ("B", self.b)) if arm is not None}

    @property
    def methods(self) -> set[str]:
        """Names of the methods on either side, combinations by their parts."""
        return {part for arm in self.arms.values() for part in arm.method.split("+")}

    @property
    def ordered(self) -> bool:
        """Whether one side is predicted to be better than the other."""
        return self.direction.endswith("better")

    def measured(self, task: str) -> Metric:
        """The metric that is compared on a task."""
        return METRICS[self.metric][0] if self.metric else registry().task(task).metric

    @property
    def prediction(self) -> str:
        """The predicted order of the two sides, in words."""
        a, b = (arm.label for arm in self.arms.values())
        words = {"A better": f"{a} better than {b}", "B better": f"{b} better than {a}"}
        return words.get(self.direction) or (
            f"{a} equal to {b}" if self.direction == "equal" else f"{a} no worse than {b}"
        )


# ---------------------------------------------------------------- reading


@functools.cache
def ledger() -> tuple[Claim, ...]:
    """The project's claims, ``baselines/claims.toml``, in its order.

    Raises
    ------
    ClaimError : see `parse`.
    """
    return parse(resources.files("baselines").joinpath(LEDGER).read_text(encoding="utf-8"))


def read_ledger(path: Path | None = None) -> tuple[Claim, ...]:
    """The claims of a file of the same form; the project's own without one.

    Raises
    ------
    ClaimError : see `parse`. OSError : the file cannot be read.
    """
    if path is None:
        return ledger()
    try:
        return parse(path.read_text(encoding="utf-8"), path.name)
    except UnicodeDecodeError as error:
        raise ClaimError(f"{path.name}: not UTF-8: {error}") from None


def parse(text: str, source: str = LEDGER) -> tuple[Claim, ...]:
    """Claims of a ledger's text, checked against the registry.

    Raises
    ------
    ClaimError : not TOML, a field is missing, unknown or of another type, a
        method or task is not registered, a method does not fit a task or has no
        such hyper-parameter, or a task lacks the tier or the metric.
    """
    try:
        stated = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClaimError(f"{source}: not TOML: {error}") from None
    found = []
    for name, facts in stated.items():
        try:
            found.append(_claim(name, facts))
        except (ClaimError, RegistryError) as error:
            raise ClaimError(f"{source}: [{name}]: {error}") from None
    return tuple(found)


def _claim(name: str, facts: Any) -> Claim:
    if not isinstance(facts, dict):
        raise ClaimError("is not a table; write [id] above its fields")
    known = set(_TEXTS) | set(_COMPARISON)
    if unknown := sorted(set(facts) - known):
        raise ClaimError(
            f"unknown field {unknown[0]!r}{_near(unknown[0], known)}; there are {', '.join(sorted(known))}"
        )
    for key in (k for k in _TEXTS if k in facts):
        if not isinstance(facts[key], str):
            raise ClaimError(f"{key} takes a text, got {facts[key]!r}")
    for key in ("paper", "statement"):
        if not facts.get(key):
            raise ClaimError(f"states no {key}")
    paper = Paper(facts["paper"], arxiv=facts.get("arxiv", ""))
    texts = {"statement": facts["statement"], "published": facts.get("published", "")}
    if "reason" in facts:
        if more := [key for key in _COMPARISON if key in facts]:
            raise ClaimError(f"gives a reason why it is not tested and a comparison ({', '.join(more)}): leave one out")
        return Claim(name, paper, **texts, reason=facts["reason"])
    if missing := [key for key in ("a", "b", "tasks", "direction") if key not in facts]:
        raise ClaimError(f"states no {missing[0]}; a claim that is not tested gives a reason")
    if facts["direction"] not in DIRECTIONS:
        raise ClaimError(f"direction is one of {', '.join(DIRECTIONS)}, got {facts['direction']!r}")
    arms = {key: _arm(key, facts[key]) for key in ("a", "b")}
    if arms["a"] == arms["b"]:
        raise ClaimError("a and b are the same")
    metric, tier = facts.get("metric", ""), facts.get("tier", "quick")
    tasks = _tasks(facts["tasks"], list(arms.values()), tier, metric)
    sides = Claim(name, paper, **texts, a=arms["a"], b=arms["b"], direction=facts["direction"])
    return replace(sides, tasks=tasks, tier=tier, metric=metric)


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _arm(key: str, stated: Any) -> Arm:
    facts = {"method": stated} if isinstance(stated, str) else stated
    if not isinstance(facts, dict) or not isinstance(facts.get("method"), str):
        raise ClaimError(f"{key} takes a method's name or {{method = name, setting = value}}, got {stated!r}")
    hp = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items() if k != "method"}
    arm = Arm(facts["method"], hp)
    known = {k for entry in arm.entries for k in entry.defaults}
    if odd := sorted(set(hp) - known):
        raise ClaimError(
            f"{key}: {arm.method} has no hyper-parameter {odd[0]!r}{_near(odd[0], known)}; see `levelfield show`"
        )
    return arm


def _tasks(stated: Any, arms: Sequence[Arm], tier: str, metric: str) -> tuple[str, ...]:
    if not isinstance(stated, list) or not stated or not all(isinstance(t, str) for t in stated):
        raise ClaimError(f"tasks takes a list of names, got {stated!r}")
    if len(set(stated)) < len(stated):
        raise ClaimError("names a task twice")
    if metric and metric not in METRICS:
        raise ClaimError(f"metric is one of {', '.join(METRICS)}, or left out for the primary one; got {metric!r}")
    for name in stated:
        info = registry().task(name)
        if tier not in info.tiers:
            raise ClaimError(f"task {name} has no tier {tier!r}; it has {', '.join(info.tiers)}")
        if metric and info.family not in METRICS[metric][1]:
            raise ClaimError(f"task {name} ({info.family}) has no metric {metric!r}")
        for entry in (e for arm in arms for e in arm.entries):
            if not entry.fits(info):
                raise ClaimError(
                    f"{entry.name} ({entry.slot}) does not fit {name}; see `levelfield methods --task {name}`"
                )
        for arm in arms:
            try:
                recipe_for(info, arm.method, arm.hp)
            except ValueError as error:
                raise ClaimError(str(error)) from None
    return tuple(stated)


def select(claims: Sequence[Claim], ids: Sequence[str]) -> list[Claim]:
    """The claims of these ids, each with its variants; all where none are named.

    Raises
    ------
    ClaimError : no claim has one of the ids.
    """
    for name in ids:
        if not any(_is(claim, name) for claim in claims):
            raise ClaimError(f"no claim {name!r}{_near(name, [c.id for c in claims])}")
    return [c for c in claims if not ids or any(_is(c, name) for name in ids)]


def _is(claim: Claim, name: str) -> bool:
    return name in (claim.id, claim.id.partition("/")[0])


# ---------------------------------------------------------------- judging


@dataclass(frozen=True)
class TaskVerdict:
    """Verdict on one task; numbers in the metric's unit, signed so that + is better for A.

    Attributes
    ----------
    word : holds, does not separate, opposite or not tested.
    difference, low, high : mean of A - B over n pairs of seeds, with its interval.
    p : corrected for the claim's tasks (see `suite.stats.claim_table`).
    detectable : what these pairs could have shown.
    margin : largest difference that counts as none, where the claim needs one; else nan.
    failed : failed runs of A and of B.
    idle : whether no run of either side does better than chance, by more than a seed standard deviation: that
        they come out alike says nothing, so that a claim of "equal" or "no worse" cannot hold on it. Sides whose
        learning curves are the same to the last bit train alike even there.
    """

    task: str
    word: ClaimVerdict
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    p: float = math.nan
    detectable: float = math.inf
    margin: float = math.nan
    failed: tuple[int, int] = (0, 0)
    idle: bool = False


@dataclass(frozen=True)
class ClaimRun:
    """A run behind a verdict: side "A" or "B", score on the claim's metric (nan when failed).

    `learned` says whether its score on the task's own metric is better than chance, by more than a seed
    standard deviation; `digest` is that of its learning curve.
    """

    side: str
    task: str
    seed: int
    run_id: str
    status: str
    score: float
    learned: bool = True
    digest: str = ""


@dataclass(frozen=True)
class Judged:
    """A claim with what the runs say to it.

    Attributes
    ----------
    total : verdict on all tasks together; its differences are in seed standard deviations, n counts tasks.
    tasks : verdict on each of the claim's tasks.
    runs : the runs behind them.
    why : why it is not tested; "" where it is.
    q : where one side is predicted to be better: the lowest false discovery rate, over all such comparisons
        judged together, at which the sides separate; nan elsewhere.
    """

    claim: Claim
    total: TaskVerdict
    tasks: tuple[TaskVerdict, ...] = ()
    runs: tuple[ClaimRun, ...] = ()
    why: str = ""
    q: float = math.nan

    @property
    def word(self) -> ClaimVerdict:
        return self.total.word

    @property
    def alone(self) -> bool:
        """Whether its sides separate by themselves, but not among all the comparisons judged with it."""
        return self.word in ("holds", "opposite") and self.q > FALSE_DISCOVERIES

    @property
    def unlearned(self) -> list[str]:
        """Tasks on which no run of either side beats chance: whoever is ahead there is so among what learned nothing.

        Of a claim on a metric of its own (seconds, bytes) none: that is measured all the same.
        """
        learned = {r.task for r in self.runs if r.learned}
        tested = [t.task for t in self.tasks if t.word != "not tested"]
        return [] if self.claim.metric else [task for task in tested if task not in learned]


def judge(claims: Iterable[Claim], table: pa.Table) -> list[Judged]:
    """Verdicts on claims from result rows.

    Of a task or method whose code changed, the latest code's rows count, as on
    the board; of a seed that ran twice, the latest run. Where a side trains with
    the recipe of another name (GELU on a task whose reference has GELU), that
    name's rows stand in for seeds it did not run itself. Rows that are only
    self-reported do not count.

    Parameters
    ----------
    table : rows in the current schema (`suite.store.files.Read.table`).
    """
    from suite.stats.ranks import benjamini_hochberg

    wanted = list(claims)
    rows = _Rows(wanted, table)
    found = [_judged(claim, rows) for claim in wanted]
    several = [i for i, j in enumerate(found) if j.claim.ordered and math.isfinite(j.total.p)]
    for i, q in zip(several, benjamini_hochberg([found[i].total.p for i in several]), strict=True):
        found[i] = replace(found[i], q=float(q))
    return found


def ledger_words(judged: Iterable[Judged]) -> str:
    """How many of the verdicts that name a better side stand among all such comparisons; "" where none does."""
    ordered = [j for j in judged if not math.isnan(j.q)]
    named = [j for j in ordered if j.word in ("holds", "opposite")]
    if not named:
        return ""
    stand = sum(not j.alone for j in named)
    return (
        f"{stand} of the {len(named)} that find a better side stand at a false discovery rate of "
        f"{FALSE_DISCOVERIES:.0%} over all {len(ordered)} comparisons that look for one"
    )


def _judged(claim: Claim, stored: _Rows) -> Judged:
    from suite.stats.claims import ALL, claim_rows

    if claim.reason:
        return Judged(claim, TaskVerdict(ALL, "not tested"), why=claim.reason)
    runs = [
        run for task in claim.tasks for side, arm in claim.arms.items() for run in stored.of(claim, task, side, arm)
    ]
    there = {task for task in claim.tasks if {r.side for r in runs if r.task == task} == {"A", "B"}}
    absent = {task: TaskVerdict(task, "not tested") for task in claim.tasks}
    if not there:
        return Judged(claim, TaskVerdict(ALL, "not tested"), tuple(absent.values()), tuple(runs), _NO_RUNS)
    kinds: dict[str, Kind] = {"equal": "equal", "A no worse": "no worse"}
    first, second = ("B", "A") if claim.direction == "B better" else ("A", "B")
    board = _board(claim, [r for r in runs if r.task in there])
    kind = kinds.get(claim.direction, "better")
    noise = _noise(claim)
    margins = {task: n.margin for task, n in noise.items()} if kind != "better" else None
    floors = {task: n.floor for task, n in noise.items()}
    rows = claim_rows(board, first, second, kind=kind, margins=margins, floors=floors)
    found = {row["task"]: _task_verdict(row, first) for row in rows}
    if kind != "better":
        found |= _idle(found, runs)
    why = "fewer than two pairs of seeds" if found[ALL].word == "not tested" else ""
    return Judged(claim, found[ALL], tuple((absent | found)[t] for t in claim.tasks), tuple(runs), why)


def _idle(found: Mapping[str, TaskVerdict], runs: Sequence[ClaimRun]) -> dict[str, TaskVerdict]:
    """Verdicts on the tasks on which nothing was learned, and on all with one of them: none of these holds."""
    from suite.stats.claims import ALL

    learned = {r.task for r in runs if r.learned}
    idle = [task for task in found if task not in learned | {ALL} and not _same_curves(runs, task)]
    return {
        task: replace(v, idle=True, word="does not separate" if v.word == "holds" else v.word)
        for task, v in found.items()
        if idle and task in {*idle, ALL}
    }


def _same_curves(runs: Sequence[ClaimRun], task: str) -> bool:
    """Whether both sides have finished runs of the same seeds, with curves that are equal to the last bit."""
    a, b = ({r.seed: r.digest for r in runs if (r.task, r.side) == (task, side)} for side in "AB")
    return a == b and all(r.status == "ok" and r.digest for r in runs if r.task == task)


def _learned(task: TaskInfo, tier: str, score: float) -> bool:
    """Whether a run's score on the task's metric is better than chance, by more than a seed standard deviation."""
    chance, noise = task.metric.chance, task.noise.get(tier)
    if chance is None:
        return math.isfinite(score)
    gain = chance - score if task.metric.direction == "min" else score - chance
    return gain > (noise.margin if noise else 0.0)


def _task_verdict(row: Mapping[str, Any], first: str) -> TaskVerdict:
    """A row of the claim's table, turned back to A - B where it was B - A."""
    difference, low, high = row["difference"], row["low"], row["high"]
    failed = row["failed_a"], row["failed_b"]
    if first == "B":
        difference, low, high, failed = -difference, -high, -low, failed[::-1]
    rest = row["n"], row["p"], row["detectable"], row["margin"], failed
    return TaskVerdict(row["task"], row["verdict"], difference, low, high, *rest)


def _board(claim: Claim, runs: Sequence[ClaimRun]) -> Board:
    """Runs as `suite.stats` takes them, the sides as methods."""
    import numpy as np

    from suite.stats import Board, Cells

    tasks, seeds = sorted({r.task for r in runs}), sorted({r.seed for r in runs})
    utility = np.full((2, len(tasks), len(seeds)), np.nan)
    failed = np.zeros(utility.shape, dtype=bool)
    for r in runs:
        place = "AB".index(r.side), tasks.index(r.task), seeds.index(r.seed)
        sign = 1.0 if claim.measured(r.task).direction == "max" else -1.0
        utility[place], failed[place] = sign * r.score, r.status != "ok"
    return Board(Cells(("A", "B"), tuple(tasks), ("",) * len(tasks), np.array(seeds), utility, failed))


def _noise(claim: Claim) -> dict[str, Noise]:
    """Noise of each task of a claim, where it was measured for the claim's metric."""
    found = {task: registry().task(task).noise.get(claim.tier) for task in claim.tasks if not claim.metric}
    return {task: n for task, n in found.items() if n is not None}


class _Row(NamedTuple):
    """What claims need of a result row: its place among the rows kept, oldest first, and columns of the table."""

    place: int
    run_id: str
    tier: str
    task: str
    task_hash: str
    method: str
    method_hash: str
    set_hp: str | None
    recipe: str | None
    budget: float
    seed: int
    status: str
    score: float | None
    digest: str | None


class _Rows:
    """The rows of a result table that claims may need, by what fixes an arm's cell."""

    def __init__(self, claims: Sequence[Claim], table: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        from suite.store.files import texts
        from suite.store.schema import SELF_REPORTED

        tested = [c for c in claims if c.arms]
        methods = sorted({arm.method for c in tested for arm in c.arms.values()})
        tasks = sorted({task for c in tested for task in c.tasks})
        plain = pc.and_(pc.equal(table["trial"], -1), pc.equal(table["budget_kind"], "steps"))
        plain = pc.and_(plain, pc.is_in(table["task"], value_set=_strings(tasks)))
        plain = pc.and_(plain, pc.not_equal(table["trust"].fill_null(""), SELF_REPORTED))
        rows = table.select([*_Row._fields[1:], "finished_at", "metrics"]).filter(plain)
        rows = rows.sort_by([("finished_at", "ascending"), ("run_id", "ascending")])
        places = zip(rows["tier"].to_pylist(), rows["task"].to_pylist(), strict=True)
        self.current = dict(zip(places, rows["task_hash"].to_pylist(), strict=True))
        arms = {(task, *arm_key(arm)): arm for c in tested for task in c.tasks for arm in c.arms.values()}
        self.recipes = {key: recipe_of(key[0], arm) for key, arm in arms.items()}
        wanted = set(self.recipes.values())
        stated = {
            text: canonical(found) for text in pc.unique(rows["recipe"]).to_pylist() if (found := read_json(text))
        }
        recipes = {text: recipe for text, recipe in stated.items() if recipe in wanted}
        mine = pc.or_(
            pc.is_in(rows["method"], value_set=_strings(methods)),
            pc.is_in(rows["recipe"], value_set=_strings(sorted(recipes))),
        )
        rows = rows.filter(mine)
        self.metrics = rows["metrics"].combine_chunks()
        self.cells: dict[tuple[str, str, str, str], list[_Row]] = {}
        self.names: dict[tuple[str, str, str], set[tuple[str, str]]] = {}  # (method, settings) of equal recipes
        settings = {
            text: canonical(hp) for text in pc.unique(rows["set_hp"]).to_pylist() if (hp := read_json(text)) is not None
        }
        columns = (
            texts(rows[name]) if pa.types.is_string(rows[name].type) else rows[name].to_pylist()
            for name in _Row._fields[1:]
        )
        for row in map(_Row, range(rows.num_rows), *columns):
            if row.set_hp in settings:
                name = row.method, settings[row.set_hp]
                self.cells.setdefault((row.tier, row.task, *name), []).append(row)
                if recipe := recipes.get(row.recipe):
                    self.names.setdefault((row.tier, row.task, recipe), set()).add(name)

    def of(self, claim: Claim, task: str, side: str, arm: Arm) -> list[ClaimRun]:
        """One run a seed of an arm on a task, by seed: its own, else the reference's or another's of its recipe."""
        own = arm_key(arm)
        same = self.names.get((claim.tier, task, self.recipes[task, *own]), set())
        runs: dict[int, ClaimRun] = {}
        for name in sorted({own} | same, key=lambda n: (n != own, n[0] != REFERENCE, n)):
            for run in self._latest(claim, task, side, name):
                runs.setdefault(run.seed, run)
        return [runs[seed] for seed in sorted(runs)]

    def _latest(self, claim: Claim, task: str, side: str, name: tuple[str, str]) -> list[ClaimRun]:
        """One run a seed of a method's latest code with these settings; those that were skipped left out."""
        info = registry().task(task)
        budget = info.tiers[claim.tier].budget
        found = [
            row
            for row in self.cells.get((claim.tier, task, *name), [])
            if row.task_hash == self.current[claim.tier, task] and row.budget == budget and row.status != "skipped"
        ]
        seeds = {row.seed: row for row in found if row.method_hash == found[-1].method_hash}
        runs = []
        for seed, row in seeds.items():
            stated = dict(self.metrics[row.place].as_py() or ()).get(claim.metric) if claim.metric else row.score
            score = math.nan if stated is None or row.status != "ok" else float(stated)
            if row.status != "ok" or math.isfinite(score):
                own = math.nan if row.score is None or row.status != "ok" else row.score
                learned = _learned(info, claim.tier, own)
                runs.append(ClaimRun(side, task, seed, row.run_id, row.status, score, learned, row.digest or ""))
        return runs


def _strings(values: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())


def recipe_of(task: str, arm: Arm) -> str:
    """What an arm trains with on a task, as one text: equal for two names of the same training."""
    return canonical(recipe_for(registry().task(task), arm.method, arm.hp).as_dict())


def arm_key(arm: Arm) -> tuple[str, str]:
    """An arm as result rows name it: method and settings."""
    return arm.method, canonical(arm.hp)
