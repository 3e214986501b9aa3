"""What `fit` trains asleep (Hinton et al. 1995): networks that read known manipulations off clean rows of images.

Manipulations of the mechanism's own family are done to the rows.  One network learns to tell theta, with which an
adaptation's q(m | x) begins (:mod:`pyro_cama.adaptation.wake_sleep`), and one which pixels an overlay hides.  Neither
sees a label, and no other stage moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
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
MOVED, GREYS = 0.3, 0.2  # of the rows that are looked at for hidden pixels, manipulated and of other black and white
COVERED = 0.8  # of these, over which something is laid
PARTLY = 0.4  # of the rows that theta is read off, in which something hides pixels


def asleep_epochs(pair: ModelGuidePair, rows: int, epochs: int) -> int:
    """Returns epochs of rows that these networks take; 0 where there are none."""
    has_any = pair.graph.m is not None and (pair.manipulation.can_sleep or [*pair.manipulation.detectors])
    return min(TIMES * epochs, -(-IMAGES // max(rows, 1))) if has_any else 0


def asleep_loss(pair: ModelGuidePair) -> Callable[[Batch], Tensor]:
    """Returns -log q(theta | x) - log q(s | x) of manipulated rows, s which of their pixels are hidden.

    Each number's log q is weighted by its variance, as a constant (Seitzer et al. 2022, *On the Pitfalls of
    Heteroscedastic Uncertainty Estimation with Probabilistic Neural Networks*, beta = 1): means then learn as by least
    squares.  Most of a sum's numbers rest in most rows, and rows where they rest would outweigh those that tell them.
    """
    manipulation = pair.manipulation

    def loss(batch: Batch) -> Tensor:
        acts = _acting(manipulation, batch.rows).to(pair.device)
        moves = torch.where(acts, torch.randn(batch.rows, manipulation.size).to(pair.model.like), 0.0)
        moved = manipulated(manipulation, batch, torch.where(acts, moves * manipulation.prior_scale() * WIDE, 0.0))
        total = torch.zeros(()).to(pair.model.like)
        for name in manipulation.detectors:
            total = total + _of_hidden_pixels(manipulation, name, batch.values[name], moved.values[name])
        if manipulation.can_sleep:
            read = pair.guide.recognised(laid_over(manipulation, moved, [*manipulation.detectors], PARTLY))
            total = total - (read.log_prob(moves) * read.variance.detach()).sum(-1).mean()
        return total

    return loss


def manipulated(manipulation: Manipulation, batch: Batch, theta: Tensor) -> Batch:
    """Returns rows as they would be recorded under theta, ``(rows, size)``."""
    values = dict(batch.values)
    with torch.no_grad():
        for group in manipulation.groups:
            if group.image and group.theta_size and group.mechanism.simulates:
                (name,) = group.nodes
                values[name] = recorded(group.mechanism, values[name], manipulation.theta(theta, group))
    return replace(batch, values=values)


@torch.no_grad()
def laid_over(manipulation: Manipulation, batch: Batch, names: Collection[str], share: float = 1.0) -> Batch:
    """Returns rows with something laid over these images, in a share of them: what seems hidden is unknown there."""
    covered = replace(
        batch, values={**batch.values, **{n: _covered(manipulation, n, batch.values[n])[0] for n in names}}
    )
    seen = manipulation.without_hidden(covered, names)
    where = torch.rand(batch.rows, 1, 1, 1) < share
    values = {n: torch.where(where.to(seen.values[n].device), seen.values[n], batch.values[n]) for n in names}
    return replace(seen, values={**seen.values, **values})


def _covered(manipulation: Manipulation, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images with something laid over them, in [0, 1] as every recorded image, and which pixels it hides."""
    mechanism = next(group.mechanism for group in manipulation.groups if group.nodes[0] == name)
    assert isinstance(mechanism, ImageMechanism)
    covered, hidden = mechanism.cover(images)
    return covered.clamp(0.0, 1.0), hidden


def _of_hidden_pixels(manipulation: Manipulation, name: str, clean: Tensor, moved: Tensor) -> Tensor:
    """-log q(s | x) of images, of which some are as they were beneath, some moved, and some of other greys."""
    with torch.no_grad():
        u = torch.rand(len(clean), 4, 1, 1, 1).to(clean)
        beneath = torch.where(u[:, 0] < MOVED, moved, clean)
        black, white = u[:, 1], u[:, 2]
        beneath = torch.where(u[:, 3] < GREYS, torch.lerp(black, white, beneath), beneath)
        covered, hidden = _covered(manipulation, name, beneath)
        lies = torch.rand(len(clean), 1, 1, 1).to(clean) < COVERED
        images, hidden = torch.where(lies, covered, beneath), hidden & lies
    logits = manipulation.detectors[name](images)
    return F.binary_cross_entropy_with_logits(logits, hidden.to(logits), reduction="sum") / len(clean)


def prior_variance(manipulation: Manipulation) -> Tensor:
    """Returns every number's variance in these rows, in squared WIDE prior scales: how often it moves, ``(size,)``."""
    families = torch.stack([*manipulation.families().values()])
    count, own = len(families), families.sum(0)
    acts = ALONE * own / count + (1 - ALONE) * (1 - (1 - SEVERAL) ** own) if count > 1 else own
    return acts * NUMBERS


def _acting(manipulation: Manipulation, rows: int) -> Tensor:
    """Draws the numbers of theta that move in a row, bool ``(rows, size)``: of one family in half of the rows."""
    moves = torch.rand(rows, manipulation.size) < NUMBERS
    if not (found := manipulation.families()):
        return moves & False
    families, count = torch.stack([*found.values()]).cpu(), len(found)
    if count == 1:
        return moves & families
    alone, only = torch.rand(rows, 1) < ALONE, F.one_hot(torch.randint(count, (rows,)), count).bool()
    acting = torch.where(alone, only, torch.rand(rows, count) < SEVERAL)
    return moves & (acting[..., None] & families).any(1)
