"""How many of the new rows a model reads rightly, estimated without labels, as simulated drifts have taught.

p(y | x), averaged over the starts of an adaptation, says how sure it is of labels, its own or those without the change.
Where a model is wrong about the world that is too high.  By how much, and how far it may be off, is known of
adaptations whose labels are known: ``experiments/guard.py`` adapts to simulated drifts of tables, inside and outside of
what mechanisms can undo, and fits

    logit(accuracy) = intercept + slope * logit(what p(y | x) says) + residual

The numbers below are what it prints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

LEAST = 0.01  # of a probability, and 1 less that at most, before its logit is taken


class Accuracy(NamedTuple):
    """An estimated share of rows that are read rightly, and an interval that holds nine of ten true ones."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.0%} ({self.low:.0%} to {self.high:.0%})"


@dataclass(frozen=True)
class Calibration:
    """What the formula above says.

    Attributes:
        intercept, slope: of the logits.
        low, high: of residuals, their 5th and 95th percentile.
    """

    intercept: float
    slope: float
    low: float
    high: float

    def of(self, said: float) -> Accuracy:
        """Returns the accuracy to be expected where p(y | x) says this one.

        >>> accuracy = Calibration(0.0, 1.0, -1.0, 1.0).of(0.9)
        >>> [round(number, 2) for number in accuracy]
        [0.9, 0.77, 0.96]
        """
        middle = self.intercept + self.slope * logit(said)
        estimate, low, high = (1 / (1 + math.exp(-at)) for at in (middle, middle + self.low, middle + self.high))
        return Accuracy(estimate, 0.0 if low <= LEAST else low, 1.0 if high >= 1 - LEAST else high)


def logit(probability: float) -> float:
    """Returns log p / (1 - p), of a probability that is not quite 0 or 1."""
    held = min(max(probability, LEAST), 1 - LEAST)
    return math.log(held / (1 - held))


ADAPTED = Calibration(-0.24, 0.80, -2.23, 1.43)
NOT_ADAPTED = Calibration(0.26, 0.76, -1.53, 2.26)
