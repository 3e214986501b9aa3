"""What no gradient leads to, tried out on exact evidence: every component's alternatives side by side.

As :mod:`pyro_cama.adaptation.search`, without its screen: where a style is summed out, the evidence of the whole model
is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_cama.adaptation.comparison import winsorised_rows
from pyro_cama.data.batch import Batch
from pyro_cama.inference.exact import joint_of_thetas
from pyro_cama.model.pair import ModelGuidePair

NUMBERS = 2**21  # in the largest tensor


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

    Sites share no rows: an alternative is tried at all of them at once, and each decides for itself.

    Args:
        theta: the start, ``(sites, size)``.
        statistics: of the training rows, by node.
        rows: how many of each site are looked at.
        worth: nats over these rows that an alternative has to gain: the prior odds against it.
    """
    part, site = _some(batch, len(theta), rows)
    best = _evidence(pair, part, theta[None])[0]
    for _ in range(theta.shape[1]):
        tried = _alternatives(pair, theta, statistics)
        if not tried:
            break
        others = torch.stack(tried)
        gains = _evidence(pair, part, others) - best
        own = torch.stack([winsorised_rows(gains[:, site == s]).sum(1) for s in range(len(theta))], 1)
        gain, which = own.max(0)
        taken = gain > worth
        if not bool(taken.any()):
            break
        for s in torch.nonzero(taken).flatten().tolist():
            theta = theta.index_copy(0, torch.tensor([s], device=theta.device), others[which[s], s][None])
        best = _evidence(pair, part, theta[None])[0]
    return theta


def _some(batch: Batch, sites: int, rows: int) -> tuple[Batch, Tensor]:
    """Up to so many rows of each site, drawn at random, and their sites."""
    device = next(iter(batch.values.values())).device
    order = torch.randperm(batch.rows).to(device)
    site = torch.zeros(batch.rows, dtype=torch.long, device=device) if batch.site is None else batch.site
    picked = torch.cat([order[site[order] == s][:rows] for s in range(sites)])
    return batch.select(picked), site[picked]


def _alternatives(pair: ModelGuidePair, theta: Tensor, statistics: Mapping[str, Mapping[str, Tensor]]) -> list[Tensor]:
    """Every component's alternatives, each at all sites, ``(sites, size)``."""
    found = []
    for group in pair.manipulation.groups:
        if group.image or not group.theta_size:
            continue
        at = pair.manipulation.slice_of(group).start
        for name, width in zip(group.nodes, group.widths, strict=True):
            for i in range(width):
                place = slice(at, at + group.theta_size)
                own = {key: value[i] for key, value in statistics[name].items()}
                of_sites = [tuple(group.mechanism.alternatives(site[place], own)) for site in theta]
                for n in range(max(map(len, of_sites))):
                    changed = theta.clone()
                    for s, others in enumerate(of_sites):
                        if n < len(others):
                            changed[s, place] = others[n]
                    found.append(changed)
                at += group.theta_size
    return found


def _evidence(pair: ModelGuidePair, batch: Batch, theta: Tensor) -> Tensor:
    """log p(x | a, c) under every theta, ``(thetas, rows)``."""
    width = pair.model.classes * sum(group.width for group in pair.model.groups)
    with torch.no_grad():
        parts = theta.split(max(1, NUMBERS // (batch.rows * width)))
        return torch.cat([torch.logsumexp(joint_of_thetas(pair.model, batch, part)[0], 1) for part in parts])
