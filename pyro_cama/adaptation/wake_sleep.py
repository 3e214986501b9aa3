"""The sleep phase of images (Hinton et al. 1995, *The wake-sleep algorithm*): q(m | x) learns from rows of known m.

Manipulations of the mechanism's own family are done to clean images, and NN_qM learns to read m off what comes out.  It
first reads wide ones, then such as it found in the new rows: NN_pM becomes as wide as those are.  Labels have no part.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_cama.data.batch import Batch
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.inference.do import clean_do, encode_do
from pyro_cama.inference.generation import ancestral_sample
from pyro_cama.mechanisms.composed import Composed
from pyro_cama.mechanisms.image import ImageMechanism, recorded
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.training.optimise import optimise
from pyro_cama.training.stages import Stage

WIDE = 3.0  # prior scales: half of a side is two standard deviations of what is dreamt first
PARTS = 0.4  # of m's directions that a row moves along while its manipulations are wide
ACTING = 0.8  # of a composed mechanism's parts that act on a row meanwhile
LAID_OVER = 0.005  # share of an image's pixels that seem hidden, from which on something counts as laid over it
THERE = 2.0  # theta of an overlay that is to be dreamt, well above a half
LEAST = 0.1  # prior scales, where the new rows seem not to move at all
FARTHEST = 6.0  # prior scales that a new row is believed to have moved by


def can_sleep(pair: ModelGuidePair) -> bool:
    """Returns whether m is each row's own, manipulates images alone, and has a direction for every number of theta.

    And the only manipulation: what several did to a row is learnt where they are simulated, by ``fit(interventions=)``.
    """
    m = pair.graph.m
    if m is None or not m.per_row or m.parts:
        return False
    manipulation = pair.manipulation
    simulates = all(g.image and g.theta_size and g.mechanism.simulates for g in manipulation.groups)
    return simulates and 0 < manipulation.size <= manipulation.dim


def epochs_of(steps: int) -> tuple[int, int]:
    """Returns tens of steps of both parts of the sleep before so many steps awake: they cost a fraction of those."""
    return max(1, 4 * steps // 10), max(1, 2 * steps // 10)


def sleep(
    pair: ModelGuidePair,
    new: Batch,
    clean: Batch | None,
    steps: int,
    *,
    seed: int,
    progress: bool | tqdm[Any],
    trainer_kwargs: dict[str, Any] | None = None,
    rows: int = 2000,
) -> None:
    """Sets NN_pM to manipulations as wide as those of the new rows, and NN_qM to what reads them.

    Args:
        pair: whose NN_pM and NN_qM are set.
        new: the new rows.
        clean: rows to manipulate; None means that the model dreams them up.
        steps: that follow awake; see :func:`epochs_of`.
        seed: of minibatches and noise.
        progress, trainer_kwargs: see :func:`pyro_cama.training.optimise.optimise`.
        rows: dreamt up, and of the new rows that are looked at.
    """
    manipulation = pair.manipulation
    prior_scale, like = manipulation.prior_scale(), pair.model.like
    if clean is None:
        with pair.seeded(seed):
            clean = ancestral_sample(pair, encode_do(pair, clean_do(pair.graph)), rows)
    source = Shuffled(clean.rows, row_selector(clean), 128, seed, steps=10)

    def dream(directions: Tensor, wide: bool, epochs: int) -> None:
        """theta = directions' m, ``(dim, size)``; while they are wide a row moves along some of them."""
        m = torch.randn(4000, manipulation.dim, generator=torch.Generator().manual_seed(seed)).to(like)
        with torch.no_grad():
            manipulation.network[-1].weight.zero_()  # type: ignore[operator]
        manipulation.solve_for(m, m @ directions)
        with suppress(FloatingPointError):  # the weights are those of before
            optimise(
                [Stage(_loss(pair, wide), epochs, 2e-3, title="adapt, asleep")], pair.modules,
                list(pair.guide.m_posterior.parameters()), source, anneal=True, seed=seed, progress=progress,
                per_step=pair.minibatches_per_step, trainer_kwargs=trainer_kwargs,
            )  # fmt: skip

    first, second = epochs_of(steps)
    dream(torch.eye(manipulation.dim, manipulation.size).to(like) * prior_scale * WIDE, True, first)
    seen = torch.linspace(0, new.rows - 1, min(rows, new.rows)).long().to(like.device)
    with torch.no_grad():
        theta = manipulation.structured(pair.guide.m_dist(new.select(seen)).mean)
        for group in manipulation.groups:
            if (hidden := manipulation.share_hidden(group.nodes[0], new.values[group.nodes[0]][seen])) is not None:
                theta[:, manipulation.slice_of(group).stop - 1] = THERE * (hidden > LAID_OVER)
    moved = (theta / prior_scale).clamp(-FARTHEST, FARTHEST)
    spread = moved.T @ moved / len(moved) + LEAST**2 * torch.eye(manipulation.size).to(like)
    variances, axes = torch.linalg.eigh(spread)
    directions = torch.zeros(manipulation.dim, manipulation.size).to(like)
    directions[: manipulation.size] = (axes * variances.sqrt()).T * prior_scale
    dream(directions, False, second)


def _loss(pair: ModelGuidePair, wide: bool) -> Callable[[Batch], Tensor]:
    """-log q(m | x) of rows that the model has manipulated by m."""
    manipulation = pair.manipulation

    def loss(batch: Batch) -> Tensor:
        m = torch.randn(batch.rows, manipulation.dim).to(pair.model.like)
        if wide:
            m = m * _acting(manipulation, batch.rows).to(m)
        values = dict(batch.values)
        with torch.no_grad():
            theta = manipulation(m)
            for group in manipulation.groups:
                (name,) = group.nodes
                values[name] = recorded(group.mechanism, values[name], manipulation.theta(theta, group))
        found = Batch(values=values, observed=batch.observed, site=batch.site, rows=batch.rows)
        total: Tensor = -pair.guide.m_dist(found).log_prob(m).mean()
        return total

    return loss


def _acting(manipulation: Manipulation, rows: int) -> Tensor:
    """Draws the directions of m along which rows move, bool ``(rows, dim)``, each standing for a number of theta."""
    found = torch.rand(rows, manipulation.dim) < PARTS
    for group in manipulation.groups:
        start, mechanism = manipulation.slice_of(group).start, group.mechanism
        parts = mechanism.parts if isinstance(mechanism, Composed) else (mechanism,)
        sizes = mechanism.sizes(group.theta_size) if isinstance(mechanism, Composed) else [group.theta_size]
        for part, size in zip(parts, sizes, strict=True):
            own, start = slice(start, start + size), start + size
            if isinstance(part, ImageMechanism) and part.hides:
                found[:, own] = True
            if len(parts) > 1:
                found[:, own] &= torch.rand(rows, 1) < ACTING
    return found
