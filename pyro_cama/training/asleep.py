"""What `fit` trains asleep (Hinton et al. 1995): networks that read known manipulations off clean rows of images.

Manipulations of the mechanism's own family are done to the rows.  One network learns to tell theta, with which an
adaptation's q(m | x) begins (:mod:`pyro_cama.adaptation.wake_sleep`), and one which pixels an overlay hides.  Neither
sees a label, and no other stage moves them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.mechanisms.image import ImageMechanism, recorded
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.pair import ModelGuidePair

IMAGES = 400_000  # looked at; of few rows no more than TIMES as many epochs as the fit has
TIMES = 6
RATE = 3e-3
WIDE = 3.0  # prior scales of theta: half of a side is two standard deviations of a shift
NUMBERS = 0.4  # of theta's numbers that move in a row
ALONE = 0.5  # of the rows, in which one family of numbers moves
SEVERAL = 0.6  # of the families, in the others
MOVED = 0.25  # of the rows over which something is laid, by the other parts of their mechanism


def asleep_epochs(pair: ModelGuidePair, rows: int, epochs: int) -> int:
    """Returns epochs of rows that these networks take; 0 where there are none."""
    has_any = pair.graph.m is not None and (pair.manipulation.can_sleep or [*pair.manipulation.detectors])
    return min(TIMES * epochs, -(-IMAGES // max(rows, 1))) if has_any else 0


def asleep_loss(pair: ModelGuidePair) -> Callable[[Batch], Tensor]:
    """Returns -log q(theta | x) - log q(s | x) of manipulated rows, s which of their pixels are hidden."""
    manipulation = pair.manipulation

    def loss(batch: Batch) -> Tensor:
        total = _of_hidden_pixels(pair, batch)
        return total + _of_theta(pair, batch) if manipulation.can_sleep else total

    return loss


def manipulated(manipulation: Manipulation, batch: Batch, theta: Tensor) -> Batch:
    """Returns rows as they would be recorded under theta, ``(rows, size)``, what hides pixels drawn at random."""
    values = dict(batch.values)
    with torch.no_grad():
        for group in manipulation.groups:
            (name,) = group.nodes
            values[name] = recorded(group.mechanism, values[name], manipulation.theta(theta, group))
    return replace(batch, values=values)


def _of_theta(pair: ModelGuidePair, batch: Batch) -> Tensor:
    manipulation = pair.manipulation
    moves = torch.randn(batch.rows, manipulation.size) * _acting(manipulation, batch.rows)
    moves = moves.to(pair.model.like)
    rows = manipulated(manipulation, batch, moves * manipulation.prior_scale() * WIDE)
    total: Tensor = -pair.guide.recognised(rows).log_prob(moves).sum(-1).mean()
    return total


def _of_hidden_pixels(pair: ModelGuidePair, batch: Batch) -> Tensor:
    manipulation, total = pair.manipulation, torch.zeros(()).to(pair.model.like)
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


def prior_variance(manipulation: Manipulation) -> Tensor:
    """Returns every number's variance in these rows, in squared WIDE prior scales: how often it moves, ``(size,)``."""
    families = torch.stack([*manipulation.families().values()])
    count, own = len(families), families.sum(0)
    acts = ALONE * own / count + (1 - ALONE) * (1 - (1 - SEVERAL) ** own) if count > 1 else own
    return acts * torch.where(_always(manipulation).to(acts.device), 1.0, NUMBERS)


def _acting(manipulation: Manipulation, rows: int) -> Tensor:
    """Draws the numbers of theta that move in a row, bool ``(rows, size)``: of one family in half of the rows."""
    families = torch.stack([*manipulation.families().values()]).cpu()
    count, moves = len(families), torch.rand(rows, manipulation.size) < NUMBERS
    moves |= _always(manipulation)
    if count == 1:
        return moves
    alone, only = torch.rand(rows, 1) < ALONE, F.one_hot(torch.randint(count, (rows,)), count).bool()
    acting = torch.where(alone, only, torch.rand(rows, count) < SEVERAL)
    return moves & (acting[..., None] & families).any(1)


def _always(manipulation: Manipulation) -> Tensor:
    """Which numbers move wherever their family does, bool ``(size,)``: an overlay's only one."""
    found = torch.zeros(manipulation.size, dtype=torch.bool)
    found[[*manipulation.overlays().values()]] = True
    return found
