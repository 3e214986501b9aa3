"""What no gradient leads to, tried out where a style is summed out: reversed scales, recoded levels.

As :mod:`pyro_cama.adaptation.search`, without draws: what each component's alternatives promise is known in closed
form, those of all components at once (:func:`pyro_cama.model.linear_style.change_of_each`).  The most promising is then
taken if the evidence of the whole model says so as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_cama.adaptation.comparison import winsorised_rows
from pyro_cama.data.batch import Batch
from pyro_cama.inference.exact import causes_at, joint_of_thetas
from pyro_cama.model.groups import MovedGroup
from pyro_cama.model.linear_style import change_of_each
from pyro_cama.model.pair import ModelGuidePair

NUMBERS = 2**21  # in the largest tensor


class Tried(NamedTuple):
    """An alternative of one component: where it stands in theta, and its numbers there at every site."""

    place: slice
    theta: Tensor


def search_stacked(
    pair: ModelGuidePair,
    batch: Batch,
    theta: Tensor,
    statistics: Mapping[str, Mapping[str, Tensor]],
    *,
    rows: int = 128,
    worth: float = 5.0,
) -> Tensor:
    """Takes at every site the alternative that gains most evidence, as long as one gains enough.

    Sites share no rows: each decides for itself.

    Args:
        theta: the start, ``(sites, size)``.
        statistics: of the training rows, by node.
        rows: how many of each site are looked at.
        worth: nats over these rows that an alternative has to gain: the prior odds against it.
    """
    part, site = _some(batch, len(theta), rows)
    best = _evidence(pair, part, theta[None])[0]
    refused: set[tuple[int, int]] = set()
    for _ in range(2 * theta.shape[1]):
        tried, gains = _promises(pair, part, theta, statistics)
        if not tried:
            break
        own = torch.stack([winsorised_rows(gains[:, site == s]).sum(1) for s in range(len(theta))], 1)
        for number, s in refused:
            own[number, s] = -torch.inf
        promised, which = own.max(0)
        hopeful = torch.nonzero(promised > worth).flatten().tolist()
        if not hopeful:
            break
        changed = theta.clone()
        for s in hopeful:
            place, other = tried[int(which[s])]
            changed[s, place] = other[s]
        found = _evidence(pair, part, changed[None])[0]
        for s in hopeful:
            here = site == s
            if float(winsorised_rows((found - best)[None, here]).sum()) > worth:
                theta = torch.where(torch.arange(len(theta), device=theta.device)[:, None] == s, changed, theta)
                best = torch.where(here, found, best)
                refused = {one for one in refused if one[1] != s}
            else:
                refused.add((int(which[s]), s))
    return theta


def _some(batch: Batch, sites: int, rows: int) -> tuple[Batch, Tensor]:
    """Up to so many rows of each site, drawn at random, and their sites."""
    device = next(iter(batch.values.values())).device
    order = torch.randperm(batch.rows).to(device)
    site = torch.zeros(batch.rows, dtype=torch.long, device=device) if batch.site is None else batch.site
    picked = torch.cat([order[site[order] == s][:rows] for s in range(sites)])
    return batch.select(picked), site[picked]


@torch.no_grad()
def _promises(
    pair: ModelGuidePair, batch: Batch, theta: Tensor, statistics: Mapping[str, Mapping[str, Tensor]]
) -> tuple[list[Tried], Tensor]:
    """Returns every component's alternatives, and what each gains in evidence, ``(alternatives, rows)``."""
    model, tried, gains = pair.model, list[Tried](), list[Tensor]()
    joint, _ = joint_of_thetas(model, batch, theta[None])
    before = torch.logsumexp(joint[0], 0)
    causes = causes_at(model, batch, theta[None])
    for group in pair.manipulation.groups:
        options = _alternatives(pair, group, theta, statistics)
        if not group.linear_z:
            own = [one for some in options for one in some]
            changed = [theta.index_copy(1, _numbers(place, theta), other) for place, other in own]
            gains += [_evidence(pair, batch, torch.stack(changed)) - before] if changed else []
            tried += own
            continue
        for own in options:
            everywhere = theta.clone()
            for place, other in own:
                everywhere[:, place] = other
            change = change_of_each(causes, causes_at(model, batch, everywhere[None]), model.groups, batch)
            each = torch.logsumexp(joint[0].unsqueeze(-1) + change[group.nodes[0]].squeeze(0), 0) - before[:, None]
            places = [(place.start - pair.manipulation.slice_of(group).start) // group.theta_size for place, _ in own]
            gains.append(each.T[places])
            tried += own
    return tried, torch.cat(gains) if gains else before.new_zeros(0, batch.rows)


def _alternatives(
    pair: ModelGuidePair, group: MovedGroup, theta: Tensor, statistics: Mapping[str, Mapping[str, Tensor]]
) -> list[list[Tried]]:
    """The first alternative of every component of a group, the second ones, and so on."""
    found: list[list[Tried]] = []
    if group.image or not group.theta_size:
        return found
    at = pair.manipulation.slice_of(group).start
    for name, width in zip(group.nodes, group.widths, strict=True):
        for i in range(width):
            place = slice(at, at + group.theta_size)
            own = {key: value[i] for key, value in statistics[name].items()}
            of_sites = [tuple(group.mechanism.alternatives(site[place], own)) for site in theta]
            for n in range(max(map(len, of_sites))):
                if n == len(found):
                    found.append([])
                numbers = [(*others, *[site[place]] * n)[n] for others, site in zip(of_sites, theta, strict=True)]
                found[n].append(Tried(place, torch.stack(numbers)))
            at += group.theta_size
    return found


def _numbers(place: slice, theta: Tensor) -> Tensor:
    return torch.arange(place.start, place.stop, device=theta.device)


def _at_once(pair: ModelGuidePair, batch: Batch) -> int:
    """How many thetas keep tensors small."""
    return max(1, NUMBERS // (batch.rows * pair.model.numbers_per_row))


def _evidence(pair: ModelGuidePair, batch: Batch, theta: Tensor) -> Tensor:
    """log p(x | a, c) under every theta, ``(thetas, rows)``."""
    with torch.no_grad():
        parts = theta.split(_at_once(pair, batch))
        return torch.cat([torch.logsumexp(joint_of_thetas(pair.model, batch, part)[0], 1) for part in parts])
