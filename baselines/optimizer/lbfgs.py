import torch

from baselines.optimizer._common import Groups, flattened
from suite import LogUniform, Paper, optimizer


@optimizer(
    "lbfgs",
    paper=Paper(
        "On the limited memory BFGS method for large scale optimization",
        url="https://doi.org/10.1007/BF01589116",
        year=1989,
    ),
    families=("pde",),
    passes=20.0,
    vmap=False,
    defaults={"lr": 1.0, "history": 100, "max_iter": 20},
    space={"lr": LogUniform(0.03, 3.0)},
)
class LBFGS(torch.optim.LBFGS):
    """Limited-memory BFGS with a strong Wolfe line search (torch's), on all parameters as one vector.

    One step is up to `max_iter` iterations on the current batch, each of one or more evaluations of
    the closure and two passes over up to `history` pairs of vectors: on a GPT of 27,000 weights that makes a
    step cost about 150 of AdamW's, in some 25 evaluations. `lr` is the line search's first trial step. The
    tolerances at which a step ends early are below torch's (1e-9 on the gradient, 1e-12 on loss and
    step), so that fits go on where losses are small.
    """

    needs_closure = True

    def __init__(self, groups: Groups, *, lr: float = 1.0, history: int = 100, max_iter: int = 20) -> None:
        super().__init__(
            flattened(groups),
            lr=lr,
            history_size=history,
            max_iter=max_iter,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )
