"""Entries that stand far from all others of their column: codes for missing values, as -999, and slips of the pen.

One of them moves mean and standard deviation so far that the others look all the same.  They are told from heavy tails
by the gap between, and from a rare group of rows by their small number.  What that takes is kept in bounded memory, and
is the same in whatever parts a table comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyro_cama._messages import first_of

Floats = NDArray[np.float64]
FAR = 50  # interquartile ranges from the median
FAR_LOG = 10  # of a count's logarithm, besides
APART = 10  # times as far as the farthest of the others on that side
SAMPLE = 10_000  # numbers from which quartiles are taken
ENDS = 128  # lowest and highest values that are kept
PART = 2**16  # values whose keys are held at a time
LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True)
class Far:
    """What stands far from the other entries, on one side of one component.

    Attributes:
        component: of a vector; None of a scalar.
        value: the farthest.
        row: the first one of that value.
        count: how many entries are far; of :data:`ENDS`, at least so many.
        bound: between them and the others.
    """

    component: int | None
    value: float
    row: int
    count: int
    bound: float

    def __str__(self) -> str:
        at = f"{self.value:g} in row {self.row}"
        more = " or more" if self.count == ENDS else ""
        return at if self.count == 1 else f"{self.count}{more} entries such as {at}"


def far_text(found: Mapping[str, Sequence[Far]]) -> str:
    """Returns what was found, by node, in a warning's words."""
    parts = [
        f"{name!r}{'' if one.component is None else f'[{one.component}]'}: {one}"
        for name, far in found.items()
        for one in far
    ]
    return first_of(parts, mark="; ")


class Spread:
    """A sample and both ends of the values of a column, (rows, ...), which come in parts.

    Attributes:
        rows: values seen.
        sample: all of them, or, of very many, those whose place among them is drawn.
        labels: class of every one of the sample, -1 where it is not known.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.sample: Floats = np.zeros(0)
        self.labels = np.zeros(0, dtype=np.int64)
        self._keys = np.zeros(0, dtype=np.uint64)
        self._limit = np.uint64(2**64 - 1)
        self._ends: list[Floats] = []
        self._places: list[NDArray[np.int64]] = []

    def add(self, values: Floats, places: NDArray[np.int64], labels: NDArray[np.int64] | None = None) -> None:
        """Takes in values (rows, ...), one row or more, their places in the table and their classes, (rows,)."""
        labels = np.full(len(values), -1) if labels is None else labels
        for start in range(0, len(values), PART):
            part = slice(start, start + PART)
            self._add_sample(values[part], labels[part], self.rows + start)
        signed = [values, -values]
        ends = [_lowest(part) for part in signed]
        found = [places[part.argmin(0)] for part in signed]
        if self._ends:
            nearer = [end.min(0) <= new.min(0) for end, new in zip(self._ends, ends, strict=True)]
            found = [np.where(n, old, new) for n, old, new in zip(nearer, self._places, found, strict=True)]
            ends = [_lowest(np.concatenate(pair)) for pair in zip(self._ends, ends, strict=True)]
        self._ends, self._places = ends, found
        self.rows += len(values)

    def _add_sample(self, values: Floats, labels: NDArray[np.int64], first: int) -> None:
        """Keeps the values whose place has a key below a limit, halved until they are few enough."""
        keys = _mixed(np.arange(first, first + len(values), dtype=np.uint64))
        some = keys <= self._limit
        self.sample = np.concatenate([self.sample, values[some]]) if first else values[some]
        self.labels = np.concatenate([self.labels, labels[some]])
        self._keys = np.concatenate([self._keys, keys[some]])
        most = max(SAMPLE // 10, SAMPLE // max(1, values[0].size))
        while len(self._keys) > most:
            self._limit >>= np.uint64(1)
            some = self._keys <= self._limit
            self.sample, self.labels, self._keys = self.sample[some], self.labels[some], self._keys[some]

    def range(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Returns the least and the largest of the values between two bounds, each (...), of which there are some."""
        values = np.concatenate([self._ends[0], -self._ends[1], self.sample])
        near = (values >= low) & (values <= high)
        return np.where(near, values, np.inf).min(0), np.where(near, values, -np.inf).max(0)

    def far(self, counts: bool = False) -> list[Far]:
        """Returns what stands far from the others.

        Args:
            counts: have to be far on a log scale too, on which a few hundred times the median is no rarity.
        """
        shape, sample = self.sample.shape[1:], self.sample.reshape(len(self.sample), -1)
        found = []
        with np.errstate(over="ignore", invalid="ignore"):
            middle, bounds = _fences(sample, FAR)
            if counts:
                log_bounds = np.expm1(_fences(np.log1p(sample), FAR_LOG)[1])
                bounds = np.stack([np.minimum(bounds[0], log_bounds[0]), np.maximum(bounds[1], log_bounds[1])])
            for side, bound, end, place in zip((-1, 1), bounds, self._ends, self._places, strict=True):
                values, place = -side * end.reshape(len(end), -1), place.reshape(-1)
                for i in np.flatnonzero((side * values > side * bound).any(0)).tolist():
                    extreme, drawn = (side * (v[:, i] - middle[i]) for v in (values, sample))
                    count = self._standing_apart(extreme, drawn, abs(bound[i] - middle[i]))
                    if count:
                        value = float(side * (side * values[:, i]).max())
                        found.append(Far(i if shape else None, value, int(place[i]), count, float(bound[i])))
        return found

    def _standing_apart(self, ends: Floats, sample: Floats, bound: float) -> int:
        """Returns how many values are beyond the bound, 0 if they are too many, or go over into the others.

        Args:
            ends, sample: distances from the median, above 0 on the side in question.
            bound: the distance from which on values may be far.
        """
        far, others = ends[ends > bound], np.concatenate([ends[ends <= bound], sample[sample <= bound]])
        if not len(far) or others.max() > bound / 2 or far.min() < APART * others.max():
            return 0
        beyond = sample[sample > bound]
        one = far.min() == far.max() and bool((beyond == far[0]).all())
        few = len(far) < ENDS and len(far) <= max(3, 0.005 * self.rows)
        return len(far) if few or (one and len(beyond) <= 0.1 * len(sample)) else 0


def _lowest(values: Floats) -> Floats:
    return np.partition(values, min(ENDS, len(values)) - 1, axis=0)[:ENDS]


def _fences(values: Floats, times: int) -> tuple[Floats, Floats]:
    """Returns medians (...) and the bounds (2, ...) so many interquartile ranges from them; of none, no bounds."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    reach = np.where((high > low) & np.isfinite(high - low), times * (high - low), np.inf)
    return middle, np.stack([middle - reach, middle + reach])


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns numbers as good as random, by splitmix64: every n-th row could fall in with a rhythm of theirs."""
    z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
