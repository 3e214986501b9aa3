"""Real tables, and what happens to their columns later; no label is ever touched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from pyro_cama import CausalGraph, datasets
from pyro_cama.bayes_nets import example_network

# published networks with known graphs, and a variable of each that is worth predicting from its effects
NETWORKS = {"child": "Disease", "insurance": "Accident", "hepar2": "PBC", "ecoli70": "lacA"}
SAMPLED = 2000


def graph_of(name: str) -> CausalGraph:
    """The graph of a table; of a network its own, one m for all rows, no style."""
    if name in NETWORKS:
        return example_network(name, NETWORKS[name], latents={"z": None, "m": {"scope": "dataset"}})[0]
    return datasets.graph(name)


def load_table(name: str) -> tuple[pd.DataFrame, str]:
    """A table of scikit-learn or statsmodels, or rows sampled from a network, and the name of its target column.

    >>> table, target = load_table("wine")
    >>> table.shape, target, sorted(table[target].unique())
    ((178, 14), 'cultivar', ['class_0', 'class_1', 'class_2'])
    """
    if name in NETWORKS:
        return example_network(name, NETWORKS[name])[1](SAMPLED, 0), NETWORKS[name]
    return datasets.load(name), datasets.TABLES[name]


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


class Case:
    """Something that may have happened to some columns, `fraction` of them; 0 is a single one."""

    kind: ClassVar[str]
    fraction: float

    def apply(
        self, frame: pd.DataFrame, train: pd.DataFrame, columns: list[str], seed: int
    ) -> tuple[pd.DataFrame, list[str]]:
        """A copy of `frame` after it, and the columns that moved (chosen among `columns` by `seed`)."""
        # 0.2 * 35 is a little more than 7 in floating point
        count = max(1, math.ceil(round(self.fraction * len(columns), 9)))
        moved = [columns[i] for i in np.random.default_rng(seed).permutation(len(columns))[:count]]
        noise = np.random.default_rng((seed, 1))
        return frame.assign(**{name: self.reading(frame[name], train[name], noise) for name in moved}), moved

    def reading(self, values: pd.Series, train: pd.Series, noise: np.random.Generator) -> pd.Series:
        """What a column that moved reads instead of `values`."""
        raise NotImplementedError

    @property
    def where(self) -> str:
        return f"on {self.fraction:.0%}" if self.fraction else "on 1 column"


@dataclass(frozen=True)
class Unchanged(Case):
    kind = "clean"

    def __str__(self) -> str:
        return "clean"

    def apply(
        self, frame: pd.DataFrame, train: pd.DataFrame, columns: list[str], seed: int
    ) -> tuple[pd.DataFrame, list[str]]:
        return frame, []


@dataclass(frozen=True)
class Drift(Case):
    """Another calibration: `size_sd` training standard deviations too high."""

    kind = "calibration"
    size_sd: float
    fraction: float

    def __str__(self) -> str:
        return f"+{self.size_sd:g} sd {self.where}"

    def reading(self, values: pd.Series, train: pd.Series, noise: np.random.Generator) -> pd.Series:
        return values + self.size_sd * train.std(ddof=0)


@dataclass(frozen=True)
class Gain(Case):
    """A wrong gain."""

    kind = "gain"
    factor: float
    fraction: float

    def __str__(self) -> str:
        return f"gain {self.factor:g} {self.where}"

    def reading(self, values: pd.Series, train: pd.Series, noise: np.random.Generator) -> pd.Series:
        return values * self.factor


@dataclass(frozen=True)
class Unit(Gain):
    """Another unit: centimetres for inches."""

    kind = "unit"

    def __str__(self) -> str:
        return f"unit ×{self.factor:g} {self.where}"


@dataclass(frozen=True)
class Swapped(Case):
    """A scale read from its other end."""

    kind = "swapped scale"
    fraction: float

    def __str__(self) -> str:
        return f"swapped scale {self.where}"

    def reading(self, values: pd.Series, train: pd.Series, noise: np.random.Generator) -> pd.Series:
        return train.max() + train.min() - values


@dataclass(frozen=True)
class Noise(Case):
    """Normal noise of `size_sd` training standard deviations."""

    kind = "noise"
    size_sd: float
    fraction: float

    def __str__(self) -> str:
        return f"noise {self.size_sd:g} sd {self.where}"

    def reading(self, values: pd.Series, train: pd.Series, noise: np.random.Generator) -> pd.Series:
        return values + noise.normal(0, self.size_sd * train.std(ddof=0), len(values))


@dataclass(frozen=True)
class Dead(Case):
    """A sensor that says nothing any more."""

    kind = "dead sensor"
    fraction: float

    def __str__(self) -> str:
        return f"dead {self.where}"

    def reading(self, values: pd.Series, train: pd.Series, noise: np.random.Generator) -> pd.Series:
        return pd.Series(np.nan, values.index)


@dataclass(frozen=True)
class Recoded(Case):
    """Levels written down under other names: each one as the next, in the order of their names."""

    kind = "recoded"
    fraction: float

    def __str__(self) -> str:
        return f"recoded {self.where}"

    def reading(self, values: pd.Series, train: pd.Series, noise: np.random.Generator) -> pd.Series:
        levels = sorted(train.unique())
        return values.map(dict(zip(levels, [*levels[1:], levels[0]], strict=True)))


@dataclass(frozen=True)
class Misreported(Case):
    """A share of the readings of the most frequent level are written down as the next frequent one."""

    kind = "misreported"
    share: float
    fraction: float

    def __str__(self) -> str:
        return f"{self.share:.0%} misreported {self.where}"

    def reading(self, values: pd.Series, train: pd.Series, noise: np.random.Generator) -> pd.Series:
        first, second = train.value_counts().index[:2]
        return values.mask((values == first) & (noise.random(len(values)) < self.share), second)


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
CASES: tuple[Case, ...] = (
    *(drift for drift in DRIFTS if drift.size_sd >= 1),
    Gain(1.5, 0.5),
    *(Unit(2.54, fraction) for fraction in (0.2, 1.0)),
    *(Swapped(fraction) for fraction in (0.0, 0.2)),
    *(Noise(size, fraction) for size, fraction in ((1.0, 0.2), (2.0, 0.5))),
    *(Dead(fraction) for fraction in (0.0, 0.2)),
)
CASES_OF: dict[str, tuple[Case, ...]] = {
    "breast_cancer": CASES,
    "wine": CASES,
    # digits costs much more than the others; the election study has but four answers that may move
    "digits": (Drift(1.0, 0.5), Unit(2.54, 0.2), Swapped(0.2), Noise(1.0, 0.2)),
    "anes96": (
        *(Drift(size, fraction) for size, fraction in ((1.0, 0.5), (2.0, 0.5), (1.0, 1.0))),
        Gain(1.5, 0.5), Unit(2.54, 0.5), Swapped(0.0), Noise(1.0, 0.5), Noise(2.0, 0.5), Dead(0.0),
    ),
}  # fmt: skip
_CODES: tuple[Case, ...] = (
    *(Recoded(fraction) for fraction in (0.0, 0.5)),
    *(Misreported(share, 0.5) for share in (0.3, 0.6)),
)
_SCALES: tuple[Case, ...] = (Drift(1.0, 0.5), Drift(2.0, 1.0), Gain(1.5, 0.5), Swapped(0.0))
CASES_OF_NETWORK = {name: _SCALES if name == "ecoli70" else _CODES for name in NETWORKS}
