"""What is made of log-weights: the ELBO (eqs. 3 and 4), its marginal (eq. 7), Bayes' rule (eq. 6), all as reductions.

Shapes are ``(samples, classes, rows)``, reduced from the left.  The importance-weighted bound is that of Burda et al.
2016, *Importance Weighted Autoencoders*.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from pyro_cama.handlers.distributions import draw, mean_of
from pyro_cama.inference.log_weights import LogWeights
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.plates import side_by_side


def shared_draw(model: CAMAModel, guide: CAMAGuide, names: Collection[str]) -> tuple[dict[str, Tensor], Tensor]:
    """Draws shared manipulations once, reparameterised, for ``do`` of all their rows, and their ratio.

    Returns:
        m by name, ``(dim,)`` or ``(sites, dim)`` each; log p(m) - log q(m), ``(1, sites)``.
    """
    values, ratio = {}, torch.zeros(1, 1).to(model.like)
    for latent, q in zip(model.graph.manipulations, guide.m_dists(None, names), strict=True):
        if q is not None:
            value = values[latent.name] = draw(q)
            ratio = ratio + (model.prior(latent).log_prob(value) - q.log_prob(value)).reshape(1, -1)
    return values, ratio


def shared_means(guide: CAMAGuide) -> dict[str, Tensor]:
    """Returns the means of the posteriors of shared manipulations by name, detached, ``(dim,)`` or ``(sites, dim)``."""
    names = [latent.name for latent in guide.graph.manipulations if not latent.per_row]
    posteriors = zip(guide.graph.manipulations, guide.m_dists(None, names), strict=True)
    return {latent.name: mean_of(q, f"q({latent.name})").detach() for latent, q in posteriors if q is not None}


def shared_mean(guide: CAMAGuide) -> Tensor:
    """Returns m at :func:`shared_means`, ``(dim,)`` or ``(sites, dim)``; manipulations of every row's own are at 0."""
    rest = {latent.name: guide.like.new_zeros(latent.dim) for latent in guide.graph.manipulations}
    return side_by_side(guide.graph.require_m(), rest | shared_means(guide))


def sites_at_rest(guide: CAMAGuide) -> Tensor:
    """Returns which sites nothing was learnt of, so that m is 0: their posterior has mean 0, bool ``(sites,)``."""
    return (shared_mean(guide) == 0).all(-1)


def mean_bound(weights: LogWeights) -> Tensor:
    """Returns mean_k w_k, the ELBO of eqs. 3 and 4, ``(classes, rows)``."""
    return weights.w.mean(0)


def importance_bound(weights: LogWeights) -> Tensor:
    """Returns logsumexp_k w_k - log K, ``(classes, rows)``; a bound that tightens with K, in expectation."""
    return torch.logsumexp(weights.w, 0) - math.log(weights.w.shape[0])


def context_of(weights: LogWeights) -> Tensor:
    """Returns log p(a, c) of every row, mean over draws, ``(rows,)``."""
    return weights.context.expand_as(weights.w).mean((0, 1))


def marginal(bound: Tensor, log_prior_ratio: Tensor | None = None) -> Tensor:
    """Sums a ``(classes, rows)`` bound over the classes by logsumexp: eq. 7, ``(rows,)``.

    Args:
        log_prior_ratio: ``(classes,)``, log of new over old class proportions.
    """
    if log_prior_ratio is not None:
        bound = bound + log_prior_ratio[:, None]
    return torch.logsumexp(bound, 0)


def shared_term(weights: LogWeights, site: Tensor | None, counts: Tensor | None) -> Tensor:
    """Returns a shared m's part of every row's bound, mean over samples, ``(rows,)``.

    Zero in scope row and under ``do``.

    Args:
        site: of every row, where the scope is a column.
        counts: rows of every site (or of the dataset) in the whole data, ``(sites,)``; None takes this batch's.
    """
    rows = weights.w.shape[-1]
    if weights.shared is None:
        return weights.w.new_zeros(rows)
    per_site = weights.shared.mean(0)
    index = torch.zeros(rows, dtype=torch.long, device=per_site.device) if site is None else site
    known = index >= 0
    index = index.clamp_min(0)
    if counts is None:
        counts = torch.bincount(index[known], minlength=len(per_site))
    return (per_site / counts.clamp_min(1).to(per_site))[index] * known


def class_log_probs(weights: LogWeights, *, m_samples: int = 1, log_prior_ratio: Tensor | None = None) -> Tensor:
    """Returns log p(y | x, a, c), eq. 6, ``(classes, rows)``.

    Under a shared m the samples come as ``m_samples`` draws of m times the draws of z given each; q(m) is already the
    posterior given all rows, so p(y | x, m_k) is averaged over it with no ratio.
    """
    w = weights.w
    if log_prior_ratio is not None:
        w = w + log_prior_ratio[:, None]
    if weights.shared is None:
        return torch.log_softmax(torch.logsumexp(w, 0), 0)
    given_m = w.unflatten(0, (m_samples, -1))
    each = torch.log_softmax(torch.logsumexp(given_m, 1), 1)
    return torch.logsumexp(each, 0) - math.log(m_samples)
