"""What an adaptation begins with, and which of its starts sleep."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_cama.model.manipulation import Manipulation

SLEEP, ALONE = 1, 2  # the starts that sleep, where one can; the latter where theta's numbers are of several families


@dataclass(frozen=True)
class Start:
    """Where NN_pM and NN_qM begin, and what of theta does not move from there.

    Attributes:
        name: as told in :attr:`pyro_cama.adaptation.result.Adaptation.start`.
        resting: numbers of theta that stay at 0, bool ``(size,)``; None means none of them.
        pace: of the learning rate, what is taken from here.
        explains: NN_qM reads the new rows so well from the first that no other start is needed.
    """

    name: str
    resting: Tensor | None = None
    pace: float = 1.0
    explains: bool = False


def sleeping_starts(manipulation: Manipulation) -> range:
    """Returns the numbers of those starts that sleep."""
    return range(SLEEP, SLEEP + (min(len(manipulation.families()), 2) if manipulation.can_sleep else 0))


def likeliest_first(manipulation: Manipulation, count: int) -> list[int]:
    """Returns the numbers of so many starts, in the order in which they are tried: what sleeps may explain the rows."""
    sleeping = [*reversed(sleeping_starts(manipulation))]
    return [k for k in sleeping if k < count] + [k for k in range(count) if k not in sleeping]
