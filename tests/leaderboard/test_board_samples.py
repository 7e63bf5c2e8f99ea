"""Samples of a task's data: what its page shows, from the data that runs train on."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from test_board_model import golden, read_of

import suite
from leaderboard.site import render
from suite.samples import one_of_each, pictures, texts

EMBEDDED = [t.name for t in suite.tasks() if t.family in ("vision", "language") and not t.data]


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_embedded_task_of_examples_shows_some(name: str) -> None:
    task = suite.task(name)
    tier = task.info.tiers["smoke"]
    shown = json.loads(json.dumps(task.samples(tier)))
    if task.info.family == "language":
        assert shown["kind"] == "texts" and len(set(shown["items"])) > 3
        return
    labels = task.splits(tier).train_y.numpy()
    assert shown["kind"] == "pictures" and len(shown["labels"]) == len(np.unique(labels))
    pixels = np.frombuffer(base64.b64decode(shown["pixels"]), np.uint8).reshape(shown["shape"])
    assert pixels.std() > 10


def test_a_shape_is_shown_as_it_is_and_named_by_its_class() -> None:
    task = suite.task("shapes-cnn")
    tier = task.info.tiers["smoke"]
    shown, train = task.samples(tier), task.arrays(tier, "train")
    first = int(np.flatnonzero(train["labels"] == 3)[0])
    pixels = np.frombuffer(base64.b64decode(shown["pixels"]), np.uint8).reshape(shown["shape"])
    assert (pixels[3] == train["images"][first]).all()
    assert shown["labels"][3] == "square, level stripes"


def test_brackets_are_spelled_so_that_they_close() -> None:
    shown = suite.task("dyck-gpt").samples(suite.task("dyck-gpt").info.tiers["smoke"])
    for text in shown["items"]:
        stack: list[str] = []
        for letter in text:
            if letter.isupper():
                stack.append(letter)
            elif letter.islower():
                assert stack.pop() == letter.upper()


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        pictures(np.zeros((2, 4, 4, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="labels"):
        pictures(np.zeros((2, 4, 4, 3), np.uint8), ["a"])
    assert one_of_each(np.array([2, 0, 2, 1])).tolist() == [1, 3, 0]


def _page(samples: dict[str, Any]) -> str:
    rows = golden()
    rows[0]["exhibits"] = json.dumps({"samples": samples})
    assert rows[0]["method"] == "reference"
    return render(read_of(rows))[f"task/{rows[0]['tier']}.{rows[0]['task']}.html"].decode()


def test_the_task_page_shows_pictures_and_texts() -> None:
    page = _page(pictures(np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3), ["disk <b>", "ring"]))
    assert page.count('<img src="data:image/png;base64,') == 2
    assert "disk &lt;b&gt;" in page
    page = _page(texts(["a<i>b"], "a letter a token"))
    assert '<pre class="sample">a&lt;i&gt;b</pre>' in page and "A letter a token." in page


def test_damaged_samples_are_named_on_the_page() -> None:
    assert "cannot be drawn" in _page({"kind": "pictures", "shape": [9], "pixels": "AAAA", "labels": []})
    assert "cannot be drawn" in _page({"kind": "texts", "items": None})


def test_a_run_of_the_reference_keeps_samples_and_others_do_not() -> None:
    reference = suite.run("digits-cnn", "reference", tier="smoke", seed=0)
    assert reference.row["exhibits"] and "samples" in json.loads(reference.row["exhibits"])
    assert "samples" not in json.loads(suite.run("digits-cnn", "golu", tier="smoke", seed=0).row["exhibits"])
