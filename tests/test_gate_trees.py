"""Base and head as source trees and stored results: small trees, copied with the engine and edited."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

import suite
from suite.gate.compare import Gate
from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict
from suite.gate.report import Report
from suite.gate.sides import Cell, GateError, Stored, Tree, checkout, holds_suite
from suite.gate.stepping import Bench
from suite.registry import UnknownName

ENGINE = Path(suite.__file__).parent

# A task whose score is a seed's own noise of known sd, a little more of the code's own, and a shift.
NOISY = '''
from suite import Noise

SHIFT, OWN = 0.0, "base"


class Drawn(Line):
    def predict(self):
        def draw(*scope):
            return float(torch.randn((), generator=self.context.generator(*scope)))
        return {"y": np.array([5.0 + draw("noise") + 0.2 * draw("own", OWN) + SHIFT])}


@define_task("noisy", family="vision", version=1, metric=Metric("error", "units", "min", floor=0.0), slots=SLOTS,
             recipe=RECIPE, tiers={"smoke": Tier(1, evals=1, limit=90.0)}, noise={"smoke": Noise(1.0, floor=0.1, n=5)})
class Noisy(Toy):
    """Scores noise."""

    def workload(self, context):
        return Drawn(context)

    def score(self, predictions, answers):
        return {"error": float(predictions["y"][0])}
'''


@pytest.fixture
def tree(tmp_path: Path, toy_file: Path) -> Callable[..., Path]:
    """Make a source tree of the engine and the toys, its text edited by (old, new) pairs."""

    def make(name: str, *edits: tuple[str, str]) -> Path:
        root = tmp_path / name
        shutil.copytree(ENGINE, root / "suite", ignore=shutil.ignore_patterns("__pycache__"))
        for package in ("tasks", "baselines"):
            (root / package).mkdir()
            (root / package / "__init__.py").touch()
        text = toy_file.read_text() + NOISY
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        (root / "tasks" / "toy.py").write_text(text)
        return root

    return make


@pytest.fixture
def sides(tmp_path: Path) -> Callable[[Path, Path], tuple[Tree, Tree]]:
    return lambda a, b: (Tree(a, tmp_path / "runs-a", "base"), Tree(b, tmp_path / "runs-b", "head"))


def found(report: Report) -> dict[tuple[str, str, str], Verdict]:
    return {(v.task, v.method, v.question): v for v in report.verdicts}


MORE = ("return x + 0.0\n", "return (x + 0.0) * torch.ones_like(x) + 0.0\n")
WORSE = ('SHIFT, OWN = 0.0, "base"', 'SHIFT, OWN = 3.0, "head"')
RENAMED = ('@activation("toy-nan")', '@activation("toy-nan-again")')


@pytest.mark.slow
def test_each_side_is_run_by_its_own_code_and_each_regression_is_found(
    tree: Callable[..., Path], sides: Callable[[Path, Path], tuple[Tree, Tree]]
) -> None:
    base, head = sides(tree("one"), tree("two", MORE, WORSE, RENAMED))
    report = Gate(base, head, cost=0.0).report(["toy-long", "noisy"], ["toy-more", "toy-nan", "toy-raises"], "smoke")
    verdicts = found(report)
    assert report.verdict == FAIL
    # an unchanged cell
    assert verdicts["toy-long", "reference", "quality"].rule == "T0: 2 curves bit-identical"
    assert verdicts["toy-long", "reference", "elements"].effect == 0.0
    # a quality drop of three seed deviations, confirmed on five other seeds
    drop = verdicts["noisy", "reference", "quality"]
    assert drop.verdict == FAIL
    assert "T2: 5 pairs" in drop.rule
    assert drop.effect == pytest.approx(3.0, abs=0.6)
    assert drop.margin == 1.0
    # an extra elementwise pass that keeps another tensor
    assert verdicts["toy-long", "toy-more", "elements"].verdict == FAIL
    assert verdicts["toy-long", "toy-more", "quality"].verdict == PASS
    # a renamed method, and one that fails on both sides alike
    gone = verdicts["toy-long", "toy-nan", "presence"]
    assert gone.verdict == FAIL
    assert "new there: toy-nan-again" in gone.rule
    assert verdicts["toy-long", "toy-raises", "failures"].verdict == PASS
    assert ("toy-long", "toy-raises", "elements") not in verdicts
    assert report.seconds > 0
    rates = report.rates
    assert 0 < rates["false_alarm"] < 0.01 < rates["power_2"] < rates["power_3"] < 1


def test_without_names_only_what_changed_is_run(
    tree: Callable[..., Path], sides: Callable[[Path, Path], tuple[Tree, Tree]]
) -> None:
    base, head = sides(tree("one"), tree("two"))
    shutil.copy(base.root / "tasks" / "toy.py", base.root / "baselines" / "_unused.txt")
    extra = "from suite import activation\nfrom torch import nn\n\n@activation('{}')\nclass A(nn.Identity):\n    '''{}'''\n    k = {}\n"
    for root, k in ((base.root, 1), (head.root, 2)):
        (root / "baselines" / "mine.py").write_text(extra.format("mine", "x.", k))
        (root / "baselines" / "prose.py").write_text(extra.format("prose", f"x, told {k} times.", 1))
    gate = Gate(base, head, cost=0.0)
    chosen = gate._choose(["toy-long"], [], "smoke", "cpu")
    assert {cell.method for cell in chosen} == {"reference", "mine"}
    assert gate.found == []


def test_a_name_that_neither_side_has_is_an_error_with_a_hint(
    tree: Callable[..., Path], sides: Callable[[Path, Path], tuple[Tree, Tree]]
) -> None:
    root = tree("one")
    with pytest.raises(UnknownName, match="neither base nor head has a method named 'toy-mor'; did you mean toy-more"):
        Gate(*sides(root, root)).report(["toy-long"], ["toy-mor"], "smoke")
    with pytest.raises(UnknownName, match="task named 'toi'"):
        Gate(*sides(root, root)).report(["toi"], [], "smoke")
    with pytest.raises(GateError, match="nothing to compare"):
        Gate(*sides(root, root)).report(["toy-long"], [], "full")


def test_a_tree_that_cannot_be_run_is_named_with_its_error(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree("one")
    (root / "suite" / "registry.py").write_text("this is no Python\n")
    with pytest.raises(GateError, match=r"(?s)^base .*one\) cannot be run.*SyntaxError"):
        Tree(root, tmp_path / "runs", "base").listing([], [], "smoke")
    elsewhere = tmp_path / "nothing"
    elsewhere.mkdir()
    with pytest.raises(GateError, match="its `suite` is"):
        Tree(elsewhere, tmp_path / "runs", "base").listing([], [], "smoke")


def test_a_tree_stands_alone_on_its_import_path(
    tree: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, plugins = tree("one"), tree("two"), tmp_path / "plugins"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (two, plugins))))
    assert Tree(one, tmp_path).environment["PYTHONPATH"] == f"{one}{os.pathsep}{plugins}"


@pytest.mark.slow
def test_steps_are_counted_and_timed_in_processes_of_both_trees(
    tree: Callable[..., Path], sides: Callable[[Path, Path], tuple[Tree, Tree]]
) -> None:
    base, head = sides(tree("one"), tree("two", MORE))
    spec = {"task": "toy-long", "method": "toy-more", "tier": "smoke", "seed": 0}
    with Bench(base, head) as bench:
        measured = bench.measure(spec, spec, seconds=0.05)
        assert measured.head["elementwise"] > measured.base["elementwise"] > 0
        assert measured.base["state_bytes"] == 0
        assert measured.timing is not None and measured.timing.pairs >= 10
        assert measured.timing.low <= measured.timing.value <= measured.timing.high
        with pytest.raises(GateError, match="base: ValueError: no line today"):
            bench.measure({**spec, "method": "toy-raises"}, spec, seconds=0.0)
    processes = [stepper.process for stepper in bench.steppers]
    assert all(process.poll() is not None for process in processes)
    with Bench(base, head, arm=False) as bench, pytest.raises(GateError, match="ended with code -9"):
        bench.measure({**spec, "method": "toy-killed"}, spec, seconds=0.0)


# ---------------------------------------------------------------- stored results


@pytest.fixture
def stored(tree: Callable[..., Path], tmp_path: Path) -> Callable[..., Stored]:
    """Rows of the reference on `noisy` at some seeds, as a base tree leaves them."""

    def make(seeds: int) -> Stored:
        side = Tree(tree("stored"), tmp_path / "stored-runs", "base")
        cell = Cell("smoke", "noisy", "reference", "{}", 1.0)
        side.rows({cell: list(range(seeds))})
        return Stored(suite.load_results(side.folder))

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "rule"), [(7, "T2: 2 pairs"), (5, "T2, unpaired: 5 runs")])
def test_stored_seeds_beyond_the_first_batch_confirm_it_and_fresh_ones_of_head_otherwise(
    stored: Callable[..., Stored], tree: Callable[..., Path], tmp_path: Path, seeds: int, rule: str
) -> None:
    base, head = stored(seeds), Tree(tree("two", WORSE), tmp_path / "runs-b")
    report = Gate(base, head, cost=0.0).report()
    verdict = found(report)["noisy", "reference", "quality"]
    assert rule in verdict.rule
    assert "T1: 5 pairs" in verdict.rule
    assert verdict.margin == 1.0  # the task's, from the tree that knows it
    assert (verdict.verdict, report.verdict) in ((FAIL, FAIL), (INCONCLUSIVE, INCONCLUSIVE))


def test_two_results_folders_are_compared_and_a_cell_that_one_lacks_fails(
    stored: Callable[..., Stored], tmp_path: Path, levelfield: Callable[..., tuple[int, str, str]]
) -> None:
    base = stored(3)
    code, out, _ = levelfield("gate", "--against", tmp_path / "stored-runs", "--head", tmp_path / "stored-runs")
    assert code == 0
    assert "T0: 2 curves bit-identical" in out
    code, _, err = levelfield("gate", "--against", tmp_path / "stored-runs", "--tasks", "noise")
    assert code == 2
    assert "did you mean noisy?" in err
    less = Stored(base.frame[base.frame["seed"] < 0], "head")
    report = Gate(base, less).report()
    assert found(report)["noisy", "reference", "presence"].verdict == FAIL


# ---------------------------------------------------------------- revisions


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def repository(tree: Callable[..., Path]) -> Path:
    """A tree in git: one commit, then an edit that is not committed."""
    root = tree("repository")
    git(root, "init", "--quiet")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "one")
    file = root / "tasks" / "toy.py"
    file.write_text(file.read_text().replace(*RENAMED))
    return root


def worktrees(root: Path) -> int:
    return git(root, "worktree", "list").count("\n")


def test_a_revision_is_checked_out_for_as_long_as_it_is_needed(repository: Path) -> None:
    with checkout(repository, "HEAD") as folder:
        assert holds_suite(folder)
        assert RENAMED[0] in (folder / "tasks" / "toy.py").read_text()
        assert worktrees(repository) == 2
    assert not folder.parent.exists()
    assert worktrees(repository) == 1
    with pytest.raises(KeyboardInterrupt), checkout(repository, "HEAD"):
        raise KeyboardInterrupt
    assert worktrees(repository) == 1
    for revision in ("no-such-branch", "--help"):
        with pytest.raises(GateError, match="no such revision"), checkout(repository, revision):
            pass


def command(root: Path, *words: str) -> subprocess.Popen[str]:
    """`levelfield gate` of a tree, in it; it heeds SIGINT even where the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "suite.cli.main", "gate", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_the_command_takes_a_revision_and_writes_every_form(repository: Path, tmp_path: Path) -> None:
    junit, summary = tmp_path / "out" / "gate.xml", tmp_path / "summary.md"
    words = ["--base", "HEAD", "--tasks", "toy-long", "--methods", "toy-nan", "--tier", "smoke", "--cost", "0"]
    process = command(repository, *words, "--json", "--junit", str(junit), "--summary", str(summary), "--annotations")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    cells = {(c["method"], c["question"]): c for c in json.loads(out)["cells"]}
    assert cells["toy-nan", "presence"]["verdict"] == FAIL
    assert cells["reference", "quality"]["verdict"] == PASS
    assert "::error title=levelfield gate%3A presence::toy-long, toy-nan" in err
    assert "levelfield gate: FAIL" in summary.read_text()
    assert ElementTree.parse(junit).find(".//failure") is not None
    assert worktrees(repository) == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_command_removes_what_it_checked_out(repository: Path, sent: signal.Signals) -> None:
    process = command(repository, "--base", "HEAD", "--tasks", "toy-slow", "--tier", "smoke", "--seeds", "2")
    assert process.stderr
    for line in process.stderr:
        if "runs" in line:
            break
    assert worktrees(repository) == 2
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert worktrees(repository) == 1


def test_one_of_base_and_against_is_asked_for(levelfield: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for words in ([], ["--base", "HEAD", "--against", str(tmp_path)]):
        code, _, err = levelfield("gate", *words)
        assert code == 2
        assert "--base" in err
    code, _, err = levelfield("gate", "--against", tmp_path)
    assert code == 2
    assert "nothing to compare" in err
