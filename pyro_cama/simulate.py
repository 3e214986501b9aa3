"""Rows from a random nonlinear structural causal model over any causal graph, with exact interventions.

The paper's experiments on measurements (section 4.2) need such data and do not publish their equations; these are our
own, drawn at random from a seed. Every observed node of the graph is simulated, inside the target's Markov blanket or
not. The style z ~ N(0, I) is drawn and hidden; the manipulation m is at rest, as interventions take its place.

Embeddings. A cause enters as e: a continuous one as it is (mean 0 and sd 1 by construction), a count as log(1 + x)
standardised, both by component; a discrete one as the corners of a regular simplex, one a level; z as it is.

Signal. With its causes a node has a smooth random function, for a vector one a component, for K levels K - 1::

    f = S( sqrt(1 - r) S(sum_j w_j g_j) + sqrt(r) S(h) ),  r = 1/5

    g_j = S(a u + b tanh(c u + d)),  u = S(p . e_j)        one cause by itself
    h   = sum_k v_k tanh(B_k . e + b_k),  k = 1..8         all causes together, less what the first term says of it

S standardises to mean 0 and sd 1 on the reference, 10,000 rows drawn without interventions. p is a random direction;
a, -b, c and d are uniform on [0.5, 1], [1, 1.5], [1, 3] and [-1.5, 1.5]: line and bend oppose each other, so that
hardly any g is monotone. A discrete cause has b = 0, and p . e_j is a random order of evenly spaced scores, jittered by
up to a quarter of their gap: no two levels look alike. |w_j| is uniform on [0.5, 1.5], on [1.5, 2] if the cause is the
target, with a random sign; all of z is one cause. h needs two causes: B_k has sd 1.5 / sqrt(causes x length of e_j),
v_k and b_k sd 1.

Nodes, with noise independent of all causes::

    continuous   x = sqrt(1 - n) f + sqrt(n) N(0, 1),  n uniform on [0.2, 0.4]: mean 0, sd 1
    discrete     the level k of the largest s Q_k . f + i_k + Gumbel(0, 1);  s = 1 for the target, else 2
    count        x ~ Poisson(min(500, l exp(f / 2))),  l uniform on [3, 8]

Q is K x (K - 1), random with orthonormal columns that sum to 0, so that no two levels have the same logits. The
intercepts i_k give level k the share 0.6 / K + 0.4 q_k of the reference, q ~ Dirichlet(2, ..., 2). Without causes f = 0
and n = 1: N(0, 1), these shares, Poisson(l).

>>> graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous", "w": "count"}, "edges": ["y -> x -> w"]}
>>> clean = simulate(graph, 1000, seed=0)
>>> off = simulate(graph, 1000, seed=0, do={"x": Shift(offset=1.0, affects="measurement")})
>>> (off["x"] - clean["x"]).round(9).unique().tolist(), off["w"].equals(clean["w"])
([1.0], True)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self, TypeAlias

import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_cama.errors import GraphError, expect, number, whole
from pyro_cama.graph import CausalGraph, Level, Node
from pyro_cama.schema import Affects, listed, one_of, shown

__all__ = ["Recode", "Shift", "StructuralModel", "simulate"]

Array: TypeAlias = NDArray[Any]
Number: TypeAlias = float | Sequence[float] | NDArray[Any]
Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | nx.DiGraph[Any] | CausalGraph"

_REFERENCE = 10_000
_HIDDEN = 8
_TOGETHER = 0.2  # the share of h in the signal's variance
_TARGET_SCALE, _LEVEL_SCALE = 1.0, 2.0  # of the logits
_MAX_RATE = 500.0  # exp(-rate) has to be a normal number
_LARGEST = 2.0**53  # beyond it floats skip whole numbers
_EQUATIONS, _REFERENCE_ROWS, _ROWS = range(3)  # streams of random numbers


@dataclass(frozen=True)
class Shift:
    """x becomes ``gain * x + offset``, in the node's own raw units; a count is rounded, and not below 0.

    Args:
        offset: a number, or one a component of a vector node, (dim,).
        gain: likewise.
        affects: ``"quantity"``: what the node causes sees the changed value; ``"measurement"``: the column alone
            changes. None: what the graph's manipulation says of the node, and ``"quantity"`` where it says nothing.

    Raises:
        ValueError: a number is not finite, or ``affects`` is none of these.
    """

    offset: Number = 0.0
    gain: Number = 1.0
    affects: Affects | None = None

    def __post_init__(self) -> None:
        for name, value in (("offset", self.offset), ("gain", self.gain)):
            expect("Shift", name, value, _numbers(value) is not None, "a finite number, or one a component")
        _expect_affects("Shift", self.affects)


@dataclass(frozen=True)
class Recode:
    """Levels become other levels.

    Args:
        to: level to level, or level to ``{level: probability}`` for rows that are misreported at random. Levels
            that are not named stay as they are.
        affects: see :class:`Shift`.

    Raises:
        ValueError: ``to`` is no mapping, or ``affects`` is none of the above.

    >>> graph = {"target": "y", "nodes": {"y": "binary", "x": "binary"}, "edges": ["y -> x"]}
    >>> half = Recode({0: {0: 0.5, 1: 0.5}})
    >>> rows = simulate(graph, 1000, seed=0, do={"y": 0, "x": half})
    >>> sorted(rows["x"].unique().tolist())
    [0, 1]
    """

    to: Mapping[Level, Level | Mapping[Level, float]]
    affects: Affects | None = None

    def __post_init__(self) -> None:
        expect("Recode", "to", self.to, isinstance(self.to, Mapping), "a mapping of level to level")
        _expect_affects("Recode", self.affects)


Do: TypeAlias = Mapping[str, Number | Level | Shift | Recode]


class StructuralModel:
    """A random structural causal model over a graph; the module's head gives its equations.

    Args:
        graph: a CausalGraph, or anything that one is made of.
        seed: draws the equations, 0 or more. The same graph and seed give the same equations.

    Attributes:
        graph: the CausalGraph.
        order: every node, causes before effects.

    Raises:
        GraphError: the graph is at fault, or holds an image.
        ValueError: the seed is no whole number of at least 0.
    """

    graph: CausalGraph
    order: tuple[str, ...]

    def __init__(self, graph: Source, seed: int = 0) -> None:
        expect("StructuralModel", "seed", seed, whole(seed, 0), "a whole number of at least 0")
        self.graph = graph if isinstance(graph, CausalGraph) else CausalGraph(graph)
        images = [name for name, node in self.graph.nodes.items() if node.type == "image"]
        if images:
            raise GraphError(
                f"{self.graph.source}: found nodes of type image, {listed(images)}; expected none: simulate serves "
                "tables only"
            )
        drawn: nx.DiGraph[str] = nx.DiGraph(self.graph.edges)
        drawn.add_nodes_from(self.graph.nodes)
        place = {name: i for i, name in enumerate(self.graph.nodes)}
        self.order = tuple(nx.lexicographical_topological_sort(drawn, key=place.__getitem__))
        self._causes = {name: [cause for cause in self.order if drawn.has_edge(cause, name)] for name in self.order}
        if z := self.graph.z:
            for child in z.children:
                self._causes[child].append(z.name)
        self._equations: dict[str, _Equation] = {}
        self._log_moments: dict[str, _Standard] = {}
        reference = self._style(_REFERENCE, _REFERENCE_ROWS, seed)
        for i, name in enumerate(self.order):
            node = self.graph.nodes[name]
            rng = np.random.default_rng([seed, _EQUATIONS, i])
            causes = {cause: reference[cause] for cause in self._causes[name]}
            equation = _Equation(node, causes, self._discrete(causes), self.graph.target, rng)
            self._equations[name] = equation
            value = equation(causes, _REFERENCE, np.random.default_rng([seed, _REFERENCE_ROWS, i]))
            if node.type == "count":
                self._log_moments[name] = _Standard.of(np.log1p(value))
            reference[name] = self._embedded(node, value)

    def sample(self, n: int, seed: int = 0, do: Do | None = None) -> pd.DataFrame:
        """Rows in raw units.

        The same seed gives the same rows with other interventions: each node's noise is its own, whatever is done to
        others. So two samples of a seed are counterfactual twins, and what is not caused by an intervention is
        bitwise equal in both.

        Args:
            n: number of rows.
            seed: draws the rows, 0 or more.
            do: interventions by node. A number (for a vector node also one a component) or a level sets the node,
                whatever its causes say; :class:`Shift` changes a continuous node or a count, :class:`Recode` a discrete
                one.

        Returns:
            One column a node, in the order of :attr:`order`: floats (continuous), whole numbers (count), levels
            (discrete); a vector node's entries are arrays (dim,). A scope column that is no node is not among them.

        Raises:
            ValueError: ``n`` or ``seed`` is out of range, or an intervention does not fit its node.
        """
        expect("sample", "n", n, whole(n, 1), "a whole number of at least 1")
        expect("sample", "seed", seed, whole(seed, 0), "a whole number of at least 0")
        acts = self._acts({} if do is None else do)
        seen = self._style(n, _ROWS, seed)  # embedded, as effects see it
        frame: dict[str, Any] = {}
        for i, name in enumerate(self.order):
            node, act = self.graph.nodes[name], acts.get(name)
            rng = np.random.default_rng([seed, _ROWS, i])
            value = self._equations[name](seen, n, rng)
            measured = value if act is None else act.change(value, rng)
            seen[name] = self._embedded(node, measured if act is not None and act.moves else value)
            if not max(np.abs(value).max(), np.abs(measured).max()) <= _LARGEST:
                raise ValueError(f"do: {name!r} expected values of at most {_LARGEST:g}, found larger ones")
            frame[name] = _column(node, measured)
        return pd.DataFrame(frame)

    def _style(self, n: int, stream: int, seed: int) -> dict[str, Array]:
        """z by name, (n, dim), if there is one."""
        z = self.graph.z
        rng = np.random.default_rng([seed, stream, len(self.graph.nodes)])
        return {} if z is None else {z.name: rng.standard_normal((n, z.dim))}

    def _discrete(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if name in self.graph.nodes and self.graph.nodes[name].levels}

    def _embedded(self, node: Node, value: Array) -> Array:
        """Values as effects see them, (n, length of e)."""
        if node.levels:
            k = len(node.levels)
            corners: Array = (np.eye(k) - 1 / k) * k / np.sqrt(k - 1)
            return corners[value]
        if node.type == "count":
            value = self._log_moments[node.name](np.log1p(value))
        return value.reshape(len(value), -1)

    def _acts(self, do: Do) -> dict[str, _Act]:
        if not isinstance(do, Mapping):
            raise ValueError(f"do: expected a mapping of node to intervention, found {shown(do)}")
        m = self.graph.m
        latents = {latent.name for latent in (self.graph.z, m) if latent is not None}
        acts = {}
        for name, given in do.items():
            if name in latents:
                raise ValueError(
                    f"do: {name!r} expected to be a node, found a latent: z is drawn, and Shift and Recode of the "
                    "children take the place of m"
                )
            if name not in self.graph.nodes:
                raise ValueError(f"do: {name!r} {one_of(name, self.graph.nodes)}, found no such node")
            acts[name] = _act(
                self.graph.nodes[name], given, "quantity" if m is None else m.affects.get(name, "quantity")
            )
        return acts

    def __repr__(self) -> str:
        return f"<StructuralModel: {len(self.order)} nodes, target {self.graph.target!r}>"


def simulate(graph: Source, n: int, seed: int = 0, do: Do | None = None) -> pd.DataFrame:
    """Rows from a random structural causal model: ``StructuralModel(graph, seed).sample(n, seed, do)``.

    Equations and rows both follow from ``seed``, so the rows are the same people with and without ``do``.

    Raises:
        GraphError: the graph is at fault, or holds an image.
        ValueError: ``n`` or ``seed`` is out of range, or an intervention does not fit its node.
    """
    return StructuralModel(graph, seed).sample(n, seed, do)


# equations -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Standard:
    """To mean 0 and sd 1, by what was seen once; a constant stays one."""

    mean: Array
    sd: Array

    @classmethod
    def of(cls, values: Array) -> Self:
        sd = values.std(0)
        return cls(values.mean(0), np.where(sd < 1e-9, 1.0, sd))

    def __call__(self, values: Array) -> Array:
        result: Array = (values - self.mean) / self.sd
        return result


@dataclass(frozen=True)
class _Part:
    """w g(u): what one cause says by itself."""

    weight: float
    direction: Array
    inner: _Standard
    linear: float
    bend: float
    steep: float
    turn: float
    outer: _Standard

    @classmethod
    def drawn(cls, rng: np.random.Generator, e: Array, discrete: bool, target: bool) -> Self:
        width = e.shape[1]
        if discrete:
            gap = 2.0 / (width - 1)
            direction = rng.permutation(np.linspace(-1, 1, width)) + rng.uniform(-gap / 4, gap / 4, width)
            bend = 0.0
        else:
            direction = rng.standard_normal(width)
            bend = -rng.uniform(1, 1.5)
        weight = (rng.uniform(1.5, 2) if target else rng.uniform(0.5, 1.5)) * rng.choice([-1, 1])
        inner = _Standard.of(_dot(e, direction))
        curve = float(rng.uniform(0.5, 1)), float(bend), float(rng.uniform(1, 3)), float(rng.uniform(-1.5, 1.5))
        raw = cls(float(weight), direction, inner, *curve, _Standard(np.zeros(()), np.ones(())))
        return cls(float(weight), direction, inner, *curve, _Standard.of(raw.curve(e)))

    def curve(self, e: Array) -> Array:
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
        self.first = _Standard.of(first)
        self.known = float(((second - second.mean()) * self.first(first)).mean())
        self.second = _Standard.of(second - self.known * self.first(first))
        self.whole = _Standard.of(self._mixed(causes))

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


class _Equation:
    """A node as a function of its embedded causes and of noise: codes (discrete) or floats, (n,) or (n, dim)."""

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
            self.level = _intercepts(_dot(self.signal(causes, _REFERENCE), self.contrasts), shares)
        elif node.type == "continuous":
            self.level = rng.uniform(0.2, 0.4, size) if causes else np.ones(size)
        else:
            self.level = np.log(rng.uniform(3, 8, size))

    def signal(self, causes: Mapping[str, Array], n: int) -> Array:
        """f, (n, functions)."""
        if not self.signals:
            return np.zeros((n, self.size))
        return np.stack([f(causes) for f in self.signals], axis=1)

    def __call__(self, seen: Mapping[str, Array], n: int, rng: np.random.Generator) -> Array:
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


# interventions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Act:
    """An intervention on a node: values (n, ...) as they become, and whether effects see them."""

    change: Callable[[Array, np.random.Generator], Array]
    moves: bool = True


def _act(node: Node, given: Any, affects: str) -> _Act:
    where = f"do: {node.name!r} of type {node.type}"
    if isinstance(given, Shift | Recode):
        moves = (given.affects or affects) == "quantity"
        if node.levels:
            if not isinstance(given, Recode):
                raise ValueError(f"{where} expected a level or Recode, found {shown(given)}")
            return _Act(_recoding(where, node.levels, given), moves)
        if not isinstance(given, Shift):
            raise ValueError(f"{where} expected a number or Shift, found {shown(given)}")
        return _Act(_shifting(where, node, given), moves)
    fixed: Any = _code(where, node.levels, given) if node.levels else _entry(where, node, given)
    if node.type == "count" and not ((fixed >= 0) & (fixed == np.rint(fixed))).all():
        raise ValueError(f"{where} expected a whole number of at least 0, found {shown(given)}")
    return _Act(lambda value, rng: np.full_like(value, fixed))


def _shifting(where: str, node: Node, shift: Shift) -> Callable[[Array, np.random.Generator], Array]:
    gain, offset = _entry(where, node, shift.gain), _entry(where, node, shift.offset)

    def change(value: Array, rng: np.random.Generator) -> Array:
        moved: Array = gain * value + offset
        return np.maximum(np.rint(moved), 0) if node.type == "count" else moved

    return change


def _recoding(where: str, levels: tuple[Level, ...], recode: Recode) -> Callable[[Array, np.random.Generator], Array]:
    chances = np.eye(len(levels))
    for level, to in recode.to.items():
        row = np.zeros(len(levels))
        for other, chance in to.items() if isinstance(to, Mapping) else [(to, 1.0)]:
            number = _numbers(chance)
            if number is None or number.shape or not 0 <= number <= 1:
                raise ValueError(f"{where}, {level!r}: expected probabilities from 0 to 1, found {shown(chance)}")
            row[_code(where, levels, other)] = number
        if abs(row.sum() - 1) > 1e-6:
            raise ValueError(f"{where}, {level!r}: expected probabilities that sum to 1, found {row.sum():g}")
        chances[_code(where, levels, level)] = row
    upper = chances.cumsum(1)
    upper /= upper[:, -1:]

    def change(value: Array, rng: np.random.Generator) -> Array:
        codes: Array = (rng.uniform(size=(len(value), 1)) >= upper[value]).sum(1)
        return codes

    return change


def _code(where: str, levels: tuple[Level, ...], level: Any) -> int:
    codes = {known: code for code, known in enumerate(levels)}
    if not isinstance(level, Hashable) or level not in codes:
        raise ValueError(f"{where} expected one of the levels {listed(levels)}, found {shown(level)}")
    return codes[level]


def _entry(where: str, node: Node, value: Any) -> Array:
    """A finite number, (), or for a vector node maybe one a component, (dim,)."""
    numbers = _numbers(value)
    if numbers is None or numbers.shape not in {(), () if node.dim is None else (node.dim,)}:
        components = "" if node.dim is None else f", or {node.dim} of them"
        raise ValueError(f"{where} expected a finite number{components}, found {shown(value)}")
    return numbers


def _numbers(value: Any) -> Array | None:
    """A number or a sequence of numbers as floats; None if it is something else or not finite."""
    many = value.tolist() if isinstance(value, np.ndarray) else value
    for entry in many if isinstance(many, list | tuple) else [many]:
        if not number(entry) or not abs(entry) <= _LARGEST:
            return None
    return np.asarray(many, dtype=np.float64)


def _column(node: Node, values: Array) -> Any:
    """Values as a column of raw units."""
    if node.levels:
        alike = len({type(level) for level in node.levels}) == 1
        return pd.Series([node.levels[code] for code in values], dtype=None if alike else object)
    if node.type == "count":
        values = values.astype(np.int64)
    return values if node.dim is None else list(values)


def _expect_affects(where: str, affects: Any) -> None:
    expect(where, "affects", affects, affects in (None, "quantity", "measurement"), "'quantity', 'measurement' or None")
