"""log p(x, y | a, c) of rows under given thetas, many at once, where a linear style is summed out."""

from __future__ import annotations

from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.inference.log_weights import causes_known, is_exact
from pyro_cama.model.causes import Causes
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide


def solves_exactly(model: CAMAModel, guide: CAMAGuide, batch: Batch) -> bool:
    """Returns whether the evidence of rows is a smooth function of theta, without draws.

    It is where the style is summed out, theta is all that m's mechanisms have, and no cause is missing.
    """
    moved = model.graph.m is not None and model.manipulation.size > 0 and not model.manipulation.features_in_merge
    return moved and is_exact(model, guide) and causes_known(model, batch, classes=True)


def joint_of_thetas(model: CAMAModel, batch: Batch, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log p(x, y | a, c) for every theta, class and row, and log p(a, c).

    Args:
        batch: rows of which :func:`solves_exactly` holds.
        theta: ``(thetas, sites, size)``; of one site it is all rows'.

    Returns:
        ``(thetas, classes, rows)`` and ``(rows,)``.
    """
    causes = causes_at(model, batch, theta)
    joint, context = model.log_prob_given(causes, batch, classes=True)
    return joint.expand(len(theta), model.classes, batch.rows), context.expand(1, 1, batch.rows)[0, 0]


def causes_at(model: CAMAModel, batch: Batch, theta: Tensor) -> Causes:
    """Returns what the rows' factors are conditioned on, every class and every theta; arguments as above."""
    causes = model.causes(batch, None, None, samples=len(theta), classes=True)
    if batch.site is None or theta.shape[1] == 1:
        causes.theta = theta[:, None, :1, :]
    else:
        own = theta.index_select(1, batch.site.clamp_min(0)) * (batch.site >= 0).unsqueeze(-1)
        causes.theta = own[:, None]
    return causes
