"""What the values of a column say about a node, gathered part by part: counts, means, deviations.

Parts merge exactly, as in Chan, Golub and LeVeque (1979, "Updating formulae and a pairwise algorithm for computing
sample variances"); a single part gives what its own mean and deviation are, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama.data.class_moments import frequencies_by_class, moments_by_class
from pyro_cama.data.far_entries import LARGEST, Far, Spread
from pyro_cama.data.scales import choose_unit, on_scale
from pyro_cama.data.values import encode_values
from pyro_cama.graph.nodes import Node

Floats = NDArray[np.float64]
IMAGES = 1000  # whose pixels are held in double precision at a time


@dataclass(frozen=True)
class Moments:
    """Number, mean, variance and range of values, for every entry of a vector by itself.

    Attributes:
        rows: number of values.
        mean, variance: in units of ``2 ** exponent`` and its square; a power of two changes no digit, and keeps the
            squares of huge and of tiny values within the floats.
        low, high: the range, in plain units.
        exponent: integers.
    """

    rows: int
    mean: Floats
    variance: Floats
    low: Floats
    high: Floats
    exponent: NDArray[np.int64]

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Computes the moments of values (rows, ...), one row or more."""
        low, high = values.min(0), values.max(0)
        exponent = _exponent(low, high)
        scaled = np.ldexp(values, -exponent)
        return cls(len(values), scaled.mean(0), scaled.var(0), low, high, exponent)

    def merged(self, other: Moments) -> Moments:
        """Returns the moments of both sets of values together."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        exponent, rows = _exponent(low, high), self.rows + other.rows
        one, two = (
            (np.ldexp(m.mean, m.exponent - exponent), np.ldexp(m.variance, 2 * (m.exponent - exponent)))
            for m in (self, other)
        )
        share, apart = other.rows / rows, two[0] - one[0]
        variance = (1 - share) * one[1] + share * two[1] + share * (1 - share) * apart**2
        return Moments(rows, one[0] + share * apart, variance, low, high, exponent)

    def mean_sd(self) -> tuple[Floats, Floats]:
        """Returns mean and standard deviation in plain units; that of a constant is 1."""
        mean, sd = np.ldexp(self.mean, self.exponent), np.ldexp(np.sqrt(self.variance), self.exponent)
        width = np.ldexp(self.high, -self.exponent) - np.ldexp(self.low, -self.exponent)
        constant = width <= 8 * np.finfo(np.float64).eps
        return np.where(self.low == self.high, self.low, mean), np.where(constant | (sd == 0), 1.0, sd)


def _exponent(low: Floats, high: Floats) -> NDArray[np.int64]:
    return np.asarray(np.frexp(np.maximum(abs(low), abs(high)))[1].astype(np.int64) - 1)


class ColumnStatistics:
    """What the observed values of one node have said so far.

    Attributes:
        node: the node.
        rows: values seen.
        counts: of every level, ``(levels,)``.
        labels: how many classes the target has.
    """

    def __init__(self, node: Node, labels: int = 0) -> None:
        self.node = node
        self.labels = labels
        self.rows = 0
        self.counts = np.zeros(node.classes, dtype=np.int64)
        self._by_label = np.zeros((labels + 1, node.classes), dtype=np.int64)
        self._moments: list[Moments] = []
        self._spread = Spread()

    def add(
        self,
        raw: NDArray[Any],
        places: NDArray[np.int64] | None = None,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """Takes in observed raw values (any number, ...), as :func:`pyro_cama.data.columns.read_column` gives them.

        Args:
            raw: the values.
            places: the table's rows that they stand in; by default all rows from the first on.
            labels: class of every one, -1 (the default) where it is not known.
        """
        if not len(raw):
            return
        if self.node.levels:
            self.counts += np.bincount(raw, minlength=self.node.classes)
            np.add.at(self._by_label, (np.full(len(raw), -1) if labels is None else labels, raw), 1)
        elif self.node.is_image:
            for start in range(0, len(raw), IMAGES):
                self._merge([Moments.of(raw[start : start + IMAGES].astype(np.float64).reshape(-1))])
        else:
            self._merge([Moments.of(part) for part in self._scales(raw)])
            self._spread.add(raw, np.arange(self.rows, self.rows + len(raw)) if places is None else places, labels)
        self.rows += len(raw)

    def _merge(self, found: list[Moments]) -> None:
        pairs = zip(self._moments, found, strict=True)
        self._moments = [old.merged(new) for old, new in pairs] if self._moments else found

    def _scales(self, raw: Floats) -> list[Floats]:
        return [raw, np.log1p(raw)] if self.node.type == "count" else [raw]

    def far(self) -> list[Far]:
        """Returns which entries stand far from all others; none of levels and images.  Needs a value."""
        return self._spread.far(self.node.type == "count") if self.node.is_number else []

    def statistics(self) -> dict[str, Tensor]:
        """Returns what :attr:`TableEncoder.statistics` holds of the node, float64; needs a value."""
        values: tuple[Any, ...]
        if self.node.levels:
            values = (self.counts / self.rows,)
        elif self.node.is_image:
            values = self._moments[0].mean_sd()
        else:
            far = self.far()
            low, high = self._bounds(far)
            moments = [part.mean_sd() for part in self._moments]
            for i in {one.component for one in far}:  # those of the others
                at = () if i is None else i
                for (mean, sd), part in zip(moments, self._scales(self._near(i, low, high)[0]), strict=True):
                    mean[at], sd[at] = Moments.of(part).mean_sd()
            if self.node.type == "count":
                values = (moments[0][0], *moments[-1])
            else:
                values = (*moments[0], self._rescaled(*moments[0], low, high))
            values = (*values, low, high, *self._spread.range(low, high))
        keys = statistic_shapes(self.node)
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in zip(keys, values, strict=True)}

    def by_class(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what :attr:`TableEncoder.by_class` holds of the node.

        Args:
            statistics: what :meth:`statistics` gave.
        """
        if self.node.is_image:
            return {}
        if self.node.levels:
            return frequencies_by_class(torch.from_numpy(self._by_label[:-1]))
        low, high = (statistics[key].numpy() for key in ("low", "high"))
        sample = self._spread.sample
        near = ((sample >= low) & (sample <= high)).reshape(len(sample), -1).all(1)
        value = encode_values(self.node, sample[near], np.ones(int(near.sum()), dtype=bool), statistics)
        return moments_by_class(self.node, statistics, value, torch.from_numpy(self._spread.labels[near]), self.labels)

    def constant(self) -> float | None:
        """Returns the one value that all entries of a number have, None where there are several; needs two entries."""
        if not self.node.is_number or self.node.dim or self.rows < 2:
            return None
        least, most = self._spread.range(*self._bounds(self.far()))
        return float(least) if least == most else None

    def _rescaled(self, mean: Floats, sd: Floats, low: Floats, high: Floats) -> Floats:
        """Returns the unit of every component's scale, ``(...)``; mean and sd become those on it, of the sample."""
        units = np.zeros(self.node.event_shape)
        for i in range(self.node.dim) if self.node.dim else [None]:
            at = () if i is None else i
            column, labels = self._near(i, low, high)
            units[at] = choose_unit(self.node.name, self.node.scale, column, labels)
            if units[at] > 0:
                mean[at], sd[at] = Moments.of(on_scale(column, units[at])).mean_sd()
        return units

    def _near(self, i: int | None, low: Floats, high: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """The sampled values of a component that do not stand far from the others, and their classes."""
        at = () if i is None else i
        column = self._spread.sample if i is None else self._spread.sample[:, i]
        near = (column >= low[at]) & (column <= high[at])
        return column[near], self._spread.labels[near]

    def _bounds(self, far: list[Far]) -> tuple[Floats, Floats]:
        low, high = np.full(self.node.event_shape, -LARGEST), np.full(self.node.event_shape, LARGEST)
        for one in far:
            (high if one.value > one.bound else low)[() if one.component is None else one.component] = one.bound
        return low, high


def statistic_shapes(node: Node) -> dict[str, tuple[int, ...]]:
    """Returns the names of the statistics of a node, and the shape of each."""
    if node.levels:
        return {"frequencies": (len(node.levels),)}
    if node.is_image:
        return {"mean": (), "sd": ()}
    keys = ("mean", "log_mean", "log_sd") if node.type == "count" else ("mean", "sd", "unit")
    return dict.fromkeys((*keys, "low", "high", "least", "most"), node.event_shape)
