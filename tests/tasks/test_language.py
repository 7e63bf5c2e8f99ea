"""Language tasks: exact floors, frozen disjoint splits, every declared slot in the model, parameters with roles."""

from __future__ import annotations

import hashlib
import itertools
import math

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
from tasks.language.sources import DyckSource, HMMSource, InContextMarkovSource, MarkovSource, draw
from tasks.language.text import Text, TextTask, characters, spread_windows
from tasks.language.tokens import SourceTask, source_metrics, token_losses

TASKS = [task.name for task in suite.tasks(family="language")]
SOURCES = [name for name in TASKS if issubclass(registry().task(name).factory, SourceTask)]
TEXTS = [name for name in TASKS if issubclass(registry().task(name).factory, TextTask)]
GPTS = SOURCES + TEXTS
MODEL_SLOTS = {"activation", "norm", "block", "attention", "architecture", "init", "loss"}
SMALL_SOURCES = [
    DyckSource(types=2, leaves=1, limit=2),
    MarkovSource(vocabulary=4, order=2, concentration=0.5),
    MarkovSource(vocabulary=5, order=1, concentration=0.5),
    InContextMarkovSource(vocabulary=4),
    HMMSource(states=3, vocabulary=4, transition=0.5, emission=0.5),
]


def random_text(task) -> Text:
    """Text enough for the smoke tier, so that a model is built without the data."""
    random, vocabulary = np.random.default_rng(0), 65 if task.info.data == "tinyshakespeare" else 256
    train, val, test = (random.integers(0, vocabulary, size, dtype=np.uint8) for size in (5000, 6000, 9000))
    return Text(train, val, test, vocabulary)


@pytest.fixture
def noise_text(monkeypatch):
    for name in TEXTS:
        monkeypatch.setattr(registry().task(name).factory, "text", random_text)


def context(name: str, tier: str = "smoke", **choices: Choice) -> Context:
    info = registry().task(name)
    recipe = reference_recipe(info)
    for slot, choice in choices.items():
        recipe = recipe.with_choice(slot, choice)
    return Context(info, info.tiers[tier], tier, recipe, 0, torch.device("cpu"))


def workload(name: str, **choices: Choice):
    made = context(name, **choices)
    return made.task.factory(made.task).workload(made)


# ---------------------------------------------------------------- every language task


@pytest.mark.parametrize("name", TASKS)
def test_every_declared_slot_reaches_the_model_or_the_loop(noise_text, name):
    work = workload(name)
    declared = set(work.context.task.slots)
    built = {slot for slot, count in work.sites.items() if count}
    assert declared & MODEL_SLOTS == built & MODEL_SLOTS
    assert declared - MODEL_SLOTS <= {"optimizer", "gradient", "schedule", "averaging", "regularizer", "reparam"}
    assert set(work.context.recipe.choices) <= declared


@pytest.mark.parametrize("name", GPTS)
def test_every_site_of_a_layer_is_the_recipes(noise_text, name):
    work = workload(name)
    layers = work.context.tier.sizes["layers"]
    expected = {"activation": layers, "block": layers, "attention": layers}
    if "norm" in work.context.task.slots:
        expected["norm"] = 2 * layers + 1
    for slot, count in expected.items():
        kind = type(
            {
                "activation": lambda c: c.make(),
                "norm": lambda c: c.make(8),
                "block": lambda c: c.make(8, 16, nn.Identity),
                "attention": lambda c: c.make(8, 2, True),
            }[slot](work.context.recipe[slot])
        )
        assert sum(type(module) is kind for module in work.model.modules()) == work.sites[slot] == count
    norms = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
    if "norm" not in work.context.task.slots:
        assert not [module for module in work.model.modules() if isinstance(module, norms)]


@pytest.mark.parametrize("name", TASKS)
def test_every_parameter_has_the_role_of_its_kind(noise_text, name):
    work = workload(name)
    found = list(named_parameters(work.model))
    roles = [info.role for _, info in found]
    assert roles.count("head") == 1
    assert "other" not in roles
    assert "embedding" in roles
    assert "matrix" in roles
    assert ("norm" in roles) == ("norm" in work.context.task.slots)
    if name in GPTS:
        residual = [info for _, info in found if info.residual_out]
        assert len(residual) == 2 * work.context.tier.sizes["layers"] == residual[0].depth


@pytest.mark.parametrize("name", TASKS)
def test_two_steps_move_every_weight(noise_text, name):
    work = workload(name)
    before = {key: value.clone() for key, value in work.model.named_parameters()}
    trainer = Trainer(work, work.context.recipe, 100)
    for _ in range(2):
        assert torch.isfinite(trainer.step())
    still = [key for key, value in work.model.named_parameters() if torch.equal(value, before[key])]
    assert still == []


@pytest.mark.parametrize("name", TASKS)
def test_an_untrained_model_scores_about_chance(noise_text, name):
    work = workload(name)
    work.model.eval()
    metrics = work.task.score(work.predict(), work.task.answers(work.context.tier))
    metric = work.context.task.metric
    assert metrics[metric.name] == pytest.approx(metric.chance, abs=0.5 if metric.unit == "nats" else 0.02)


@pytest.mark.parametrize("name", GPTS)
def test_a_model_that_sees_later_tokens_is_refused(noise_text, name):
    work = workload(name)

    class Foresight(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x) + x.float().mean(1)[:, None, None]

    work.predict()
    work.model = Foresight(work.model)
    with pytest.raises(ValueError, match="later tokens"):
        work.predict()


@pytest.mark.parametrize("name", GPTS)
def test_every_tiers_sizes_belong_together(name):
    for tier in registry().task(name).tiers.values():
        sizes = tier.sizes
        assert sizes["features"] % sizes["heads"] == 0
        if name in SOURCES:
            assert sizes["train"] >= min(tier.budget * sizes["batch"], 4096)


# ---------------------------------------------------------------- sources and their floors


@pytest.mark.parametrize("source", SMALL_SOURCES, ids=lambda s: s.key)
def test_the_laws_of_all_sequences_sum_to_one(source):
    every = np.array(list(itertools.product(range(source.vocabulary), repeat=4)), dtype=np.uint8)
    if isinstance(source, DyckSource):
        every = every[[well_formed(sequence, source) for sequence in every]]
    assert np.exp(-source.losses(every).sum(axis=1)).sum() == pytest.approx(1.0, abs=1e-12)


def well_formed(sequence, source) -> bool:
    stack = []
    for token in sequence:
        if token < source.types:
            stack.append(token)
        elif token < 2 * source.types and (not stack or stack.pop() != token - source.types):
            return False
        if len(stack) > source.limit:
            return False
    return True


def test_dyck_losses_agree_with_a_parser_of_one_token_at_a_time():
    source = DyckSource.made()
    tokens = source.sample(200, 24, seed=5)
    losses = source.losses(tokens)
    for sequence, row in zip(tokens, losses, strict=True):
        assert well_formed(sequence, source)
        stack = []
        for token, loss in zip(sequence, row, strict=True):
            top = stack[-1] if stack else source.types
            assert loss == pytest.approx(-math.log(source.law[len(stack), top, token]), abs=1e-12)
            if token < source.types:
                stack.append(token)
            elif token < 2 * source.types:
                stack.pop()


def test_a_dyck_law_is_a_law_and_closes_the_open_bracket_only():
    source = DyckSource.made()
    np.testing.assert_allclose(source.law[1:, : source.types].sum(-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(source.law[0, source.types].sum(), 1.0, atol=1e-12)
    closing = source.law[3, 2, source.types : 2 * source.types]
    assert np.flatnonzero(closing).tolist() == [2]
    assert source.law[source.limit, 0, : source.types].max() == pytest.approx(0.0, abs=1e-12)


def test_markov_losses_agree_with_the_rows_one_by_one():
    source = MarkovSource(vocabulary=5, order=2)
    tokens = source.sample(50, 12, seed=1)
    losses = source.losses(tokens)
    start = source.vocabulary
    for sequence, row in zip(tokens, losses, strict=True):
        before = [start, start]
        for token, loss in zip(sequence, row, strict=True):
            law = source.law[before[-2] * (source.vocabulary + 1) + before[-1]]
            assert loss == pytest.approx(-math.log(law[token]), abs=1e-12)
            before.append(int(token))


def test_the_posterior_predictive_agrees_with_an_average_over_chains():
    source = InContextMarkovSource(vocabulary=3)
    tokens = source.sample(5, 8, seed=0)
    chains = np.random.default_rng(0).dirichlet(np.full(3, source.concentration), size=(200_000, 3))
    for sequence, row in zip(tokens, source.losses(tokens), strict=True):
        likelihood = np.prod([chains[:, a, b] for a, b in itertools.pairwise(sequence)], axis=0) / 3
        assert math.exp(-row.sum()) == pytest.approx(likelihood.mean(), rel=0.1)


def test_the_forward_filter_agrees_with_the_sum_over_all_hidden_paths():
    source = HMMSource(states=3, vocabulary=4, transition=0.5, emission=0.5)
    length = 5
    tokens = source.sample(20, length, seed=3)
    losses = source.losses(tokens)
    for sequence, row in zip(tokens, losses, strict=True):
        prefixes = [sum(path_law(source, path, sequence[:t]) for path in paths(3, t)) for t in range(1, length + 1)]
        conditional = np.array(prefixes) / np.array([1.0, *prefixes[:-1]])
        np.testing.assert_allclose(row, -np.log(conditional), atol=1e-12)


def paths(states: int, length: int):
    return itertools.product(range(states), repeat=length)


def path_law(source: HMMSource, path, sequence) -> float:
    law = source.start[path[0]]
    for before, after in itertools.pairwise(path):
        law *= source.transition[before, after]
    return law * math.prod(source.emission[state, token] for state, token in zip(path, sequence, strict=True))


@pytest.mark.parametrize("source", SMALL_SOURCES, ids=lambda s: s.key)
def test_samples_follow_the_law_of_the_floor(source):
    count = 20_000
    tokens = source.sample(count, 3, seed=4)
    seen, counts = np.unique(tokens, axis=0, return_counts=True)
    expected = count * np.exp(-source.losses(seen).sum(axis=1))
    assert expected.sum() > 0.99 * count
    common = expected > 5
    chi2 = ((counts - expected) ** 2 / expected)[common].sum()
    freedom = common.sum()
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "source", [DyckSource(), MarkovSource(), InContextMarkovSource(), HMMSource()], ids=lambda s: s.key
)
def test_samples_and_laws_are_frozen(source):
    digest = hashlib.sha256(source.sample(100, 32, seed=1).tobytes()).hexdigest()[:16]
    assert digest == FROZEN[source.key]
    assert not {row.tobytes() for row in source.sample(100, 32, 1)} & {
        row.tobytes() for row in source.sample(100, 32, 2)
    }


FROZEN = {
    "dyck 8 8 8 0.4 0.5 0": "004df14e53331831",
    "markov 16 2 0.15 0": "7135180c0e2d62d1",
    "in-context markov 8 0.3": "572658d8ca17d1bb",
    "hmm 24 16 0.05 0.1 0": "eb13a7003b7ac26e",
}


def test_drawn_indices_follow_the_cumulative_law():
    cumulative = np.tile([0.2, 0.2, 1.0 - 1e-12], (5, 1))
    assert draw(cumulative, np.array([0.0, 0.19, 0.2, 0.99, 1.0 - 1e-15])).tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("name", SOURCES)
def test_source_splits_are_disjoint_shifted_and_begin_with_the_start_token(name):
    made = context(name)
    task = made.task.factory(made.task)
    splits = task.splits(made.tier)
    start = task.source(made.tier).vocabulary
    tokens = task.answers(made.tier)["tokens"]
    for x in (splits.train_x, splits.val_x, splits.test_x):
        assert (x[:, 0] == start).all()
        assert (x[:, 1:] < start).all()
    assert torch.equal(splits.train_x[:, 1:], splits.train_y[:, :-1])
    np.testing.assert_array_equal(splits.test_x[:, 1:].numpy(), tokens[:, :-1])
    train, val, test = ({row.tobytes() for row in part.astype(np.uint8)} for part in (
        splits.train_y.numpy(), splits.val_y.numpy(), tokens))  # fmt: skip
    assert not train & test
    assert not train & val
    assert not val & test


# ---------------------------------------------------------------- excess over the floor


@pytest.mark.parametrize("name", SOURCES)
def test_the_bayes_predictor_has_no_excess(name):
    made = context(name)
    task = made.task.factory(made.task)
    answers = task.answers(made.tier)
    metrics = task.score({"logits": bayes_logits(task.source(made.tier), answers["tokens"])}, answers)
    assert metrics["excess"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["ce"] == pytest.approx(metrics["floor"], abs=1e-6)


def bayes_logits(source, tokens) -> np.ndarray:
    """Logits of the source itself: the loss of each token in place of the seen one, everything before as it is."""
    logits = np.empty((*tokens.shape, source.vocabulary))
    for t in range(tokens.shape[1]):
        for token in range(source.vocabulary):
            changed = tokens[:, : t + 1].copy()
            changed[:, t] = token
            logits[:, t, token] = -source_losses_at(source, changed, t)
    return np.maximum(logits, -1e3)


def source_losses_at(source, tokens, t) -> np.ndarray:
    if isinstance(source, DyckSource):
        with np.errstate(divide="ignore"):
            return -np.log(source.law[*dyck_state(source, tokens[:, :t]), tokens[:, t]])
    return source.losses(tokens)[:, t]


def dyck_state(source, prefix):
    """Depth and top after a prefix: those before a leaf put behind it."""
    leaf = np.full((len(prefix), 1), 2 * source.types, dtype=prefix.dtype)
    depths, tops = source.states(np.concatenate([prefix, leaf], axis=1))
    return depths[:, -1], tops[:, -1]


@pytest.mark.parametrize("name", SOURCES)
def test_no_predictor_is_below_the_floor(name):
    made = context(name)
    task = made.task.factory(made.task)
    answers = task.answers(made.tier)
    logits = bayes_logits(task.source(made.tier), answers["tokens"])
    random = np.random.default_rng(0)
    for scale in (0.0, 0.03, 0.3):
        noisy = np.maximum(logits, -20.0) * (1.0 + scale / 10) + scale * random.standard_normal(logits.shape)
        metrics = task.score({"logits": noisy}, answers)
        assert metrics["excess"] > -3 * metrics["excess_se"] - 1e-6
    assert metrics["excess"] > 10 * metrics["excess_se"]


@pytest.mark.parametrize("name", SOURCES)
def test_a_short_training_stays_above_the_floor_and_leaves_chance(name):
    work = workload(name)
    history = Trainer(work, work.context.recipe, 12).run(1)
    metrics = work.task.score(work.predict(), work.task.answers(work.context.tier))
    untrained = history.curve[0].metrics
    assert -3 * metrics["excess_se"] < metrics["excess"] < untrained["excess"]
    assert untrained["excess"] > 10 * untrained["excess_se"]


def test_kinds_partition_the_excess():
    source = DyckSource.made()
    tokens = source.sample(64, 32, seed=8)
    kinds = source.kinds(tokens)
    named = np.stack([kinds[name] for name in ("opening", "closing", "leaf")])
    depths = np.stack([mask for name, mask in kinds.items() if name.startswith("depth")])
    assert (named.sum(axis=0) == 1).all()
    assert (depths.sum(axis=0) == 1).all()
    answers = {"tokens": tokens, "floor": source.losses(tokens), **{f"kind.{k}": m for k, m in kinds.items()}}
    metrics = source_metrics(np.zeros((*tokens.shape, source.vocabulary)), answers)
    for group in (("opening", "closing", "leaf"), [k for k in kinds if k.startswith("depth")]):
        total = sum(metrics[f"excess.{kind}"] * kinds[kind].mean() for kind in group)
        assert total == pytest.approx(metrics["excess"], abs=1e-12)
    assert metrics["ce"] == pytest.approx(math.log(source.vocabulary))


def test_token_losses_are_the_cross_entropy():
    random = np.random.default_rng(0)
    logits, tokens = 5 * random.standard_normal((3, 4, 6)), random.integers(0, 6, (3, 4))
    expected = nn.functional.cross_entropy(
        torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(tokens).flatten(), reduction="none"
    )
    np.testing.assert_allclose(token_losses(logits, tokens).ravel(), expected.numpy(), atol=1e-12)
    with pytest.raises(ValueError, match="do not fit"):
        token_losses(logits, tokens[:, :3])


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("name", TEXTS)
def test_targets_are_the_next_tokens(noise_text, name):
    work = workload(name)
    text = work.task.text()
    for _ in range(3):
        work.next()
        assert torch.equal(work.x[:, 1:], work.y[:, :-1])
        joined = text.train.tobytes()
        for x, last in zip(work.x, work.y[:, -1], strict=True):
            assert x.to(torch.uint8).numpy().tobytes() + bytes([int(last)]) in joined
    splits, answers = work.task.splits(work.context.tier), work.task.answers(work.context.tier)
    np.testing.assert_array_equal(splits.test_x[:, 1:].numpy(), answers[:, :-1])


def test_windows_do_not_overlap_and_end_inside_the_text():
    windows = spread_windows(np.arange(101, dtype=np.uint8), 10, 10)
    assert windows.shape == (10, 11)
    np.testing.assert_array_equal(windows[:-1, -1], windows[1:, 0])
    assert windows.max() == 100
    with pytest.raises(ValueError, match="no 11 windows"):
        spread_windows(np.arange(101, dtype=np.uint8), 11, 10)


def test_characters_are_numbered_by_their_codes():
    tokens, size = characters(b"cabac")
    assert tokens.tolist() == [2, 0, 1, 0, 2]
    assert size == 3


needs_texts = [
    pytest.mark.data,
    pytest.mark.skipif(data.root() is None, reason="texts are read where LEVELFIELD_DATA names their folder"),
]


class TestRealTexts:
    pytestmark = needs_texts

    def test_shakespeare_is_split_in_order_without_loss(self):
        info = registry().task("shakespeare-gpt")
        text = info.factory(info).text()
        assert text.vocabulary == 65
        alphabet = np.unique(np.frombuffer(data.text("tinyshakespeare"), dtype=np.uint8))
        joined = np.concatenate([text.train, text.val, text.test])
        assert alphabet[joined].tobytes() == data.text("tinyshakespeare")
        assert [len(text.train), len(text.val), len(text.test)] == [1_003_854, 55_770, 55_770]

    def test_novels_are_held_out_whole(self):
        info = registry().task("novels-gpt")
        text = info.factory(info).text()
        novels = data.documents("english_novels")
        assert len(text.train) + len(text.val) + len(text.test) == sum(map(len, novels))
        train = text.train.tobytes()
        for part in (text.val, text.test):
            assert part.tobytes().count(b"\n<|endoftext|>\n") == 6
            assert all(novel[:2000] not in train for novel in part.tobytes().split(b"\n<|endoftext|>\n")[:-1])

    @pytest.mark.parametrize("name", ["shakespeare-gpt", "novels-gpt"])
    def test_every_tier_has_windows_enough(self, name):
        info = registry().task(name)
        task = info.factory(info)
        for tier in info.tiers.values():
            assert task.answers(tier).shape == (tier.sizes["test"], tier.sizes["context"])
            assert task.validation_answers(tier).shape == (tier.sizes["val"], tier.sizes["context"])


# ---------------------------------------------------------------- modular addition


def test_modular_addition_is_split_once_and_completely():
    made = context("modadd-grok")
    task = made.task.factory(made.task)
    splits, answers = task.splits(made.tier), task.answers(made.tier)
    parts = [splits.train_x, splits.val_x, splits.test_x]
    assert [len(part) for part in parts] == [made.tier.sizes["train"], made.tier.sizes["val"], len(answers)]
    pairs = torch.cat(parts)
    assert len(torch.unique(pairs, dim=0)) == len(pairs) == 59 * 59
    assert torch.equal(splits.train_y, splits.train_x.sum(1) % 59)
    np.testing.assert_array_equal(answers, splits.test_x.sum(1).numpy() % 59)


def test_modular_addition_is_memorised_before_it_is_understood():
    work = workload("modadd-grok")
    Trainer(work, work.context.recipe, 150).run(1)
    work.model.eval()
    with torch.no_grad():
        train = (work.model(work.data.train_x).argmax(-1) == work.data.train_y).float().mean()
    assert train > 0.95
    assert work.validate()["accuracy"] < 0.3
