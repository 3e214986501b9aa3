"""Where an adaptation begins: NN_pM and NN_qM set to the moments of the new rows, put to sleep, or drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.data import Batch
from pyro_cama.elbo import shared_mean
from pyro_cama.evidence import compare, evidence_of
from pyro_cama.groups import Group
from pyro_cama.guide import RowPosterior, SharedPosterior
from pyro_cama.manipulation import Manipulation
from pyro_cama.sleep import sleep, sleeps
from pyro_cama.training import manipulation_of

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA


SLEEP = 1  # the start that sleeps, where one can


def initialise(
    cama: CAMA,
    batch: Batch,
    clean: Batch | None,
    k: int,
    steps: int,
    *,
    progress: bool | tqdm[Any] = False,
    trainer_kwargs: dict[str, Any] | None = None,
) -> str:
    """Sets NN_pM and NN_qM to the k-th start and names it.

    Args:
        batch: the new rows.
        clean: training rows, where they are at hand.
        steps: that follow.
    """
    manipulation = manipulation_of(cama.model)
    if manipulation.size == 0:
        return "here"
    if cama.graph.m.scope == "row" and all(group.image for group in manipulation.groups):  # type: ignore[union-attr]
        if k == 0:
            return "here" if cama.m_trained or not _guesses(manipulation) else _at_moments(cama, batch)
        if k == SLEEP and sleeps(cama):
            sleep(cama, batch, clean, steps, seed=cama.settings.seed, progress=progress, trainer_kwargs=trainer_kwargs)
            return "sleep"
        for module in [*manipulation.network.modules(), *cama.guide._networks["m"].modules()]:
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.reset_parameters()
        return f"random {k}"
    if k == 0:
        return _at_moments(cama, batch)
    if k == 1:
        if not cama.m_trained:
            begin(cama, batch, torch.zeros(_sites(cama), manipulation.size))
        return "here"
    begin(cama, batch, torch.stack([_random(cama) for _ in range(_sites(cama))]))
    return f"random {k - 1}"


def _at_moments(cama: CAMA, batch: Batch) -> str:
    sites: list[int | None] = [*range(_sites(cama))] if batch.site is not None else [None] * _sites(cama)
    _search(cama, batch, *begin(cama, batch, torch.stack([_moments(cama, batch, site) for site in sites])))
    return "moments"


def _sites(cama: CAMA) -> int:
    """How many thetas there are to begin with: one for all rows in scope row."""
    q: Any = cama.guide._networks["m"]
    return q.loc.shape[0] if isinstance(q, SharedPosterior) else 1


def _guesses(manipulation: Manipulation) -> bool:
    """Whether any mechanism guesses theta from moments."""
    return any(group.mechanism is not None and group.mechanism.guesses for group in manipulation.groups)


def begin(cama: CAMA, batch: Batch, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Sets NN_pM and NN_qM so that theta is the given one, ``(sites, size)``; sites without new rows keep theirs.

    Returns:
        m, ``(sites, dim)``, and the theta it stands for.
    """
    manipulation = manipulation_of(cama.model)
    q: Any = cama.guide._networks["m"]
    theta, sites = theta.to(cama.model.like, copy=True), len(theta)
    if batch.site is not None:
        away = away_of(cama, batch)
        theta[away] = _thetas(cama)[away]
    direction = torch.nn.functional.normalize(torch.randn(sites, manipulation.dim), dim=-1).to(cama.model.like)
    if batch.site is not None:
        # a site at rest stands at m = 0 and takes no direction from the others, who get one each while there are enough
        drifting = ~(away & (theta.abs() < 0.05).all(-1))
        direction[~drifting] = 0.0
        theta[~drifting] = 0.0
        if int(drifting.sum()) <= manipulation.dim:
            direction[drifting] = torch.linalg.qr(direction[drifting].T)[0].T
    if manipulation.size:
        manipulation.aim(direction, theta.to(direction))
    with torch.no_grad():
        if isinstance(q, SharedPosterior):
            q.loc.copy_(direction)
            q.raw_scale.fill_(-4.0)
        elif isinstance(q, RowPosterior):
            last = q.network[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
            last.bias.copy_(torch.cat([direction[0], torch.full_like(direction[0], -3.0)]))
    return direction, theta


def _search(cama: CAMA, batch: Batch, m: Tensor, theta: Tensor, *, rows: int = 128, worth: float = 5.0) -> None:
    """Tries every component's alternatives (a reversed scale), the most promising first, and keeps what pays.

    Args:
        m, theta: the start, as :func:`begin` set it.
        rows: how many of the new rows are looked at.
        worth: nats of evidence, over the rows looked at, that an alternative has to gain: the prior odds against it.
    """
    part = batch if batch.rows <= rows else batch.select(torch.randperm(batch.rows)[:rows].to(cama.device))
    zero = torch.zeros(cama.model.classes).to(cama.model.like)
    manipulation = manipulation_of(cama.model)

    def evidence(theta: Tensor) -> Tensor:
        manipulation.aim(m, theta)
        return evidence_of(cama, part, zero, do=None, samples=4)

    def gain(theta: Tensor, reached: Tensor) -> tuple[float, Tensor]:
        found = evidence(theta)
        return compare(found, reached)[0] * part.rows, found

    sites = range(len(theta)) if batch.site is None else torch.nonzero(~away_of(cama, batch)).flatten().tolist()
    options: list[tuple[int, slice, Tensor]] = []
    for group in manipulation.groups:
        assert group.mechanism is not None
        if not group.theta_size:
            continue
        statistics = _statistics(cama, group)
        at = manipulation.slice_of(group).start
        for name, width in zip(group.nodes, (1,) if group.image else group.widths, strict=True):
            for i in range(width):
                place = slice(at, at + group.theta_size)
                own = {k: v[i] for k, v in statistics[name].items()}
                for site in sites:
                    alternatives = group.mechanism.alternatives(theta[site, place], own)
                    options += [(site, place, new) for new in alternatives]
                at += group.theta_size
    if not options:
        return
    best = evidence(theta)
    promising = []
    for site, place, new in options:
        changed = theta.clone()
        changed[site, place] = new
        won, _ = gain(changed, best)
        if won > worth:
            promising.append((won, site, place, new))
    for _, site, place, new in sorted(promising, key=lambda option: -option[0]):
        changed = theta.clone()
        changed[site, place] = new
        won, found = gain(changed, best)
        if won > worth:
            theta, best = changed, found
    manipulation.aim(m, theta)


def away_of(cama: CAMA, batch: Batch) -> Tensor:
    """The sites that have no rows here, bool ``(sites,)``."""
    assert batch.site is not None
    present = torch.bincount(batch.site[batch.site >= 0], minlength=cama.model.sites)
    return present == 0


def _thetas(cama: CAMA) -> Tensor:
    """Every site's theta, ``(sites, size)``; zero in a model that was never adapted."""
    manipulation = manipulation_of(cama.model)
    with torch.no_grad():
        theta = manipulation(shared_mean(cama.guide))[..., : manipulation.size]
    return theta if cama.m_trained else torch.zeros_like(theta)


def _moments(cama: CAMA, batch: Batch, site: int | None) -> Tensor:
    """theta at which the training rows, manipulated, have the moments of the new ones, ``(size,)``."""
    manipulation = manipulation_of(cama.model)
    rows = torch.ones(batch.rows, dtype=torch.bool, device=cama.device) if site is None else batch.site == site
    parts = []
    for group in manipulation.groups:
        assert group.mechanism is not None
        if group.theta_size == 0:
            continue
        if not group.mechanism.guesses:
            parts.append(torch.zeros(group.units * group.theta_size))
            continue
        statistics = _statistics(cama, group)
        for name, width in zip(group.nodes, (1,) if group.image else group.widths, strict=True):
            known = rows & batch.observed.get(name, rows)
            values = batch.values[name][known]
            values = values.reshape(-1, 1) if group.image else values.reshape(-1, width)
            for i in range(width):
                start = None
                if len(values) >= 2:
                    start = group.mechanism.start(values[:, i], {k: v[i] for k, v in statistics[name].items()})
                parts.append(torch.zeros(group.theta_size).to(cama.model.like) if start is None else start)
    return torch.cat([p.to(cama.model.like) for p in parts])


def _statistics(cama: CAMA, group: Group) -> dict[str, dict[str, Tensor]]:
    """Mean and sd of every component of the training rows in encoded units; of all pixels of an image."""
    found: dict[str, dict[str, Tensor]] = {}
    like = cama.model.like
    for name in group.nodes:
        node, given = cama.graph.nodes[name], cama.encoder.statistics[name]
        if group.image or node.type == "count":
            found[name] = {k: given[k].reshape(-1).to(like) for k in ("mean", "sd") if k in given}
        else:
            width = node.dim or 1
            found[name] = {"mean": torch.zeros(width).to(like), "sd": torch.ones(width).to(like)}
    return found


def _random(cama: CAMA) -> Tensor:
    """theta of a random manipulation, ``(size,)``; zeros for mechanisms that cannot simulate."""
    parts = []
    for group in manipulation_of(cama.model).groups:
        assert group.mechanism is not None
        node = cama.graph.nodes[group.nodes[0]]
        nothing = torch.zeros(group.units, group.theta_size)
        able = group.mechanism.simulates
        parts.append((group.mechanism.simulate((group.units,), node, 1.0) if able else nothing).flatten())
    return torch.cat(parts).to(cama.model.like)
