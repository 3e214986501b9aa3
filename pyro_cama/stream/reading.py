"""Rows as they are read in a world: probabilities for whoever asks, and what tells whether they are of it.

The latter is one pass, and takes few draws: rows are compared with several worlds, and any number that a row is given
by itself can be compared; what is predicted is worked out once a step, with as many draws as are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_cama.data.batch import Batch
from pyro_cama.inference.bounds import marginal
from pyro_cama.inference.class_posterior import class_posterior
from pyro_cama.inference.evidence import class_elbos
from pyro_cama.model.pair import PairT
from pyro_cama.stream.change import Calibration, Codes, Floats
from pyro_cama.stream.regimes import Regime

DRAWS, DRAWS_OF_IMAGES = 16, 4  # of the latents; rows differ by far more than draws, most of all images


@dataclass(frozen=True, eq=False)
class Read:
    """Rows, read in a world.

    Attributes:
        labels: codes of the classes, ``(rows,)``; 0 for a row that has none.
        scores: log p(x | a, c), ``(rows,)``, in nats, minus infinity where that is not finite.
        classes: how many there are.
    """

    labels: Codes
    scores: Floats
    classes: int

    @property
    def evidence(self) -> float:
        """Mean of the scores, the outer twentieths pulled in; minus infinity if any is in between."""
        if not np.isfinite(self.scores).all():
            return -np.inf
        low, high = np.quantile(self.scores, [0.05, 0.95])
        return float(self.scores.clip(low, high).mean())

    def calibration(self, seed: int) -> Calibration:
        """Takes the rows for those that others of this world are compared with."""
        return Calibration.of(self.scores, self.labels, self.classes, seed)


class Reader(Generic[PairT]):
    """A copy of a model that stands in one world after the other.

    Args:
        pair: the model; it is left alone.
        options: of predictions, see :class:`pyro_cama.inference.options.PredictionOptions`.
    """

    def __init__(self, pair: PairT, options: Mapping[str, Any]) -> None:
        self.pair: PairT = pair.copy()
        self.options = options
        self._at: Regime | None = None

    def stand(self, regime: Regime) -> PairT:
        """Returns the copy as it reads in a world."""
        if self._at is None or self._at.state is not regime.state:
            regime.put_into(self.pair)
            self._at = regime
        return self.pair

    def read(self, regime: Regime, rows: Batch) -> Read:
        """Reads rows in a world, to compare them with its own: one pass over classes, under few draws."""
        pair = self.stand(regime)
        bounds = class_elbos(pair, rows, samples=DRAWS_OF_IMAGES if pair.model.has_images else DRAWS)
        known = ~bounds.isnan().any(0)
        labels = torch.where(known, bounds.nan_to_num(-torch.inf, neginf=-torch.inf).argmax(0), 0)
        scores = marginal(bounds).double().numpy()
        return Read(labels.numpy(), np.where(np.isfinite(scores), scores, -np.inf), len(bounds))

    def comparable(self, bank: Iterable[Regime], rows: Batch) -> list[Regime]:
        """Returns the worlds whose evidence of rows can be compared: those in which as much seems to lie over images.

        Hidden pixels cost no evidence, so a world that hides some would be believed too easily, and one that does not,
        too seldom.
        """
        overlaid = self.pair.manipulation.overlaid(rows)
        return [regime for regime in bank if regime.overlaid == overlaid]

    def proba(self, regime: Regime, rows: Batch, *, own_mix: bool = False) -> NDArray[np.float64]:
        """Returns p(y | x, a, c) in a world, ``(rows, classes)``.

        Args:
            own_mix: under the class proportions that the adaptation to that world settled on.
        """
        mix: Literal["train"] | Floats = np.array(regime.class_prior) if own_mix and regime.class_prior else "train"
        return class_posterior(self.stand(regime), rows, "auto", mix, **self.options)


def some_rows(rows: Batch, most: int, seed: int) -> Batch:
    """Returns so many of the rows at most, drawn at random, in their order."""
    if rows.rows <= most:
        return rows
    order = torch.randperm(rows.rows, generator=torch.Generator().manual_seed(seed))[:most].sort().values
    return rows.select(order.to(next(iter(rows.values.values())).device))


def parted(rows: Batch, share: float, seed: int) -> tuple[Batch, Batch]:
    """Returns the rows in two parts, drawn at random; the second is about that share of them."""
    order = torch.randperm(rows.rows, generator=torch.Generator().manual_seed(seed))
    order = order.to(next(iter(rows.values.values())).device)
    held = max(1, round(share * rows.rows))
    return rows.select(order[held:]), rows.select(order[:held])
