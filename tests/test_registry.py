"""The registry: entries are read from source text, every error names its place, nothing hides anything else."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import suite
from suite.facts import Metric, Noise, Paper, Tier
from suite.registry import Method, Registry, RegistryError, TaskInfo, UnknownName, scan
from suite.space import Choice, IntUniform, LogUniform

registry_module = importlib.import_module("suite.registry")  # `suite.registry` is the function

TASK = """
from suite import Metric, Noise, Tier, define_task

SLOTS = ("activation", "optimizer")
BASE = {"activation": "relu"}

@define_task("made-up", family="vision", version=2, metric=Metric("ce", "nats", "min"), slots=SLOTS + ("loss",),
             recipe={**BASE, "optimizer": ("sgd", {"lr": 10 ** -1 if False else 0.1})}, tiers={})
class MadeUp:
    pass
""".replace("10 ** -1 if False else 0.1", "0.2 / 2")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for entry files, and a registry cache of the test's own."""
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "entries"
    folder.mkdir()
    return folder


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    """Write a file whose modification time differs from that of any earlier text."""
    file = folder / name
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    if before:
        os.utime(file, ns=(before + 10**9, before + 10**9))
    return file


def only(file: Path) -> Method:
    (entry,) = scan(file)
    assert isinstance(entry, Method)
    return entry


# ---------------------------------------------------------------- facts


def test_facts_are_read_without_running_the_file(fresh: Path) -> None:
    file = write(
        fresh,
        """
raise RuntimeError("this file is never run")

from suite import IntUniform, LogUniform, Paper, optimizer

LR = 3e-4

@optimizer(
    "bold",
    paper=Paper("Being bold", arxiv="2401.00001", year=2024),
    defaults={"lr": LR, "betas": (0.9, 0.99), "k": -(-2), "on": True, "off": None},
    space={"lr": LogUniform(LR / 10, LR * 10), "k": IntUniform(1, 4)},
    families=("vision", "pde"), confidence="verified", passes=2, vmap=False,
)
class Bold:
    '''w <- w - lr g.

    More about it.
    '''
""",
    )
    entry = only(file)
    assert (entry.name, entry.slot, entry.attribute, entry.line) == ("bold", "optimizer", "Bold", 8)
    assert entry.summary == "w <- w - lr g."
    assert entry.paper == Paper("Being bold", arxiv="2401.00001", year=2024)
    assert entry.defaults == {"lr": 3e-4, "betas": (0.9, 0.99), "k": 2, "on": True, "off": None}
    assert entry.space["k"] == IntUniform(1, 4)
    assert (entry.families, entry.confidence, entry.passes, entry.vmap) == (("vision", "pde"), "verified", 2, False)
    registry = Registry((str(file),))
    assert registry.methods["bold"] == entry
    assert not registry.problems


def test_a_task_states_itself_with_the_constants_of_its_file(fresh: Path) -> None:
    (task,) = scan(write(fresh, TASK))
    assert isinstance(task, TaskInfo)
    assert task.slots == ("activation", "optimizer", "loss")
    assert task.recipe == {"activation": "relu", "optimizer": ("sgd", {"lr": 0.1})}
    assert task.metric == Metric("ce", "nats", "min")


def test_stacked_decorators_make_one_entry_each(fresh: Path) -> None:
    file = write(
        fresh,
        """
from torch import nn
from suite import Uniform, activation

@activation("leak-small", defaults={"slope": 0.01}, space={"slope": Uniform(0.0, 0.1)})
@activation("leak-large", defaults={"slope": 0.3})
class Leak(nn.LeakyReLU):
    '''max(x, slope x).'''
    def __init__(self, slope):
        super().__init__(slope)
""",
    )
    registry = Registry((str(file),))
    small, large = registry.methods["leak-small"], registry.methods["leak-large"]
    assert (small.attribute, large.attribute, small.line, large.line) == ("Leak", "Leak", 5, 6)
    assert small.make().negative_slope == 0.01
    assert large.make().negative_slope == 0.3
    assert large.make(slope=0.5).negative_slope == 0.5
    with pytest.raises(TypeError, match=r"leak-large has no hyper-parameter \['slop'\]; it has: slope"):
        large.make(slop=0.5)


def test_an_assignment_registers_an_existing_class_under_the_module_docstring(fresh: Path) -> None:
    from torch import nn

    file = write(
        fresh,
        '"""tanh(x)."""\nfrom torch import nn\nfrom suite import activation\nmy = activation("my-tanh")(nn.Tanh)\n',
    )
    entry = only(file)
    assert (entry.attribute, entry.doc, entry.line) == ("my", "tanh(x).", 4)
    assert entry.factory is nn.Tanh


def test_decorators_are_known_by_their_last_name(fresh: Path) -> None:
    file = write(fresh, 'import suite\n@suite.activation("dotted")\nclass D:\n    pass\n')
    assert only(file).name == "dotted"


def test_the_factory_is_what_the_file_registers_when_it_is_imported(fresh: Path) -> None:
    file = write(fresh, 'from suite import loss\n@loss("odd")\ndef odd(logits, targets): return 1\n')
    text = 'def loss(name): return lambda f: f\n@loss("never")\ndef never(logits, targets): return 1\n'
    other = write(fresh, text, "other.py")
    assert only(file).factory(None, None) == 1
    with pytest.raises(RegistryError, match=r"other\.py:2: importing the file did not register 'never'"):
        only(other).factory  # noqa: B018


# ---------------------------------------------------------------- errors name file and line

BAD = {
    "syntax": ("@activation('x')\nclass X(:\n    pass\n", 2, "invalid syntax|was never closed|expected"),
    "computed fact": ("@activation('x', defaults=dict(a=1))\nclass X: pass\n", 1, r"'dict\(a=1\)' is not a literal"),
    "computed name": ("\n@activation('x' + str(1))\nclass X: pass\n", 2, "is not a literal"),
    "unknown fact": ("@activation('x', famlies=1)\nclass X: pass\n", 1, r"unknown facts \['famlies'\]; .*families"),
    "fact of the engine": ("@activation('x', slot='loss')\nclass X: pass\n", 1, r"unknown facts \['slot'\]"),
    "no name": ("@activation()\nclass X: pass\n", 1, "takes the entry's name"),
    "upper case": ("@activation('GoLU')\nclass X: pass\n", 1, "a name is lower-case letters"),
    "space in name": ("@activation('go lu')\nclass X: pass\n", 1, "a name is lower-case letters"),
    "path in name": ("@activation('../x')\nclass X: pass\n", 1, "a name is lower-case letters"),
    "empty name": ("@activation('')\nclass X: pass\n", 1, "a name is lower-case letters"),
    "name is no text": ("@activation(3)\nclass X: pass\n", 1, "a name is lower-case letters"),
    "default outside space": (
        "@activation('x', defaults={'a': 2.0}, space={'a': Uniform(0.0, 1.0)})\nclass X: pass\n",
        1,
        r"the default of \['a'\] is missing or outside its space",
    ),
    "space without default": ("@activation('x', space={'a': Uniform(0, 1)})\nclass X: pass\n", 1, "missing or outside"),
    "space is no domain": ("@activation('x', space={'a': (0, 1)})\nclass X: pass\n", 1, "space takes"),
    "space is a number": ("@activation('x', space=3)\nclass X: pass\n", 1, "space takes"),
    "defaults are a list": ("@activation('x', defaults=['a'])\nclass X: pass\n", 1, "defaults takes"),
    "paper is text": ("@activation('x', paper='Title')\nclass X: pass\n", 1, "paper takes"),
    "unknown family": ("@activation('x', families=('music',))\nclass X: pass\n", 1, "families are vision, language"),
    "families are text": ("@activation('x', families='pde')\nclass X: pass\n", 1, "families takes tuple, got 'pde'"),
    "families are nothing": ("@activation('x', families=None)\nclass X: pass\n", 1, "families takes tuple, got None"),
    "empty interval": ("@activation('x', space={'a': LogUniform(1, 1)})\nclass X: pass\n", 1, "needs 0 < low < high"),
    "unknown fact of a fact": ("@activation('x', paper=Paper('t', doi='1'))\nclass X: pass\n", 1, "Paper: .*doi"),
    "bytes": ("@activation('x', defaults={'a': b'1'})\nclass X: pass\n", 1, "is not a literal"),
    "division by zero": ("@activation('x', defaults={'a': 1 / 0})\nclass X: pass\n", 1, "division by zero"),
    "adding unlike things": ("@activation('x', defaults={'a': 1 + 'b'})\nclass X: pass\n", 1, "unsupported operand"),
    "key that cannot be one": ("@activation('x', defaults={[]: 1})\nclass X: pass\n", 1, "unhashable"),
    "task without metric": ("@define_task('t', family='pde', version=1)\nclass T: pass\n", 1, "missing .*'metric'"),
    "metric is text": (TASK.replace('Metric("ce", "nats", "min")', '"ce"'), 7, "metric takes Metric, got 'ce'"),
    "tier is a number": (TASK.replace("tiers={}", "tiers={'smoke': 3}"), 7, "tiers takes Tier, got 3"),
    "direction": (TASK.replace('"min")', '"down")'), 7, "Metric: direction must be 'min' or 'max'"),
    "unknown slot": (TASK.replace('("loss",)', '("lost",)'), 7, r"unknown family or slots \['lost'\]"),
    "task family": (TASK.replace('"vision"', '"music"'), 7, "unknown family or slots"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_entry_is_refused_by_file_and_line(case: str, fresh: Path) -> None:
    text, line, message = BAD[case]
    file = write(fresh, text)
    with pytest.raises(RegistryError, match=rf"mine\.py:{line}: .*({message})"):
        scan(file)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_does_not_hide_the_others(case: str, fresh: Path) -> None:
    bad = write(fresh, BAD[case][0], "bad.py")
    good = write(fresh, 'from suite import activation\n@activation("good-one")\nclass G: pass\n', "good.py")
    registry = Registry((str(bad), str(good)))
    assert "good-one" in registry.methods
    assert "relu" in registry.methods
    assert [str(p).partition(":")[0] for p in registry.problems if str(fresh) in str(p)] == [str(bad)]
    with pytest.raises(UnknownName, match=r"no method named 'x'.*\nnot read: .*bad\.py"):
        registry.method("x")


@pytest.mark.parametrize(
    "content", [b"\x00\x01\x02", b"\xff\xfe bad", b"x = 1 / 0\ny = -'a'\nz = {**3}\n", b"# coding: nonsense\n"]
)
def test_no_content_of_a_file_ends_the_scan(content: bytes, fresh: Path) -> None:
    (fresh / "mine.py").write_bytes(content)
    registry = Registry((str(fresh / "mine.py"),))
    assert "relu" in registry.methods
    assert all("mine.py" in str(problem) for problem in registry.problems)


def test_ordinary_assignments_are_no_business_of_the_registry(fresh: Path) -> None:
    file = write(
        fresh, 'import os\nA = os.environ\nB = 1 / 0\nfrom suite import activation\n@activation("b")\nclass B: pass\n'
    )
    assert only(file).name == "b"


# ---------------------------------------------------------------- names


def test_an_unknown_name_is_met_with_the_nearest(fresh: Path) -> None:
    registry = Registry(())
    with pytest.raises(UnknownName, match=r"no method named 'golo'; did you mean .*golu"):
        registry.method("golo")
    with pytest.raises(UnknownName, match=r"no task named 'digit-cnn'; did you mean digits-cnn"):
        registry.task("digit-cnn")
    with pytest.raises(UnknownName, match=r"see `levelfield methods`"):
        registry.method("zzzzzzzzzz")


def test_a_name_taken_in_another_file_is_named_with_both_places(fresh: Path) -> None:
    file = write(fresh, 'from suite import activation\n\n@activation("relu")\nclass Mine: pass\n')
    registry = Registry((str(file),))
    (problem,) = [str(p) for p in registry.problems if "mine.py" in str(p)]
    relu = registry.methods["relu"]
    assert f"{file}:3: 'relu' is already registered at {relu.path}:{relu.line}" in problem
    assert relu.path != str(file)


def test_a_name_taken_in_the_same_file_is_named_with_both_places(fresh: Path) -> None:
    text = 'from suite import activation\n@activation("twice")\nclass A: pass\n@activation("twice")\nclass B: pass\n'
    file = write(fresh, text)
    registry = Registry((str(file),))
    assert [str(p) for p in registry.problems if "twice" in str(p)] == [
        f"{file}:4: 'twice' is already registered at {file}:2; choose another name"
    ]
    assert registry.methods["twice"].attribute == "A"


def test_a_file_given_twice_is_read_once(fresh: Path) -> None:
    file = write(fresh, 'from suite import activation\n@activation("once")\nclass A: pass\n')
    registry = Registry((str(file), os.path.relpath(file)))
    assert not [p for p in registry.problems if "once" in str(p)]
    assert registry.methods["once"].path == str(file)


def test_methods_are_listed_by_slot_then_name() -> None:
    found = [(list(suite.SLOTS).index(m.slot), m.name) for m in suite.methods()]
    assert found == sorted(found)
    assert {m.slot for m in suite.methods("loss")} == {"loss"}
    with pytest.raises(UnknownName, match="no slot named 'activations'; slots: activation,"):
        suite.methods("activations")


def test_the_decorators_of_the_public_interface_are_the_slots() -> None:
    for slot in suite.SLOTS:
        assert callable(getattr(suite, suite.SLOTS[slot].decorator)), slot


# ---------------------------------------------------------------- entry files and entry points


@pytest.fixture
def no_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVELFIELD_ENTRY", "")


@pytest.mark.usefixtures("no_entries")
def test_an_entry_file_that_is_missing_or_registers_nothing_is_refused(fresh: Path) -> None:
    with pytest.raises(RegistryError, match="no such file"):
        registry_module.add_entry_file(fresh / "none.py")
    with pytest.raises(RegistryError, match="registers nothing; decorate"):
        registry_module.add_entry_file(write(fresh, "x = 1\n"))
    assert os.environ["LEVELFIELD_ENTRY"] == ""


@pytest.mark.usefixtures("no_entries")
def test_an_entry_file_reaches_this_process_and_those_it_starts(fresh: Path) -> None:
    file = write(fresh, 'from suite import activation\n@activation("far")\nclass A: pass\n')
    registry_module.add_entry_file(file)
    registry_module.add_entry_file(file)
    assert suite.method("far").path == str(file)
    assert os.environ["LEVELFIELD_ENTRY"] == str(file)
    code = "import suite; print(suite.method('far').path)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(file)


@pytest.fixture
def installed(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Install a package of two modules whose metadata states an entry point; returns its folder."""

    def install(point: str) -> Path:
        package = fresh / "lf_plugin_package"
        package.mkdir()
        (package / "__init__.py").write_text("import nowhere_at_all\n" if "broken" in point else "")
        (package / "part.py").write_text("SLOPE = 0.25\n")
        (package / "acts.py").write_text(
            "from torch import nn\nfrom suite import activation\nfrom .part import SLOPE\n"
            "@activation('from-a-package')\nclass A(nn.LeakyReLU):\n    '''x or x / 4.'''\n"
            "    def __init__(self): super().__init__(SLOPE)\n"
        )
        info = fresh / "lf_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lf-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[levelfield.entries]\n{point}\n")
        monkeypatch.syspath_prepend(str(fresh))
        registry_module.packages.cache_clear()
        registry_module.package_roots.cache_clear()
        return package

    yield install
    for name in [n for n in sys.modules if n.partition(".")[0] == "lf_plugin_package"]:
        del sys.modules[name]
    registry_module.packages.cache_clear()
    registry_module.package_roots.cache_clear()


@pytest.mark.parametrize("value", ["lf_plugin_package", "lf_plugin_package.acts"])
def test_an_installed_package_registers_through_its_entry_point(value: str, installed: Callable[[str], Path]) -> None:
    package = installed(f"mine = {value}")
    registry = Registry(())
    assert not registry.problems
    found = registry.methods["from-a-package"]
    assert found.path == str(package / "acts.py")
    assert "lf_plugin_package" not in sys.modules  # listing imports nothing
    assert found.make().negative_slope == 0.25
    assert found.module.__name__ == "lf_plugin_package.acts"


def test_an_entry_point_without_a_module_is_a_problem_of_its_own(installed: Callable[[str], Path]) -> None:
    installed("mine = lf_plugin_package.gone")
    registry = Registry(())
    assert "relu" in registry.methods
    assert ["no module 'lf_plugin_package.gone'" in str(p) for p in registry.problems] == [True]


# ---------------------------------------------------------------- the cache of scans


def cache_file(fresh: Path) -> Path:
    (file,) = (fresh.parent / "cache").glob("registry-*.json")
    return file


def test_scans_are_kept_and_an_edit_refreshes_them(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'from suite import activation\n@activation("first")\nclass A:\n    """One."""\n'
    file = write(fresh, text)
    assert Registry((str(file),)).methods["first"].doc == "One."
    scanned: list[Path] = []
    monkeypatch.setattr(registry_module, "scan", lambda path: scanned.append(path) or scan(path))
    assert Registry((str(file),)).methods["first"].doc == "One."
    assert scanned == []
    write(fresh, text.replace("first", "other").replace("One", "Two"))
    changed = Registry((str(file),)).methods
    assert scanned == [file]
    assert "first" not in changed
    assert changed["other"].doc == "Two."


def test_what_comes_out_of_the_cache_is_what_was_scanned(fresh: Path) -> None:
    file = write(
        fresh,
        TASK.replace("tiers={}", "tiers={'smoke': Tier(3, sizes={'n': (1, 2)})}, noise={'smoke': Noise(0.1, n=3)}")
        + "\nfrom suite import activation, Choice, LogUniform\n"
        "@activation('c', defaults={'a': 'x', 'b': 1e-3, 'c': [1]}, space={'a': Choice('x', 'y', (1, 2)), "
        "'b': LogUniform(1e-4, 1.0)})\nclass C: pass\n",
    )
    first, second = Registry((str(file),)), Registry((str(file),))
    assert first.tasks["made-up"] == second.tasks["made-up"]
    assert second.tasks["made-up"].tiers == {"smoke": Tier(3, sizes={"n": (1, 2)})}
    assert second.tasks["made-up"].noise == {"smoke": Noise(0.1, n=3)}
    assert second.methods["c"].space == {"a": Choice("x", "y", (1, 2)), "b": LogUniform(1e-4, 1.0)}
    assert first.methods == second.methods


def damages() -> dict[str, Callable[[str], str]]:
    """Ways in which the cache's text may be damaged."""

    def edit(change: Callable[[dict], object]) -> Callable[[str], str]:
        def apply(text: str) -> str:
            stored = json.loads(text)
            change(stored)
            return json.dumps(stored)

        return apply

    def in_scans(value: object) -> Callable[[dict], object]:
        return lambda stored: stored["scans"].update(dict.fromkeys(stored["scans"], value))

    return {
        "cut off": lambda text: text[: len(text) // 2],
        "empty": lambda text: "",
        "a list": lambda text: "[]",
        "a number": lambda text: "3",
        "no scans": edit(lambda stored: stored.pop("scans")),
        "scans are a list": edit(lambda stored: stored.update(scans=[1, 2])),
        "no pairs": edit(in_scans(3)),
        "no entries": edit(in_scans([[1, 2], 3])),
        "entries of unknown kinds": edit(
            lambda stored: [v.__setitem__(1, [{"!": "Martian", "of": {}}]) for v in stored["scans"].values()]
        ),
        "entries with unknown facts": edit(
            lambda stored: [v.__setitem__(1, [{"!": "Method", "of": {"gone": 1}}]) for v in stored["scans"].values()]
        ),
        "entries that are numbers": edit(lambda stored: [v.__setitem__(1, [5]) for v in stored["scans"].values()]),
        "written by an older reader": edit(lambda stored: stored.update(reader=[[0, 0]])),
    }


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_cache_is_made_again(damage: str, fresh: Path) -> None:
    whole = Registry(())
    file = cache_file(fresh)
    good = file.read_text()
    file.write_text(damages()[damage](good))
    again = Registry(())
    assert (again.methods, again.tasks, again.problems) == (whole.methods, whole.tasks, whole.problems)
    assert json.loads(file.read_text()) == json.loads(good)


def test_without_a_cache_folder_everything_is_found_all_the_same(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "file").write_text("")
    monkeypatch.setenv("LEVELFIELD_CACHE", str(fresh / "file" / "below"))
    assert "relu" in Registry(()).methods
