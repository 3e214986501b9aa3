"""What a step of a stream comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["same", "calibrating", "back", "new", "refused", "undecided"]


@dataclass(frozen=True, eq=False)
class Step:
    """What :meth:`Monitor.update` says of a batch.

    Attributes:
        number: of the step, counted from 1.
        kind: "same": nothing speaks for a change; "back": a known world is there again; "new": another world, and the
            model has adapted to it; "refused": another world, and no adaptation could be trusted; "undecided":
            something has changed, but too few rows have come to say what; "calibrating": rows of the first world are
            being gathered, and nothing is tested yet.
        proba: p(y | x, a, c), ``(rows, classes)``, as read after the decision; NaN as in :meth:`CAMA.predict_proba`.
        labels: the most probable label of every row, ``(rows,)``; None for a row without probabilities.
        regime: number of the world that the batch is of; None while that is undecided.
        reads_as: number of the world whose parameters it was read with.
        evidence: that the world has changed, in nats: log of what bets against it have earned.
        threshold: the evidence at which there is an alarm.
        since: number of the step with which the change seems to have begun; None without one.
        reason: what was decided, and why.
        forgotten: number of a world that had to leave a full bank; None if none had to.
    """

    number: int
    kind: Kind
    proba: NDArray[np.float64]
    labels: NDArray[Any]
    regime: int | None
    reads_as: int
    evidence: float
    threshold: float
    since: int | None = None
    reason: str = field(default="")
    forgotten: int | None = None

    @property
    def changed(self) -> bool:
        """Whether the world is another one than before this step, as far as is known."""
        return self.kind in ("back", "new", "refused", "undecided")

    @property
    def known(self) -> bool:
        """Whether the batch is of a world that had been there before."""
        return self.kind in ("same", "back")

    @property
    def adapted(self) -> bool:
        """Whether the model has adapted in this step."""
        return self.kind == "new"

    @property
    def rows(self) -> int:
        """How many rows the batch had."""
        return len(self.proba)

    def __repr__(self) -> str:
        return f"<Step: {self}>"

    def __str__(self) -> str:
        """Returns what happened in one sentence."""
        gone = "" if self.forgotten is None else f"; the bank is full, regime {self.forgotten} was forgotten"
        return f"step {self.number}: {self.reason}{gone}"
