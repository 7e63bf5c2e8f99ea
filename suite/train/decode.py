"""Sampling completions from a policy, and the log-probabilities of given ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suite.train.policy import END, Policy


@dataclass(frozen=True)
class Sampled:
    """Completions of P prompts, G each; row p * G + g is completion g of prompt p.

    Attributes
    ----------
    tokens : (P * G, T) token indices; `END` follows a completion's end.
    mask : (P * G, T) True where the token was generated, the ending `END` included.
    logp : (P * G, T) log-probability of each generated token under the sampling policy, 0 elsewhere.
    """

    tokens: Tensor
    mask: Tensor
    logp: Tensor


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Tensor,
    samples: int,
    limit: int,
    generator: torch.Generator | None,
) -> Sampled:
    """Draw completions at temperature 1, all sequences at once, with a key-value cache.

    A token is drawn as argmax(log p + Gumbel noise). All noise is drawn before
    the first token, on the generator's device: two policies given equal
    generators see the same noise at every position, and the stream moves on by
    as much whatever they say.

    Parameters
    ----------
    prompts : (P, S) token indices, all prompts of one length.
    samples : G, completions a prompt.
    limit : T, longest completion; one that has not ended by then is cut off.
    generator : source of the noise; None takes the likeliest token (greedy).
    """
    rows, device = len(prompts) * samples, prompts.device
    cache = policy.new_cache()
    logits = policy(prompts, cache, last=1)[:, -1].repeat_interleave(samples, dim=0)
    cache = cache.repeat(samples, room=limit - 1)
    noise = _gumbel((rows, limit, logits.shape[-1]), generator).to(device) if generator is not None else None
    tokens = torch.full((rows, limit), END, dtype=torch.long, device=device)
    mask = torch.zeros(rows, limit, dtype=torch.bool, device=device)
    chosen = torch.zeros(rows, limit, dtype=logits.dtype, device=device)
    alive = torch.ones(rows, dtype=torch.bool, device=device)
    for position in range(limit):
        logp = logits.log_softmax(-1)
        scores = logp if noise is None else logp + noise[:, position]
        token = torch.where(alive, scores.argmax(-1), END)
        tokens[:, position] = token
        mask[:, position] = alive
        chosen[:, position] = torch.where(alive, logp.gather(-1, token[:, None])[:, 0], 0.0)
        alive = alive & (token != END)
        if position == limit - 1 or not alive.any():
            break
        logits = policy(token[:, None], cache)[:, -1]
    return Sampled(tokens, mask, chosen)


def _gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return -torch.log(-torch.log(uniform.clamp(1e-30, 1.0 - 2.0**-24)))


def completion_logits(policy: Policy, prompts: Tensor, completions: Tensor) -> Tensor:
    """Logits that each completion token was, or would be, drawn from.

    Each prompt is read once and its keys and values are shared by its
    completions, whose tokens are read in one pass. Differentiable.

    Parameters
    ----------
    prompts : (P, S) token indices.
    completions : (P * G, T) token indices, grouped by prompt.

    Returns
    -------
    (P * G, T, vocabulary) logits.
    """
    samples = len(completions) // len(prompts)
    cache = policy.new_cache()
    first = policy(prompts, cache, last=1).repeat_interleave(samples, dim=0)
    if completions.shape[1] == 1:
        return first
    return torch.cat([first, policy(completions[:, :-1], cache.repeat(samples))], dim=1)


def token_logp(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each of the (..., T) tokens under (..., T, vocabulary) logits."""
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the (..., vocabulary) next-token distributions."""
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)
