"""Procedural images: ten classes, five shapes times two stripe directions.

Position, size, rotation, colours, stripe phase and width are random, the
background has stripes of its own, and Gaussian noise lies over everything.
Randomness comes from `numpy.random.RandomState`, whose streams numpy keeps
frozen between versions (NEP 19); the bytes are a pure function of size, count
and seed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.random import RandomState

from suite import cache
from suite.facts import Tier
from tasks.vision.images import Arrays, ImageTask

SHAPES = ("disk", "square", "triangle", "cross", "ring")
CLASSES = 2 * len(SHAPES)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
NOISE = 0.08
CHUNK = 2000
CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
SEEDS = {"test": 1, "val": 2, "train": 3}


class ShapesTask(ImageTask):
    """Classification of procedural shapes. A tier's sizes hold ``pixels`` and ``train``, ``val`` and ``test``."""

    def arrays(self, tier: Tier, split: str) -> Arrays:
        pixels, count, seed = tier.sizes["pixels"], tier.sizes[split], SEEDS[split]
        return cache.arrays("shapes", f"{CODE} {pixels} {count} {seed}", lambda: draw_images(pixels, count, seed))

    def spelled(self, label: int) -> str:
        return f"{SHAPES[label // 2]}, {('upright', 'level')[label % 2]} stripes"


def draw_images(pixels: int, count: int, seed: int) -> Arrays:
    """Images of all classes equally often, in random order.

    Returns
    -------
    "images" (count, pixels, pixels, 3) uint8 and "labels" (count,) int64; a label
    is 2 * shape + direction, direction 0 for stripes that run upright.
    """
    random = RandomState(seed)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    random.shuffle(labels)
    parts = [_draw(random, labels[i : i + CHUNK], pixels) for i in range(0, count, CHUNK)]
    return {"images": np.concatenate(parts), "labels": labels}


def _draw(random: RandomState, labels: np.ndarray, pixels: int) -> np.ndarray:
    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        """(n, 1, 1) numbers, or (n, 1, 1, *shape)."""
        return low + (high - low) * random.random_sample((len(labels), 1, 1, *shape))

    axis = (np.arange(pixels) + 0.5) * 2.0 / pixels - 1.0
    x, y = axis[None, None, :], axis[None, :, None]
    size, turn = uniform(0.5, 0.8), uniform(0.0, 2.0 * np.pi)
    u, v = x - uniform(-0.25, 0.25), y - uniform(-0.25, 0.25)
    u, v = (u * np.cos(turn) + v * np.sin(turn)) / size, (v * np.cos(turn) - u * np.sin(turn)) / size
    inside = np.clip(0.5 - _signed_distance(u, v, labels // 2) * size * pixels / 2.0, 0.0, 1.0)
    direction = (labels % 2)[:, None, None] * np.pi / 2.0 + uniform(-0.25, 0.25)
    stripes = _stripes(x, y, direction, uniform(1.4, 2.2), uniform(0.0, 1.0))
    clutter = _stripes(x, y, uniform(0.0, np.pi), uniform(0.8, 2.2), uniform(0.0, 1.0))
    figure = _mix(uniform(0.0, 1.0, 3), uniform(0.0, 1.0, 3), stripes)
    ground = _mix(uniform(0.0, 1.0, 3), uniform(0.0, 1.0, 3), 0.4 * clutter)
    image = _mix(ground, figure, inside) + NOISE * random.standard_normal((len(labels), pixels, pixels, 3))
    return np.clip(np.rint(255.0 * image), 0.0, 255.0).astype(np.uint8)


def _signed_distance(u: np.ndarray, v: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Distance to the outline, negative inside, about (0, 0) with areas near pi; (n, pixels, pixels)."""
    radius = np.hypot(u, v)
    au, av = np.abs(u), np.abs(v)
    disk = radius - 1.0
    square = np.maximum(au, av) - 0.9
    triangle = np.maximum(v, 0.5 * (np.sqrt(3.0) * au - v)) - 0.75
    cross = np.minimum(np.maximum(au - 1.1, av - 0.4), np.maximum(au - 0.4, av - 1.1))
    ring = np.abs(radius - 0.8) - 0.3
    return np.choose(shapes[:, None, None], [disk, square, triangle, cross, ring])


def _stripes(x: np.ndarray, y: np.ndarray, angle: np.ndarray, frequency: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """A wave in [0, 1] along `angle`, `frequency` periods a unit."""
    return 0.5 + 0.5 * np.sin(2.0 * np.pi * (frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase))


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(1 - share) a + share b of colours (..., 3) and shares (...)."""
    return a + share[..., None] * (b - a)
