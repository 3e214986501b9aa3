"""Interventions on simulated nodes: values set, shifted (:class:`Shift`) or recoded (:class:`Recode`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyro_cama._arguments import expect, number
from pyro_cama._messages import listed, shown
from pyro_cama.graph.nodes import Node
from pyro_cama.graph.schema import Affects, Level
from pyro_cama.simulation.equations import Array

Number: TypeAlias = float | Sequence[float] | NDArray[Any]
LARGEST_COUNT = 2.0**53  # beyond it floats skip whole numbers


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

    >>> from pyro_cama.simulation import simulate
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


Interventions: TypeAlias = Mapping[str, Number | Level | Shift | Recode]
"""Node to what is done to it: a number or a level sets it."""


@dataclass(frozen=True)
class Act:
    """An intervention on a node: values (n, ...) as they become, and whether effects see them."""

    change: Callable[[Array, np.random.Generator], Array]
    moves: bool = True


def act_of(node: Node, given: Any, affects: str) -> Act:
    """Returns what an intervention does to a node's values; ``affects`` where the intervention says nothing of it.

    Raises:
        ValueError: the intervention does not fit the node.
    """
    where = f"do: {node.name!r} of type {node.type}"
    if isinstance(given, Shift | Recode):
        moves = (given.affects or affects) == "quantity"
        if node.levels:
            if not isinstance(given, Recode):
                raise ValueError(f"{where} expected a level or Recode, found {shown(given)}")
            return Act(_recoding(where, node.levels, given), moves)
        if not isinstance(given, Shift):
            raise ValueError(f"{where} expected a number or Shift, found {shown(given)}")
        return Act(_shifting(where, node, given), moves)
    fixed: Any = _code(where, node.levels, given) if node.levels else _entry(where, node, given)
    if node.type == "count" and not ((fixed >= 0) & (fixed == np.rint(fixed))).all():
        raise ValueError(f"{where} expected a whole number of at least 0, found {shown(given)}")
    return Act(lambda value, rng: np.full_like(value, fixed))


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
        if not number(entry) or not abs(entry) <= LARGEST_COUNT:
            return None
    return np.asarray(many, dtype=np.float64)


def _expect_affects(where: str, affects: Any) -> None:
    expect(where, "affects", affects, affects in (None, "quantity", "measurement"), "'quantity', 'measurement' or None")
