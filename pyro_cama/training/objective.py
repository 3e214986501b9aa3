"""fit: eq. 5 of the paper, with simulated interventions and the conditional term."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.handlers.distributions import draw
from pyro_cama.handlers.interventions import Regime
from pyro_cama.inference.bounds import context_of, marginal, mean_bound, shared_term
from pyro_cama.inference.do import clean_do
from pyro_cama.inference.log_weights import LogWeights, log_weights
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.training.manipulated_rows import halves, with_clean
from pyro_cama.training.simulated_interventions import Simulated, intervened
from pyro_cama.training.unknown_pixels import images_with_unknown, partly_unknown


def labelled_bound(weights: LogWeights, y: Tensor, known: Tensor | None, conditional_weight: float) -> Tensor:
    """Returns ELBO(x, y) + w log p(y | x) of every row, ``(rows,)``, from weights of every class.

    The second term is a difference of two bounds with the same draws, log p(y|x) ~ ELBO(x, y) - logsumexp_c ELBO(x, c).
    A row whose label is missing contributes its marginal ELBO (eq. 7).

    Args:
        weights: of every class, under do(m=0) for eq. 3, without for eq. 4.
        y: labels, ``(rows,)``.
        known: which of them are there, bool ``(rows,)``; None means all.
        conditional_weight: w.
    """
    bound = mean_bound(weights)
    of_label = bound.gather(0, y.long()[None])[0]
    of_any = marginal(bound)
    total = of_label + conditional_weight * (of_label - of_any)
    return total if known is None else torch.where(known, total, of_any)


def fit_loss(
    model: CAMAModel,
    guide: CAMAGuide,
    manipulated: Batch | None,
    *,
    mixing: float,
    interventions: Mapping[str, Simulated] | None,
    conditional_weight: float,
    conditional_share: float = 1.0,
    conditional_power: float = 1.0,
    unknown_pixels: float = 0.0,
    samples: int,
    paired: bool = False,
    unclean: bool = False,
) -> Callable[[Batch], Tensor]:
    """Returns the negative of eq. 5 per row, as a function of clean rows: eq. 3 for those, eq. 4 for the others.

    Args:
        model, guide: that are trained.
        manipulated: labelled rows under unknown manipulations, if there are any; where every row has its own m, eq. 4
            is of clean rows too, see :func:`pyro_cama.training.manipulated_rows.with_clean`.
        mixing: lambda, the weight of the clean rows where there are manipulated or simulated ones.
        interventions: scales of simulated ones, by child.
        conditional_weight: w of :func:`labelled_bound`.
        conditional_share: of a minibatch's rows that the conditional term, which scores every class, is estimated on.
        conditional_power: of the children's densities in the conditional term,
            :func:`pyro_cama.inference.log_weights.log_weights`.
        unknown_pixels: share of the clean rows with :func:`pyro_cama.training.unknown_pixels.partly_unknown` images.
        samples: draws of the latents per row.
        paired: one noise of z for all classes of a row.
        unclean: the rows that it is a function of are manipulated ones, and there are no others: eq. 4 alone.
    """
    graph = model.graph
    zero, images = clean_do(graph), images_with_unknown(model.groups)
    shared = {m.name: 0.0 for m in graph.manipulations if not m.per_row} or None
    per_row = graph.m is not None and graph.m.per_row
    per_site = None if manipulated is None else manipulated.rows_per_site(model.sites)  # a shared m counts once for all

    goes_with_class = graph.m is not None and graph.m.goes_with_class
    alone = conditional_power != 1  # the conditional term is none of the bound's difference

    def objective(batch: Batch, do: Mapping[str, float] | None, regime: Regime = "interventional") -> Tensor:
        y, known = batch.values[graph.target], batch.observed.get(graph.target)
        m_held = goes_with_class and do is None
        apart = conditional_weight == 0 or conditional_share < 1 or alone or m_held
        if apart and known is None:
            weights = log_weights(model, guide, batch, do=do, samples=samples, regime=regime)
            bound = mean_bound(weights)[0]
        else:
            weights = log_weights(
                model, guide, batch, do=do, samples=samples, regime=regime, classes=True, paired=paired
            )
            bound = labelled_bound(weights, y, known, 0.0 if m_held or alone else conditional_weight)
        total = (bound + context_of(weights) + shared_term(weights, batch.site, per_site)).mean()
        if apart and conditional_weight and (known is None or m_held or alone):
            part = batch.select(every_nth(batch, conditional_share))
            total = total + conditional_weight * conditional(part, do, m_held, regime)
        return total

    def conditional(part: Batch, do: Mapping[str, float] | None, m_held: bool, regime: Regime) -> Tensor:
        """The mean of log p(y | x) over the rows with a label."""
        drawn = {graph.require_m().name: held(guide, part, samples)} if m_held else {}
        asked: dict[str, Any] = {"samples": samples, "classes": True, "paired": paired, "regime": regime}
        asked["power"] = conditional_power
        bounds = mean_bound(log_weights(model, guide, part, do=do, proposals=drawn, **asked))
        log_p = torch.log_softmax(bounds, 0).gather(0, part.values[graph.target].long()[None])[0]
        known = part.observed.get(graph.target)
        return log_p.mean() if known is None else (log_p * known).sum() / known.sum().clamp_min(1)

    def of_both(moved: Batch, still: Batch) -> Tensor:
        """Eq. 4 of manipulated rows, p(m | y) among them, and of clean ones, in which somebody has set m."""
        share = still.rows / (moved.rows + still.rows)
        found = (1 - share) * objective(moved, None, "observational")
        return found + share * objective(still, None) if still.rows else found

    def loss(batch: Batch) -> Tensor:
        if unclean:
            return -objective(batch, None, "observational")
        total = objective(partly_unknown(batch, images, unknown_pixels), zero)
        others = []
        if manipulated is not None:
            if goes_with_class:
                others.append(of_both(*halves(manipulated, batch)))
            elif per_row:
                others.append(objective(with_clean(manipulated, batch), None))
            else:
                part = manipulated.select(torch.randint(manipulated.rows, (batch.rows,), device=model.like.device))
                others.append(objective(part, None))
        if interventions:
            others.append(objective(intervened(model, guide, batch, interventions), shared))
        if others:
            total = mixing * total + (1 - mixing) * sum(others) / len(others)
        return -total

    return loss


def held(guide: CAMAGuide, rows: Batch, samples: int) -> TorchDistribution:
    """Returns draws from q(m | x) as a distribution at these points, without gradients.

    log p(m | y) is linear in m, more or less: q(m | x) would come to write what it knows of the class into m, where
    p(y | x) finds it, and where the edge is cut it would be gone.
    """
    with torch.no_grad():
        q = guide.m_dist(rows)
        return dist.Delta(draw(q.expand((samples, 1, rows.rows))), event_dim=1)


def every_nth(batch: Batch, share: float) -> Tensor:
    """Returns row numbers that make up a share of the batch, spread over it: held-out rows may be sorted by class."""
    device = next(iter(batch.values.values())).device
    return torch.arange(0, batch.rows, max(1, math.floor(1 / share)), device=device)
