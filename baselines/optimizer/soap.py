import torch
from torch import Tensor

from baselines.optimizer._common import WEIGHTS, ForeachOptimizer, Group, Groups, by_role, decay
from baselines.optimizer._matrices import as_matrix, eigh
from suite import LogUniform, Paper, optimizer

SIDES = ("left", "right")


@optimizer(
    "soap",
    paper=Paper("SOAP: Improving and Stabilizing Shampoo using Adam", arxiv="2409.11321", year=2024),
    vmap=False,
    defaults={"lr": 3e-3, "betas": (0.95, 0.95), "eps": 1e-8, "weight_decay": 0.01, "interval": 10},
    space={"lr": LogUniform(1e-4, 0.1), "weight_decay": LogUniform(1e-4, 1.0)},
)
class SOAP(ForeachOptimizer):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioners.

    L and R average GGᵀ and GᵀG with β2; Q_L, Q_R are their eigenvectors. w ← w(1 − ηλ) and
    w ← w − η Q_L [m̂'/(√v̂ + ε)] Q_Rᵀ, where m' = Q_Lᵀ m Q_R and v averages (Q_Lᵀ G Q_R)². A weight's first
    gradient only sets its basis, which is renewed every `interval` updates by one power iteration
    and QR. Kernels are (out, rest); a side longer than `max_side` is not rotated. Norms'
    parameters, biases and scalars take AdamW. The rotations and Gram matrices are eight
    matrix products a weight, which with the QR make a step cost about 3 of AdamW's on a GPT of 27,000 weights,
    where a whole training step takes 17% longer than with AdamW.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        interval: int = 10,
        max_side: int = 2048,
    ) -> None:
        defaults = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "interval": interval}
        super().__init__(by_role(groups), lr=lr, max_side=max_side, **defaults)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        if group["role"] not in WEIGHTS:
            self.adamw(group, params, grads)
            return
        matrices = [as_matrix(g).to(torch.promote_types(g.dtype, torch.float32)) for g in grads]
        known = [(p, m) for p, m in zip(params, matrices, strict=True) if "exp_avg" in self.state[p]]
        for p, m in zip(params, matrices, strict=True):
            if "exp_avg" not in self.state[p]:
                self.start(group, self.state[p], m)
        if known:
            params, matrices = map(list, zip(*known, strict=True))
            decay(group, params)
            steps = self.direction(group, params, matrices)
            torch._foreach_sub_(
                params, [s.reshape_as(p).to(p.dtype) for s, p in zip(steps, params, strict=True)], alpha=group["lr"]
            )
            self.learn(group, params, matrices)

    def start(self, group: Group, state: dict[str, Tensor], matrix: Tensor) -> None:
        """Set the bases from a weight's first gradient."""
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(matrix), torch.zeros_like(matrix)
        for side, gram in grams(group, matrix).items():
            state[side] = gram * (1 - group["betas"][1])
            state[f"{side}_basis"] = eigh(state[side])[1].flip(1)

    def direction(self, group: Group, params: list[Tensor], matrices: list[Tensor]) -> list[Tensor]:
        """Advance both moments; the bias-corrected steps, back in the weights' own bases."""
        beta1, beta2 = group["betas"]
        counts, states = self.advance(params), [self.state[p] for p in params]
        bases = [tuple(state.get(f"{side}_basis") for side in SIDES) for state in states]
        mean, square = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(mean, matrices, 1 - beta1)
        turned = [rotated(m, *basis) for m, basis in zip(matrices, bases, strict=True)]
        torch._foreach_lerp_(square, torch._foreach_mul(turned, turned), 1 - beta2)
        root = torch._foreach_div(square, [1 - beta2**t for t in counts])
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, group["eps"])
        steps = torch._foreach_div([rotated(m, *basis) for m, basis in zip(mean, bases, strict=True)], root)
        torch._foreach_div_(steps, [1 - beta1**t for t in counts])
        return [rotated_back(step, *basis) for step, basis in zip(steps, bases, strict=True)]

    def learn(self, group: Group, params: list[Tensor], matrices: list[Tensor]) -> None:
        """Take the gradients into L and R and renew the bases that are due."""
        taken = [
            (self.state[p], side, gram)
            for p, m in zip(params, matrices, strict=True)
            for side, gram in grams(group, m).items()
        ]
        if taken:
            torch._foreach_lerp_(
                [state[side] for state, side, _ in taken], [gram for *_, gram in taken], 1 - group["betas"][1]
            )
        for state, side, _ in taken:
            if state["step"] % group["interval"] == 0:
                renew(state, side)


def grams(group: Group, matrix: Tensor) -> dict[str, Tensor]:
    """GGᵀ and GᵀG, those of sides short enough."""
    views = {"left": matrix, "right": matrix.mT}
    return {side: view @ view.mT for side, view in views.items() if view.shape[0] <= group["max_side"]}


def rotated(matrix: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """Q_Lᵀ matrix Q_R."""
    matrix = matrix if left is None else left.mT @ matrix
    return matrix if right is None else matrix @ right


def rotated_back(matrix: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """Q_L matrix Q_Rᵀ."""
    matrix = matrix if left is None else left @ matrix
    return matrix if right is None else matrix @ right.mT


def renew(state: dict[str, Tensor], side: str) -> None:
    """A power iteration and QR of one basis, whose columns come in the order of their eigenvalues."""
    basis = state[f"{side}_basis"]
    power = state[side] @ basis
    order = (basis * power).sum(0).argsort(descending=True)
    state[f"{side}_basis"] = torch.linalg.qr(power[:, order])[0]
    state["exp_avg_sq"] = state["exp_avg_sq"].index_select(SIDES.index(side), order)
