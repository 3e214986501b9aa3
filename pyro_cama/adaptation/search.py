"""What no gradient leads to, tried out where an adaptation begins: reversed scales, recoded levels.

Alternatives are many (two a numeric column, more where there are levels), and each one's evidence costs a pass over the
whole model.  So all are screened first by their own column's factor, the only one that they change given class and
latents; the most promising then have to raise the evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.handlers.contexts import fast
from pyro_cama.inference.comparison import compare
from pyro_cama.inference.do import held_do
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.inference.log_weights import Request, draw_latents
from pyro_cama.mechanisms.base import Readings
from pyro_cama.model.groups import MovedGroup
from pyro_cama.model.pair import ModelGuidePair

Statistics = Mapping[str, Mapping[str, Tensor]]
"""Of the training rows, of every component of a node, by node: what mechanisms are given."""

SAMPLES = 4  # draws of the latents
TRIED = 32  # alternatives of the whole model in a round, whose evidence is worked out
NUMBERS = 2**24  # in the screen's largest tensor: fewer rows are looked at where they are of many classes and levels


class Option(NamedTuple):
    """An alternative: the nats that it promises, its site, where it stands in theta, its number there, its numbers."""

    promises: float
    site: int
    place: slice
    number: int
    theta: Tensor

    @property
    def key(self) -> tuple[int, int, int]:
        """What tells it from others."""
        return self.site, self.place.start, self.number


def search_alternatives(
    pair: ModelGuidePair,
    batch: Batch,
    m: Tensor,
    theta: Tensor,
    statistics: Statistics,
    sites: Sequence[int],
    *,
    rows: int = 128,
    worth: float = 5.0,
) -> None:
    """Tries alternatives of every component, the most promising first, keeps what pays, and begins anew if some did.

    Args:
        m, theta: the start, as NN_pM and NN_qM stand: ``(sites, dim)`` and ``(sites, size)``.
        statistics: of the training rows.
        sites: those that have new rows.
        rows: how many of the new rows are looked at.
        worth: nats of evidence, over the rows looked at, that an alternative has to gain: the prior odds against it.
    """
    rows = min(rows, max(16, NUMBERS // _numbers_per_row(pair)))
    part = batch if batch.rows <= rows else batch.select(torch.randperm(batch.rows)[:rows].to(pair.device))
    zero, held = torch.zeros(pair.model.classes).to(pair.model.like), held_do(pair)
    best: Tensor | None = None
    refused: set[tuple[int, int, int]] = set()
    kept = True
    while kept:
        kept = False
        pair.manipulation.solve_for(m, theta, pair.moving)
        options = [o for o in _promising(pair, part, m, theta, statistics, sites) if o.key not in refused]
        for option in sorted(options, key=lambda option: -option.promises)[:TRIED]:
            if best is None:
                best = importance_evidence(pair, part, zero, do=held, samples=SAMPLES)
            changed = theta.clone()
            changed[option.site, option.place] = option.theta
            pair.manipulation.solve_for(m, changed, pair.moving)
            found = importance_evidence(pair, part, zero, do=held, samples=SAMPLES)
            if compare(found, best)[0] * part.rows > worth:
                theta, best, kept = changed, found, True
            else:
                refused.add(option.key)
    pair.manipulation.solve_for(m, theta, pair.moving)


def _numbers_per_row(pair: ModelGuidePair) -> int:
    """How many numbers a row takes in the screen: every draw's and class's parameters of the widest group."""
    return SAMPLES * len(pair.classes) * max(g.width * g.size for g in pair.model.groups)


def _promising(
    pair: ModelGuidePair, part: Batch, m: Tensor, theta: Tensor, statistics: Statistics, sites: Sequence[int]
) -> list[Option]:
    """Returns the alternatives that explain their own column better, under draws of class and latents as they are.

    An image's are all returned, without a look: its z says more than given draws can.
    """
    found, free = [], pair.manipulation.of_latents(pair.moving)
    with torch.no_grad(), fast(), common_noise(pair.settings.seed), pair.manipulation.calibrated():
        for component in _components(pair, part, m, theta, sites):
            mechanism, readings = component.group.mechanism, component.readings
            own = {k: v[component.number] for k, v in statistics[component.node].items()}
            now = theta[component.site, component.place]
            still = ~free[component.place]
            for number, other in enumerate(mechanism.alternatives(now, own, readings)):
                if bool((other != now)[still].any()):  # of a manipulation that does not move
                    continue
                promises = torch.inf
                if readings is not None:
                    gain = readings.log_evidence(mechanism.transform(readings.clean, other))
                    promises = compare(gain, torch.zeros_like(gain))[0] * len(gain)
                if promises > 0:
                    found.append(Option(promises, component.site, component.place, number, other))
    return found


class Component(NamedTuple):
    """A component that m manipulates, at a site: its group and node, its number there, its place in theta, its rows."""

    group: MovedGroup
    node: str
    number: int
    site: int
    place: slice
    readings: Readings | None


def _components(
    pair: ModelGuidePair, part: Batch, m: Tensor, theta: Tensor, sites: Sequence[int]
) -> Iterator[Component]:
    """Yields every component at every site where it was measured, with its readings; with none if it is an image."""
    model, manipulation = pair.model, pair.manipulation
    given = held_do(pair)
    for latent, place_in_m in zip(pair.graph.manipulations, pair.graph.require_m().slices.values(), strict=True):
        if latent.name in pair.moving:
            given[latent.name] = m[:, place_in_m] if latent.site_column is not None else m[0, place_in_m]
    z, value, ratio, _ = draw_latents(model, pair.guide, part, Request(given, SAMPLES, True))
    causes = model.causes(part, z, value, samples=SAMPLES, classes=True)
    shape = (SAMPLES, model.classes, part.rows)
    joint = sum((model.group_log_prob(group, causes, part, True) for group in model.groups), ratio)
    posterior = joint.expand(shape).flatten(0, 1).log_softmax(0)
    for group in manipulation.groups:
        places = [(n, i) for n, width in zip(group.nodes, group.widths, strict=True) for i in range(width)]
        for at, (name, i) in enumerate(places[: group.units] if group.theta_size else []):
            start = manipulation.slice_of(group).start + at * group.theta_size
            place = slice(start, start + group.theta_size)
            for site in sites:
                if group.image:
                    yield Component(group, name, i, site, place, None)
                    continue
                rows = _rows_of(part, name, None if pair.moves_by_row else site)
                if not len(rows):
                    continue
                free, constants = causes.params(group)
                own = free[..., at, :].expand(*shape, -1)[..., rows, :].flatten(0, 1)
                rest = constants[..., at, :]
                if rest.dim() > 1:  # every class's own
                    rest = rest.expand(*shape, -1)[..., rows, :].flatten(0, 1)
                clean = manipulation.compared(group.likelihood.joined(own, rest), group, at)
                x = part.values[name].reshape(part.rows, -1)[rows, i]
                recorded = group.mechanism.transform(clean, theta[site, place])
                yield Component(
                    group, name, i, site, place, Readings(x, clean, posterior[:, rows] - recorded.log_prob(x))
                )


def _rows_of(part: Batch, name: str, site: int | None) -> Tensor:
    """Returns numbers of the rows in which a node was measured; at one site where rows share m by sites."""
    rows = torch.arange(part.rows, device=part.values[name].device)
    if part.site is not None and site is not None:
        rows = rows[part.site == site]
    known = part.observed.get(name)
    return rows if known is None else rows[known[rows]]
