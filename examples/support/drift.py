"""Real tables, and instruments that drift: a constant is added to some columns, no label is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.model_selection import train_test_split

TABLES = {"breast_cancer": (load_breast_cancer, "diagnosis"), "wine": (load_wine, "cultivar")}


def load_table(name: str) -> tuple[pd.DataFrame, str]:
    """A table of scikit-learn with named classes, and the name of its target column.

    >>> table, target = load_table("wine")
    >>> table.shape, target, sorted(table[target].unique())
    ((178, 14), 'cultivar', ['class_0', 'class_1', 'class_2'])
    """
    if name not in TABLES:
        raise ValueError(f"no table {name!r}; there are {', '.join(TABLES)}")
    load, target = TABLES[name]
    bunch = load(as_frame=True)
    return bunch.data.assign(**{target: bunch.target_names[bunch.target].astype(str)}), target


def split(frame: pd.DataFrame, target: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test half, each with the same share of every class."""
    train, test = train_test_split(frame, test_size=len(frame) // 2, stratify=frame[target], random_state=seed)
    return train.reset_index(drop=True), test.reset_index(drop=True)


def cross_fit(frame: pd.DataFrame, seed: int) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Two pairs (rows to adapt on, rows to score): every row is scored once, by a model that never saw it.

    The halves are drawn without a look at the labels, which nobody has when adapting.
    """
    order = np.random.default_rng(seed).permutation(len(frame))
    first, second = (frame.iloc[np.sort(half)].reset_index(drop=True) for half in np.array_split(order, 2))
    return [(first, second), (second, first)]


@dataclass(frozen=True)
class Drift:
    """`size_sd` training standard deviations on `fraction` of the columns."""

    size_sd: float
    fraction: float

    def __str__(self) -> str:
        return f"+{self.size_sd:g} sd on {self.fraction:.0%}"

    def apply(
        self, frame: pd.DataFrame, train: pd.DataFrame, columns: list[str], seed: int
    ) -> tuple[pd.DataFrame, list[str]]:
        """A drifted copy of `frame`, and the columns that moved (chosen among `columns` by `seed`)."""
        # 0.2 * 35 is a little more than 7 in floating point
        count = math.ceil(round(self.fraction * len(columns), 9))
        moved = [columns[i] for i in np.random.default_rng(seed).permutation(len(columns))[:count]]
        shift = self.size_sd * train[moved].std(ddof=0)
        return frame.assign(**{name: frame[name] + shift[name] for name in moved}), moved


@dataclass(frozen=True)
class PrevalenceDrift(Drift):
    """A drift under which the mix of classes changes too: of the first class only a share of the rows comes in."""

    target: str
    keep: float = 0.15

    def __str__(self) -> str:
        return f"{'mix alone' if self.size_sd == 0 else super().__str__()}, new mix"

    def apply(
        self, frame: pd.DataFrame, train: pd.DataFrame, columns: list[str], seed: int
    ) -> tuple[pd.DataFrame, list[str]]:
        """A drifted copy of some of the rows, and the columns that moved."""
        first = np.flatnonzero(frame[self.target] == min(train[self.target]))
        dropped = np.random.default_rng(seed).permutation(first)[round(self.keep * len(first)) :]
        rest = frame.drop(index=frame.index[dropped]).reset_index(drop=True)
        return super().apply(rest, train, columns, seed)


DRIFTS = tuple(Drift(size, fraction) for size, fraction in product((0.5, 1.0, 2.0), (0.2, 0.5, 1.0)))
