"""What no gradient leads to, tried out where a style is summed out: reversed scales, recoded levels.

As :mod:`pyro_cama.adaptation.search`, without draws: what each component's alternatives promise is known in closed
form, those of all components at once (:func:`pyro_cama.model.linear_style.change_of_each`).  Of the most promising one,
two, four and so on together, those are then taken that gain most evidence of the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.inference.comparison import winsorised_rows
from pyro_cama.inference.exact import causes_at, joint_of_thetas
from pyro_cama.model.groups import MovedGroup
from pyro_cama.model.linear_style import change_of_each
from pyro_cama.model.pair import ModelGuidePair

NUMBERS = 2**21  # in the largest tensor


class Tried(NamedTuple):
    """An alternative of one component: where it stands in theta, and its numbers there at every site."""

    place: slice
    theta: Tensor


class _Known(NamedTuple):
    """A component's alternatives, and the theta they are alternatives to, ``(sites, size)``."""

    theta: Tensor
    tried: list[Tried]


def search_stacked(
    pair: ModelGuidePair,
    batch: Batch,
    theta: Tensor,
    statistics: Mapping[str, Mapping[str, Tensor]],
    *,
    rows: int = 128,
    worth: float = 5.0,
) -> Tensor:
    """Takes at every site the alternatives that gain most evidence, as long as some gain enough.

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
    known: dict[int, _Known] = {}
    for _ in range(2 * theta.shape[1]):
        tried, gains = _promises(pair, part, theta, statistics, known)
        if not tried:
            break
        own = torch.stack([winsorised_rows(gains[:, site == s]).sum(1) for s in range(len(theta))], 1)
        for number, s in refused:
            own[number, s] = -torch.inf
        hopeful = [_hopeful(tried, own[:, s], worth) for s in range(len(theta))]
        if not any(hopeful):
            break
        sets = _first_of_each(theta, tried, hopeful)
        found = _evidence(pair, part, sets)
        for s in (s for s, some in enumerate(hopeful) if some):
            here = site == s
            won = winsorised_rows((found - best)[:, here]).sum(1)
            if float(won.max()) > worth:
                theta = torch.where(
                    torch.arange(len(theta), device=theta.device)[:, None] == s, sets[won.argmax()], theta
                )
                best = torch.where(here, found[won.argmax()], best)
                refused = {one for one in refused if one[1] != s}
            else:
                refused.add((hopeful[s][0], s))
    return theta


def _hopeful(tried: list[Tried], promised: Tensor, worth: float) -> list[int]:
    """Numbers of the alternatives that promise enough, the most promising first, one of each component."""
    places: dict[int, int] = {}
    for number in promised.argsort(descending=True)[: int((promised > worth).sum())].tolist():
        places.setdefault(tried[number].place.start, number)
    return list(places.values())


def _first_of_each(theta: Tensor, tried: list[Tried], hopeful: list[list[int]]) -> Tensor:
    """Thetas with every site's first alternative taken, its first two, four and so on, ``(sets, sites, size)``."""
    sets, most = list[Tensor](), 1
    while not sets or most < 2 * max(map(len, hopeful)):
        changed = theta.clone()
        for s, numbers in enumerate(hopeful):
            for place, other in (tried[number] for number in numbers[:most]):
                changed[s, place] = other[s]
        sets.append(changed)
        most *= 2
    return torch.stack(sets)


def _some(batch: Batch, sites: int, rows: int) -> tuple[Batch, Tensor]:
    """Up to so many rows of each site, drawn at random, and their sites."""
    device = next(iter(batch.values.values())).device
    order = torch.randperm(batch.rows).to(device)
    site = torch.zeros(batch.rows, dtype=torch.long, device=device) if batch.site is None else batch.site
    picked = torch.cat([order[site[order] == s][:rows] for s in range(sites)])
    return batch.select(picked), site[picked]


@torch.no_grad()
def _promises(
    pair: ModelGuidePair,
    batch: Batch,
    theta: Tensor,
    statistics: Mapping[str, Mapping[str, Tensor]],
    known: dict[int, _Known],
) -> tuple[list[Tried], Tensor]:
    """Returns every component's alternatives, and what each gains in evidence, ``(alternatives, rows)``."""
    model, tried, gains = pair.model, list[Tried](), list[Tensor]()
    joint, _ = joint_of_thetas(model, batch, theta[None])
    before = torch.logsumexp(joint[0], 0)
    causes = causes_at(model, batch, theta[None])
    for group in pair.manipulation.groups:
        options = _alternatives(pair, group, theta, statistics, known)
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
    pair: ModelGuidePair,
    group: MovedGroup,
    theta: Tensor,
    statistics: Mapping[str, Mapping[str, Tensor]],
    known: dict[int, _Known],
) -> list[list[Tried]]:
    """The first alternative of every component of a group, the second ones, and so on.

    Args:
        known: by place, from rounds before; what changed since is written over.
    """
    found: list[list[Tried]] = []
    if group.image or not group.theta_size:
        return found
    at, free = pair.manipulation.slice_of(group).start, pair.manipulation.of_latents(pair.moving)
    for name, width in zip(group.nodes, group.widths, strict=True):
        for i in range(width):
            place = slice(at, at + group.theta_size)
            here, still = theta[:, place], ~free[place]  # numbers of what does not move
            if at not in known or not torch.equal(known[at].theta, here):
                own = {key: value[i] for key, value in statistics[name].items()}
                of_sites = [
                    tuple(o for o in group.mechanism.alternatives(site, own) if bool((o == site)[still].all()))
                    for site in here
                ]
                most = max(map(len, of_sites))
                filled = [
                    [*others, *[site] * (most - len(others))] for others, site in zip(of_sites, here, strict=True)
                ]
                known[at] = _Known(here, [Tried(place, torch.stack(one)) for one in zip(*filled, strict=True)])
            for n, tried in enumerate(known[at].tried):
                if n == len(found):
                    found.append([])
                found[n].append(tried)
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
