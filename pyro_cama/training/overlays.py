"""What reads hidden pixels off an image learns from clean rows over which something was laid at random."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.model.pair import ModelGuidePair

IMAGES = 400_000  # looked at; of few rows no more than TIMES as many epochs as the fit has
TIMES = 3
RATE = 4e-3
MOVED = 0.25  # of the rows, by the other parts of their mechanism


def overlay_epochs(pair: ModelGuidePair, rows: int, epochs: int) -> int:
    """Returns epochs of rows that the networks of hidden pixels take; 0 where there are none."""
    hides = pair.graph.m is not None and [*pair.manipulation.detectors]
    return min(TIMES * epochs, -(-IMAGES // max(rows, 1))) if hides else 0


def overlay_loss(pair: ModelGuidePair) -> Callable[[Batch], Tensor]:
    """Returns -log q(s | x) of which pixels s are hidden, of rows that are moved, too, where their mechanism does."""
    manipulation = pair.manipulation

    def loss(batch: Batch) -> Tensor:
        total = torch.zeros(()).to(pair.model.like)
        for group in manipulation.groups:
            name, mechanism = group.nodes[0], group.mechanism
            if name not in manipulation.detectors:
                continue
            assert isinstance(mechanism, ImageMechanism)
            theta = mechanism.simulate((batch.rows,), pair.graph.nodes[name], 1.0).to(total)
            moves = torch.rand(batch.rows, 1).to(total) < MOVED
            theta = torch.cat([theta[:, :-1] * moves, theta[:, -1:]], -1)
            with torch.no_grad():
                covered, hidden = mechanism.cover(batch.values[name], theta)
            logits = manipulation.detectors[name](covered.clamp(0.0, 1.0))  # as every recorded image
            total = total + F.binary_cross_entropy_with_logits(logits, hidden.to(logits), reduction="sum") / batch.rows
        return total

    return loss
