"""Vision tasks: frozen, balanced, disjoint data; every declared slot reaches the model; parameters have roles."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

import suite
from suite import data
from suite.recipe import Choice, reference_recipe
from suite.registry import registry
from suite.train.loop import Trainer
from suite.train.roles import named_parameters
from suite.train.workload import Context
from tasks.vision.cifar10_airbench import whitening_filters
from tasks.vision.images import ImageTask, Normalise, first_of_each_class, flip_and_shift
from tasks.vision.shapes import CLASSES, draw_images

TASKS = [task.name for task in suite.tasks(family="vision")]
EMBEDDED = [name for name in TASKS if not registry().task(name).data]
MODEL_SLOTS = {"activation", "norm", "block", "attention", "architecture", "init", "loss"}


def noise_arrays(task, tier, split):
    """Random images of the data set's shape, so that a model is built without the data."""
    classes = 100 if task.info.data == "cifar100" else 10
    count = max(tier.sizes[split], classes)
    random = np.random.default_rng(len(split))
    pixels = tier.sizes.get("pixels", 32)
    return {
        "images": random.integers(0, 256, (count, pixels, pixels, 3), dtype=np.uint8),
        "labels": np.arange(count, dtype=np.int64) % classes,
    }


@pytest.fixture
def noise_images(monkeypatch):
    for name in TASKS:
        factory = registry().task(name).factory
        if issubclass(factory, ImageTask):
            monkeypatch.setattr(factory, "arrays", noise_arrays)


def context(name: str, tier: str = "smoke", **choices: Choice) -> Context:
    info = registry().task(name)
    recipe = reference_recipe(info)
    for slot, choice in choices.items():
        recipe = recipe.with_choice(slot, choice)
    return Context(info, info.tiers[tier], tier, recipe, 0, torch.device("cpu"))


def workload(name: str, **choices: Choice):
    made = context(name, **choices)
    return made.task.factory(made.task).workload(made)


# ---------------------------------------------------------------- every vision task


@pytest.mark.parametrize("name", TASKS)
def test_every_declared_slot_reaches_the_model_or_the_loop(noise_images, name):
    work = workload(name)
    declared = set(work.context.task.slots)
    built = {slot for slot, count in work.sites.items() if count}
    assert declared & MODEL_SLOTS == built & MODEL_SLOTS
    assert declared - MODEL_SLOTS <= {"optimizer", "gradient", "schedule", "averaging", "regularizer", "reparam"}
    assert set(work.context.recipe.choices) <= declared


@pytest.mark.parametrize("name", TASKS)
def test_every_activation_and_norm_site_is_the_recipes(noise_images, name):
    work = workload(name)
    activation = type(work.context.recipe["activation"].make())
    norm = type(work.context.recipe["norm"].make(8))
    found = [type(module) for module in work.model.modules()]
    assert found.count(activation) == work.sites["activation"] > 1
    assert found.count(norm) == work.sites["norm"] > 1
    others = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    stray = [m for m in found if issubclass(m, others) and not issubclass(m, (activation, norm))]
    assert stray == []


@pytest.mark.parametrize("name", TASKS)
def test_an_activation_that_widens_fits_every_site(noise_images, name):
    work = workload(name, activation=Choice("crelu"))
    work.next()
    assert torch.isfinite(work.loss())


@pytest.mark.parametrize("name", TASKS)
def test_every_parameter_has_the_role_of_its_kind(noise_images, name):
    work = workload(name)
    roles = [info.role for parameter, info in named_parameters(work.model) if parameter.requires_grad]
    assert roles.count("head") == 1
    assert "other" not in roles
    assert ("embedding" in roles) == ("attention" in work.context.task.slots)
    assert "norm" in roles
    assert {"conv", "matrix"} & set(roles)


@pytest.mark.parametrize("name", TASKS)
def test_images_keep_channels_last_through_the_convolutions(noise_images, name):
    work = workload(name)
    if not work.task.channels_last:
        pytest.skip("a transformer")
    work.next()
    layouts = []
    for module in work.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _m, _i, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    work.loss()
    assert layouts
    assert all(layouts)


@pytest.mark.parametrize("name", TASKS)
def test_two_steps_move_every_weight(noise_images, name):
    work = workload(name)
    before = {key: value.clone() for key, value in work.model.named_parameters()}
    trainer = Trainer(work, work.context.recipe, 100)
    for _ in range(2):
        assert torch.isfinite(trainer.step())
    still = [key for key, value in work.model.named_parameters() if torch.equal(value, before[key])]
    assert still == []


@pytest.mark.parametrize("name", TASKS)
def test_predictions_have_a_row_of_logits_for_every_answer(noise_images, name):
    work = workload(name)
    answers = work.task.answers(work.context.tier)
    metrics = work.task.score(work.predict(), answers)
    assert work.context.task.metric.name in metrics
    assert metrics["ce"] == pytest.approx(work.context.task.metric.chance, abs=0.5)


@pytest.mark.parametrize("name", TASKS)
def test_every_tiers_sizes_belong_together(name):
    for tier in registry().task(name).tiers:
        made = context(name, tier)
        task = made.task.factory(made.task)
        if not isinstance(task, ImageTask):
            continue
        sizes = made.tier.sizes
        assert sizes["batch"] <= sizes["train"]
        if "patch" in sizes:
            assert sizes["pixels"] % sizes["patch"] == 0
            assert sizes["features"] % sizes["heads"] == 0


# ---------------------------------------------------------------- shapes


def test_shapes_are_the_same_bytes_every_time():
    made = draw_images(16, 200, 1)
    again = draw_images(16, 200, 1)
    np.testing.assert_array_equal(made["images"], again["images"])
    digest = hashlib.sha256(made["images"].tobytes() + made["labels"].tobytes()).hexdigest()
    assert digest == "e257323849b552370ab09116809705d43ae2fab7901312905a582155400aa35c"


def test_shapes_have_every_class_equally_often_and_seeds_differ():
    one, other = draw_images(16, 500, 1), draw_images(16, 500, 2)
    for made in (one, other):
        assert np.bincount(made["labels"]).tolist() == [50] * CLASSES
    assert not rows(one["images"]) & rows(other["images"])


def test_shape_classes_are_told_apart_by_what_they_name():
    made = draw_images(32, 2000, 5)
    images = made["images"].astype(np.float64).mean(axis=-1)
    upright = np.abs(np.diff(images, axis=2)).mean(axis=(1, 2)) - np.abs(np.diff(images, axis=1)).mean(axis=(1, 2))
    direction = made["labels"] % 2
    assert upright[direction == 0].mean() > 0 > upright[direction == 1].mean()


@pytest.mark.parametrize("name", [name for name in EMBEDDED if name.startswith("shapes")])
def test_shape_splits_are_disjoint(name):
    made = context(name)
    task = made.task.factory(made.task)
    parts = [rows(task.arrays(made.tier, split)["images"]) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [made.tier.sizes[split] for split in ("train", "val", "test")]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_shapes_cnn_learns_in_its_smoke_tier():
    work = workload("shapes-cnn")
    history = Trainer(work, work.context.recipe, 60).run(2)
    assert history.curve[-1].train_loss < history.curve[0].metrics["ce"] - 0.05


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


# ---------------------------------------------------------------- parts


def test_augmented_images_are_shifted_mirrored_and_reflected():
    generator = torch.Generator().manual_seed(0)
    image = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6)
    padded = nn.functional.pad(image.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    allowed = set()
    for picture in (padded, padded.flip(-1)):
        for i in range(5):
            for j in range(5):
                allowed.add(picture[0, 0, i : i + 6, j : j + 6].numpy().tobytes())
    batch = image.repeat(400, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    moved = flip_and_shift(batch, generator, 2)
    seen = {one.contiguous().numpy().tobytes() for one in moved}
    assert seen <= allowed
    assert len(seen) > 40


def test_augmentation_without_mirroring_and_shift_is_the_identity():
    x = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(flip_and_shift(x, torch.Generator().manual_seed(0), 0, flip=False), x)


def test_normalised_bytes_have_the_stated_mean_and_deviation():
    x = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    mean, std = x.float().div(255).mean((0, 2, 3)), x.float().div(255).std((0, 2, 3))
    y = Normalise(tuple(mean.tolist()), tuple(std.tolist()))(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_subsets_are_balanced_and_disjoint():
    labels = np.random.default_rng(0).permutation(np.arange(1000) % 10)
    first, second = first_of_each_class(labels, 200), first_of_each_class(labels, 500, skip=200)
    assert np.bincount(labels[first]).tolist() == [20] * 10
    assert np.bincount(labels[second]).tolist() == [50] * 10
    assert not set(first) & set(second)


@pytest.mark.parametrize(("count", "skip"), [(105, 0), (100, 5), (1000, 10)])
def test_a_subset_that_cannot_be_balanced_is_refused(count, skip):
    labels = np.arange(1000) % 10
    with pytest.raises(ValueError, match="examples"):
        first_of_each_class(labels, count, skip)


def test_whitening_filters_whiten_patches():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(500, 3, 12, 12, generator=generator)
    images = nn.functional.avg_pool2d(images, 2, stride=1) * 3.0
    filters = whitening_filters(images)
    assert filters.shape == (24, 3, 2, 2)
    torch.testing.assert_close(filters[12:], -filters[:12])
    out = nn.functional.conv2d(images, filters[:12]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(out), torch.eye(12), atol=0.02, rtol=0)


# ---------------------------------------------------------------- CIFAR-10

needs_cifar = [
    pytest.mark.data,
    pytest.mark.skipif(data.root() is None, reason="CIFAR-10 is read where LEVELFIELD_DATA names its folder"),
]


class TestCIFAR10:
    pytestmark = needs_cifar

    @pytest.mark.parametrize("tier", ["smoke", "quick"])
    def test_splits_are_balanced_and_disjoint(self, tier):
        made = context("cifar10-resnet", tier)
        task = made.task.factory(made.task)
        parts = {split: task.arrays(made.tier, split) for split in ("train", "val", "test")}
        for split, part in parts.items():
            assert np.bincount(part["labels"]).tolist() == [made.tier.sizes[split] // 10] * 10
        assert not rows(parts["train"]["images"]) & rows(parts["val"]["images"])

    def test_the_quick_training_set_is_frozen(self):
        made = context("cifar10-resnet", "quick")
        arrays = made.task.factory(made.task).arrays(made.tier, "train")
        assert data.content_sum(arrays) == "850f553403bf9405796ce57229e6421b92fcd305666e470a0f7400ced4d4cf01"

    def test_it_runs_from_data_to_score(self):
        work = workload("cifar10-resnet")
        history = Trainer(work, work.context.recipe, 6).run(1)
        metrics = work.task.score(work.predict(), work.task.answers(work.context.tier))
        assert not history.diverged
        assert np.isfinite(metrics["ce"])
