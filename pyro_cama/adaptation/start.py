"""What an adaptation begins with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Start:
    """Where NN_pM and NN_qM begin, and what of theta does not move from there.

    Attributes:
        name: as told in :attr:`pyro_cama.adaptation.result.Adaptation.start`.
        resting: numbers of theta that stay at 0, bool ``(size,)``; None means none of them.
    """

    name: str
    resting: Tensor | None = None
