"""The scale of a continuous column: as it is recorded, or logarithmic, where a class's readings are skewed.

A reading x is taken as asinh(x / unit): sign(x) log(2 |x| / unit) beyond the unit, x / unit well below it, smooth
between.  So every reading has its place, zero and negative ones too, and an instrument whose gain changed has moved by
an offset.  Of a ``log`` scale the unit is that of the least reading, of a ``signed_log`` one it is chosen; 0 stands for
the column as it is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pyro_cama.errors import DataError

Floats = NDArray[np.float64]
WORTH = 0.05  # nats a row that a scale has to gain over the recorded one
FEWEST = 20  # readings that choose a scale
MODE = 0.25  # of the readings: a value that more of them share is a state, such as an instrument at rest, and no tail
TINY = np.finfo(np.float64).tiny
LARGEST = 700.0  # of what sinh takes


def on_scale(raw: Floats, unit: Floats) -> Floats:
    """Returns readings ``(rows, ...)`` on their scale, ``unit`` being ``(...)``."""
    if not np.any(unit):
        return raw
    with np.errstate(over="ignore"):
        return np.where(unit > 0, np.arcsinh(raw / np.where(unit > 0, unit, 1.0)), raw)


def off_scale(value: Floats, unit: Floats) -> Floats:
    """Returns readings as they are recorded: the inverse of :func:`on_scale`."""
    if not np.any(unit):
        return value
    with np.errstate(over="ignore"):
        return np.where(unit > 0, unit * np.sinh(np.clip(value, -LARGEST, LARGEST)), value)


def slope(raw: Floats, unit: Floats) -> Floats:
    """Returns the derivative of :func:`on_scale`, ``(rows, ...)``."""
    return np.where(unit > 0, 1 / np.hypot(raw, np.where(unit > 0, unit, 1.0)), 1.0)


def choose_unit(name: str, scale: str, raw: Floats, labels: NDArray[np.int64]) -> float:
    """Returns the unit of one column's scale, 0 for the recorded one.

    ``auto`` takes the scale on which the readings are most likely, normal around the mean of their class with one
    variance, where it gains at least :data:`WORTH` and twice its standard error.

    Args:
        name: the column, for messages.
        scale: ``identity``, ``log``, ``signed_log`` or ``auto``.
        raw: observed readings, ``(rows,)``.
        labels: class of every reading, -1 where it is not known.

    Raises:
        DataError: a logarithm of readings that are zero or negative.
    """
    if scale == "identity" or not len(raw):
        return 0.0
    positive = bool((raw > 0).all())
    if scale == "log" and positive:
        return max(float(raw.min()) / 2, TINY)
    if scale == "log":
        raise DataError(
            f"column {name!r}: found {int((raw <= 0).sum())} readings of zero or below, such as {raw.min():g}, for "
            "scale: log; expected positive ones: correct them, or use signed_log"
        )
    if scale == "auto" and (len(raw) < FEWEST or np.unique(raw, return_counts=True)[1].max() > MODE * len(raw)):
        return 0.0
    largest = float(np.abs(raw).max()) or 1.0  # so that no square overflows
    raw = raw / largest
    least = [float(raw.min()) / 2] if positive and scale != "signed_log" else []
    recorded = _log_density(raw, labels, 0.0)
    best, best_gain = 0.0, -np.inf if scale == "signed_log" else WORTH
    for unit in (*least, *_units(raw)):
        gain = _log_density(raw, labels, unit) - recorded
        mean, error = float(gain.mean()), float(gain.std()) / len(gain) ** 0.5
        if np.isfinite(mean) and mean > best_gain and (scale == "signed_log" or mean > 2 * error):
            best, best_gain = unit, mean
    return best if best == 0 else max(best * largest, TINY)


def _units(raw: Floats) -> Iterator[float]:
    """Units of a signed scale: what is a small, a usual and a large reading of the column."""
    size = np.abs(raw[raw != 0])
    if len(size):
        yield from np.unique(np.quantile(size, [0.01, 0.1, 0.5])).tolist()


def _log_density(raw: Floats, labels: NDArray[np.int64], unit: float) -> Floats:
    """log of the density of readings, as recorded, if they are normal on this scale given the class, ``(rows,)``."""
    value = on_scale(raw, np.asarray(unit))
    _, at = np.unique(labels, return_inverse=True)
    rest = value - (np.bincount(at, value) / np.bincount(at))[at]
    variance = float(np.square(rest).mean())
    if not variance > 0:
        return np.zeros_like(raw)
    return -0.5 * (np.log(variance) + np.square(rest) / variance) + np.log(slope(raw, np.asarray(unit)))
