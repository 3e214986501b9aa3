"""New rows of many kinds whose labels are known: what adapting may meet, inside and outside of what m can undo.

A table is one of R's or scikit-learn's, or drawn at random ("random 0", "random 1", ...).  What happens to rows is an
instrument's doing (`INSIDE` and `OUTSIDE` of what an affine mechanism can undo, or nothing), on top of another mix of
the classes, or they are another part of the population: the upper half by a column that nobody measured.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

from pyro_cama import CausalGraph
from support import drift
from support.drift import graph_of, load_table
from support.drift_sources import rdataset

ROWS = (10, 30, 100, 300, 2000)  # to adapt on, where there are as many
FEWEST = 8
SIZES = (0.3, 0.7, 1.5, 3.0)  # of a drift, in training standard deviations
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the columns
FACTORS = (0.01, 0.1, 2.54, 10.0, 1000.0)
MIXES: tuple[str | float, ...] = ("same", "same", "same", "any", "any", "alone", 0.05, 0.5, 0.95)
Moved = Callable[[pd.DataFrame, pd.DataFrame, list[str], str, np.random.Generator], pd.DataFrame]


@dataclass(frozen=True)
class Table:
    """Rows, the target among their columns, and a graph whose target causes all others."""

    rows: pd.DataFrame
    target: str
    graph: CausalGraph

    @property
    def numbers(self) -> list[str]:
        """The columns that a drift may move."""
        nodes = self.graph.nodes
        return [n for n in self.graph.blanket.children if nodes[n].type == "continuous" and self.rows[n].nunique() > 4]


# tables ---------------------------------------------------------------------------------------------------------------


def _iris() -> pd.DataFrame:
    frame = load_iris(as_frame=True).frame
    return frame.assign(target="species " + frame["target"].astype(str))


def _glass() -> pd.DataFrame:
    frame = rdataset("MASS", "fgl")
    return frame[frame["type"].isin(frame["type"].value_counts().index[:4])]


OTHERS: dict[str, tuple[Callable[[], pd.DataFrame], str]] = {
    "iris": (_iris, "target"),
    "pima": (lambda: pd.concat([rdataset("MASS", "Pima.tr"), rdataset("MASS", "Pima.te")]), "type"),
    "glass": (_glass, "type"),
    "cells": (lambda: rdataset("modeldata", "cells").drop(columns="case").iloc[:1000, :25], "class"),
    "spam": (lambda: rdataset("DAAG", "spam7").sample(1000, random_state=0), "yesno"),
    "colleges": (lambda: rdataset("ISLR", "College"), "Private"),
    "jobs": (lambda: rdataset("modeldata", "hpc_data").drop(columns=["protocol", "day"])[:1500], "class"),
}
TABLES = ("breast_cancer", "wine", "anes96", *OTHERS)
RANDOM = 12  # tables drawn at random


def table(name: str) -> Table:
    """A table by its name; needs the extra `peers` for R's."""
    if name.startswith("random"):
        return _of(random_table(int(name.removeprefix("random "))), "y")
    if name in OTHERS:
        make, target = OTHERS[name]
        return _of(make(), target)
    rows, target = load_table(name)
    return Table(rows, target, graph_of(name))


def _of(rows: pd.DataFrame, target: str) -> Table:
    """With a graph whose target causes every other column, numbers continuous."""
    rows = rows.reset_index(drop=True).astype({target: str})
    nodes: dict[str, object] = {target: {"type": "categorical", "levels": sorted(rows[target].unique())}}
    for name in rows.columns.drop(target):
        if pd.api.types.is_numeric_dtype(rows[name]):
            rows[name] = rows[name].astype(float)
            nodes[name] = {"type": "continuous"}
        else:
            rows[name] = rows[name].astype(str)
            nodes[name] = {"type": "categorical", "levels": sorted(rows[name].unique())}
    return Table(rows, target, graph_over(nodes, target))


def graph_over(nodes: dict[str, object], target: str) -> CausalGraph:
    """A graph whose target causes every other node, with a style and one manipulation of all rows."""
    children = [name for name in nodes if name != target]
    latents = {"z": {"dim": min(8, max(1, len(children) // 2))}, "m": {"scope": "dataset"}}
    edges = [[target, child] for child in children]
    return CausalGraph({"nodes": nodes, "edges": edges, "target": target, "latents": latents})


def random_table(seed: int) -> pd.DataFrame:
    """Two to six classes, three to forty columns that share causes, some of them skewed, long-tailed or rounded."""
    rng = np.random.default_rng((seed, 1))
    rows, columns, classes = (int(rng.choice(some)) for some in ((300, 800, 1500), (3, 5, 8, 12, 20, 40), (2, 3, 4, 6)))
    y = rng.choice(classes, rows, p=rng.dirichlet(np.full(classes, 4.0)))
    means = rng.normal(0, rng.choice((0.5, 1.0, 1.5, 2.5)) * (5 / columns) ** 0.5, (classes, columns))
    causes = int(rng.choice((1, 2, 4, 8)))
    loadings = rng.normal(0, rng.choice((0.3, 1.0, 2.0)), (columns, causes))
    x = means[y] * (rng.random(columns) < 0.7) + rng.normal(0, 1, (rows, causes)) @ loadings.T
    x = x + rng.normal(0, 1, x.shape) * rng.choice((0.2, 1.0), columns)
    if rng.random() < 0.3:  # two kinds of row
        x = x + np.where(rng.random((rows, 1)) < 0.5, 0, rng.normal(0, 1, columns))
    x = x / x.std(0)
    shape = rng.choice(4, columns, p=(0.55, 0.25, 0.1, 0.1))
    for of_shape, change in ((1, lambda v: np.exp(0.7 * v)), (2, np.sinh), (3, lambda v: np.round(2 * v) / 2)):
        x[:, shape == of_shape] = change(x[:, shape == of_shape])
    frame = pd.DataFrame(x * np.exp(rng.normal(0, 2, columns)), columns=[f"x{i}" for i in range(columns)])
    return frame.assign(y=[f"class {label}" for label in y])


# what happens to columns ----------------------------------------------------------------------------------------------


def _deviations(train: pd.DataFrame, moved: list[str]) -> pd.Series:
    return train[moved].std(ddof=0) + 1e-9


def _shifted(
    rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator
) -> pd.DataFrame:
    signs = rng.choice((-1, 1), len(moved)) * rng.choice(SIZES)
    return rows.assign(
        **{name: rows[name] + sign * _deviations(train, moved)[name] for name, sign in zip(moved, signs, strict=True)}
    )


def _each(
    case: drift.Case, rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], rng: np.random.Generator
) -> pd.DataFrame:
    """With this having happened to every one of the columns."""
    return rows.assign(**{name: case.reading(rows[name], train[name], rng) for name in moved})


def _amplified(
    rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator
) -> pd.DataFrame:
    factor = np.exp(rng.choice((-1, 1)) * rng.choice((0.2, 0.5, 1.0)))
    return _each(drift.Gain(factor, 1.0), rows, train, moved, rng)


def _in_other_units(
    rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator
) -> pd.DataFrame:
    return _each(drift.Unit(rng.choice(FACTORS), 1.0), rows, train, moved, rng)


def _recalibrated(
    rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator
) -> pd.DataFrame:
    size, spread, mean = rng.choice(SIZES), _deviations(train, moved), train[moved].mean()
    gains, offsets = np.exp(rng.normal(0, 0.4, len(moved))), rng.normal(0, size, len(moved)) * spread
    return rows.assign(
        **{n: (rows[n] - mean[n]) * gain + mean[n] + offsets[n] for n, gain in zip(moved, gains, strict=True)}
    )


def _reversed(
    rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator
) -> pd.DataFrame:
    return _each(drift.Swapped(1.0), rows, train, moved[: max(1, len(moved) // 3)], rng)


def _bent(rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator) -> pd.DataFrame:
    spread, bend, found = _deviations(train, moved), rng.choice((-0.45, 0.35, 0.75)), {}
    for name in moved:
        x = (rows[name] - train[name].mean()) / spread[name]
        found[name] = train[name].mean() + spread[name] * (x + bend * np.tanh(x + 0.5 * rng.normal()))
    return rows.assign(**found)


def _noisy(rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator) -> pd.DataFrame:
    return _each(drift.Noise(rng.choice(SIZES), 1.0), rows, train, moved, rng)


def _by_class(
    rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], target: str, rng: np.random.Generator
) -> pd.DataFrame:
    size, spread, levels = rng.choice(SIZES), _deviations(train, moved), sorted(train[target].unique())
    found = {}
    for name in moved:
        shifts = dict(zip(levels, rng.normal(0, 0.7 * size * spread[name], len(levels)), strict=True))
        found[name] = rows[name] + rows[target].map(shifts).to_numpy(float)
    return rows.assign(**found)


def _leaking(
    rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator
) -> pd.DataFrame:
    mean, spread, count = train[moved].mean(), _deviations(train, moved), len(moved)
    leak = np.eye(count) + rng.normal(0, 0.6 * min(rng.choice(SIZES), 1.0) / count**0.5, (count, count))
    return rows.assign(**(((rows[moved] - mean) / spread).dot(pd.DataFrame(leak, moved, moved)) * spread + mean))


def _left(rows: pd.DataFrame, train: pd.DataFrame, moved: list[str], _: str, rng: np.random.Generator) -> pd.DataFrame:
    return rows


INSIDE: dict[str, Moved] = {
    "nothing": _left, "offset": _shifted, "gain": _amplified, "unit": _in_other_units, "gain and offset": _recalibrated,
    "reversed": _reversed, "noise": _noisy,
}  # fmt: skip
OUTSIDE: dict[str, Moved] = {"bent": _bent, "by class": _by_class, "leaking": _leaking}
OTHER_PART = "population"


# new rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Rows to train on, to adapt to and to score: the latter two are other rows, to which the same happened.

    Attributes:
        kind: one of `INSIDE`, `OUTSIDE`, or `OTHER_PART`.
        mix: one of `MIXES`.
    """

    train: pd.DataFrame
    seen: pd.DataFrame
    scored: pd.DataFrame
    kind: str
    mix: str


def drifts(given: Table, name: str, seed: int) -> Iterator[Case]:
    """One of every kind on the later half of a table."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    train, later = train_test_split(given.rows, test_size=0.55, stratify=given.rows[given.target], random_state=seed)
    for kind, moves in (INSIDE | OUTSIDE).items():
        count = max(1, round(rng.choice(SHARES) * len(given.numbers)))
        moved = list(rng.permutation(given.numbers)[:count])
        mix = MIXES[rng.integers(len(MIXES))]
        rows = mixed(moves(later, train, moved, given.target, rng), given.target, mix, rng)
        yield from _split(train, rows, kind, str(mix), rng)


def other_parts(given: Table, name: str, seed: int, count: int = 2) -> Iterator[tuple[Case, CausalGraph]]:
    """The rows above a cut of a column that is then forgotten, a model being trained on those below; and the graph."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode()), 2))
    for column in rng.permutation(given.numbers)[:count]:
        place = given.rows[column] if rng.random() < 0.5 else given.rows.groupby(given.target)[column].rank(pct=True)
        place = place.rank(pct=True) * rng.choice((-1, 1)) + rng.normal(0, 0.05, len(place))
        below = (place <= place.quantile(0.55)).to_numpy()
        train, rest = (given.rows[part].drop(columns=column) for part in (below, ~below))
        often = train[given.target].value_counts()
        levels = often.index[often >= FEWEST]
        train, rest = (part[part[given.target].isin(levels)] for part in (train, rest))
        varied = [name for name in train.columns if train[name].nunique() > 1]
        if len(levels) < 2 or len(varied) < 3:
            continue
        graph = _without(given.graph, set(train.columns) - set(varied) | {column}, sorted(levels))
        for case in _split(train[varied], rest[varied], OTHER_PART, "same", rng):
            yield case, graph


def mixed(rows: pd.DataFrame, target: str, mix: str | float, rng: np.random.Generator) -> pd.DataFrame:
    """Some of the rows, in another mix of the classes: one of `MIXES`."""
    levels = sorted(rows[target].unique())
    if mix == "same":
        return rows
    shares = rng.dirichlet(np.ones(len(levels)))
    if mix != "any":
        share = 1.0 if mix == "alone" else float(mix)
        shares = np.full(len(levels), (1 - share) / (len(levels) - 1))
        shares[rng.integers(len(levels))] = share
    there = rows[target].value_counts()[levels].to_numpy()
    most = min(there[shares > 0] / shares[shares > 0])  # rows of which each class has its share
    count = np.minimum(np.round(shares * min(most, 0.6 * len(rows))).astype(int), there)
    picked = [
        rng.choice(np.flatnonzero(rows[target] == level), n, replace=False)
        for level, n in zip(levels, count, strict=True)
    ]
    return rows.iloc[np.sort(np.concatenate(picked))]


def _split(train: pd.DataFrame, rows: pd.DataFrame, kind: str, mix: str, rng: np.random.Generator) -> Iterator[Case]:
    order = rng.permutation(len(rows))
    count = min(int(rng.choice(ROWS)), len(rows) // 2)
    if count >= FEWEST:
        yield Case(train, rows.iloc[order[:count]], rows.iloc[order[count:]], kind, mix)


def _without(graph: CausalGraph, gone: set[str], levels: list[str]) -> CausalGraph:
    """The graph without these nodes, its target with fewer levels."""
    raw = graph.to_dict()
    kept = {name: node for name, node in raw["nodes"].items() if name not in gone}
    kept[graph.target] = {"type": "categorical", "levels": levels}
    return graph_over(kept, graph.target)
