"""The objective of adaptation: eq. 8, its rows without labels by the tighter bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pyro_cama.adaptation.initialisation import absent_sites
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.distributions import mean_of
from pyro_cama.inference.bounds import (
    context_of,
    importance_bound,
    marginal,
    mean_bound,
    shared_draw,
    shared_mean,
    shared_term,
)
from pyro_cama.inference.class_prior import imagined_rows
from pyro_cama.inference.do import held_do
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.plates import joined, side_by_side
from pyro_cama.training.objective import labelled_bound

HOLD = 10.0  # nats for a squared change of a theta that is to stay where it is

Bound = Callable[[Batch, Tensor], Tensor]
"""From rows and the log ratio of class proportions to the mean bound of a row, less the prior of theta."""


def adaptation_loss(
    pair: ModelGuidePair,
    new: Batch,
    clean: Batch | None,
    alpha: float,
    samples: int,
    sparsity: float,
    fixed: Tensor,
    free: Tensor,
    ambiguity: float = 1.0,
) -> Callable[[Batch], Tensor]:
    """Returns the negative of eq. 8 per row, as a function of minibatches of the new rows.

    Args:
        pair: whose NN_pM and NN_qM move.
        new: all of the new rows.
        clean: labelled training rows, where they are at hand.
        alpha, samples, sparsity: see :func:`pyro_cama.adaptation.adapt.adapt`.
        fixed: log of the class proportions to be expected over the training ones, ``(classes,)``.
        free: learnt addition to it, ``(classes,)``.
        ambiguity: see :class:`pyro_cama.adaptation.new_rows.NewRows`.
    """
    per_row = pair.moves_by_row
    bound = (_row_bound if per_row else _shared_bound)(pair, new, samples, sparsity)

    def loss(batch: Batch) -> Tensor:
        ratio = log_ratio(pair, fixed, free)
        total = bound(batch, ratio) + _log_prior_of_proportions(pair, fixed, ratio, new.rows, ambiguity)
        if clean is not None and alpha > 0 and per_row:
            total = alpha * _clean_bound(pair, clean, batch.rows, samples) + (1 - alpha) * total
        return -total

    return loss


def _row_bound(pair: ModelGuidePair, new: Batch, samples: int, sparsity: float) -> Bound:
    """Eq. 7's tighter bound where every row has its own m; their thetas are held to their mean, and that to zero."""
    prior_scale, m = pair.manipulation.prior_scale(), pair.graph.require_m()
    held = held_do(pair)

    def bound(batch: Batch, ratio: Tensor) -> Tensor:
        weights = log_weights(pair.model, pair.guide, batch, do=held, samples=samples, classes=True)
        total = (marginal(importance_bound(weights), ratio) + context_of(weights)).mean()
        if sparsity:
            posteriors = zip(m.each, pair.guide.m_dists(batch, pair.moving), strict=True)
            means = {latent.name: mean_of(q, "q(m | x)") for latent, q in posteriors if q is not None}
            mean = joined(m, means, batch.site)
            theta = pair.manipulation(mean)[..., : len(prior_scale)] / prior_scale
            common = theta.mean(0)
            apart = (theta - common).abs().sum(-1).mean()
            total = total - sparsity * (common.abs().sum() / new.rows + apart)
        return total

    return bound


def _shared_bound(pair: ModelGuidePair, new: Batch, samples: int, sparsity: float) -> Bound:
    """Eq. 7's tighter bound where rows share m: one draw of it a minibatch, its theta held to zero.

    What no gradient moves (switches, whose prior scale is infinite) stays where it is; so do sites without new rows,
    since NN_pM serves all of them.
    """
    manipulation, held = pair.manipulation, held_do(pair)
    counts = new.rows_per_site(pair.model.sites)
    prior_scale = manipulation.prior_scale()
    switches = prior_scale.isinf()
    began = manipulation(shared_mean(pair.guide)).detach()
    m = pair.graph.require_m()
    absent = None if new.site is None else absent_sites(pair, new)

    def bound(batch: Batch, ratio: Tensor) -> Tensor:
        drawn, prior_ratio = shared_draw(pair.model, pair.guide, pair.moving)
        weights = log_weights(pair.model, pair.guide, batch, do=held | drawn, samples=samples, classes=True)
        weights = replace(weights, shared=prior_ratio)
        rows_bound = marginal(importance_bound(weights), ratio) + context_of(weights)
        total = (rows_bound + shared_term(weights, batch.site, counts)).mean()
        theta = manipulation(side_by_side(m, held | drawn))
        moved = theta[..., : len(prior_scale)][..., switches] - began[..., : len(prior_scale)][..., switches]
        total = total - HOLD * moved.square().sum()
        if absent is not None:
            total = total - HOLD * (theta[absent] - began[absent]).square().sum()
            theta = theta[~absent]
        return total - sparsity / new.rows * manipulation.extent(theta[..., : len(prior_scale)] / prior_scale).sum()

    return bound


def _log_prior_of_proportions(
    pair: ModelGuidePair, fixed: Tensor, ratio: Tensor, rows: int, ambiguity: float
) -> Tensor:
    """Log-likelihood of imagined rows of the expected classes under the proportions as they are, per new row."""
    train = log_train(pair)
    expected = torch.softmax(train + fixed, 0)
    return imagined_rows(torch.as_tensor(float(rows)), ambiguity) / rows * (expected * (train + ratio)).sum()


def _clean_bound(pair: ModelGuidePair, clean: Batch, rows: int, samples: int) -> Tensor:
    """The joint ELBO, eq. 4, of some of the clean rows, drawn at random."""
    part = clean.select(torch.randint(clean.rows, (rows,), device=pair.device))
    y, known = part.values[pair.graph.target], part.observed.get(pair.graph.target)
    weights = log_weights(pair.model, pair.guide, part, samples=samples, classes=known is not None)
    bound = mean_bound(weights)[0] if known is None else labelled_bound(weights, y, known, 0.0)
    return bound.mean()


def log_train(pair: ModelGuidePair) -> Tensor:
    """Returns log of the class proportions among the training rows, ``(classes,)``."""
    return pair.encoder.statistics[pair.graph.target]["frequencies"].to(pair.model.like).clamp_min(1e-12).log()


def log_ratio(pair: ModelGuidePair, fixed: Tensor, free: Tensor) -> Tensor:
    """Returns log of class proportions over the training ones, ``(classes,)``, under both additions to their logits."""
    train = log_train(pair)
    return torch.log_softmax(train + fixed + free, 0) - train
