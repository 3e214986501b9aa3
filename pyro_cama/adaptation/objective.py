"""The objective of adaptation: eq. 8, its rows without labels by the tighter bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_cama.adaptation.initialisation import absent_sites
from pyro_cama.data.batch import Batch
from pyro_cama.inference.bounds import (
    context_of,
    importance_bound,
    marginal,
    mean_bound,
    shared_draw,
    shared_mean,
    shared_term,
)
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.training.objective import labelled_bound


def adaptation_loss(
    pair: ModelGuidePair,
    new: Batch,
    clean: Batch | None,
    alpha: float,
    samples: int,
    sparsity: float,
    fixed: Tensor,
    free: Tensor,
) -> Callable[[Batch], Tensor]:
    """The negative of eq. 8 per row, as a function of minibatches of the new rows.

    Options as :func:`pyro_cama.adaptation.adapt.adapt`.

    Args:
        fixed: log of the class proportions to be expected over the training ones, ``(classes,)``.
        free: learnt addition to it, ``(classes,)``.
    """
    graph = pair.graph
    assert graph.m is not None
    row_scope = graph.m.scope == "row"
    counts = None
    prior_scale = pair.manipulation.prior_scale()
    if not row_scope:
        q: Any = pair.guide.m_posterior
        index = torch.zeros(new.rows, dtype=torch.long, device=pair.device) if new.site is None else new.site
        counts = torch.bincount(index[index >= 0], minlength=q.loc.shape[0])
        switches = prior_scale.isinf()  # no gradient holds them where they are while m moves
        switched = pair.manipulation(shared_mean(pair.guide))[..., : len(prior_scale)][..., switches].detach()
    away = None if new.site is None else absent_sites(pair, new)
    settled = None if away is None else pair.manipulation(shared_mean(pair.guide))[away].detach()

    def loss(batch: Batch) -> Tensor:
        ratio = log_ratio(pair, fixed, free)
        if row_scope:
            weights = log_weights(pair.model, pair.guide, batch, samples=samples, classes=True)
            total = (marginal(importance_bound(weights), ratio) + context_of(weights)).mean()
            if sparsity:
                theta = pair.manipulation(pair.guide.m_dist(batch).mean)[..., : len(prior_scale)] / prior_scale
                common = theta.mean(0)
                apart = (theta - common).abs().sum(-1).mean()
                total = total - sparsity * (common.abs().sum() / new.rows + apart)
        else:
            m, given = shared_draw(pair.model, pair.guide)
            weights = log_weights(pair.model, pair.guide, batch, do={graph.m.name: m}, samples=samples, classes=True)  # type: ignore[union-attr]
            weights = replace(weights, shared=given)
            rows_bound = marginal(importance_bound(weights), ratio) + context_of(weights)
            total = (rows_bound + shared_term(weights, batch.site, counts)).mean()
            theta = pair.manipulation(m)
            total = total - 10.0 * (theta[..., : len(prior_scale)][..., switches] - switched).square().sum()
            if away is not None:  # NN_pM serves all sites: the others must not forget
                total = total - 10.0 * (theta[away] - settled).square().sum()
                theta = theta[~away]
            total = total - sparsity / new.rows * (theta[..., : len(prior_scale)].abs() / prior_scale).sum()
        # ten imagined rows of the expected classes: proportions wander only where the new rows insist
        expected = torch.softmax(log_train(pair) + fixed, 0)
        total = total + 10.0 / new.rows * (expected * (log_train(pair) + ratio)).sum()
        if clean is not None and alpha > 0 and row_scope:
            pick = torch.randint(clean.rows, (batch.rows,), device=pair.device)
            part = clean.select(pick)
            y, known = part.values[graph.target], part.observed.get(graph.target)
            weights = log_weights(pair.model, pair.guide, part, samples=samples, classes=known is not None)
            bound = mean_bound(weights)[0] if known is None else labelled_bound(weights, y, known, 0.0)
            total = alpha * bound.mean() + (1 - alpha) * total
        return -total

    return loss


def log_train(pair: ModelGuidePair) -> Tensor:
    """log of the class proportions among the training rows, ``(classes,)``."""
    return pair.encoder.statistics[pair.graph.target]["frequencies"].to(pair.model.like).clamp_min(1e-12).log()


def log_ratio(pair: ModelGuidePair, fixed: Tensor, free: Tensor) -> Tensor:
    """log of class proportions over the training ones, ``(classes,)``, under both additions to their logits."""
    train = log_train(pair)
    return torch.log_softmax(train + fixed + free, 0) - train
