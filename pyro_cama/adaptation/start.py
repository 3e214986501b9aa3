"""What an adaptation begins with, and which of its starts sleep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pyro_cama.model.manipulation import Manipulation

EXPLAINS = 0.5  # share of the lost evidence that a start restores, from which it is known well what happened
SLEEP, ALONE = 1, 2  # the starts that sleep, where one can; the latter where theta's numbers are of several families


@dataclass(frozen=True)
class Start:
    """Where NN_pM and NN_qM begin, and what of theta does not move from there.

    Attributes:
        name: as told in :attr:`pyro_cama.adaptation.result.Adaptation.start`.
        resting: numbers of theta that stay at 0, bool ``(size,)``; None means none of them.
        pace: of the learning rate, what is taken from here.
        restored: of the evidence that the new rows lost beside clean ones, the share that NN_qM restores before a step;
            0 where that is not known.
    """

    name: str
    resting: Tensor | None = None
    pace: float = 1.0
    restored: float = 0.0


def sleeping_starts(manipulation: Manipulation) -> range:
    """Returns the numbers of those starts that sleep."""
    return range(SLEEP, SLEEP + (min(len(manipulation.families()), 2) if manipulation.can_sleep else 0))


def worth_steps(starts: Sequence[Start]) -> list[int]:
    """Returns which starts are to be optimised: the one that restores most where it explains the rows, else all.

    >>> worth_steps([Start("moments", restored=0.2), Start("sleep", restored=0.9)]), worth_steps([Start("here")] * 2)
    ([1], [0, 1])
    """
    most = max(range(len(starts)), key=lambda place: starts[place].restored)
    return [most] if starts[most].restored >= EXPLAINS else [*range(len(starts))]
