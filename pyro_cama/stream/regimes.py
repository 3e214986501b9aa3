"""Known worlds: the manipulation parameters in each, what its rows look like, and a bank of them that is bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pyro_cama.adaptation.result import Adaptation
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.stream.change import Calibration

State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Regime:
    """A world that the stream has been in.

    Attributes:
        number: its name: 0 is the world that the monitor began with, others follow in order of their coming.
        reads_as: the regime whose parameters it is read with: its own number, or that of another if the rows were not
            those of any known world, but no adaptation could be trusted.
        state: NN_pM and NN_qM, by name (eq. 8), and what is kept with them of the rows adapted to.
        modes: further modes of the posterior of m.
        trained: names of the manipulations that are inferred here; the others are 0.
        overlaid: names of images over which something lies here, see :class:`pyro_cama.model.pair.ModelGuidePair`.
        calibration: what its rows look like; None until there are enough of them.
        class_prior: class proportions that the adaptation settled on; empty if there was none.
        adaptation: what was decided when it came.
        came: the step at which it did.
        visits: how often the stream has been in it.
        seen: the last step of a visit before the present one.
    """

    number: int
    reads_as: int
    state: State
    modes: tuple[State, ...]
    trained: frozenset[str]
    overlaid: frozenset[str]
    calibration: Calibration | None
    class_prior: tuple[float, ...] = ()
    adaptation: Adaptation | None = None
    came: int = 0
    visits: int = 1
    seen: int = 0

    @classmethod
    def of(cls, pair: ModelGuidePair, number: int, calibration: Calibration | None, came: int) -> Self:
        """Takes what a model is now for a world."""
        state = {name: value.detach().cpu().clone() for name, value in places_of(pair).items()}
        modes = tuple({name: value.detach().cpu().clone() for name, value in mode.items()} for mode in pair.modes)
        return cls(number, number, state, modes, pair.trained, pair.overlaid, calibration, came=came)

    def __repr__(self) -> str:
        read = "" if self.trusted else f", read as regime {self.reads_as}"
        times = "once" if self.visits == 1 else f"{self.visits} times"
        return f"<Regime {self.number}: came in step {self.came}, visited {times}{read}>"

    @property
    def trusted(self) -> bool:
        """Whether it is read with parameters that are its own."""
        return self.reads_as == self.number

    def put_into(self, pair: ModelGuidePair) -> None:
        """Lets a model read as in this world."""
        modes = [{name: value.to(pair.device) for name, value in mode.items()} for mode in self.modes]
        with torch.no_grad():
            for name, place in places_of(pair).items():
                place.copy_(self.state[name])
        pair.modes, pair.trained, pair.overlaid = tuple(modes), self.trained, self.overlaid


def places_of(pair: ModelGuidePair) -> dict[str, Tensor]:
    """Returns what changes when a model adapts, by name: what is trained, and the buffers of NN_qM."""
    kept = pair.guide.posteriors.named_buffers()
    return {**pair.manipulation_parameters(), **{f"buffers of NN_qM.{name}": buffer for name, buffer in kept}}


def entered(bank: Sequence[Regime], new: Regime, most: int) -> tuple[tuple[Regime, ...], int | None]:
    """Adds a world to a bank; returns this, and the number of one that had to go, or None.

    Where the bank is full, of the two worlds whose parameters are nearest to one another the one goes that was visited
    less often, or longer ago: it is the one whose loss costs least.  World 0 and one that another is read with stay.
    """
    bank = (*bank, new)
    if len(bank) <= most:
        return bank, None
    needed = {0, new.number, *(regime.reads_as for regime in bank if not regime.trusted)}
    free = [regime for regime in bank if regime.number not in needed]
    if not free:  # all others are read with another's parameters
        free = [regime for regime in bank if regime.number not in {0, new.number, new.reads_as}]

    def cost(regime: Regime) -> tuple[float, int, int]:
        nearest = min(_distance(regime, other) for other in bank if other is not regime)
        return nearest, regime.visits, regime.seen

    goes = min(free, key=cost)
    return tuple(regime for regime in bank if regime is not goes), goes.number


def _distance(one: Regime, other: Regime) -> float:
    """How far parameters are apart, in the mean over all; 0 for those that are shared."""
    if one.trained != other.trained or one.overlaid != other.overlaid:
        return float("inf")
    apart = [(one.state[name].double() - other.state[name].double()).square() for name in one.state]
    return float(sum(part.sum() for part in apart)) / max(1, sum(part.numel() for part in apart))
