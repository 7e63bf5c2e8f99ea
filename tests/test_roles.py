"""Parameter roles come from the modules that own the parameters, never from names."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import suite
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.build import output_layer
from suite.train.roles import ROLES, UNDECAYED, fans, mark, mark_residual, named_parameters, param_groups


class Odd(nn.Module):
    """A module whose names say the opposite of what its parts are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Conv2d(3, 4, 3)
        self.conv_weight_head = nn.Embedding(7, 4)
        self.bias = nn.Linear(4, 4)
        self.embedding = nn.GroupNorm(2, 4)
        self.first = nn.Conv1d(4, 4, 3, bias=False)
        self.prelu = mark(nn.PReLU(4), "other")
        self.scale = nn.Parameter(torch.ones(()))
        self.mixing = nn.Parameter(torch.ones(4, 4))
        self.weight = nn.Linear(4, 2)


def roles(model: nn.Module) -> dict[str, str]:
    return {info.name: info.role for _, info in named_parameters(model)}


def test_roles_follow_modules_whatever_their_names() -> None:
    assert roles(Odd()) == {
        "scale": "other",
        "mixing": "matrix",
        "norm.weight": "conv",
        "norm.bias": "bias",
        "conv_weight_head.weight": "embedding",
        "bias.weight": "matrix",
        "bias.bias": "bias",
        "embedding.weight": "norm",
        "embedding.bias": "norm",
        "first.weight": "conv",
        "prelu.weight": "other",
        "weight.weight": "head",  # the last linear layer, since none is marked
        "weight.bias": "bias",
    }


def test_a_marked_head_is_the_head_wherever_it_stands() -> None:
    model = nn.Sequential(output_layer(nn.Linear(4, 4))[0], nn.Linear(4, 4))
    assert roles(model) == {"0.weight": "head", "0.bias": "bias", "1.weight": "matrix", "1.bias": "bias"}


def test_everything_below_a_marked_norm_is_norm() -> None:
    custom = mark(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), "norm")
    assert set(roles(nn.Sequential(custom, nn.Linear(4, 4))).values()) == {"norm", "head", "bias"}


def test_a_tied_weight_is_one_parameter() -> None:
    embedding, head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleList([embedding, head])
    assert roles(model) == {"0.weight": "embedding"}
    assert sum(len(group["params"]) for group in param_groups(model)) == 1


def test_groups_hold_every_trainable_parameter_once_and_leave_norms_biases_and_scalars_undecayed() -> None:
    model = Odd()
    model.mixing.requires_grad_(False)
    groups = param_groups(model)
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters() if p.requires_grad}
    named = [group["role"] for group in groups]
    assert named == [role for role in ROLES if role in named]
    assert {g["role"] for g in groups if g.get("weight_decay") == 0.0} == {r for r in named if r in UNDECAYED}


def test_fans_are_those_of_torch() -> None:
    for shape in ((5, 3), (8, 4, 3), (8, 4, 3, 5), (2, 3, 4, 5, 6)):
        tensor = torch.empty(shape)
        assert fans(tensor) == nn.init._calculate_fan_in_and_fan_out(tensor)
    assert fans(torch.empty(4)) == fans(torch.empty(())) == (0, 0)


def test_residual_outputs_are_marked_and_counted() -> None:
    model = nn.Sequential(mark_residual(nn.Linear(3, 3)), nn.Linear(3, 3), mark_residual(nn.Conv2d(1, 1, 1)))
    found = {info.name: (info.residual_out, info.depth) for _, info in named_parameters(model)}
    assert {name for name, (out, _) in found.items() if out} == {"0.weight", "2.weight"}
    assert {depth for _, depth in found.values()} == {2}


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_a_reparametrized_weight_keeps_the_role_of_the_weight() -> None:
    model = nn.Sequential(
        nn.Embedding(5, 4), nn.Linear(4, 4), mark_residual(nn.Conv1d(4, 4, 1)), output_layer(nn.Linear(4, 2))[0]
    )
    parametrize.register_parametrization(model[0], "weight", Doubled())
    parametrizations.weight_norm(model[1])
    parametrizations.spectral_norm(model[2])
    parametrize.register_parametrization(model[3], "weight", Doubled())
    parametrize.register_parametrization(model[3], "bias", Doubled())
    found = {info.name.replace("parametrizations.", ""): info.role for _, info in named_parameters(model)}
    assert found == {
        "0.weight.original": "embedding",
        "1.bias": "bias",
        "1.weight.original0": "other",  # the gains
        "1.weight.original1": "matrix",
        "2.bias": "bias",
        "2.weight.original": "conv",
        "3.weight.original": "head",
        "3.bias.original": "bias",
    }
    assert {info.name for _, info in named_parameters(model) if info.residual_out} == {
        "2.parametrizations.weight.original"
    }


def test_a_model_that_is_itself_reparametrized_keeps_its_role() -> None:
    model = parametrizations.weight_norm(nn.Linear(4, 2))
    assert sorted(roles(model).values()) == ["bias", "head", "other"]


EMBEDDED = [task for task in suite.tasks() if "smoke" in task.tiers and not task.data]


@pytest.mark.parametrize("name", ["digits-cnn", "dyck-gpt", "convection"])
def test_a_tasks_model_has_one_head_and_only_known_roles(name: str) -> None:
    model = make_workload(RunSpec(name, "reference", "smoke")).model
    found = list(named_parameters(model))
    assert {info.role for _, info in found} <= set(ROLES)
    assert sum(info.role == "head" for _, info in found) == 1
    assert all(math.prod(p.shape) for p, _ in found)


@pytest.mark.slow
@pytest.mark.parametrize("task", EMBEDDED, ids=lambda task: task.name)
def test_every_slot_that_a_task_declares_is_used_in_its_model(task: suite.TaskInfo) -> None:
    workload = make_workload(RunSpec(task.name, "reference", "smoke"))
    built = getattr(workload, "sites", {})
    in_model = {"activation", "norm", "block", "attention", "init"} & set(task.slots) & set(task.recipe)
    in_model |= {"architecture"} & set(task.slots)
    assert {slot for slot in in_model if not built.get(slot)} == set()
