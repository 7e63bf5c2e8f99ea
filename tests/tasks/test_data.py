"""Real data are the known ones, whatever their source, or are refused in one sentence."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import suite
from suite import data

ROOT = data.root()
needs_data = [
    pytest.mark.data,
    pytest.mark.skipif(ROOT is None, reason="the real data sets are read where LEVELFIELD_DATA names their folder"),
]


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """An empty cache and data root, and no network."""
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LEVELFIELD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def write_images(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    stored = pyarrow.array([{"bytes": png(p), "path": None} for p in pixels], type=kind)
    pyarrow.parquet.write_table(pyarrow.table({"img": stored, "label": pyarrow.array(labels)}), path)


@pytest.fixture
def tiny(sealed, monkeypatch):
    """A data set of 20 training and 10 test images in the data root."""
    random = np.random.default_rng(0)
    known = data.DataSet(
        name="tiny",
        summary="noise",
        terms="none",
        files={"train": ("train-0.parquet", "train-1.parquet"), "test": ("test.parquet",)},
        columns=("img", "label"),
        counts={"train": 20, "test": 10},
    )
    made = {}
    for split, count in known.counts.items():
        made[split] = random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8), np.arange(count) % 5
    folder = sealed / "data" / "tiny"
    pixels, labels = made["train"]
    write_images(folder / "train-0.parquet", pixels[:12], labels[:12])
    write_images(folder / "train-1.parquet", pixels[12:], labels[12:])
    write_images(folder / "test.parquet", *made["test"])
    monkeypatch.setitem(data.DATASETS, "tiny", known)
    return folder, made


def pairs(pixels: np.ndarray, labels: np.ndarray) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)}


def test_every_image_comes_back_with_its_label(tiny):
    _, made = tiny
    for split in ("train", "test"):
        arrays = data.images("tiny", split)
        assert arrays["images"].dtype == np.uint8
        assert pairs(arrays["images"], arrays["labels"]) == pairs(*made[split])


def test_the_stored_order_does_not_matter(tiny, monkeypatch):
    folder, made = tiny
    first = data.images("tiny", "train")
    pixels, labels = (array[::-1] for array in made["train"])
    write_images(folder / "train-0.parquet", pixels[:5], labels[:5])
    write_images(folder / "train-1.parquet", pixels[5:], labels[5:])
    monkeypatch.setenv("LEVELFIELD_CACHE", str(folder / "another cache"))
    second = data.images("tiny", "train")
    for key in ("images", "labels"):
        np.testing.assert_array_equal(first[key], second[key])


def test_without_the_datasets_library_the_same_files_give_the_same_arrays(tiny, monkeypatch):
    folder, _ = tiny
    first = data.images("tiny", "train")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "datasets" else find(name, *rest)
    )
    monkeypatch.setenv("LEVELFIELD_CACHE", str(folder / "another cache"))
    monkeypatch.setattr(data, "_through_datasets", None)
    second = data.images("tiny", "train")
    np.testing.assert_array_equal(first["images"], second["images"])


def test_decoded_images_are_kept_and_not_decoded_again(tiny, monkeypatch):
    first = data.images("tiny", "test")
    monkeypatch.setattr(data, "_decode", None)
    np.testing.assert_array_equal(first["images"], data.images("tiny", "test")["images"])


def test_a_damaged_file_is_refused_and_named(tiny, monkeypatch):
    folder, _ = tiny
    known = data.DATASETS["tiny"]
    file = folder / "train-1.parquet"
    stated = {"train-1.parquet": hashlib.sha256(file.read_bytes()).hexdigest()}
    monkeypatch.setitem(data.DATASETS, "tiny", replace(known, sha256=stated))
    assert data.check("tiny") == {"train-0.parquet": "unknown", "train-1.parquet": "ok", "test.parquet": "unknown"}
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert data.check("tiny")["train-1.parquet"] == "damaged"
    with pytest.raises(data.DataDamaged, match=r"train-1\.parquet"):
        data.images("tiny", "train")


def test_images_that_are_not_the_known_ones_are_refused(tiny, monkeypatch):
    known = data.DATASETS["tiny"]
    monkeypatch.setitem(data.DATASETS, "tiny", replace(known, content={"train": "0" * 64}))
    with pytest.raises(data.DataDamaged, match="tiny train"):
        data.images("tiny", "train")
    monkeypatch.setitem(data.DATASETS, "tiny", replace(known, counts={"train": 21, "test": 10}))
    with pytest.raises(data.DataDamaged, match="20 images"):
        data.images("tiny", "train")


def test_a_missing_file_makes_the_data_set_unavailable(tiny):
    folder, _ = tiny
    (folder / "train-1.parquet").unlink()
    assert data.locate("tiny") is None
    assert data.check("tiny")["train-1.parquet"] == "missing"
    with pytest.raises(data.DataUnavailable, match=r"train-1\.parquet"):
        data.images("tiny", "train")


def test_reading_local_files_writes_nothing_outside_the_cache(tiny, monkeypatch):
    folder, _ = tiny
    home = folder.parent.parent / "home"
    home.mkdir()
    code = "from suite import data; data.images('tiny', 'train')"
    before = sorted(p for p in folder.rglob("*"))
    setup = f"from suite import data; data.DATASETS['tiny'] = data.{data.DATASETS['tiny']!r}; "
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(home), "HF_HOME": str(home / "hf")}
    subprocess.run([sys.executable, "-c", setup + code], check=True, env=environment)
    assert list(home.rglob("*")) == []
    assert sorted(p for p in folder.rglob("*")) == before


def test_a_story_table_becomes_one_text_with_end_marks(sealed):
    stories = ["Once upon a time.", "Ünd noch\neine."]
    file = sealed / "data" / "tinystories" / "train-00000-of-00004-ab.parquet"
    file.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": stories}), file)
    assert data.text("tinystories").decode() == "".join(s + "\n<|endoftext|>\n" for s in stories)
    assert [d.decode() for d in data.documents("tinystories")] == [s + "\n<|endoftext|>\n" for s in stories]


def test_a_changed_text_is_refused(sealed):
    folder = sealed / "data" / "tinyshakespeare"
    folder.mkdir(parents=True)
    (folder / "input.txt").write_text("To be or not")
    with pytest.raises(data.DataDamaged, match=r"input\.txt"):
        data.text("tinyshakespeare")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(LookupError, match="cifar10"):
        data.images("cifar11", "train")


def test_every_real_data_task_names_a_known_data_set():
    named = {task.data for task in suite.tasks() if task.data}
    assert named <= set(data.DATASETS)
    assert {"cifar10", "tinyshakespeare"} <= named


@pytest.mark.parametrize("name", sorted(data.DATASETS))
def test_without_data_one_sentence_says_what_to_do(sealed, name):
    with pytest.raises(data.DataUnavailable) as caught:
        data.get(name)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    assert "levelfield data get" in message or str(sealed / "data") in message


def test_a_task_without_data_fails_with_that_sentence_and_nothing_else(sealed):
    code = (
        "import suite\n"
        "from suite.data import DataUnavailable\n"
        "info = suite.registry().task('cifar10-resnet')\n"
        "try:\n"
        "    info.factory(info).answers(info.tiers['smoke'])\n"
        "except DataUnavailable as error:\n"
        "    print(error)\n"
        "    raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr == ""
    assert "levelfield data get cifar10" in done.stdout
    assert done.stdout.count("\n") == 1


def test_an_unreachable_hub_is_given_up_at_once(sealed, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(data.DataUnavailable, match="levelfield data get cifar100"):
        data.images("cifar100", "test")


class TestRealData:
    pytestmark = needs_data

    def test_files_are_the_known_ones(self):
        for name in ("cifar10", "tinyshakespeare", "english_novels"):
            assert set(data.check(name).values()) == {"ok"}, name

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_cifar10_is_complete_and_balanced(self, split):
        arrays = data.images("cifar10", split)
        count = data.DATASETS["cifar10"].counts[split]
        assert arrays["images"].shape == (count, 32, 32, 3)
        assert np.bincount(arrays["labels"]).tolist() == [count // 10] * 10
        assert data.content_sum(arrays) == data.DATASETS["cifar10"].content[split]

    def test_texts_are_the_known_ones(self):
        assert len(data.text("tinyshakespeare")) == 1_115_394
        novels = data.documents("english_novels")
        assert len(novels) == 96
        assert sum(map(len, novels)) == 74_243_724
