"""The slots of a recipe: what each is, and the one factory signature it has.

A method fills one slot. `SLOTS` is the single place that says which slots
exist; decorators, the command line, the contract tests and the page read it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """One replaceable part of a recipe.

    Attributes
    ----------
    name : the slot's word in code, tables and pages.
    signature : how the suite calls a registered factory; hyper-parameters (`**hp`) are keywords.
    summary : what the slot decides.
    bound : True where `Method.make(**hp)` binds the hyper-parameters and returns the
        function itself (schedules, losses, inits) instead of calling the factory.
    word : name of its decorator where that isn't the slot's own with "_" for "-".
    """

    name: str
    signature: str
    summary: str
    bound: bool = False
    word: str = ""

    @property
    def decorator(self) -> str:
        """Name of the decorator in `suite` that registers its methods."""
        return self.word or self.name.replace("-", "_")


_ALL = (
    Slot(
        "activation",
        "factory(**hp) -> nn.Module; factory(features=int, **hp) where it has per-channel parameters",
        "nonlinearity at every activation site; keeps the shape unless the module states a "
        "`width_factor` (channels are dim 1 of 4-d inputs, else the last dim)",
    ),
    Slot(
        "optimizer",
        "factory(groups, *, lr, **hp) -> torch.optim.Optimizer",
        "update rule; groups are torch parameter groups with an added 'role'",
    ),
    Slot(
        "gradient",
        "factory(optimizer, **hp) -> suite.train.step.Stepper",
        "wraps the optimizer's step: clipping, sharpness-aware passes, projections",
    ),
    Slot(
        "schedule",
        "factory(step, total, **hp) -> float",
        "multiplier of the base learning rate at `step` of `total` budget units",
        bound=True,
    ),
    Slot(
        "averaging",
        "factory(model, **hp) -> suite.train.average.Averager",
        "weights that evaluation uses in place of the last iterate",
    ),
    Slot(
        "init",
        "factory(tensor, info, generator, **hp) -> None",
        "fills one parameter in place; `info` is a suite.train.roles.ParamInfo",
        bound=True,
    ),
    Slot(
        "norm",
        "factory(features, **hp) -> nn.Module",
        "normalisation; channels are dim 1 of 4-d inputs, else the last dim",
    ),
    Slot(
        "block",
        "factory(features, hidden, activation, **hp) -> nn.Module",
        "feed-forward block (..., features) -> (..., features); `activation(n)` makes the "
        "recipe's activation for n features",
    ),
    Slot(
        "attention",
        "factory(features, heads, causal, **hp) -> nn.Module",
        "token mixing (batch, time, features) -> the same",
    ),
    Slot(
        "reparam",
        "factory(model, **hp) -> None",
        "re-expresses the model's weights in place (torch parametrizations), after init",
    ),
    Slot(
        "regularizer",
        "factory(model, **hp) -> callable() -> scalar tensor",
        "penalty added to the training loss",
    ),
    Slot(
        "loss",
        "factory(logits, targets, **hp) -> scalar tensor",
        "training loss of (n, classes) logits and (n,) class indices, mean over examples; one that changes "
        "over training takes `progress`, the share of the budget used",
        bound=True,
    ),
    Slot(
        "sampler",
        "factory(domain, count, generator, **hp) -> suite.train.pinn.Sampler",
        "where a PINN's residual is taken",
    ),
    Slot(
        "pde-method",
        "factory(problem, **hp) -> suite.train.pinn.PdeMethod",
        "how a PDE fit forms its training loss from the residual and the conditions",
    ),
    Slot(
        "objective",
        "factory(**hp) -> suite.train.rlvr.Objective",
        "turns groups of verified responses into a policy loss",
    ),
    Slot(
        "offline-objective",
        "factory(**hp) -> suite.train.offline.OfflineObjective",
        "turns a fixed set of verified traces, right and wrong ones, into a policy loss",
    ),
    Slot(
        "data",
        "factory(**hp) -> suite.train.data.DataMethod",
        "which examples are trained on and what is said about them; evaluation never passes through it",
        word="data_method",
    ),
)
SLOTS: dict[str, Slot] = {slot.name: slot for slot in _ALL}
