"""Random sources of token sequences whose Bayes loss is known exactly, token by token.

Every sequence starts from the source's start state, so that a model that reads
it from a start token misses no history and the floor holds at each position.
Randomness comes from `numpy.random.RandomState`, whose streams numpy keeps
frozen between versions (NEP 19).
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.random import RandomState

from suite import cache

CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


class Source(ABC):
    """A law of token sequences.

    Attributes
    ----------
    key : everything the law depends on, as text.
    vocabulary : number of tokens; they are 0 ... vocabulary - 1.
    """

    key: str
    vocabulary: int

    @classmethod
    @functools.cache
    def made(cls, **parameters: Any) -> Self:
        """The source of these parameters, one object for all who ask."""
        return cls(**parameters)

    @abstractmethod
    def sample(self, count: int, length: int, seed: int) -> np.ndarray:
        """`count` independent sequences, (count, length) uint8."""

    @abstractmethod
    def losses(self, tokens: np.ndarray) -> np.ndarray:
        """-log p(token | all earlier tokens of its sequence) in nats, float64, of (n, length) tokens."""

    def kinds(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """Boolean masks (n, length) by which a model's excess loss is decomposed; none by default."""
        return {}

    def spelled(self, tokens: np.ndarray | None = None) -> str:
        """Tokens (length,) as one character each; without tokens, how they are written down."""
        if tokens is None:
            return f"a letter a token, a to {chr(ord('a') + self.vocabulary - 1)}"
        return "".join(chr(ord("a") + int(token)) for token in tokens)

    def frozen(self, count: int, length: int, seed: int) -> np.ndarray:
        """`sample`, made once and kept in the cache."""
        key = f"{CODE} {self.key} {count} {length} {seed}"
        made = cache.arrays("source", key, lambda: {"tokens": self.sample(count, length, seed)})
        return made["tokens"]


def draw(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Indices drawn by inversion.

    Parameters
    ----------
    cumulative : (n, k) cumulative probabilities, a row each.
    uniform : (n,) numbers in [0, 1).
    """
    below = uniform[:, None] >= cumulative[:, :-1]
    return below.sum(axis=1)


def dirichlet_rows(random: RandomState, rows: int, columns: int, concentration: float) -> np.ndarray:
    """(rows, columns) probabilities, each row from a symmetric Dirichlet law, none below 1e-4."""
    law = random.dirichlet(np.full(columns, concentration), size=rows)
    law = np.maximum(law, 1e-4)
    return law / law.sum(axis=1, keepdims=True)


class DyckSource(Source):
    """Well-nested brackets with leaves between them, from an LL(1) probabilistic grammar.

    With b bracket types the tokens are b openings, b closings and `leaves`
    leaves. At nesting depth d below the limit D the next token is a leaf with
    probability `leaf`, the closing of the innermost open bracket with
    probability (1 - leaf) d / D, else an opening; which leaf or opening it is
    follows a fixed Dirichlet law of the innermost open bracket's type. The law
    of the next token is thus a function of the stack's top and depth alone, and
    the grammar is

        S_k -> leaf_j S_k | open_m S_m close_m S_k | (nothing).

    Parameters
    ----------
    types : bracket types b.
    leaves : number of leaves.
    limit : deepest nesting D.
    leaf : probability of a leaf.
    concentration : of the Dirichlet laws.
    seed : of the Dirichlet laws.
    """

    def __init__(
        self,
        types: int = 8,
        leaves: int = 8,
        limit: int = 8,
        leaf: float = 0.4,
        concentration: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.types, self.limit = types, limit
        self.vocabulary = 2 * types + leaves
        self.key = f"dyck {types} {leaves} {limit} {leaf} {concentration} {seed}"
        random = RandomState(seed)
        openings = dirichlet_rows(random, types + 1, types, concentration)
        leaf_law = dirichlet_rows(random, types + 1, leaves, concentration)
        self.law = np.zeros((limit + 1, types + 1, self.vocabulary))
        for depth in range(limit + 1):
            close = (1.0 - leaf) * depth / limit
            self.law[depth, :, :types] = (1.0 - leaf - close) * openings
            self.law[depth, range(types), range(types, 2 * types)] = close
            self.law[depth, :, 2 * types :] = leaf * leaf_law

    def sample(self, count: int, length: int, seed: int) -> np.ndarray:
        random, cumulative = RandomState(seed), self.law.cumsum(axis=-1)
        tokens, stack = np.empty((count, length), dtype=np.uint8), _Stack(count, self)
        for t in range(length):
            tokens[:, t] = draw(cumulative[stack.depth, stack.top], random.random_sample(count))
            stack.push(tokens[:, t])
        return tokens

    def losses(self, tokens: np.ndarray) -> np.ndarray:
        depths, tops = self.states(tokens)
        with np.errstate(divide="ignore"):
            return -np.log(self.law[depths, tops, tokens])

    def spelled(self, tokens: np.ndarray | None = None) -> str:
        """Openings as capitals, their closings as small letters, leaves as numbers."""
        if tokens is None:
            return "a capital opens a bracket, its small letter closes it; digits are leaves"
        letters = [chr(ord("A") + i) for i in range(self.types)] + [chr(ord("a") + i) for i in range(self.types)]
        return "".join(letters[t] if t < 2 * self.types else str(t - 2 * self.types) for t in map(int, tokens))

    def states(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth and innermost open type (`types` where none is open) before each token, (n, length) each."""
        depths, tops, stack = (
            np.empty(tokens.shape, np.int64),
            np.empty(tokens.shape, np.int64),
            _Stack(len(tokens), self),
        )
        for t in range(tokens.shape[1]):
            depths[:, t], tops[:, t] = stack.depth, stack.top
            stack.push(tokens[:, t])
        return depths, tops

    def kinds(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """Closings, openings and leaves, and the depth before the token (6 stands for 6 and deeper)."""
        depths, _ = self.states(tokens)
        kinds = {
            "opening": tokens < self.types,
            "closing": (tokens >= self.types) & (tokens < 2 * self.types),
            "leaf": tokens >= 2 * self.types,
        }
        return kinds | {f"depth{d}": depths == d if d < 6 else depths >= d for d in range(min(self.limit, 6) + 1)}


class _Stack:
    """The open brackets of many sequences at once."""

    def __init__(self, count: int, source: DyckSource) -> None:
        self.types = source.types
        self.rows = np.arange(count)
        self.depth = np.zeros(count, dtype=np.int64)
        self.open = np.full((count, source.limit + 1), source.types, dtype=np.int64)  # open[:, d] is the top at depth d

    @property
    def top(self) -> np.ndarray:
        return self.open[self.rows, self.depth]

    def push(self, tokens: np.ndarray) -> None:
        """Move on by one token a sequence."""
        opening = tokens < self.types
        closing = (tokens >= self.types) & (tokens < 2 * self.types)
        self.depth += opening.astype(np.int64) - closing
        self.open[self.rows[opening], self.depth[opening]] = tokens[opening]


class MarkovSource(Source):
    """Markov chain of a given order with random rows; before the sequence stands an endless run of a start mark.

    Parameters
    ----------
    vocabulary : number of tokens.
    order : tokens that decide the law of the next.
    concentration : of the Dirichlet law of each row.
    seed : of the rows.
    """

    def __init__(self, vocabulary: int = 16, order: int = 2, concentration: float = 0.15, seed: int = 0) -> None:
        self.vocabulary, self.order = vocabulary, order
        self.key = f"markov {vocabulary} {order} {concentration} {seed}"
        rows = (vocabulary + 1) ** order
        self.law = dirichlet_rows(RandomState(seed), rows, vocabulary, concentration)

    def sample(self, count: int, length: int, seed: int) -> np.ndarray:
        random, cumulative = RandomState(seed), self.law.cumsum(axis=-1)
        tokens, context = np.empty((count, length), dtype=np.uint8), self._start(count)
        for t in range(length):
            tokens[:, t] = draw(cumulative[context], random.random_sample(count))
            context = self._next(context, tokens[:, t])
        return tokens

    def losses(self, tokens: np.ndarray) -> np.ndarray:
        losses, context = np.empty(tokens.shape), self._start(len(tokens))
        for t in range(tokens.shape[1]):
            losses[:, t] = -np.log(self.law[context, tokens[:, t]])
            context = self._next(context, tokens[:, t])
        return losses

    def _start(self, count: int) -> np.ndarray:
        return np.full(count, len(self.law) - 1, dtype=np.int64)

    def _next(self, context: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return (context * (self.vocabulary + 1) + tokens) % len(self.law)


class InContextMarkovSource(Source):
    """Markov chain of order 1 whose rows are drawn afresh for every sequence: to be learnt while reading.

    The rows follow a symmetric Dirichlet law and the first token is uniform, so
    that the exact loss is that of the Dirichlet posterior's mean,
    (n(a, b) + c) / (n(a) + c * vocabulary), of the transitions seen so far.

    Parameters
    ----------
    vocabulary : number of tokens.
    concentration : c, of the Dirichlet law of each row.
    """

    def __init__(self, vocabulary: int = 8, concentration: float = 0.3) -> None:
        self.vocabulary, self.concentration = vocabulary, concentration
        self.key = f"in-context markov {vocabulary} {concentration}"

    def sample(self, count: int, length: int, seed: int) -> np.ndarray:
        random, size = RandomState(seed), self.vocabulary
        weights = random.standard_gamma(self.concentration, size=(count, size, size))
        cumulative = weights.cumsum(axis=-1) / weights.sum(axis=-1, keepdims=True)
        tokens, rows = np.empty((count, length), dtype=np.uint8), np.arange(count)
        tokens[:, 0] = np.floor(size * random.random_sample(count))
        for t in range(1, length):
            tokens[:, t] = draw(cumulative[rows, tokens[:, t - 1]], random.random_sample(count))
        return tokens

    def losses(self, tokens: np.ndarray) -> np.ndarray:
        count, size, rows = len(tokens), self.vocabulary, np.arange(len(tokens))
        seen = np.full((count, size, size), self.concentration)
        losses = np.full(tokens.shape, np.log(size))
        for t in range(1, tokens.shape[1]):
            before, now = tokens[:, t - 1], tokens[:, t]
            losses[:, t] = np.log(seen[rows, before].sum(axis=-1)) - np.log(seen[rows, before, now])
            seen[rows, before, now] += 1.0
        return losses


class HMMSource(Source):
    """Hidden Markov model: a chain of hidden states, of each of which a token is seen.

    The exact loss comes from the forward filter in float64 (Rabiner 1989).

    Parameters
    ----------
    states, vocabulary : hidden states and tokens.
    transition, emission : concentrations of the Dirichlet laws of the rows.
    seed : of the rows.
    """

    def __init__(
        self,
        states: int = 24,
        vocabulary: int = 16,
        transition: float = 0.05,
        emission: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.vocabulary = vocabulary
        self.key = f"hmm {states} {vocabulary} {transition} {emission} {seed}"
        random = RandomState(seed)
        self.start = dirichlet_rows(random, 1, states, 1.0)[0]
        self.transition = dirichlet_rows(random, states, states, transition)
        self.emission = dirichlet_rows(random, states, vocabulary, emission)

    def sample(self, count: int, length: int, seed: int) -> np.ndarray:
        random = RandomState(seed)
        step, show = self.transition.cumsum(axis=1), self.emission.cumsum(axis=1)
        tokens = np.empty((count, length), dtype=np.uint8)
        state = draw(np.broadcast_to(self.start.cumsum(), (count, len(self.start))), random.random_sample(count))
        for t in range(length):
            tokens[:, t] = draw(show[state], random.random_sample(count))
            state = draw(step[state], random.random_sample(count))
        return tokens

    def losses(self, tokens: np.ndarray) -> np.ndarray:
        losses = np.empty(tokens.shape)
        belief = np.broadcast_to(self.start, (len(tokens), len(self.start)))
        for t in range(tokens.shape[1]):
            joint = belief * self.emission[:, tokens[:, t]].T
            seen = joint.sum(axis=1, keepdims=True)
            losses[:, t] = -np.log(seen[:, 0])
            belief = (joint / seen) @ self.transition
        return losses
