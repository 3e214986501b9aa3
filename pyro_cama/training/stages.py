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
        rows: one dict an epoch: ``epoch``, ``loss`` and what validation reported.
        best_epoch: whose weights were kept.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0


@dataclass(frozen=True)
class Stage:
    """A part of an optimisation with a loss of its own; it begins with the best weights of the stage before.

    Attributes:
        loss: from a minibatch to a scalar.
        epochs: at most so many.
        anneal: lets the learning rate fall to zero along a half cosine, whatever the optimisation says.
        validate: returns figures of which ``loss`` is watched (lower is better); None keeps the last weights.
    """

    loss: Loss
    epochs: int
    lr: float
    validate: Callable[[], dict[str, float]] | None = None
    title: str = "fit"
    anneal: bool = False
