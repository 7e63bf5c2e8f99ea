"""The frozen policy an RLVR task starts from: trained once, shipped beside the task, checked by hash.

The warm start of a task whose prompts come from an extra package is not
shipped: it is trained on first use and kept in the cache, checked by hash too.
``python -m suite.train.warmstart TASK ...`` trains the warm starts of the
named tasks again, writes their files and prints the hashes to state.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load as parse
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from suite import cache
from suite.fingerprint import digest, engine_hash
from suite.seeds import registered_name
from suite.train.decode import completion_logits, sample
from suite.train.policy import Policy

if TYPE_CHECKING:
    from suite.train.rlvr import RlvrTask

SEED = 0
LOOK, LOOKED_AT, LOOK_SAMPLES = 25, 64, 4  # steps between looks at a warm start, prompts and samples of a look


@dataclass(frozen=True)
class WarmStart:
    """How a task's warm start was made.

    Attributes
    ----------
    steps, batch : supervised updates and examples in each, drawn from the task's examples.
    lr : AdamW's peak learning rate; linear warm-up over a tenth of the steps, then linear decay to 0.
    sha256 : hash of the shipped file; "" for a warm start that is not shipped.
    enough : training ends where the policy's pass@1 on validation prompts, looked at every `LOOK` steps,
        reaches this share; 0 takes all the steps.
    file : name of the shipped file; empty for the task's own name.
    width, heads, layers : model size.
    """

    steps: int
    sha256: str = ""
    batch: int = 64
    lr: float = 2e-3
    width: int = 64
    heads: int = 2
    layers: int = 2
    file: str = ""
    enough: float = 0.0


def new_policy(task: RlvrTask) -> Policy:
    """The task's model, its weights not yet set."""
    made = task.warm_start
    context = task.prompt_length + task.limit
    return Policy(len(task.alphabet) + 1, context, made.width, made.heads, made.layers)


def train(task: RlvrTask) -> Policy:
    """Supervised training on solved training prompts, from a fixed seed, on one CPU thread.

    The loss is the mean cross-entropy of the solution's tokens, its end token
    included. The weights are rounded to half precision at the end.
    """
    made = task.warm_start
    stream = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        policy = new_policy(task)
    prompts, solutions = (torch.from_numpy(tokens).long() for tokens in task.examples())
    weights = _until_end(solutions)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=made.lr, weight_decay=0.01)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for step in range(made.steps):
        if made.enough and step % LOOK == 0 and float(solved(task, policy, LOOK_SAMPLES).mean()) >= made.enough:
            break
        optimizer.param_groups[0]["lr"] = made.lr * _ramp(step / made.steps)
        rows = torch.randint(len(prompts), (made.batch,), generator=stream)
        logits = completion_logits(policy, prompts[rows], solutions[rows])
        losses = functional.cross_entropy(logits.flatten(0, 1), solutions[rows].flatten(), reduction="none")
        loss = (losses * weights[rows].flatten()).sum() / weights[rows].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return policy.half().float()


def solved(task: RlvrTask, policy: Policy, samples: int) -> np.ndarray:
    """(prompts, samples) bool: which completions of validation prompts are right, with the same noise every time."""
    prompts = task.prompts("validation")[:LOOKED_AT]
    drawn = sample(policy, prompts, samples, task.limit, torch.Generator().manual_seed(SEED))
    groups = drawn.tokens.numpy().astype(np.uint8).reshape(len(prompts), samples, task.limit)
    return task.verified(prompts.numpy(), groups)


def _until_end(solutions: Tensor) -> Tensor:
    """(n, T) 1.0 on a solution's tokens and its first end token, 0.0 after it."""
    ended = (solutions == 0).long().cumsum(1)
    return (ended <= 1).float() - ((ended == 1) & (solutions != 0)).float()


def _ramp(progress: float) -> float:
    return min(1.0, progress / 0.1 + 0.01, (1.0 - progress) / 0.9)


def file_of(task: RlvrTask) -> Path:
    """Where the task's warm start is shipped: folder ``warm`` beside the task's source."""
    name = task.warm_start.file or registered_name(task.name)
    return Path(task.info.path).parent / "warm" / f"{name}.safetensors"


def trained(task: RlvrTask) -> bytes:
    """Train the warm start; returns its file's content, weights in half precision."""
    return save({name: tensor.half().contiguous() for name, tensor in train(task).state_dict().items()})


def rebuild(task: RlvrTask) -> str:
    """Train the warm start, write its file, and return the file's sha256."""
    data = trained(task)
    file = file_of(task)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def shipped(file: Path, sha256: str, what: str, remedy: str) -> bytes:
    """Content of a file that is shipped beside a task.

    Raises
    ------
    ValueError : it is not the one whose hash is stated; the message says how to get it back, or anew (`remedy`).
    """
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{file} is not {what}; restore it from version control ({remedy})")
    return data


def load(task: RlvrTask) -> Policy:
    """The task's warm start: the shipped one, else the one in the cache, trained where it is not there.

    Raises
    ------
    ValueError : the file is not the one the task states; the message says how to get it back.
    """
    if task.warm_start.sha256:
        remedy = f"`python -m suite.train.warmstart {task.name}` trains a new one, which is a new task version"
        data = shipped(file_of(task), task.warm_start.sha256, f"the warm start that {task.name} states", remedy)
    else:
        data = cache.content(f"warm-{registered_name(task.name)}", _made_from(task), lambda: trained(task))
    policy = new_policy(task)
    policy.load_state_dict({name: tensor.float() for name, tensor in parse(data).items()})
    return policy


def _made_from(task: RlvrTask) -> str:
    """All that the bits of a warm start follow from, as text: examples, sizes, code and torch."""
    prompts = [task.prompts(split).numpy() for split in ("train", "validation")]
    tokens = [*prompts, *map(task.solve, prompts), *task.examples()]
    return digest(
        {
            "tokens": [[array.shape, hashlib.sha256(array.astype(np.int64).tobytes()).hexdigest()] for array in tokens],
            "alphabet": task.alphabet,
            "made": asdict(task.warm_start),
            "code": engine_hash(),
            "torch": torch.__version__,
        }
    )


if __name__ == "__main__":
    from suite.registry import registry

    for name in sys.argv[1:]:
        info = registry().task(name)
        print(name, rebuild(info.factory(info)))
