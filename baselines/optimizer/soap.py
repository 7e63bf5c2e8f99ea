import torch
from torch import Tensor

from baselines.optimizer._common import WEIGHTS, ForeachOptimizer, Group, Groups, as_matrix, by_role, decay, eigh
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
    parameters, biases and scalars take AdamW. The rotations are six matrix products a weight, tensor
    by tensor, so that a step costs several of AdamW's.
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
        for p, g in zip(params, grads, strict=True):
            matrix = as_matrix(g).to(torch.promote_types(g.dtype, torch.float32))
            if "exp_avg" not in self.state[p]:
                self.start(group, self.state[p], matrix)
            else:
                decay(group, [p])
                step = self.direction(group, self.state[p], matrix)
                p.sub_(step.reshape(p.shape).to(p.dtype), alpha=group["lr"])
                self.learn(group, self.state[p], matrix)

    def start(self, group: Group, state: dict[str, Tensor], matrix: Tensor) -> None:
        """Set the bases from a weight's first gradient."""
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(matrix), torch.zeros_like(matrix)
        for side, gram in self.grams(group, matrix).items():
            state[side] = gram * (1 - group["betas"][1])
            state[f"{side}_basis"] = eigh(state[side])[1].flip(1)

    @staticmethod
    def grams(group: Group, matrix: Tensor) -> dict[str, Tensor]:
        """GGᵀ and GᵀG, those of sides short enough."""
        views = {"left": matrix, "right": matrix.mT}
        return {side: view @ view.mT for side, view in views.items() if view.shape[0] <= group["max_side"]}

    def direction(self, group: Group, state: dict, matrix: Tensor) -> Tensor:
        """Advance both moments; the bias-corrected step, back in the weight's own basis."""
        beta1, beta2 = group["betas"]
        state["step"] = count = state.get("step", 0) + 1
        state["exp_avg"].lerp_(matrix, 1 - beta1)
        state["exp_avg_sq"].lerp_(self.rotated(state, matrix).square(), 1 - beta2)
        root = (state["exp_avg_sq"] / (1 - beta2**count)).sqrt_().add_(group["eps"])
        step = self.rotated(state, state["exp_avg"]) / root / (1 - beta1**count)
        left, right = (state.get(f"{side}_basis") for side in SIDES)
        step = step if left is None else left @ step
        return step if right is None else step @ right.mT

    @staticmethod
    def rotated(state: dict[str, Tensor], matrix: Tensor) -> Tensor:
        """Q_Lᵀ matrix Q_R."""
        left, right = (state.get(f"{side}_basis") for side in SIDES)
        matrix = matrix if left is None else left.mT @ matrix
        return matrix if right is None else matrix @ right

    def learn(self, group: Group, state: dict, matrix: Tensor) -> None:
        """Take the gradient into L and R and renew the bases when they are due."""
        for side, gram in self.grams(group, matrix).items():
            state[side].lerp_(gram, 1 - group["betas"][1])
            if state["step"] % group["interval"] == 0:
                basis = state[f"{side}_basis"]
                power = state[side] @ basis
                order = (basis * power).sum(0).argsort(descending=True)
                state[f"{side}_basis"] = torch.linalg.qr(power[:, order])[0]
                state["exp_avg_sq"] = state["exp_avg_sq"].index_select(SIDES.index(side), order)
