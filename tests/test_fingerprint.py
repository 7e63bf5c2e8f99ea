"""Hashes move with the code a result depends on, and with nothing else."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import suite
from suite import fingerprint
from suite.fingerprint import digest, engine_hash, environment, method_hash, source_hash, task_hash
from suite.registry import Method, TaskInfo, scan
from suite.runner.spec import RunSpec

registry_module = importlib.import_module("suite.registry")

METHOD = '''"""A file."""
from torch import nn
from suite import Paper, Uniform, activation

SOURCE = Paper("One title", year=2020)
SCALE = 2.0


@activation("doubled", paper=SOURCE, defaults={"a": 0.5}, space={"a": Uniform(0.0, 1.0)}, confidence="known")
class Doubled(nn.Module):
    """2 x."""

    def __init__(self, a):
        """Keep a."""
        super().__init__()
        self.a = a  # kept

    def forward(self, x):
        return SCALE * x
'''

TASK = '''
from suite import Metric, Noise, Tier, define_task

TIERS = {"smoke": Tier(3, sizes={"n": 4}), "quick": Tier(30)}
CE = Metric("ce", "nats", "min")


@define_task("hashed", title="A task", family="vision", version=1, metric=CE, slots=("activation",),
             recipe={"activation": "relu"}, tiers=TIERS, noise={"quick": Noise(0.1)}, target=0.5)
class Hashed:
    """A task."""

    def score(self):
        return 1
'''


def put(file: Path, text: str) -> Path:
    """Write a file whose modification time is new."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    if before:
        os.utime(file, ns=(before + 10**9, before + 10**9))
    return file


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2 x.", "Twice x, <b>bold</b>."),
        ('"""A file."""', '"""Another."""'),
        ('        """Keep a."""\n', ""),
        ("  # kept", "  # kept, since it is needed"),
        ("\n\n\n", "\n\n# a comment\n\n\n"),
        ('Paper("One title", year=2020)', 'Paper("Another title", arxiv="2401.00001")'),
        ("SOURCE", "ORIGIN"),
        ('confidence="known"', 'confidence="verified"'),
        ("self.a = a", "self.a = (a)"),
        ("return SCALE * x", "return (SCALE\n                * x)"),
    ],
)
def test_prose_leaves_a_methods_hash_as_it_is(old: str, new: str, tmp_path: Path) -> None:
    assert METHOD.count(old) >= 1
    file = put(tmp_path / "m.py", METHOD)
    before = source_hash(file)
    assert source_hash(put(file, METHOD.replace(old, new))) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE * x", "SCALE * x + 0"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ('{"a": 0.5}', '{"a": 0.6}'),
        ("Uniform(0.0, 1.0)", "Uniform(0.0, 2.0)"),
        ("nn.Module", "nn.Identity"),
        ("self.a = a", "self.b = a"),
    ],
)
def test_code_moves_a_methods_hash(old: str, new: str, tmp_path: Path) -> None:
    assert METHOD.count(old) == 1
    file = put(tmp_path / "m.py", METHOD)
    before = source_hash(file)
    assert source_hash(put(file, METHOD.replace(old, new))) != before


def test_a_hash_depends_on_neither_the_place_of_a_file_nor_its_time(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    here, there = put(tmp_path / "m.py", METHOD), put(tmp_path / "deep" / "er" / "m.py", METHOD)
    assert source_hash(here) == source_hash(there)
    os.utime(here, ns=(1, 1))
    assert source_hash(here) == source_hash(there)


def test_a_syntax_tree_is_told_without_its_empty_fields() -> None:
    """Python 3.12 and 3.13 added and dropped empty fields; a hash must not know them."""
    import ast

    def function(**fields: object) -> ast.AST:
        tree = ast.parse("def f(x): return None").body[0]
        for name, value in fields.items():
            setattr(tree, name, value)
        return tree

    plain = fingerprint._dump(function())
    added = function(type_params=[], type_comment=None)
    added._fields = (*ast.FunctionDef._fields, "type_params")  # type: ignore[misc]
    assert fingerprint._dump(added) == plain
    assert fingerprint._dump(function(name="g")) != plain
    texts = ["None", "0", "0.0", "''", "'a'", "b'a'", "1j", "...", "[]", "()", "{}", "x", "-1", "True", "f'{x!r:>3}'"]
    dumps = [fingerprint._dump(ast.parse(text)) for text in texts]
    assert len(set(dumps)) == len(texts)


def task_at(file: Path, text: str) -> TaskInfo:
    (task,) = scan(put(file, text))
    assert isinstance(task, TaskInfo)
    return task


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"quick": Tier(30)', '"quick": Tier(30), "standard": Tier(300)'),
        ('"quick": Tier(30)', '"quick": Tier(31)'),
        ("Noise(0.1)", "Noise(0.2, n=9)"),
        ('title="A task"', 'title="The task"'),
        ("target=0.5", "target=0.4"),
        ('"""A task."""', '"""The task."""'),
        ("        return 1\n", "        return 1\n\n    def samples(self, tier):\n        return {}\n"),
        ('slots=("activation",)', 'slots=("activation", "norm")'),
    ],
)
def test_other_tiers_noise_and_prose_leave_a_tiers_hash_as_it_is(old: str, new: str, tmp_path: Path) -> None:
    file = tmp_path / "t.py"
    assert TASK.count(old) == 1
    before = task_hash(task_at(file, TASK), "smoke")
    changed = task_at(file, TASK.replace(old, new))
    assert task_hash(changed, "smoke") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Tier(3,", "Tier(4,"),
        ('{"n": 4}', '{"n": 5}'),
        ("return 1", "return 2"),
        ("version=1", "version=2"),
        ('"relu"', '"gelu"'),
        ('Metric("ce", "nats", "min")', 'Metric("ce", "nats", "max")'),
    ],
)
def test_sizes_code_and_version_move_a_tiers_hash(old: str, new: str, tmp_path: Path) -> None:
    file = tmp_path / "t.py"
    assert TASK.count(old) == 1
    before = task_hash(task_at(file, TASK), "smoke")
    assert task_hash(task_at(file, TASK.replace(old, new)), "smoke") != before


def test_a_constant_that_code_also_reads_counts(tmp_path: Path) -> None:
    text = TASK.replace("return 1", "return TIERS")
    file = tmp_path / "t.py"
    before = task_hash(task_at(file, text), "smoke")
    assert task_hash(task_at(file, text.replace("Tier(30)", "Tier(31)")), "smoke") != before


# ---------------------------------------------------------------- imports


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a module of a project package that is on the path for this test."""
    name = f"lf_package_{abs(hash(tmp_path))}"
    root = tmp_path / name
    root.mkdir()
    (root / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in (fingerprint, registry_module):
        monkeypatch.setattr(module, "packages", lambda: ("tasks", "baselines", name))

    def write(module: str, text: str) -> Path:
        return put(root / f"{module}.py", text.replace("PACKAGE", name))

    return write


@pytest.mark.parametrize(
    "imports",
    [
        "from PACKAGE.helper import A",
        "from PACKAGE import helper",
        "import PACKAGE.helper",
        "import PACKAGE.helper as h",
        "from .helper import A",
        "from . import helper",
        "def f():\n    from PACKAGE.helper import A\n    return A",
        "from PACKAGE.between import A",
    ],
)
def test_an_edit_of_an_imported_project_file_moves_the_hash(imports: str, package: Callable[[str, str], Path]) -> None:
    package("between", "from PACKAGE.helper import A\n")
    package("helper", "A = 1\n")
    file = package("method", f"{imports}\n")
    before = source_hash(file)
    package("helper", "A = 1  # the same\n")
    assert source_hash(file) == before
    package("helper", "A = 2\n")
    assert source_hash(file) != before


def test_files_that_import_each_other_have_a_hash(package: Callable[[str, str], Path]) -> None:
    package("a", "from PACKAGE import b\n")
    file = package("b", "from PACKAGE import a\n")
    assert source_hash(file)


def test_a_constant_that_another_file_imports_counts(package: Callable[[str, str], Path]) -> None:
    package("helper", METHOD)
    file = package("method", "from PACKAGE.helper import SOURCE\n")
    before = source_hash(file)
    package("helper", METHOD.replace("One title", "Other title"))
    assert source_hash(file) != before


def test_an_import_of_the_engine_or_a_library_is_not_followed(tmp_path: Path) -> None:
    file = put(tmp_path / "m.py", "import torch, suite\nfrom suite.train.step import Stepper\nfrom . import x\n")
    assert set(fingerprint._closure(str(file))) == {str(file)}


# ---------------------------------------------------------------- runs


def test_a_run_id_is_a_function_of_what_fixes_the_run() -> None:
    def run_id(**changes: object) -> str:
        return RunSpec(**{"task": "digits-cnn", "method": "nesterov", "tier": "smoke", "seed": 0, **changes}).run_id  # type: ignore[arg-type]

    base = run_id()
    assert run_id() == base
    assert run_id(device="cpu:0") == base  # which of several equal devices makes no difference
    assert run_id(budget=30) == base  # the tier's own
    assert run_id(hp={"lr": 0.1 * 3}) == base  # the default on the task's scale
    others = [
        run_id(task="shapes-cnn"), run_id(method="sgd"), run_id(method="reference"), run_id(tier="quick"),
        run_id(seed=1), run_id(hp={"lr": 0.2}), run_id(budget=31), run_id(budget_kind="seconds"), run_id(trial=0),
        run_id(trial=0, trials=8), run_id(device="cuda:0"), run_id(method="nesterov+gelu"),
    ]  # fmt: skip
    assert len({base, *others}) == len(others) + 1


def test_a_run_id_is_the_same_in_every_process() -> None:
    code = "from suite.runner.spec import RunSpec; print(RunSpec('digits-cnn', 'gelu', 'smoke', 3).run_id)"
    here = RunSpec("digits-cnn", "gelu", "smoke", 3).run_id
    for seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        there = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert there.stdout.strip() == here


def test_a_specification_survives_its_file() -> None:
    spec = RunSpec("digits-cnn", "gelu", "smoke", 3, {"a": 1}, 12.5, "seconds", 2, 8, "cuda:1")
    assert RunSpec.from_json(spec.to_json()) == spec
    for text in ("{", "[]", '{"task": "x"}', '{"task": "x", "method": "y", "colour": 3}'):
        with pytest.raises(ValueError, match="not a run specification"):
            RunSpec.from_json(text)


def test_every_registered_file_has_a_hash_and_methods_of_one_file_share_it() -> None:
    hashes: dict[str, set[str]] = {}
    for entry in suite.methods():
        assert isinstance(entry, Method)
        hashes.setdefault(entry.path, set()).add(method_hash(entry))
    assert all(len(found) == 1 for found in hashes.values())
    for task in suite.tasks():
        assert len({task_hash(task, tier) for tier in task.tiers}) == len(task.tiers)
    assert len(engine_hash()) == 12


# ---------------------------------------------------------------- digests


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, min_size=2, max_size=5))
def test_a_digest_does_not_know_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert digest(backwards) == digest(value)
    assert digest(json.loads(json.dumps(value))) == digest(value)


@given(JSON, JSON)
def test_digests_of_unequal_values_differ(a: object, b: object) -> None:
    assert (digest(a) == digest(b)) == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))


def test_what_cannot_be_told_is_not_hashed() -> None:
    with pytest.raises(TypeError, match="cannot hash a object"):
        digest({"a": object()})
    assert digest(suite.Tier(3)) != digest(suite.Tier(4))
    assert digest([math.nan]) == digest([math.nan])


def test_an_environment_names_versions_and_no_person_or_machine() -> None:
    import getpass
    import socket

    found = environment()
    assert set(found) == {
        "python", "torch", "numpy", "system", "device", "hardware", "threads", "dtype", "packages",
    }  # fmt: skip
    text = json.dumps(found)
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert found["threads"] == 1
