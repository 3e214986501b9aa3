"""Which rows are unlike anything a model has seen: those of too low an ELBO for what was measured of them.

The ELBO of a row is the bound of eq. 7 on log p(x | a, c), nobody's label looked at. It is a sum over readings, so a
row with fewer of them has another one, and is compared with rows of as many. Within a band of numbers of readings (1,
2, 3 to 4, 5 to 8, ..., all) expectation and variance of the ELBO are linear in which columns were measured; they are
learnt from reference rows that keep some of their readings, drawn at random.

A row is unusual if its standardised ELBO lies below the k-th smallest of n reference rows in its band, k = max(1,
floor(level (n + 1))): split-conformal prediction (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*,
2005), by which a fresh row of the same kind is flagged with probability k / (n + 1) at most. For complete rows that is
so as it stands, for others as far as readings lack at random. It holds for rows the model was not trained on, so the
reference is the validation rows of the fit; fewer than 999 of them cannot carry a level of 0.1 %, so the threshold is
the lower one of theirs and of that of all rows of the fit.

It bounds a density: where a gain has changed, that of all rows of a site moves by the same constant. A kept adaptation
therefore moves what is expected there by as much as the median moved, which a minority of odd rows leaves alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_cama.data.batch import Batch
from pyro_cama.data.columns import text_of
from pyro_cama.errors import DataError
from pyro_cama.inference.evidence import elbo_of_unlabelled
from pyro_cama.model.pair import ModelGuidePair

USUAL = "usual.json"  # beside a saved model
FORMAT = 3
MASKED = 1000  # rows of a band at least, a row of the fit several times over if need be
MOST = 5000  # and at most

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Scored(NamedTuple):
    """Rows as they are compared.

    Attributes:
        elbo: ``(rows,)``.
        present: which columns were measured, ``(rows, columns)``.
        site: the text of every row's site, ``(rows,)``; None where there are none, or all rows are of one.
    """

    elbo: Array
    present: Mask
    site: NDArray[np.object_] | None = None

    @classmethod
    def of(cls, pair: ModelGuidePair, rows: Batch) -> Self:
        """Scores encoded rows as they are."""
        return cls(elbo_of_unlabelled(pair, rows), measured(pair, rows), sites_of(pair, rows))

    def at(self, where: NDArray[np.intp]) -> Self:
        """Returns some of the rows, by number."""
        site = None if self.site is None else self.site[where]
        return self._replace(elbo=self.elbo[where], present=self.present[where], site=site)


@dataclass(frozen=True)
class Band:
    """What is expected of rows with ``least`` to ``most`` readings.

    Attributes:
        least, most: numbers of readings.
        mean, variance: of the ELBO: a constant, and a number for every column that was measured.
        floor: a variance of less is none.
        threshold: rows of a lower standardised ELBO are unusual.
    """

    least: int
    most: int
    mean: tuple[float, ...]
    variance: tuple[float, ...]
    floor: float
    threshold: float

    @classmethod
    def of(cls, seen: Scored, held: Mask, least: int, most: int, level: float) -> Self:
        """Learns from rows in the band; ``held`` are those that were not trained on."""
        mean = _linear(seen.present, seen.elbo)
        squares = np.square(seen.elbo - _value(mean, seen.present))
        squares = np.minimum(squares, np.quantile(squares, 0.999))  # a row of its own kind makes no column's variance
        variance, floor = _linear(seen.present, squares), max(0.1 * float(squares.mean()), 1e-6)
        band = cls(least, most, tuple(mean.tolist()), tuple(variance.tolist()), floor, -math.inf)
        found = band.standardised(seen, 0.0)
        thresholds = [smallest(found, level)] + ([smallest(found[held], level)] if held.any() else [])
        return replace(band, threshold=min(thresholds))

    def standardised(self, rows: Scored, shift: Array | float) -> Array:
        """Returns the ELBO less its expectation, in standard deviations, ``(rows,)``."""
        variance = np.maximum(_value(self.variance, rows.present), self.floor)
        return np.asarray((rows.elbo - _value(self.mean, rows.present) - shift) / np.sqrt(variance))


@dataclass(frozen=True)
class NoveltyThreshold:
    """Below which ELBO a row is unusual, by the readings it has.

    Attributes:
        bands: from one reading to all.
        columns: the nodes that may be measured.
        median: of the reference rows' ELBO less its expectation, in nats.
        shifts: how far the ELBO of a site's rows has moved since, in nats, by the site's text; "" where there are none.
        level: the share of rows of the same kind that may be flagged.
        rows, held_out: how many reference rows there were, and how many of these were not trained on.
    """

    bands: tuple[Band, ...]
    columns: tuple[str, ...]
    median: float
    shifts: Mapping[str, float]
    level: float
    rows: int
    held_out: int

    @classmethod
    def fit(cls, pair: ModelGuidePair, rows: Batch, held: Mask, level: float = 0.001) -> Self:
        """Learns from the rows of a fit, ``held`` being those that it held out; scores them a few times over.

        Raises:
            FloatingPointError: the ELBO of some rows is not finite.
        """
        columns = measurable(pair)
        whole = Scored.of(pair, rows)
        parts, size = [whole], min(max(rows.rows, MASKED), MOST)
        kept = [held]
        generator = np.random.default_rng(pair.settings.seed)
        for least, most in _bands(len(columns))[:-1]:
            some = np.resize(generator.permutation(rows.rows), size)
            masked = _masked(pair, rows.select(torch.from_numpy(some).to(pair.device)), least, most, generator)
            parts.append(Scored.of(pair, masked))
            kept.append(held[some])
        every = Scored(*(np.concatenate([part[i] for part in parts]) for i in (0, 1)))
        if not np.isfinite(every.elbo).all():
            raise FloatingPointError("the evidence of some rows is not finite")
        return cls.of(columns, every, np.concatenate(kept), len(held), int(held.sum()), level)

    @classmethod
    def of(cls, columns: tuple[str, ...], seen: Scored, held: Mask, rows: int, held_out: int, level: float) -> Self:
        """Learns from scored rows, some of them several times with fewer readings."""
        bands, counts, residual = [], seen.present.sum(1), np.zeros(len(seen.elbo))
        for least, most in _bands(len(columns)):
            own = (counts >= least) & (counts <= most)
            if own.any():
                part = Scored(seen.elbo[own], seen.present[own])
                band = Band.of(part, held[own], least, most, level)
                bands.append(band)
                residual[own] = part.elbo - _value(band.mean, part.present)
        return cls((*bands,), columns, float(np.median(residual[:rows])), {}, level, rows, held_out)

    def after(self, rows: Scored) -> Self:
        """Moves what is expected at the sites of rows that a model was adapted to, where the adaptation was kept."""
        residual = np.full(len(rows.elbo), np.nan)
        for band, where, own in self._by_band(rows):
            residual[where] = own.elbo - _value(band.mean, own.present)
        moved = {
            site: float(np.median(found)) - self.median
            for site, of in _by_site(rows)
            if len(found := residual[of][~np.isnan(residual[of])])
        }
        return replace(self, shifts={**self.shifts, **moved})

    def flag(self, rows: Scored) -> Mask:
        """Returns which rows are unusual, (rows,); of a row without readings nothing can be."""
        flags, shift = np.isnan(rows.elbo), np.zeros(len(rows.elbo))
        for site, of in _by_site(rows):
            shift[of] = self.shifts.get(site, 0.0)
        for band, where, own in self._by_band(rows):
            flags[where] = ~(band.standardised(own, shift[where]) >= band.threshold)  # NaN is
        return flags

    def _by_band(self, rows: Scored) -> list[tuple[Band, NDArray[np.intp], Scored]]:
        """Bands with the numbers of their rows and these; a row between two bands is in the lower one."""
        counts = rows.present.sum(1)
        found = []
        for i, band in enumerate(self.bands):
            end = self.bands[i + 1].least if i + 1 < len(self.bands) else len(self.columns) + 1
            where = np.flatnonzero((counts >= (band.least if i else 1)) & (counts < end))
            found.append((band, where, rows.at(where)))
        return found

    def to_json(self) -> str:
        """Returns the text of usual.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def load(cls, model: Path) -> Self | None:
        """Reads the thresholds beside a saved model; None if another program than the command line saved it.

        Raises:
            DataError: the file is damaged, or of another format.
        """
        path = model / USUAL
        try:
            stored: Any = json.loads(path.read_text(encoding="utf-8"))
            if (version := stored.pop("format")) != FORMAT:
                raise ValueError(f"found format {version!r}; this pyro_cama reads {FORMAT}")
            bands = tuple(
                Band(**{**band, "mean": tuple(band["mean"]), "variance": tuple(band["variance"])})
                for band in stored.pop("bands")
            )
            found = cls(bands=bands, columns=tuple(stored.pop("columns")), **stored)
            numbers = [x for band in bands for x in (*band.mean, *band.variance, band.threshold)]
            if not np.isfinite([found.median, *found.shifts.values(), *numbers]).all():
                raise ValueError("not finite")
            if any(len(part) != len(found.columns) + 1 for band in bands for part in (band.mean, band.variance)):
                raise ValueError("not of as many numbers as columns")
            return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is damaged ({error}); fit the model again, or delete the file") from error


def sites_of(pair: ModelGuidePair, rows: Batch) -> NDArray[np.object_] | None:
    """Returns the text of every row's site, ``(rows,)``, "" for one that is not known; None where there are none."""
    if rows.site is None:
        return None
    names = np.array([*(text_of(site) for site in pair.encoder.sites), ""], dtype=object)
    return names[rows.site.cpu().numpy()]


def _by_site(rows: Scored) -> Iterator[tuple[str, Mask]]:
    """Every site's text, and which rows are of it."""
    if rows.site is None:
        yield "", np.ones(len(rows.elbo), dtype=np.bool_)
        return
    for site in np.unique(rows.site):
        yield str(site), rows.site == site


def smallest(values: Array, level: float) -> float:
    """Returns the k-th smallest value, k = floor(level (n + 1)), at least the first.

    >>> smallest(np.arange(1999.0), 0.001)
    1.0
    """
    k = max(1, int(level * (len(values) + 1) + 1e-9))
    return float(np.partition(values, k - 1)[k - 1])


def measurable(pair: ModelGuidePair) -> tuple[str, ...]:
    """Returns the nodes that rows may have readings of: all but the target."""
    return tuple(name for name in pair.graph.order if name != pair.graph.target)


def measured(pair: ModelGuidePair, rows: Batch) -> Mask:
    """Returns which columns rows have readings of, ``(rows, columns)``."""
    there = np.ones(rows.rows, dtype=np.bool_)
    found = [rows.observed[name].cpu().numpy() if name in rows.observed else there for name in measurable(pair)]
    return np.stack(found, 1) if found else np.ones((rows.rows, 0), dtype=np.bool_)


def _bands(columns: int) -> list[tuple[int, int]]:
    """The bands' least and most numbers of readings, the last one that of complete rows.

    >>> _bands(7), _bands(1)
    ([(1, 1), (2, 2), (3, 4), (5, 6), (7, 7)], [(1, 1)])
    """
    tops = [2**i for i in range(columns.bit_length()) if 2**i < columns - 1] + [columns - 1, columns]
    tops = sorted({top for top in tops if top > 0})
    return list(zip([1, *(top + 1 for top in tops[:-1])], tops, strict=True))


def _masked(pair: ModelGuidePair, rows: Batch, least: int, most: int, generator: np.random.Generator) -> Batch:
    """Leaves out all but ``least`` to ``most`` of each row's readings, drawn at random, as if they were missing."""
    present = measured(pair, rows)
    order = np.where(present, generator.random(present.shape), 2.0).argsort(1).argsort(1)
    keep = present & (order < generator.integers(least, most + 1, (rows.rows, 1)))
    blank = pair.encode({name: [None] for name in measurable(pair)} | _no_site(pair), "ignore")
    values, observed = dict(rows.values), dict(rows.observed)
    for i, name in enumerate(measurable(pair)):
        own = torch.from_numpy(keep[:, i]).to(pair.device)
        values[name] = torch.where(own.reshape(-1, *[1] * (values[name].dim() - 1)), values[name], blank.values[name])
        observed[name] = own
    return replace(rows, values=values, observed=observed)


def _no_site(pair: ModelGuidePair) -> dict[str, list[None]]:
    return {} if pair.encoder.scope is None else {pair.encoder.scope: [None]}


def _linear(present: Mask, target: Array) -> Array:
    """A constant and a number for every column, by least squares that one imagined row a column holds near 0."""
    flags = present.astype(np.float64)
    centre = flags.mean(0)
    flags -= centre
    slope = np.linalg.solve(flags.T @ flags + np.eye(flags.shape[1]), flags.T @ (target - target.mean()))
    return np.concatenate([[target.mean() - centre @ slope], slope])


def _value(numbers: Array | tuple[float, ...], present: Mask) -> Array:
    return np.asarray(numbers[0] + present @ np.asarray(numbers[1:]))
