"""Whether a change of the class mix alone explains new rows: their moments against the training rows' by class.

Rows of a single class are often explained better after a small manipulation, for what the model gets wrong of a class
is no longer made up for by the others.  So before a manipulation is believed, what the training rows of every class
were like is mixed in other proportions and compared with the new rows, column by column; no density has a part in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.data.class_moments import comparable
from pyro_cama.model.pair import ModelGuidePair

Floats = NDArray[np.float64]
LEVEL = 0.01  # of the test, over all columns together
FEWEST = 8  # rows of a site that can reject
NEAR = 0.15  # total variation of class proportions


class Moment(NamedTuple):
    """A mean of new rows beside what it is in each class of the training rows.

    Attributes:
        component: name of the node, and which of its numbers or levels.
        power: of x that it is the mean of; 0 of a level's share.
        found, error: of the new rows, and the variance of that.
        classes, errors: of every class's training rows, ``(classes,)``, and the variances of those.
    """

    component: tuple[str, int]
    power: int
    found: float
    error: float
    classes: Floats
    errors: Floats

    def apart(self, mix: Floats) -> float:
        """Returns how far it is from what it would be in this mix of the classes, in standard errors."""
        return float(abs(self.found - self.classes @ mix) / math.sqrt(self.error + self.errors @ mix**2))


def mix_alone_explains(pair: ModelGuidePair, batch: Batch, *, other_than: Tensor | None = None) -> bool:
    """Returns whether at every site some mix of the classes has the moments of the new rows, as far as chance goes.

    Means, squares and shares of levels of the columns that m acts on, each with its standard error, Bonferroni over
    them.  A scale read from its other end, or levels written down under other names, may leave all of them as they are.

    Args:
        other_than: a mix, ``(classes,)``, from which the one that explains the rows has to differ by more than
            :data:`NEAR`: without a change of the mix it explains nothing that a manipulation of the same moments would
            not.
    """
    expected = None if other_than is None else other_than.double().cpu().numpy()
    return all(_explained(list(_moments(pair, batch, site)), expected) for site in places_of(batch))


def places_of(batch: Batch) -> Sequence[int | None]:
    """Returns the sites that rows are of, each looked at by itself; None for all rows where there are no sites."""
    return [None] if batch.site is None else batch.known_sites


def _moments(pair: ModelGuidePair, batch: Batch, site: int | None) -> Iterator[Moment]:
    rows = torch.ones(batch.rows, dtype=torch.bool) if site is None else (batch.site == site).cpu()  # type: ignore[union-attr]
    for name in pair.moved_children:
        observed = batch.observed.get(name)
        some = rows if observed is None else rows & observed.cpu()
        yield from moments_of(pair, name, batch.values[name].cpu()[some])


def moments_of(pair: ModelGuidePair, name: str, values: Tensor) -> Iterator[Moment]:
    """Yields the moments of a node's new readings beside those of the training rows; none of an image or of few rows.

    Args:
        values: observed entries, encoded, ``(rows, ...)``.
    """
    node, known = pair.graph.nodes[name], pair.encoder.by_class.get(name)
    if known is None or len(values) < FEWEST:
        return
    count = known["rows"].numpy()
    if node.is_discrete:
        codes = values.long().numpy()
        shares = np.bincount(codes, minlength=node.classes) / len(codes)
        for level, share in enumerate(shares.tolist()):
            own = known["frequencies"][:, level].numpy()
            least = max(share * (1 - share), 1 / len(codes))
            yield Moment(
                (name, level), 0, share, least / len(codes), own, np.maximum(own * (1 - own), 1 / count) / count
            )
        return
    read = comparable(node, pair.encoder.statistics[name], values).reshape(len(values), -1)
    mean, square, fourth = (known[key].reshape(len(count), -1).numpy() for key in ("mean", "square", "fourth"))
    for i in range(read.shape[1]):
        x = read[:, i]
        spread = max(float(x.var()), 1e-12)
        yield Moment(
            (name, i), 1, float(x.mean()), spread / len(x), mean[:, i], (square[:, i] - mean[:, i] ** 2) / count
        )
        of_squares = max(float((x**2).var()), 1e-12)
        of_training = (fourth[:, i] - square[:, i] ** 2) / count
        yield Moment((name, i), 2, float((x**2).mean()), of_squares / len(x), square[:, i], of_training)


def _explained(moments: list[Moment], expected: Floats | None) -> bool:
    """Whether the mix that comes nearest is near enough, and, where one is expected, another."""
    if not moments:
        return False
    mix = _nearest_mix(moments)
    another = expected is None or float(np.abs(mix - expected).sum()) / 2 > NEAR
    return another and max(moment.apart(mix) for moment in moments) < _bound(moments)


def _bound(moments: list[Moment]) -> float:
    return -NormalDist().inv_cdf(LEVEL / 2 / len(moments))


def moved_components(
    pair: ModelGuidePair, batch: Batch, site: int | None
) -> dict[tuple[str, int], tuple[float, float]]:
    """Returns which numbers at a site are not as the classes' mix would have them, and the mean and deviation it would.

    The mix is that in which most columns are as they were in training, so that neither a few moved ones nor another mix
    is mistaken for the other.
    """
    moments = list(_moments(pair, batch, site))
    if not moments:
        return {}
    mix, bound = _nearest_mix(moments, robust=True), _bound(moments)
    numbers = [moment for moment in moments if moment.power]
    found = {}
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        if max(first.apart(mix), second.apart(mix)) >= bound:
            mean = float(first.classes @ mix)
            found[first.component] = (mean, math.sqrt(max(float(second.classes @ mix) - mean**2, 1e-6)))
    return found


def _nearest_mix(moments: list[Moment], *, robust: bool = False) -> Floats:
    """The class proportions whose moments are nearest in standard errors, ``(classes,)``.

    Args:
        robust: in absolute errors, which a few columns do not rule, not in squares.
    """
    from scipy.optimize import nnls  # takes half a second to import

    found, error = (np.array([getattr(m, name) for m in moments]) for name in ("found", "error"))
    of_class, errors_of_class = (np.stack([getattr(m, name) for m in moments]) for name in ("classes", "errors"))
    mix = np.full(of_class.shape[1], 1 / of_class.shape[1])
    for step in range(30 if robust else 3):  # the errors depend on the mix
        errors = np.sqrt(error + errors_of_class @ mix**2)
        if robust and step:
            errors *= np.sqrt(np.maximum(1.0, np.abs(found - of_class @ mix) / errors))
        left = of_class / errors[:, None]
        one = 1e3 * max(1.0, float(np.abs(left).max()))  # they sum to 1
        mix = nnls(np.vstack([left, np.full(len(mix), one)]), np.append(found / errors, one))[0]
    return np.asarray(mix / mix.sum())
