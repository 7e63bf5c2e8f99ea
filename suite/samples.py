"""Samples of a task's data for its page: pictures with their classes, texts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def pictures(images: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Images as a JSON-ready exhibit.

    Parameters
    ----------
    images : (n, height, width, channels) uint8, one or three channels.
    labels : what each shows.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or len(images) != len(labels):
        raise ValueError(
            f"pictures are (n, height, width, 1 or 3) uint8 with n labels, "
            f"got {images.shape} {images.dtype} and {len(labels)} labels"
        )
    pixels = base64.b64encode(np.ascontiguousarray(images).tobytes()).decode()
    return {"kind": "pictures", "shape": list(images.shape), "pixels": pixels, "labels": list(labels)}


def texts(items: Iterable[str], note: str = "") -> dict[str, Any]:
    """Texts as a JSON-ready exhibit; `note` says how they are written down."""
    return {"kind": "texts", "items": list(items), "note": note}


def one_of_each(labels: np.ndarray) -> np.ndarray:
    """(classes,) indices of the first example of each class, classes in order."""
    return np.unique(labels, return_index=True)[1]
