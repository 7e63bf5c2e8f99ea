"""What the image tasks share: bytes kept as they are, normalisation in the model, flips and shifts, fixed subsets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from suite import cache, data
from suite.facts import Tier
from suite.train.supervised import Splits, SupervisedTask

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)

Arrays = dict[str, np.ndarray]


class Normalise(nn.Module):
    """(x / 255 - mean) / std by channel, of uint8 images (n, channels, height, width)."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", 1.0 / (255.0 * torch.tensor(std)).view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.scale.dtype) * self.scale - self.shift


def flip_and_shift(x: Tensor, generator: torch.Generator, pixels: int, *, flip: bool = True) -> Tensor:
    """Each image mirrored left to right with probability 1/2 and moved by up to `pixels`, its border reflected.

    Parameters
    ----------
    x : (n, channels, height, width) in channels-last memory, any dtype.
    generator : CPU stream; draws the same numbers whatever the device.
    pixels : largest shift in either direction.
    flip : False leaves out the mirroring.
    """
    count, _, height, width = x.shape
    shifts = torch.randint(-pixels, pixels + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    rows, columns = _reflected(height, shifts[0]), _reflected(width, shifts[1])
    if flip:
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(x.device), columns.to(x.device)
    image = torch.arange(count, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(size: int, shift: Tensor) -> Tensor:
    """(n, size) source indices of an axis moved by `shift` (n, 1)."""
    index = (torch.arange(size) + shift).abs()
    return (size - 1) - ((size - 1) - index).abs()


def first_of_each_class(labels: np.ndarray, count: int, skip: int = 0) -> np.ndarray:
    """Indices, in their order, of `count` examples, equally many of each class.

    Parameters
    ----------
    labels : (n,) class indices, every class equally often.
    count : examples to take; a multiple of the number of classes.
    skip : examples (a multiple likewise) that another subset holds and this one leaves out.

    Raises
    ------
    ValueError : `count` or `skip` is no multiple of the number of classes, or there are too few examples.
    """
    classes = int(labels.max()) + 1
    each, before = count // classes, skip // classes
    if count % classes or skip % classes:
        raise ValueError(f"{count} and {skip} examples of {classes} classes cannot be stratified")
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(classes))
    ends = np.append(starts[1:], len(labels))
    if (starts + before + each > ends).any():
        raise ValueError(f"there are too few examples for {count} after {skip}")
    taken = [order[start + before : start + before + each] for start in starts]
    return np.sort(np.concatenate(taken))


class ImageTask(SupervisedTask):
    """Classification of uint8 colour images, normalised inside the model.

    A tier's sizes hold ``train`` and ``val`` (images) beside the batch sizes.

    Attributes
    ----------
    shift : the augmentation's largest shift in pixels.
    flip : whether it mirrors images.
    """

    channels_last = True
    shift = 2
    flip = True

    def arrays(self, tier: Tier, split: str) -> Arrays:
        """ "images" (n, height, width, 3) uint8 and "labels" (n,) of "train", "val" or "test"."""
        raise NotImplementedError

    def splits(self, tier: Tier) -> Splits:
        train, val = self.arrays(tier, "train"), self.arrays(tier, "val")
        return Splits(
            _tensor(train["images"]),
            torch.from_numpy(train["labels"]),
            _tensor(val["images"]),
            torch.from_numpy(val["labels"]),
            _tensor(self.arrays(tier, "test")["images"]),
        )

    def answers(self, tier: Tier) -> np.ndarray:
        return self.arrays(tier, "test")["labels"]

    def samples(self, tier: Tier) -> dict:
        """The first training image of each class."""
        from suite.samples import one_of_each, pictures

        train = self.arrays(tier, "train")
        index = one_of_each(train["labels"])[:20]
        return pictures(train["images"][index], [self.spelled(label) for label in train["labels"][index]])

    def spelled(self, label: int) -> str:
        """A class in words."""
        return str(label)

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return flip_and_shift(x, generator, self.shift, flip=self.flip)


class RealImageTask(ImageTask):
    """A data set of `suite.data`, all of it or a fixed stratified subset.

    Validation images are taken from the data set's training images. A tier's
    sizes also hold ``test``. Subsets are kept in the cache, so that a quick run
    does not read the whole set.
    """

    def spelled(self, label: int) -> str:
        return data.class_name(self.info.data, int(label))

    def arrays(self, tier: Tier, split: str) -> Arrays:
        val = tier.sizes["val"]
        count, skip = {"train": (tier.sizes["train"], val), "val": (val, 0), "test": (tier.sizes["test"], 0)}[split]
        known = data.dataset(self.info.data)
        source = "test" if split == "test" else "train"
        if count == known.counts[source]:
            return data.images(known.name, source)
        key = f"subset 1 {known.name} {source} {known.content.get(source)} {count} {skip}"
        return cache.arrays(f"{known.name}-{split}-{count}", key, lambda: _subset(known.name, source, count, skip))


def _subset(name: str, source: str, count: int, skip: int) -> Arrays:
    whole = data.images(name, source)
    index = first_of_each_class(whole["labels"], count, skip)
    return {key: array[index] for key, array in whole.items()}


def _tensor(images: np.ndarray) -> Tensor:
    """(n, 3, height, width) uint8 in channels-last memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
