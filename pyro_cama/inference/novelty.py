"""Which rows are unlike anything a model has seen: those of too low an ELBO.

The ELBO of a row is the bound of eq. 7 on log p(x | a, c), nobody's label looked at. A row is unusual if its
ELBO lies below the k-th smallest of n reference rows, k = max(1, floor(level (n + 1))): split-conformal prediction
(Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005), by which a fresh row of the same kind is
flagged with probability k / (n + 1) at most. That holds for rows the model was not trained on, so the reference is the
validation rows of the fit; fewer than 999 of them cannot carry a level of 0.1 %, so the threshold is the lower one of
theirs and of that of all rows of the fit.

It bounds a density: where a gain has changed, that of all rows moves by the same constant. A kept adaptation
therefore moves the threshold by as much as the median moved, which a minority of odd rows leaves alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pyro_cama.errors import DataError

USUAL = "usual.json"  # beside a saved model

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NoveltyThreshold:
    """Below which ELBO a row is unusual.

    Attributes:
        threshold: rows of a lower ELBO are unusual, in nats.
        median: of the reference rows' ELBO, in nats.
        level: the share of rows of the same kind that may be flagged.
        rows, held_out: how many reference rows there were, and how many of these were not trained on.
    """

    threshold: float
    median: float
    level: float
    rows: int
    held_out: int

    @classmethod
    def of(cls, elbo: Array, held: Array, level: float = 0.001) -> Self:
        """Takes the threshold from the ELBO of all rows of a fit, (rows,), and that of its validation rows.

        >>> NoveltyThreshold.of(np.arange(10.0), np.array([4.0, 7.0])).threshold
        0.0
        """
        thresholds = [smallest(elbo, level)] + ([smallest(held, level)] if len(held) else [])
        return cls(min(thresholds), float(np.median(elbo)), level, len(elbo), len(held))

    def after(self, elbo: Array) -> Self:
        """Moves the threshold for a model whose adaptation was kept, from its ELBO of the rows it adapted to."""
        median = float(np.median(elbo))
        return replace(self, threshold=self.threshold + median - self.median, median=median)

    def flag(self, elbo: Array) -> NDArray[np.bool_]:
        """Returns which rows are unusual, (rows,)."""
        return ~(elbo >= self.threshold)  # NaN is

    def to_json(self) -> str:
        """Returns the text of usual.json."""
        return json.dumps({"format": 1, **asdict(self)}, indent=1)

    @classmethod
    def load(cls, model: Path) -> Self | None:
        """Reads the threshold beside a saved model; None if another program than the command line saved it.

        Raises:
            DataError: the file is damaged.
        """
        path = model / USUAL
        try:
            stored: Any = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("format") != 1:
                raise ValueError("not of format 1")
            found = cls(**stored)
            if not np.isfinite([found.threshold, found.median]).all():
                raise ValueError("not finite")
            return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is damaged ({error}); fit the model again, or delete the file") from error


def smallest(values: Array, level: float) -> float:
    """Returns the k-th smallest value, k = floor(level (n + 1)), at least the first.

    >>> smallest(np.arange(1999.0), 0.001)
    1.0
    """
    k = max(1, int(level * (len(values) + 1) + 1e-9))
    return float(np.partition(values, k - 1)[k - 1])
