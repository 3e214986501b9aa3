"""The random equations of a structural causal model: signal, level and noise of a node.

:mod:`pyro_cama.simulation.structural_model` writes them down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyro_cama.graph.nodes import Node

Array: TypeAlias = NDArray[Any]
REFERENCE = 10_000
_HIDDEN = 8
_TOGETHER = 0.2  # the share of h in the signal's variance
_TARGET_SCALE, _LEVEL_SCALE = 1.0, 2.0  # of the logits
_MAX_RATE = 500.0  # exp(-rate) has to be a normal number


@dataclass(frozen=True)
class Standard:
    """Standardises to mean 0 and sd 1, by the moments of what was seen once; a constant stays one."""

    mean: Array
    sd: Array

    @classmethod
    def of(cls, values: Array) -> Self:
        """Returns what standardises these values, (n, ...)."""
        sd = values.std(0)
        return cls(values.mean(0), np.where(sd < 1e-9, 1.0, sd))

    def __call__(self, values: Array) -> Array:
        """Returns the values standardised."""
        result: Array = (values - self.mean) / self.sd
        return result


@dataclass(frozen=True)
class _Part:
    """w g(u): what one cause says by itself."""

    weight: float
    direction: Array
    inner: Standard
    linear: float
    bend: float
    steep: float
    turn: float
    outer: Standard

    @classmethod
    def drawn(cls, rng: np.random.Generator, e: Array, discrete: bool, target: bool) -> Self:
        """Draws w and g for a cause with the embedded values ``e`` (n, length of e) in the reference."""
        width = e.shape[1]
        if discrete:
            gap = 2.0 / (width - 1)
            direction = rng.permutation(np.linspace(-1, 1, width)) + rng.uniform(-gap / 4, gap / 4, width)
            bend = 0.0
        else:
            direction = rng.standard_normal(width)
            bend = -rng.uniform(1, 1.5)
        weight = (rng.uniform(1.5, 2) if target else rng.uniform(0.5, 1.5)) * rng.choice([-1, 1])
        inner = Standard.of(_dot(e, direction))
        curve = float(rng.uniform(0.5, 1)), float(bend), float(rng.uniform(1, 3)), float(rng.uniform(-1.5, 1.5))
        raw = cls(float(weight), direction, inner, *curve, Standard(np.zeros(()), np.ones(())))
        return cls(float(weight), direction, inner, *curve, Standard.of(raw.curve(e)))

    def curve(self, e: Array) -> Array:
        """Returns a u + b tanh(c u + d), (n,)."""
        u = self.inner(_dot(e, self.direction))
        result: Array = self.linear * u + self.bend * np.tanh(self.steep * u + self.turn)
        return result

    def __call__(self, e: Array) -> Array:
        result: Array = self.weight * self.outer(self.curve(e))
        return result


class _Signal:
    """f: a smooth random function of embedded causes, each (n, length of e), to (n,)."""

    def __init__(self, rng: np.random.Generator, causes: Mapping[str, Array], discrete: set[str], target: str) -> None:
        self.parts = {name: _Part.drawn(rng, e, name in discrete, name == target) for name, e in causes.items()}
        self.inputs = {
            name: rng.normal(0, 1.5 / np.sqrt(len(causes) * e.shape[1]), (e.shape[1], _HIDDEN))
            for name, e in causes.items()
        }
        self.bias, self.output = rng.standard_normal((2, _HIDDEN))
        first, second = self._sum(causes), self._net(causes)
        self.first = Standard.of(first)
        self.known = float(((second - second.mean()) * self.first(first)).mean())
        self.second = Standard.of(second - self.known * self.first(first))
        self.whole = Standard.of(self._mixed(causes))

    def __call__(self, causes: Mapping[str, Array]) -> Array:
        return self.whole(self._mixed(causes))

    def _mixed(self, causes: Mapping[str, Array]) -> Array:
        first = self.first(self._sum(causes))
        if len(self.parts) < 2:
            return first
        second = self.second(self._net(causes) - self.known * first)
        result: Array = np.sqrt(1 - _TOGETHER) * first + np.sqrt(_TOGETHER) * second
        return result

    def _sum(self, causes: Mapping[str, Array]) -> Array:
        return _added(part(causes[name]) for name, part in self.parts.items())

    def _net(self, causes: Mapping[str, Array]) -> Array:
        hidden = np.tanh(self.bias + _added(_dot(causes[name], weights) for name, weights in self.inputs.items()))
        return _dot(hidden, self.output)


class Equation:
    """A node as a function of its embedded causes and of noise: codes (discrete) or floats, (n,) or (n, dim).

    Args:
        node: the node.
        causes: the reference rows of every cause, embedded, (n, length of e); they scale what is drawn.
        discrete: the causes that are discrete.
        target: the target's name.
        rng: draws the equation.
    """

    def __init__(
        self, node: Node, causes: Mapping[str, Array], discrete: set[str], target: str, rng: np.random.Generator
    ) -> None:
        self.node = node
        self.causes = list(causes)
        size = len(node.levels) - 1 if node.levels else node.dim or 1
        self.size = size
        self.signals = [_Signal(rng, causes, discrete, target) for _ in range(size)] if causes else []
        if node.levels:
            scale = _TARGET_SCALE if node.name == target else _LEVEL_SCALE
            self.contrasts = scale * _contrasts(rng, size + 1)
            shares = 0.6 / (size + 1) + 0.4 * rng.dirichlet(np.full(size + 1, 2.0))
            self.level = _intercepts(_dot(self.signal(causes, REFERENCE), self.contrasts), shares)
        elif node.type == "continuous":
            self.level = rng.uniform(0.2, 0.4, size) if causes else np.ones(size)
        else:
            self.level = np.log(rng.uniform(3, 8, size))

    def signal(self, causes: Mapping[str, Array], n: int) -> Array:
        """Returns f, (n, functions)."""
        if not self.signals:
            return np.zeros((n, self.size))
        return np.stack([f(causes) for f in self.signals], axis=1)

    def __call__(self, seen: Mapping[str, Array], n: int, rng: np.random.Generator) -> Array:
        """Draws the node's values for n rows whose embedded causes are in ``seen``."""
        f = self.signal({name: seen[name] for name in self.causes}, n)
        if self.node.levels:
            logits = _dot(f, self.contrasts) + self.level
            codes: Array = (logits + rng.gumbel(size=logits.shape)).argmax(1)
            return codes
        if self.node.type == "continuous":
            value = np.sqrt(1 - self.level) * f + np.sqrt(self.level) * rng.standard_normal(f.shape)
        else:
            rate = np.exp(np.minimum(self.level + f / 2, np.log(_MAX_RATE)))
            value = _poisson(rate, rng.uniform(size=f.shape))
        return value if self.node.dim is not None else value[:, 0]


def _added(terms: Iterable[Array]) -> Array:
    return reduce(np.add, terms)


def _dot(e: Array, weights: Array) -> Array:
    """e @ weights, the same to the last bit wherever the arrays lie in memory, which BLAS does not promise."""
    return _added(np.multiply.outer(e[:, j], weights[j]) for j in range(e.shape[1]))


def _contrasts(rng: np.random.Generator, k: int) -> Array:
    """A random (k - 1, k) matrix of orthonormal rows that sum to 0."""
    square = np.column_stack([np.ones(k), rng.standard_normal((k, k - 1))])
    return np.linalg.qr(square).Q[:, 1:].T


def _intercepts(logits: Array, shares: Array) -> Array:
    """What to add to logits (n, K) for mean probabilities equal to ``shares``."""
    level: Array = np.log(shares)
    for _ in range(50):
        weights = np.exp(logits + level)
        level = level + np.log(shares / (weights / weights.sum(1, keepdims=True)).mean(0))
        level -= level.mean()
    return level


def _poisson(rate: Array, uniform: Array) -> Array:
    """The quantiles of Poisson distributions, elementwise."""
    uniform = np.minimum(uniform, 1 - 1e-12)  # rounding keeps the sum of probabilities below 1
    count = np.zeros_like(rate)
    probability = np.exp(-rate)
    below = probability.copy()
    step = 0
    while (left := uniform >= below).any():
        step += 1
        probability = probability * rate / step
        count[left] = step
        below += probability
    return count
