"""What an optimisation is made of, its stages, and what it leaves behind, its history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Loss = Callable[[Any], Tensor]
"""From a minibatch, of any type, to the scalar to minimise."""


@dataclass
class History:
    """What one optimisation did.

    Attributes:
        rows: one dict an epoch that was looked at: ``epoch``, how many had been then, ``loss`` and what validation
            reported.
        best_epoch: whose weights were kept; 0 are those of before.
        asleep: epochs before these, of a loss of their own (:attr:`Stage.asleep`).

    >>> print(History([{"epoch": 1.0, "loss": 3.0}, {"epoch": 2.0, "loss": 2.5}], best_epoch=2, asleep=6))
    2 epochs, the best 2 (after 6 asleep)
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    asleep: int = 0

    @property
    def epochs(self) -> int:
        """How many there were, those asleep left out."""
        return int(self.rows[-1]["epoch"]) if self.rows else 0

    def __str__(self) -> str:
        before = f" (after {self.asleep} asleep)" if self.asleep else ""
        return f"{self.epochs} epoch{'s' * (self.epochs != 1)}, the best {self.best_epoch}{before}"


@dataclass(frozen=True)
class Stage:
    """A part of an optimisation with a loss of its own; it begins with the best weights of the stage before.

    Attributes:
        loss: from a minibatch to a scalar.
        epochs: at most so many.
        anneal: lets the learning rate fall to zero along a half cosine, whatever the optimisation says.
        validate: returns figures of which ``loss`` is watched (lower is better); None keeps the last weights.
        asleep: of networks that nothing but this stage trains: its epochs are no part of the history.
    """

    loss: Loss
    epochs: int
    lr: float
    validate: Callable[[], dict[str, float]] | None = None
    title: str = "fit"
    anneal: bool = False
    asleep: bool = False
