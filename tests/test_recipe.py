"""Recipes: the reference with at most the named slots changed; seeds are scoped and leave the method out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import suite
from suite.recipe import Choice, is_learning_rate, recipe_for, reference_recipe, scaled_defaults
from suite.registry import UnknownName, registry
from suite.runner.spec import plan
from suite.seeds import seed_for

DIGITS = suite.registry().task("digits-cnn")

SCALED = """
from suite import IntUniform, Metric, Tier, define_task, optimizer

@define_task("gentle", family="vision", version=1, metric=Metric("ce", "nats", "min"), slots=("optimizer", "schedule"),
             recipe={"optimizer": ("two-rates", {"lr": 0.3}), "schedule": "constant"}, tiers={"smoke": Tier(3)},
             lr_scale=0.25)
class Gentle: pass

@optimizer("two-rates", defaults={"lr": 0.1, "adam_lr": 0.01, "flr": 1.0, "decay": 0.5})
class TwoRates: pass
"""


@pytest.mark.parametrize("task", suite.tasks(), ids=lambda task: task.name)
def test_a_reference_names_registered_methods_of_their_slots_with_all_their_hyper_parameters(
    task: suite.TaskInfo,
) -> None:
    recipe = reference_recipe(task)
    assert set(recipe.choices) == set(task.recipe)
    for slot, choice in recipe.choices.items():
        assert choice.entry.slot == slot
        assert set(choice.entry.defaults) <= set(choice.hp)
    assert set(task.recipe) <= set(task.slots)


def test_a_method_changes_its_own_slot_and_nothing_else() -> None:
    reference, recipe = reference_recipe(DIGITS), recipe_for(DIGITS, "gelu")
    assert recipe["activation"] == Choice("gelu", registry().method("gelu").defaults)
    changed = {slot for slot in recipe.choices if recipe[slot] != reference[slot]}
    assert changed == {"activation"}
    assert recipe_for(DIGITS, "reference") == reference


def test_a_method_of_a_slot_that_the_reference_leaves_empty_is_added() -> None:
    assert "averaging" not in reference_recipe(DIGITS)
    recipe = recipe_for(DIGITS, "ema", {"decay": 0.9})
    assert recipe["averaging"] == Choice("ema", {"decay": 0.9})


def test_a_combination_fills_several_slots() -> None:
    recipe = recipe_for(DIGITS, "gelu+adamw+ema", {"decay": 0.9})
    assert [recipe[s].method for s in ("activation", "optimizer", "averaging")] == ["gelu", "adamw", "ema"]
    assert recipe["averaging"].hp["decay"] == 0.9


@pytest.mark.parametrize(
    ("method", "hp", "message"),
    [
        ("softmax-attention", {}, "does not declare slot 'attention' of method 'softmax-attention'; its slots: "),
        ("gelu+relu", {}, "fills slot 'activation' twice"),
        ("gelu", {"lr": 0.1}, r"'gelu' has no hyper-parameter \['lr'\]; see `levelfield show gelu`"),
        ("reference", {"lr": 0.1}, "'reference' has no hyper-parameter"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(method: str, hp: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_for(DIGITS, method, hp)


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="no method named 'gelo'; did you mean gelu"):
        recipe_for(DIGITS, "gelo")


def test_a_tasks_scale_moves_default_learning_rates_and_nothing_else(entry: Callable[..., Path]) -> None:
    entry(SCALED)
    task, method = registry().task("gentle"), registry().method("two-rates")
    assert scaled_defaults(task, method) == {"lr": 0.025, "adam_lr": 0.0025, "flr": 1.0, "decay": 0.5}
    assert recipe_for(task, "two-rates", {"lr": 0.7})["optimizer"].hp["lr"] == 0.7  # set by hand: absolute
    assert reference_recipe(task)["optimizer"].hp["lr"] == 0.3  # the reference states its own
    assert [is_learning_rate(name) for name in ("lr", "adam_lr", "flr", "lr_decay")] == [True, True, False, False]


def test_a_recipe_is_told_in_plain_words() -> None:
    told = recipe_for(DIGITS, "ema", {"decay": 0.9}).as_dict()
    assert told["averaging"] == {"method": "ema", "hp": {"decay": 0.9}}
    assert list(told) == sorted(told)


# ---------------------------------------------------------------- seeds


@given(st.text(max_size=8), st.text(max_size=8), st.integers(0, 99), st.text(max_size=8))
def test_a_seed_is_a_pure_function_of_its_scope_in_63_bits(task: str, purpose: str, index: int, more: str) -> None:
    seed = seed_for(task, purpose, index, more)
    assert seed == seed_for(task, purpose, index, more)
    assert 0 <= seed < 2**63


def test_seeds_differ_in_every_part_of_their_scope() -> None:
    scopes = [(t, p, i, *m) for t in "ab" for p in ("init", "order") for i in (0, 1, 10) for m in ((), ("w",), ("v",))]
    assert len({seed_for(*scope) for scope in scopes}) == len(scopes)  # type: ignore[arg-type]


# ---------------------------------------------------------------- plans


def test_a_plan_has_the_reference_first_and_the_seeds_outermost() -> None:
    specs, notes = plan(["digits-cnn"], ["gelu", "relu"], "smoke", [0, 4])
    assert [(s.method, s.seed) for s in specs] == [
        ("reference", 0), ("gelu", 0), ("relu", 0), ("reference", 4), ("gelu", 4), ("relu", 4),
    ]  # fmt: skip
    assert notes == []


def test_a_plan_names_what_it_leaves_out() -> None:
    specs, notes = plan(["digits-cnn", "novels-gpt"], ["gelu", "grpo", "gelu+grpo"], "quick", [0])
    assert {s.task for s in specs} == {"digits-cnn"}
    assert notes == [
        "novels-gpt has no tier 'quick' (it has smoke, standard)",
        "grpo (objective) fits none of the chosen tasks",
        "gelu+grpo (activation and objective) fits none of the chosen tasks",
    ]


def test_hyper_parameters_of_a_plan_go_to_the_methods_that_have_them() -> None:
    specs, _ = plan(["digits-cnn"], ["gelu", "ema"], "smoke", [0], hp={"decay": 0.9})
    assert {s.method: dict(s.hp) for s in specs} == {"reference": {}, "gelu": {}, "ema": {"decay": 0.9}}
