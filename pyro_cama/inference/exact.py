"""log p(x, y | a, c) of rows under given thetas, many at once, where a linear style is summed out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.inference.discriminant import Rows, classes_of, differ_in_means, lines_of, scored, styled
from pyro_cama.inference.log_weights import causes_known, is_exact
from pyro_cama.model.causes import Causes
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.linear_style import conditional_scales

Evidence = Callable[[Tensor, Tensor], Tensor]
"""From thetas ``(problems, sites, size)`` and log class ratios ``(problems, classes)`` to sums ``(problems,)``."""


def solves_exactly(model: CAMAModel, guide: CAMAGuide, batch: Batch) -> bool:
    """Returns whether the evidence of rows is a smooth function of theta, without draws.

    It is where the style is summed out, theta is all that m's mechanisms have, and no cause is missing.
    """
    moved = model.graph.m is not None and model.manipulation.size > 0 and not model.manipulation.features_in_merge
    return moved and is_exact(model, guide) and causes_known(model, batch, classes=True)


def joint_of_thetas(model: CAMAModel, batch: Batch, theta: Tensor, *, style: bool = True) -> tuple[Tensor, Tensor]:
    """Returns log p(x, y | a, c) for every theta, class and row, and log p(a, c).

    Args:
        batch: rows of which :func:`solves_exactly` holds.
        theta: ``(thetas, sites, size)``; of one site it is all rows'.
        style: False leaves the children of a linear style out.

    Returns:
        ``(thetas, classes, rows)`` and ``(rows,)``.
    """
    causes = causes_at(model, batch, theta)
    joint, context = model.log_prob_given(causes, batch, classes=True, style=style)
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


def units_of(model: CAMAModel, batch: Batch) -> Tensor:
    """Returns what steps in numbers of theta are measured in, ``(size,)``: L-BFGS knows no other curvature at first.

    A column is as stiff as the others tell what it should read.
    """
    manipulation = model.manipulation
    row = replace(batch.select(torch.zeros(1, dtype=torch.long, device=model.like.device)), observed={})
    with torch.no_grad():
        stiff = conditional_scales(model.causes(row, None, None, samples=1, classes=True), model.groups, row)
    units = torch.ones(manipulation.size).to(model.like)
    for group in manipulation.groups:
        if group.nodes[0] in stiff and group.theta_size:
            own = stiff[group.nodes[0]].reciprocal().mean(0).reciprocal()
            units[manipulation.slice_of(group)] = own.repeat_interleave(group.theta_size)
    return units


def summed_evidence(model: CAMAModel, batch: Batch, weights: Tensor) -> Evidence:
    """Returns the sum over rows of log p(x | a, c) as a function of thetas and class ratios.

    Without a tensor of rows, columns and classes where these differ in their means alone.

    Args:
        batch: rows of which :func:`solves_exactly` holds.
        weights: of the rows, float64, ``(problems, rows)``; what the function is given and returns is float64 too.
    """
    if differ_in_means(model, batch):
        return _by_discriminant(model, batch, weights)

    def evidence(theta: Tensor, ratio: Tensor) -> Tensor:
        joint, _ = joint_of_thetas(model, batch, theta.to(model.like))
        return (torch.logsumexp(joint + ratio[:, :, None], 1) * weights).sum(1)

    return evidence


def _by_discriminant(model: CAMAModel, batch: Batch, weights: Tensor) -> Evidence:
    index, here, places = _by_site(batch, model.sites)
    x = torch.cat([group.stack(batch.values) for group in styled(model)], -1).double()[index].mT.contiguous()
    rows = Rows.of(x, weights[:, index] * here)
    moves = _rest_moves(model)
    with torch.no_grad():
        causes = model.causes(batch, None, None, samples=1, classes=True)
        classes, lines = classes_of(model, causes), lines_of(model)
        none = model.like.new_zeros(1, model.sites, model.manipulation.size)
        unmoved = _by_row(joint_of_thetas(model, batch, none, style=False)[0], index)

    def evidence(theta: Tensor, ratio: Tensor) -> Tensor:
        here = theta
        if theta.shape[1] > 1:
            here = torch.cat([theta, torch.zeros_like(theta[:, :1])], 1)[:, places]
        shared, apart = scored(rows, classes, lines(here))
        rest = unmoved
        if moves:
            rest = _by_row(joint_of_thetas(model, batch, theta.to(model.like), style=False)[0], index)
        of_rows = torch.logsumexp(apart + rest + ratio[:, None, :, None], -2)
        return shared.sum(1) + (of_rows * rows.weights).sum((1, 2))

    return evidence


def _by_site(batch: Batch, sites: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of every site's rows, side by side, ``(places, most)``; which of them are rows; and the sites' numbers.

    Rows of no known site are those of another one, which is the last.
    """
    if batch.site is None or sites == 1:
        index = torch.arange(batch.rows, device=next(iter(batch.values.values())).device)[None]
        return index, torch.ones_like(index, dtype=torch.float64), torch.zeros_like(index[:, 0])
    site = torch.where(batch.site < 0, sites, batch.site)
    places, counts = site.unique(return_counts=True)
    index = torch.zeros(len(places), int(counts.max()), dtype=torch.long, device=site.device)
    here = torch.zeros_like(index, dtype=torch.float64)
    for row, (place, count) in enumerate(zip(places, counts.tolist(), strict=True)):
        index[row, :count] = torch.nonzero(site == place).flatten()
        here[row, :count] = 1.0
    return index, here, places


def _by_row(joint: Tensor, index: Tensor) -> Tensor:
    """Rows by site: from ``(problems, classes, rows)`` to ``(problems, places, classes, most)``."""
    return joint[..., index].transpose(1, 2).double()


def _rest_moves(model: CAMAModel) -> bool:
    """Whether the density of any other node than the children of a linear style depends on theta."""
    manipulation = model.manipulation
    moved = {name for group in manipulation.groups if group.theta_size for name in group.nodes}
    clean = {name for name in moved if manipulation.affects.get(name) == "measurement"}
    others = [group for group in model.groups if not group.linear_z]
    return any(moved & set(group.nodes) or clean & set(group.parents) for group in others)
