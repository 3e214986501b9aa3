"""Rows as they are read in a world: probabilities, and what tells whether they are of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_cama.data.batch import Batch
from pyro_cama.inference.class_posterior import class_posterior, most_probable
from pyro_cama.inference.evidence import elbo_of_unlabelled
from pyro_cama.model.pair import PairT
from pyro_cama.stream.change import Calibration, Codes, Floats
from pyro_cama.stream.regimes import Regime


@dataclass(frozen=True, eq=False)
class Read:
    """Rows, read in a world.

    Attributes:
        proba: p(y | x, a, c), ``(rows, classes)``.
        labels: codes of the classes, ``(rows,)``; 0 for a row without probabilities.
        scores: log p(x | a, c), ``(rows,)``, in nats, minus infinity where that is not finite.
    """

    proba: NDArray[np.float64]
    labels: Codes
    scores: Floats

    @property
    def evidence(self) -> float:
        """Mean of the scores, the outer twentieths pulled in; minus infinity if any is in between."""
        if not np.isfinite(self.scores).all():
            return -np.inf
        low, high = np.quantile(self.scores, [0.05, 0.95])
        return float(self.scores.clip(low, high).mean())

    def calibration(self, seed: int) -> Calibration:
        """Takes the rows for those that others of this world are compared with."""
        return Calibration.of(self.scores, self.labels, self.proba.shape[1], seed)


class Reader(Generic[PairT]):
    """A copy of a model that stands in one world after the other.

    Args:
        pair: the model; it is left alone.
    """

    def __init__(self, pair: PairT) -> None:
        self.pair: PairT = pair.copy()
        self._at: Regime | None = None

    def stand(self, regime: Regime) -> PairT:
        """Returns the copy as it reads in a world."""
        if self._at is None or self._at.state is not regime.state:
            regime.put_into(self.pair)
            self._at = regime
        return self.pair

    def read(self, regime: Regime, rows: Batch, *, own_mix: bool = False) -> Read:
        """Reads rows in a world.

        Args:
            own_mix: under the class proportions that the adaptation to that world settled on.
        """
        pair = self.stand(regime)
        proba = class_posterior(pair, rows, "auto", "train")
        labels = most_probable(proba)
        scores = elbo_of_unlabelled(pair, rows)
        if own_mix and regime.class_prior:
            proba = class_posterior(pair, rows, "auto", np.array(regime.class_prior))
        return Read(proba, np.where(labels < 0, 0, labels), np.where(np.isfinite(scores), scores, -np.inf))


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
