"""Generators of reasoning-gym as tasks: against a package of the same interface with four small generators."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import suite
from suite import cache
from suite.data import DataUnavailable
from suite.fingerprint import task_hash
from suite.registry import TaskInfo, UnknownName, registry
from suite.train import warmstart
from suite.train.rlvr import RlvrTask
from suite.train.workload import DoesNotApply

gym = importlib.import_module("tasks.rlvr.gym")
SPLITS = ("train", "validation", "test")

FACTORY = """
from random import Random


class Dataset:
    def __init__(self, make, size, seed):
        self.make, self.size, self.seed = make, size, seed

    def __iter__(self):
        for i in range(self.size):
            question, answer = self.make(Random(self.seed + i))
            yield {"question": question, "answer": answer, "metadata": {}}

    def score_answer(self, answer, entry):
        raise AssertionError("the package's own score is asked")


def last_digit(random):
    number = random.randrange(10**random.randint(1, 7))
    return f"What does the number {number} end with?", f"digit {number % 10}"


def hopeless(random):
    return f"Guess, {random.randrange(10**9)}", f"{random.randrange(10**9):09d}"


def long_story(random):
    return "once upon a time, " * 10 + str(random.random()), "yes"


def coin(random):
    return f"Is it {random.choice(['heads', 'tails'])}?", "yes"


def broken(random):
    raise KeyError("no default")


DATASETS = {f.__name__: f for f in (last_digit, hopeless, long_story, coin, broken)}


def create_dataset(name, size, seed):
    return Dataset(DATASETS[name], size, seed)
"""


def forget() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "reasoning_gym"]:
        del sys.modules[name]


def write_package(folder: Path, version: str = "9.1") -> Path:
    package = folder / "reasoning_gym"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .factory import create_dataset\n")
    (package / "factory.py").write_text(FACTORY)
    facts = folder / f"reasoning_gym-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: reasoning-gym\nVersion: {version}\n")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package's folder, and a cache that tests share."""
    return write_package(tmp_path_factory.mktemp("package")), tmp_path_factory.mktemp("cache")


@pytest.fixture
def package(shared: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    forget()
    monkeypatch.syspath_prepend(str(shared[0]))
    monkeypatch.setenv("LEVELFIELD_CACHE", str(shared[1]))
    yield shared[0]
    forget()


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget()
    sys.modules["reasoning_gym"] = None  # type: ignore[assignment]
    yield
    forget()


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Warm starts of two steps, in a cache of the test's own; returns the cache's folder."""
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path))
    monkeypatch.setattr(gym.Gym, "warm_start", replace(gym.Gym.warm_start, steps=2))
    monkeypatch.setattr(gym, "LEAST_SOLVED", 0.0)
    return tmp_path


def made(name: str = "gym-last-digit") -> RlvrTask:
    return suite.task(name)  # type: ignore[return-value]


def texts(task: RlvrTask, split: str) -> list[str]:
    return [task.decode(prompt) for prompt in task.prompts(split).numpy()]


# ---------------------------------------------------------------- items


def test_splits_share_no_question_although_near_seeds_share_items(package: Path) -> None:
    create = importlib.import_module("reasoning_gym").create_dataset
    one, two = ([item["question"] for item in create("last_digit", size=50, seed=seed)] for seed in (1, 2))
    assert one[1:] == two[:-1]
    task = made()
    found = {split: texts(task, split) for split in SPLITS}
    assert {split: len(found[split]) for split in SPLITS} == {"train": 6000, "validation": 128, "test": 512}
    together = [text.strip() for split in SPLITS for text in found[split]]
    assert len(set(together)) == len(together)


def test_seed_ranges_are_further_apart_than_they_are_long() -> None:
    ranges = sorted((seed, seed + gym.DRAWS * gym.WANTED[split]) for split, seed in gym.FIRST_SEED.items())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))


def test_prompts_are_the_questions_without_what_all_share_padded_on_the_left(package: Path) -> None:
    task = made()
    create = importlib.import_module("reasoning_gym").create_dataset
    first = next(iter(create("last_digit", size=1, seed=gym.FIRST_SEED["test"])))
    shown = texts(task, "test")[0]
    assert shown == first["question"].removeprefix("What does the number ").removesuffix(" end with?").rjust(7)
    assert task.prompt_length == 7
    assert task.limit == len("digit 7") + 1
    assert task.decode(task.solve(task.prompts("test")[:1].numpy())[0]) == first["answer"]


def test_a_frame_of_words_is_taken_off_and_no_part_of_a_word() -> None:
    def cut(*questions: str) -> list[str]:
        return [q for q, _ in gym.without_frame({"train": [(q, "") for q in questions]})["train"]]

    assert cut("add 12 + 15 =", "add 13 - 25 =") == ["12 + 15", "13 - 25"]
    assert cut("12 ?", "12 3 ?") == ["?", "3 ?"]
    assert cut("abc", "abd") == ["abc", "abd"]
    assert cut("bca", "dca") == ["bca", "dca"]


def test_questions_that_differ_in_spaces_alone_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"question": q, "answer": "1"} for q in ("a b", "a  b", " a b\n", "a c")]
    monkeypatch.setitem(gym.FEWEST, "test", 1)
    assert gym._fitting("spaces", "test", items, set()) == [("a b", "1"), ("a c", "1")]


def test_items_are_drawn_once_for_a_version_of_the_package(
    package: Path, quickly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = gym.draw
    monkeypatch.setattr(gym, "draw", lambda generator: drawn.append(generator) or draw(generator))
    assert made().items == made().items
    assert drawn == ["last_digit"]
    monkeypatch.setattr(gym, "package_version", lambda name: "9.2")
    again = made().items
    assert drawn == ["last_digit", "last_digit"]
    assert again == made().items


def test_two_versions_of_the_package_give_two_task_hashes(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = task_hash(registry().task("gym-last-digit"), "quick")
    assert before == task_hash(registry().task("gym-last-digit"), "quick")
    monkeypatch.syspath_prepend(str(write_package(tmp_path, "9.2")))
    assert task_hash(registry().task("gym-last-digit"), "quick") != before


# ---------------------------------------------------------------- the verifier


@pytest.mark.usefixtures("package")
def test_only_the_exact_answer_earns_anything() -> None:
    task = made()
    prompts = task.prompts("train")[:20].numpy()
    for prompt, solved in zip(prompts, task.solve(prompts), strict=True):
        answer = task.decode(solved)
        digit, other = answer[-1], str((int(answer[-1]) + 1) % 10)
        assert answer == f"digit {task.decode(prompt)[-1]}"
        tries = {
            "": False, answer: True, digit: False, f"digit {other}": False, answer[:-1]: False, f" {answer}": False,
            f"{answer} ": False, f"{answer}{other}": False, f"{digit}{answer}"[: task.limit]: False,
            f"digit  {digit}": False, "digit": False, answer.replace(" ", ""): False,
        }  # fmt: skip
        rows = np.zeros((len(tries), task.limit), dtype=np.uint8)
        for row, text in zip(rows, tries, strict=True):
            row[: len(text)] = task.encode([text])[0] if text else []
        assert task.verify(np.repeat(prompt[None], len(tries), axis=0), rows).tolist() == list(tries.values())
        late = solved.copy()
        late[-1] = solved[0]
        late[len(answer)] = solved[0]
        assert not task.verify(prompt[None], late[None]).any()


@pytest.mark.usefixtures("package")
def test_answers_are_well_formed_and_no_prompts_have_no_answers() -> None:
    task = made()
    assert task.formed(task.solve(task.prompts("test").numpy())).all()
    assert task.solve(task.prompts("test")[:0].numpy()).shape == (0, task.limit)


# ---------------------------------------------------------------- names, and what is refused


def test_an_open_task_is_in_no_list_and_takes_any_generator(package: Path) -> None:
    assert not [t.name for t in suite.tasks() if t.name.startswith("gym-")]
    info = registry().task("gym-last-digit")
    assert (info.name, info.pattern, info.member) == ("gym-last-digit", "gym-*", "last-digit")
    assert info.title == "Last digit of reasoning-gym by verified rewards"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", ["gym-last-digti", "gym-last_digit"])
def test_an_unknown_generator_is_told_the_nearest(name: str) -> None:
    with pytest.raises(UnknownName, match="did you mean gym-last-digit"):
        registry().task(name)


@pytest.mark.parametrize("name", ["gym-*", "gym-"])
def test_the_star_itself_is_no_task(package: Path, name: str) -> None:
    assert registry().find_task(name) is None


@pytest.mark.usefixtures("missing")
def test_without_the_package_names_are_known_and_one_sentence_says_what_to_install() -> None:
    task = made("gym-chain-sum")
    assert registry().find_task("gym-Chain Sum") is None
    with pytest.raises(DataUnavailable) as caught:
        task.prompts("train")
    assert str(caught.value).endswith("pip install 'levelfield[reasoning-gym]'")
    assert "\n" not in str(caught.value)
    result = suite.run("gym-chain-sum", tier="smoke")
    assert (result.status, result.message) == ("skipped", str(caught.value))


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gym-long-story", "of 50 items 0 have a question of at most 120 characters and an answer of at most 24"),
        ("gym-coin", "2 of these are different and in no other split, and test needs 512"),
        ("gym-broken", "makes no items by itself (KeyError: 'no default')"),
    ],
)
def test_a_generator_that_makes_no_task_is_refused_with_the_reason(name: str, reason: str) -> None:
    result = suite.run(name, tier="smoke")
    assert result.status == "skipped"
    assert reason in result.message


def test_a_generator_that_is_too_hard_is_refused(package: Path, quickly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "LEAST_SOLVED", 0.1)
    with pytest.raises(DoesNotApply, match="too hard for the small model: its warm start solves 0%"):
        made("gym-hopeless").policy()


def test_too_many_characters_are_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "LARGEST_ALPHABET", 20)
    with pytest.raises(DoesNotApply, match="different characters, 19 are the most"):
        gym.draw("last_digit")


def test_a_star_goes_with_members_and_a_package(tmp_path: Path) -> None:
    from suite.registry import RegistryError, scan

    text = Path(gym.__file__).read_text()
    file = tmp_path / "open.py"
    for wrong in (text.replace('"gym-*"', '"gym-x"'), text.replace('    requires="reasoning_gym",\n', "")):
        file.write_text(wrong)
        with pytest.raises(RegistryError, match="go together"):
            scan(file)
    file.write_text(text)
    (info,) = scan(file)
    assert isinstance(info, TaskInfo) and info.members


# ---------------------------------------------------------------- the warm start


def bits(task: RlvrTask) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in task.policy().parameters())


def test_a_warm_start_is_trained_once_and_kept(package: Path, quickly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings: list[str] = []
    train = warmstart.train
    monkeypatch.setattr(warmstart, "train", lambda task: trainings.append(task.name) or train(task))
    first = bits(made())
    assert bits(made()) == first
    assert trainings == ["gym-last-digit"]
    (file,) = (quickly / "content").glob("warm-gym-last-digit-*")
    assert not list((quickly / "content").glob(".*"))
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"", b"\0" * len(whole)):
        file.write_bytes(damaged)
        assert bits(made()) == first
        assert file.read_bytes() == whole
    assert len(trainings) == 5


def test_another_recipe_or_torch_is_another_warm_start(
    package: Path, quickly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = made()
    key = warmstart._made_from(task)
    assert key == warmstart._made_from(made())
    task.warm_start = replace(task.warm_start, steps=3)
    assert warmstart._made_from(task) != key
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert warmstart._made_from(made()) != key


def test_training_ends_where_enough_is_solved(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def solved(task: RlvrTask, policy: object, samples: int) -> np.ndarray:
        looks.append(samples)
        return np.full((2, samples), len(looks) == 2)

    monkeypatch.setattr(warmstart, "solved", solved)
    monkeypatch.setattr(warmstart, "LOOK", 3)
    task = made()
    task.warm_start = replace(task.warm_start, steps=100)
    warmstart.train(task)
    assert len(looks) == 2
    task.warm_start = replace(task.warm_start, steps=4, enough=0.0)
    warmstart.train(task)
    assert len(looks) == 2


def test_content_that_cannot_be_kept_is_made_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path / "file"))
    calls: list[int] = []
    for _ in range(2):
        assert cache.content("a", "key", lambda: calls.append(0) or b"made") == b"made"
    assert len(calls) == 2


# ---------------------------------------------------------------- runs


def test_a_smoke_run_ends_well_and_the_same_each_time(package: Path) -> None:
    one, two = (suite.run("gym-last-digit", tier="smoke", seed=0) for _ in range(2))
    assert (one.status, one.message) == ("ok", "")
    assert one.metrics == two.metrics
    assert one.row["digest"] == two.row["digest"]
    assert 0.1 < one.curve["score"].iloc[0] < 0.95


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(shared: tuple[Path, Path], tmp_path: Path) -> Command:
    """The command line in a process of its own, with the small package or without any."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['reasoning_gym'] = None\n")
    root = Path(suite.__file__).parent.parent

    def run(*words: str, installed: bool) -> subprocess.CompletedProcess[str]:
        places = [str(shared[0] if installed else tmp_path), str(root)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "LEVELFIELD_CACHE": str(shared[1])}
        line = [sys.executable, "-m", "suite.cli.main", *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=env, cwd=tmp_path)

    return run


RUN = ("run", "--methods", "reference", "--tier", "smoke", "--seeds", "1", "--workers", "1", "--cost", "0")


def test_a_run_from_the_command_line(command: Command) -> None:
    done = command(*RUN, "--tasks", "gym-last-digit", installed=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 runs done" in done.stdout


@pytest.mark.slow
def test_a_run_without_the_package_is_skipped_with_exit_code_3(command: Command) -> None:
    done = command(*RUN, "--tasks", "gym-last-digit", installed=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "skipped: gym-last-digit needs the package reasoning-gym" in done.stdout


def test_the_listing_says_how_to_name_a_generator_and_show_knows_one(command: Command) -> None:
    listed = command("tasks", installed=False)
    assert "also gym-*: Any generator of reasoning-gym (gym-chain-sum is its chain_sum)" in listed.stdout
    assert "gym-*" not in command("tasks", "--family", "pde", installed=False).stdout
    assert "task       gym-chain-sum (version 1, rlvr)" in command("show", "gym-chain-sum", installed=False).stdout
    wrong = command("show", "gym-last-digti", installed=True)
    assert (wrong.returncode, "did you mean gym-last-digit" in wrong.stderr) == (2, True)


def test_listing_and_showing_import_neither_torch_nor_the_package(package: Path) -> None:
    code = (
        "import sys, suite\n"
        "from suite.registry import registry\n"
        "suite.tasks()\n"
        "assert 'reasoning_gym' not in sys.modules\n"
        "registry().task('gym-last-digit')\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = str(Path(suite.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), root])}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=env)


def test_a_masked_name_is_the_same_task(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from suite.registry import rename_task

    plain = made()
    rename_task("gym-last-digit", "task-masked")
    try:
        masked = made("task-masked")
        assert masked.items == plain.items
        assert masked.info.member == "last-digit"
    finally:
        del registry().tasks["task-masked"]


# ---------------------------------------------------------------- the package itself

real = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed")


@real
@pytest.mark.parametrize("name", ["gym-chain-sum", "gym-gcd", "gym-spell-backward"])
def test_real_generators_make_tasks(name: str) -> None:
    task = made(name)
    assert [len(task.prompts(split)) for split in SPLITS] == [6000, 128, 512]
    together = [text for split in SPLITS for text in texts(task, split)]
    assert len(set(together)) == len(together)
    assert task.formed(task.solve(task.prompts("test").numpy())).all()


@real
def test_real_sums_are_right() -> None:
    task = made("gym-chain-sum")
    prompts = task.prompts("test").numpy()
    for prompt, solved in zip(prompts, task.solve(prompts), strict=True):
        words = task.decode(prompt).split()
        terms = [int(sign + number) for sign, number in zip(["+", *words[1::2]], words[::2], strict=True)]
        assert task.decode(solved) == str(sum(terms))


@real
@pytest.mark.parametrize("name", ["gym-sudoku", "gym-composite", "gym-coin-flip"])
def test_real_generators_that_make_no_task_are_refused(name: str) -> None:
    with pytest.raises(DoesNotApply, match="choose another generator"):
        made(name).prompts("train")


@real
def test_a_real_generator_runs() -> None:
    assert suite.run("gym-gcd", tier="smoke").status == "ok"
