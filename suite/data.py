"""Real data sets: where they lie, whether they are the known ones, and how they are read.

A data set comes from the data root (``LEVELFIELD_DATA``, a folder with one
subfolder a data set) or else from the Hugging Face Hub; both go through the
`datasets` library and one decoder. Images are decoded once and kept in the cache
as uint8 arrays. Rows are put in an order of their own contents, so that every
source gives the same arrays, bit for bit, whatever the order it stores them in.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from suite import cache
from suite.registry import UnknownName

ROOT_VARIABLE = "LEVELFIELD_DATA"
HUB = "https://huggingface.co"
PROBE_SECONDS = 5.0
END_OF_TEXT = "<|endoftext|>"


class DataUnavailable(RuntimeError):
    """The data are not here; the message says how to get them."""


class DataDamaged(DataUnavailable):
    """A file is not the known one; the message names it."""


@dataclass(frozen=True)
class DataSet:
    """What is known of one data set.

    Attributes
    ----------
    name : name in `DATASETS` and of its folder in the data root.
    summary : what it is.
    terms : licence, or what is known of the terms.
    files : split -> files in the folder, in order; a ``*`` stands for any text.
    sha256 : file -> its known sum; a file without one is taken as it is.
    hub : repository on the Hub, or "" where there is none.
    hub_options : keywords of `datasets.load_dataset` beside the repository.
    columns : the columns read: image and label, or the text.
    counts : split -> number of images, each class equally often.
    classes : names of the classes in the order of their indices, where stated.
    content : split -> sha256 of the decoded arrays (images) or of the text, where known.
    """

    name: str
    summary: str
    terms: str
    files: Mapping[str, tuple[str, ...]]
    sha256: Mapping[str, str] = field(default_factory=dict)
    hub: str = ""
    hub_options: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    content: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_images(self) -> bool:
        """Whether `images` reads it; else `text` does."""
        return bool(self.counts)


_ALL = (
    DataSet(
        name="cifar10",
        summary="CIFAR-10: 32x32 colour photographs of 10 classes, 50,000 train and 10,000 test",
        terms="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; citation asked, no licence",
        files={
            "train": tuple(f"train-0000{i}-of-00003.parquet" for i in range(3)),
            "test": ("test-00000-of-00001.parquet",),
        },
        sha256={
            "test-00000-of-00001.parquet": "6c229e7e9d0c48a7e35c0e7a586642bf0f37cebd0988636d8da37039ece7d8dc",
            "train-00000-of-00003.parquet": "9ea85b4867ea938533f5453127ef3be144916702b095d203e27bb6ee8967fbec",
            "train-00001-of-00003.parquet": "3707a0e32ba02bef9210856a284f38c5d8b67da8954afb57c19417b6d706480a",
            "train-00002-of-00003.parquet": "0750f19ae99dea9befa47bb160a87c63f288946f8b850fb77f1deb2ec3481afe",
        },
        hub="uoft-cs/cifar10",
        columns=("img", "label"),
        counts={"train": 50_000, "test": 10_000},
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        content={
            "train": "1bfc07133540c0f75b30d4288f9236001091c26c9886b9f37d46a8bc66fdcc6c",
            "test": "af1227671396612a0e2c37fb8b7aa96c0301f0463487e1afc591a17a607e58b2",
        },
    ),
    DataSet(
        name="cifar100",
        summary="CIFAR-100: 32x32 colour photographs of 100 classes, 50,000 train and 10,000 test",
        terms="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; citation asked, no licence",
        files={"train": ("train-*.parquet",), "test": ("test-*.parquet",)},
        hub="uoft-cs/cifar100",
        columns=("img", "fine_label"),
        counts={"train": 50_000, "test": 10_000},
    ),
    DataSet(
        name="tinyshakespeare",
        summary="40,000 lines of Shakespeare's plays in one text, 1.1 MB, 65 distinct characters",
        terms="public domain text, as in karpathy/char-rnn",
        files={"text": ("input.txt",)},
        sha256={"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
        hub="karpathy/tiny_shakespeare",
        hub_options={"revision": "refs/convert/parquet", "split": "train+validation+test"},
        columns=("text",),
        content={"text": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
    ),
    DataSet(
        name="english_novels",
        summary="96 English novels of 1839 to 1927, 74 MB of UTF-8, each followed by a line <|endoftext|>",
        terms="public domain texts, from computationalstylistics/100_english_novels",
        files={"text": ("english_novels.txt.zst",)},
        sha256={"english_novels.txt.zst": "2c1604f5a70afc1e6543a44db4165e3ae592e335a4014578c9c057ae4d79eebe"},
        content={"text": "d55da74e54f9a192c16f39f2c2b6e0213199253041b4ac0ca24d0371e18ed315"},
    ),
    DataSet(
        name="tinystories",
        summary="TinyStories: stories in a small child's words, by GPT-3.5 and GPT-4; the first of four parts",
        terms="CDLA-Sharing-1.0",
        files={"text": ("train-00000-of-*.parquet",)},
        hub="roneneldan/TinyStories",
        hub_options={"data_files": "data/train-00000-of-*.parquet", "split": "train"},
        columns=("text",),
    ),
)
DATASETS: dict[str, DataSet] = {dataset.name: dataset for dataset in _ALL}


def dataset(name: str) -> DataSet:
    """One known data set.

    Raises
    ------
    UnknownName : no such data set.
    """
    if name not in DATASETS:
        raise UnknownName(f"no data set named {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name]


def class_name(name: str, label: int) -> str:
    """A class of an image data set in words; its index where the names are not stated."""
    names = dataset(name).classes
    return names[label] if names else str(label)


def root() -> Path | None:
    """The data root, or None where ``LEVELFIELD_DATA`` is not set."""
    stated = os.environ.get(ROOT_VARIABLE)
    return Path(stated).expanduser() if stated else None


def locate(name: str) -> Path | None:
    """Folder of the data root that holds every file of the data set, or None."""
    known, base = dataset(name), root()
    if base is None:
        return None
    folder = base / name
    return folder if all(_found(folder, split) for split in known.files.values()) else None


def check(name: str) -> dict[str, str]:
    """State of each of the data set's files in the data root.

    Returns
    -------
    file -> "ok", "missing", "damaged" (not the known sha256 sum) or "unknown" (no
    sum is known). Every file is missing where no data root is set.
    """
    known, base = dataset(name), root()
    states: dict[str, str] = {}
    for pattern in (pattern for split in known.files.values() for pattern in split):
        files = sorted((base / name).glob(pattern)) if base else []
        states |= {file.name: _state(file, known) for file in files} or {pattern: "missing"}
    return states


def get(name: str) -> Path | None:
    """Read the data set into the cache, downloading it where there is no copy in the data root.

    Returns
    -------
    The data root's folder it was read from, None for the Hub (or the cache itself).

    Raises
    ------
    DataUnavailable : no copy and no network, or a damaged file.
    """
    if dataset(name).is_images:
        for split in ("train", "test"):
            images(name, split)
    else:
        text(name)
    return locate(name)


def images(name: str, split: str) -> dict[str, np.ndarray]:
    """Images of one split, "train" or "test".

    Returns
    -------
    "images" (n, height, width, 3) uint8 and "labels" (n,) int64, ordered by the
    sha256 of each image's pixels: a fixed order that looks random.

    Raises
    ------
    DataUnavailable : no copy in cache and data root, and none to be had from the Hub.
    DataDamaged : a file or the decoded images are not the known ones.
    """
    known = dataset(name)
    key = f"images 1 {name} {split} {known.content.get(split)}"
    return cache.arrays(f"{name}-{split}", key, lambda: _decoded(known, split))


def text(name: str) -> bytes:
    """The whole text, UTF-8.

    Raises
    ------
    DataUnavailable : no copy in cache and data root, and none to be had from the Hub.
    DataDamaged : a file or the text is not the known one.
    """
    known, folder = dataset(name), locate(name)
    files = _found(folder, known.files["text"]) if folder else []
    if files and files[0].suffix != ".parquet":
        return _known_text(known, b"".join(_plain_text(file, known) for file in files))
    made = cache.arrays(
        name, f"text 1 {name} {known.content}", lambda: {"utf8": np.frombuffer(_joined(known), dtype=np.uint8)}
    )
    return made["utf8"].tobytes()


def documents(name: str) -> list[bytes]:
    """The pieces of a text that end in a line ``<|endoftext|>``, each with that line."""
    mark = f"\n{END_OF_TEXT}\n".encode()
    *pieces, rest = text(name).split(mark)
    return [piece + mark for piece in pieces] + ([rest] if rest else [])


# ---------------------------------------------------------------- reading


def _decoded(known: DataSet, split: str) -> dict[str, np.ndarray]:
    """Decode one split and put it in its canonical order; refuse what is not the known content."""
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    with _progress(f"decoding {known.name} {split}", known.counts[split]) as advance:
        for batch in _batches(known, split):
            stored, named = (batch[column] for column in known.columns)
            pixels += [_decode(image["bytes"]) for image in stored]
            labels += [int(label) for label in named]
            advance(len(named))
    if len({image.shape for image in pixels}) != 1 or len(pixels) != known.counts[split]:
        raise DataDamaged(
            f"{known.name} {split} has {len(pixels)} images of shapes {sorted({image.shape for image in pixels})} "
            f"instead of {known.counts[split]} of one shape: replace it by a fresh copy"
        )
    order = sorted(range(len(pixels)), key=lambda i: (hashlib.sha256(pixels[i].tobytes()).digest(), labels[i]))
    arrays = {"images": np.stack([pixels[i] for i in order]), "labels": np.array([labels[i] for i in order], np.int64)}
    found = content_sum(arrays)
    if known.content.get(split, found) != found:
        raise DataDamaged(f"the decoded images of {known.name} {split} are not the known ones: replace the copy")
    return arrays


def content_sum(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 of "images" (uint8) and "labels" (as one byte each), in the order given."""
    digest = hashlib.sha256(np.ascontiguousarray(arrays["images"]).data)
    digest.update(arrays["labels"].astype(np.uint8).tobytes())
    return digest.hexdigest()


def _decode(png: bytes) -> np.ndarray:
    """(height, width, 3) uint8 pixels of an encoded image."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def _joined(known: DataSet) -> bytes:
    """Texts of a table in their order: pieces of one text as they are, stories with an end mark after each."""
    pieces = [piece for batch in _batches(known, "text") for piece in batch[known.columns[0]]]
    end = "" if known.content else f"\n{END_OF_TEXT}\n"
    return _known_text(known, "".join(piece + end for piece in pieces).encode())


def _plain_text(file: Path, known: DataSet) -> bytes:
    _refuse_damage(file, known)
    if file.suffix != ".zst":
        return file.read_bytes()
    import pyarrow

    with pyarrow.input_stream(str(file), compression="zstd") as stream:
        try:
            return stream.read()
        except OSError as error:
            raise DataDamaged(f"{file} cannot be decompressed ({error}): replace it by a fresh copy") from None


def _known_text(known: DataSet, content: bytes) -> bytes:
    stated = known.content.get("text")
    if stated and hashlib.sha256(content).hexdigest() != stated:
        raise DataDamaged(f"the text of {known.name} is not the known one: replace it by a fresh copy")
    return content


def _batches(known: DataSet, split: str) -> Iterator[Mapping[str, list[Any]]]:
    """Rows of a split as column -> values, from the data root or else the Hub; images stay encoded."""
    folder = locate(known.name)
    if folder is None:
        yield from _through_datasets(known, _from_hub(known, split))
        return
    files = _found(folder, known.files[split])
    for file in files:
        _refuse_damage(file, known)
    if importlib.util.find_spec("datasets") is None:
        yield from _through_pyarrow(known, files)
        return
    from datasets import load_dataset

    # Streaming copies nothing; the library's lock files stay in the cache folder.
    home = str(cache.folder() / "datasets")
    paths = [str(file) for file in files]
    yield from _through_datasets(
        known, load_dataset("parquet", data_files=paths, split="train", streaming=True, cache_dir=home)
    )


def _through_datasets(known: DataSet, rows: Any) -> Iterator[Mapping[str, list[Any]]]:
    from datasets import Image

    rows = rows.select_columns(list(known.columns))
    if known.is_images:
        rows = rows.cast_column(known.columns[0], Image(decode=False))
    yield from rows.iter(batch_size=1000)


def _through_pyarrow(known: DataSet, files: Iterable[Path]) -> Iterator[Mapping[str, list[Any]]]:
    import pyarrow.parquet

    for file in files:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(1000, columns=list(known.columns)):
            yield batch.to_pydict()


def _from_hub(known: DataSet, split: str) -> Any:
    """The Hub's rows, downloaded by `datasets` into its own cache; offline mode reads that cache only."""
    if not known.hub:
        raise DataUnavailable(_advice(known))
    if importlib.util.find_spec("datasets") is None:
        raise DataUnavailable(f"{_advice(known)} (which needs the Python package `datasets`)")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if not offline and not _reachable(os.environ.get("HF_ENDPOINT", HUB)):
        raise DataUnavailable(_advice(known))
    from datasets import load_dataset

    try:
        return load_dataset(known.hub, **{"split": split, **known.hub_options})
    except (OSError, ValueError) as error:
        raise DataUnavailable(f"{_advice(known)} (the Hub says: {_first_line(error)})") from error


def _reachable(address: str) -> bool:
    """Whether a server answers there, whatever it says: the Hub's own client retries for half a minute."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _advice(known: DataSet) -> str:
    files = ", ".join(pattern for split in known.files.values() for pattern in split)
    base = root()
    place = (
        f"put {files} into {base / known.name}"
        if base
        else f"set {ROOT_VARIABLE} to a folder that has {files} in {known.name}/"
    )
    download = f", or run `levelfield data get {known.name}` where there is a network" if known.hub else ""
    return f"the data set {known.name} is not here: {place}{download}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _found(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Files of a split in order, empty where one is missing."""
    files = [sorted(folder.glob(pattern)) for pattern in patterns]
    return [file for found in files for file in found] if all(files) else []


def _state(file: Path, known: DataSet) -> str:
    stated = known.sha256.get(file.name)
    if stated is None:
        return "unknown"
    with file.open("rb") as stream:
        return "ok" if hashlib.file_digest(stream, "sha256").hexdigest() == stated else "damaged"


def _refuse_damage(file: Path, known: DataSet) -> None:
    if _state(file, known) == "damaged":
        raise DataDamaged(f"{file} is not the known file (its sha256 differs): replace it by a fresh copy")


@contextmanager
def _progress(label: str, total: int) -> Iterator[Any]:
    """A progress bar on standard error, where that is a terminal; yields a function that advances it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
