"""fit: eq. 5 of the paper, with simulated interventions and the conditional term."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pyro_cama.data import Batch
from pyro_cama.elbo import LogWeights, context_of, importance_bound, log_weights, marginal, mean_bound, shared_term
from pyro_cama.engine import Stage, optimise
from pyro_cama.guide import CAMAGuide
from pyro_cama.image_manipulations import manipulate_all
from pyro_cama.manipulation import Manipulation
from pyro_cama.minibatches import Shuffled, rows_of
from pyro_cama.model import CAMAModel

Scale = float | Mapping[str, float]
"""Of simulated interventions: of the mechanism's own, or severities of kinds of image manipulations."""


def labelled_bound(weights: LogWeights, y: Tensor, known: Tensor | None, conditional_weight: float) -> Tensor:
    """ELBO(x, y) + w log p(y | x) of every row, ``(rows,)``, from weights of every class.

    The second term is a difference of two bounds with the same draws, log p(y|x) ~ ELBO(x, y) - logsumexp_c ELBO(x, c).
    A row whose label is missing contributes its marginal ELBO (eq. 7).
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
    interventions: Mapping[str, Scale] | None,
    conditional_weight: float,
    conditional_share: float = 1.0,
    samples: int,
) -> Callable[[Batch], Tensor]:
    """The negative of eq. 5 per row, as a function of clean rows.

    Args:
        mixing: lambda, the weight of the clean rows where there are manipulated or simulated ones.
        conditional_share: of a minibatch's rows that the conditional term, which scores every class, is estimated on.
    """
    graph = model.graph
    zero = {graph.m.name: 0.0} if graph.m is not None else None

    def objective(batch: Batch, do: Mapping[str, float] | None) -> Tensor:
        y, known = batch.values[graph.target], batch.observed.get(graph.target)
        apart = conditional_weight == 0 or conditional_share < 1
        if apart and known is None:
            weights = log_weights(model, guide, batch, do=do, samples=samples)
            bound = mean_bound(weights)[0]
        else:
            weights = log_weights(model, guide, batch, do=do, samples=samples, classes=True)
            bound = labelled_bound(weights, y, known, conditional_weight)
        total = (bound + context_of(weights) + shared_term(weights, batch.site, None)).mean()
        if apart and known is None and conditional_weight:
            part = batch.select(every_nth(batch, conditional_share))
            bounds = mean_bound(log_weights(model, guide, part, do=do, samples=samples, classes=True))
            log_p = torch.log_softmax(bounds, 0).gather(0, part.values[graph.target].long()[None])
            total = total + conditional_weight * log_p.mean()
        return total

    def loss(batch: Batch) -> Tensor:
        total = objective(batch, zero)
        others = []
        if manipulated is not None:
            pick = torch.randint(manipulated.rows, (batch.rows,), device=model.like.device)
            others.append(objective(manipulated.select(pick), None))
        if interventions:
            others.append(objective(intervened(model, batch, interventions), None))
        if others:
            total = mixing * total + (1 - mixing) * sum(others) / len(others)
        return -total

    return loss


def every_nth(batch: Batch, share: float) -> Tensor:
    """Numbers of rows that make up a share of the batch, spread over it: held-out rows may be sorted by class."""
    device = next(iter(batch.values.values())).device
    return torch.arange(0, batch.rows, max(1, math.floor(1 / share)), device=device)


def intervened(model: CAMAModel, batch: Batch, scales: Mapping[str, Scale]) -> Batch:
    """Clean rows after a random intervention of their own on each of the named children; an image's is of one kind."""
    manipulation = manipulation_of(model)
    values = dict(batch.values)
    for group in manipulation.groups:
        assert group.mechanism is not None
        for name in group.nodes:
            if name not in scales:
                continue
            scale = scales[name]
            if isinstance(scale, Mapping):
                values[name] = manipulate_all(values[name], scale, seed=int(torch.randint(2**31, ())), one_of=True)
                continue
            if group.theta_size == 0:
                continue
            node = model.graph.nodes[name]
            shape = values[name].shape[:1] if group.image else values[name].shape
            theta = group.mechanism.simulate(tuple(shape), node, scale).to(model.like)
            pushed = group.mechanism.push(values[name], theta)
            values[name] = pushed.clamp(0.0, 1.0) if group.image else pushed  # as every recorded image
    return Batch(values=values, observed=batch.observed, site=batch.site, rows=batch.rows)


def calibrate(
    model: CAMAModel, guide: CAMAGuide, clean: Batch, *, steps: int = 150, seed: int = 0, progress: bool = True
) -> None:
    """Finds what manipulation the clean rows themselves ask for, and keeps it as ``Manipulation.calibration``.

    See :meth:`Manipulation.calibrated` for why.  Nothing else changes; predictions never see it.
    """
    manipulation = manipulation_of(model)
    if not any(g.mechanism is not None and g.mechanism.composes for g in manipulation.groups):
        return
    graph = model.graph
    assert graph.m is not None
    zero = {graph.m.name: 0.0}

    def loss(batch: Batch) -> Tensor:
        weights = log_weights(model, guide, batch, do=zero, samples=4, classes=True)
        return -marginal(importance_bound(weights)).mean()

    modules = nn.ModuleList([model, guide])
    frozen = {name: p.requires_grad for name, p in modules.named_parameters()}
    modules.requires_grad_(False)
    manipulation.calibration.data.zero_()
    manipulation.calibration.requires_grad_(True)
    with manipulation.calibrated():
        optimise(
            [Stage(loss, max(1, steps // 10), 2e-2, title="calibrate")], modules, [manipulation.calibration],
            Shuffled(clean.rows, rows_of(clean), 512, seed, steps=10), anneal=True, seed=seed, progress=progress,
        )  # fmt: skip
    manipulation.calibration.requires_grad_(False)
    for name, parameter in modules.named_parameters():
        parameter.requires_grad_(frozen[name])


def manipulation_of(model: CAMAModel) -> Manipulation:
    """NN_pM of a model that has one."""
    networks = model._modules["networks"]
    found = networks["manipulation"]  # type: ignore[index]
    assert isinstance(found, Manipulation)
    return found


def train_validation_split(y: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers for training and for validation, stratified by label; none under 20 rows, 2,000 suffice of many."""
    rows = len(y)
    fraction = min(fraction, 2000 / max(rows, 1))
    generator = np.random.default_rng(seed)
    if fraction <= 0 or rows < 20:
        return torch.arange(rows), torch.arange(0)
    held: list[int] = []
    for label in torch.unique(y):
        members = torch.nonzero(y == label).flatten().numpy()
        take = round(fraction * len(members))
        held.extend(generator.permutation(members)[:take].tolist())
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[held] = True
    return torch.nonzero(~mask).flatten(), torch.nonzero(mask).flatten()
