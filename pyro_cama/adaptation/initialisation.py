"""Where an adaptation begins: NN_pM and NN_qM set to the moments of the new rows, put to sleep, or drawn at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.adaptation.class_mix import moved_components
from pyro_cama.adaptation.search import search_alternatives
from pyro_cama.adaptation.start import ALONE, Start, sleeping_starts
from pyro_cama.adaptation.wake_sleep import begin_at, restored, sleep
from pyro_cama.data.batch import Batch
from pyro_cama.graph.nodes import Latent
from pyro_cama.inference.bounds import shared_mean, sites_at_rest
from pyro_cama.inference.do import held_do
from pyro_cama.model.groups import Group, MovedGroup
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.plates import side_by_side
from pyro_cama.model.posteriors import SharedPosterior


def initialise_start(
    pair: ModelGuidePair,
    batch: Batch,
    clean: Batch | None,
    k: int,
    steps: int,
    *,
    progress: bool | tqdm[Any] = False,
    trainer_kwargs: dict[str, Any] | None = None,
) -> Start:
    """Sets NN_pM and NN_qM to the k-th start.

    Args:
        pair: a copy of the unadapted model.
        batch: the new rows.
        clean: training rows, where they are at hand.
        k: 0 is at the training moments of the new rows, 1 where the model is, others are random; of images 0 is at the
            moments or where the model is, and 1 after :func:`pyro_cama.adaptation.wake_sleep.sleep` where it can, 2
            after one in which a family of theta's numbers moves alone, where there are several.
        steps: that follow.
        progress, trainer_kwargs: of the sleep.
    """
    manipulation = pair.manipulation
    if manipulation.size == 0:
        return Start("here")
    trained = pair.trained.issuperset(pair.moving)
    if pair.moves_by_row and all(group.image for group in _moved(pair)):
        seed = pair.settings.seed
        if k == 0:
            if trained:  # by rows before these, which may have been of this world
                return Start("here", restored=restored(pair, batch, clean, seed) if manipulation.can_sleep else 0.0)
            if not _guesses(pair):
                return Start("here")
            resting = _resting_at_moments(manipulation)
            with manipulation.at_rest(resting):
                theta = _at_moments(pair, batch)
            return begin_at(pair, batch, clean, theta[0], resting, seed) if manipulation.can_sleep else Start("moments")
        if k in sleeping_starts(manipulation):
            alone = k == ALONE
            return sleep(
                pair, batch, clean, steps, seed=seed, progress=progress, alone=alone, trainer_kwargs=trainer_kwargs
            )
        for name in pair.moving:
            for module in [*manipulation.networks[name].modules(), *pair.guide.posteriors[name].modules()]:
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.reset_parameters()
        return Start(f"random {k}")
    if k == 0:
        _at_moments(pair, batch)
        return Start("moments")
    if k == 1:
        if not trained:
            set_theta(pair, batch, torch.zeros(_sites(pair), manipulation.size))
        return Start("here")
    set_theta(pair, batch, torch.stack([random_theta(pair) for _ in range(_sites(pair))]))
    return Start(f"random {k - 1}")


def theta_at_moments(pair: ModelGuidePair, batch: Batch, mix: Tensor | None = None) -> Tensor:
    """Returns theta at which the training rows, manipulated, have the moments of every site's, ``(sites, size)``.

    Args:
        mix: of the classes, in which the training rows are taken, ``(classes,)``; None is that which they are in.
    """
    sites = range(_sites(pair))
    return torch.stack([_moments(pair, batch, site if batch.site is not None else None, mix) for site in sites])


def theta_of_moved(pair: ModelGuidePair, batch: Batch) -> Tensor:
    """Returns theta that moves what no mix of the classes explains, to its moments in that mix, ``(sites, size)``."""
    sites = range(_sites(pair))
    return torch.stack([_of_moved(pair, batch, site if batch.site is not None else None) for site in sites])


def _of_moved(pair: ModelGuidePair, batch: Batch, site: int | None) -> Tensor:
    moved, manipulation = moved_components(pair, batch, site), pair.manipulation
    rows = torch.ones(batch.rows, dtype=torch.bool, device=pair.device) if site is None else batch.site == site
    theta = torch.zeros(manipulation.size).to(pair.model.like)
    for group in manipulation.groups:
        if group.image or not (group.theta_size and group.mechanism.guesses):
            continue
        at = manipulation.slice_of(group).start
        for name, width in zip(group.nodes, group.widths, strict=True):
            for i in range(width):
                place, at = slice(at, at + group.theta_size), at + group.theta_size
                if (name, i) not in moved or pair.graph.nodes[name].type != "continuous":
                    continue
                x = batch.values[name][rows & batch.observed.get(name, rows)].reshape(-1, width)[:, i]
                mean, sd = (torch.tensor(value).to(theta) for value in moved[name, i])
                theta[place] = _guessed(pair, group, x, {"mean": mean, "sd": sd})
    return theta


def statistics_of(pair: ModelGuidePair) -> dict[str, dict[str, Tensor]]:
    """Returns the training rows' statistics of what m moves, by node, in encoded units."""
    moved = [group for group in pair.manipulation.groups if group.theta_size]
    return {name: own for group in moved for name, own in _statistics(pair, group).items()}


def _at_moments(pair: ModelGuidePair, batch: Batch) -> Tensor:
    """Sets NN_pM and NN_qM to the moments of the new rows, and returns the thetas, ``(sites, size)``."""
    sites = list(range(_sites(pair)))
    m, theta = set_theta(pair, batch, theta_at_moments(pair, batch))
    if batch.site is not None and not pair.moves_by_row:
        sites = torch.nonzero(~absent_sites(pair, batch)).flatten().tolist()
    # a fold searches by itself: what the whole batch found would be chosen with a look at the rows it holds out
    search_alternatives(pair, batch, m, theta, statistics_of(pair), sites)
    with torch.no_grad():
        return pair.manipulation.structured(m)


def _sites(pair: ModelGuidePair) -> int:
    """How many thetas there are to begin with: one for all rows in scope row."""
    return 1 if pair.moves_by_row else pair.model.sites


def _moved(pair: ModelGuidePair) -> list[MovedGroup]:
    """The groups that what is moving acts on."""
    return [group for group in pair.manipulation.groups if {*group.latents} & {*pair.moving}]


def _resting_at_moments(manipulation: Manipulation) -> Tensor | None:
    """Returns which numbers of theta rest where one begins at pixels' moments: all but those that are guessed.

    None where all are, or where there are several images.
    """
    if not manipulation.can_sleep or len(manipulation.groups) > 1:
        return None
    (group,) = manipulation.groups
    resting = torch.ones(manipulation.size, dtype=torch.bool, device=manipulation.calibration.device)
    resting[group.mechanism.guessed(group.theta_size)] = False
    return resting if resting.any() else None


def _guesses(pair: ModelGuidePair) -> bool:
    """Whether any mechanism of what moves guesses theta from moments."""
    acting = [acting for group in pair.manipulation.groups for acting in group.acting]
    return any(one.mechanism.guesses for one in acting if one.latent in pair.moving)


def _guessed(pair: ModelGuidePair, group: MovedGroup, x: Tensor, statistics: dict[str, Tensor]) -> Tensor:
    """A component's theta from its readings: of the first manipulation that moves and guesses; the others rest."""
    theta = torch.zeros(group.theta_size).to(pair.model.like)
    for acting in group.acting:
        if acting.latent in pair.moving and acting.mechanism.guesses:
            guess = acting.mechanism.guess_from_moments(x, statistics)
            if guess is not None:
                theta[acting.numbers] = guess.to(theta)
                break
    return theta


def set_theta(pair: ModelGuidePair, batch: Batch, theta: Tensor, raw_scale: float = -4.0) -> tuple[Tensor, Tensor]:
    """Sets NN_pM and NN_qM of what moves so that theta is the given one, ``(sites, size)``.

    Sites without new rows keep theirs, and so do manipulations that do not move.

    Args:
        raw_scale: of a shared m's posterior, before its softplus.

    Returns:
        m, ``(sites, dim)``, and the theta it stands for.
    """
    manipulation, latent = pair.manipulation, pair.graph.require_m()
    theta, sites = theta.to(pair.model.like, copy=True), len(theta)
    resting = torch.zeros(sites, dtype=torch.bool, device=theta.device)
    if batch.site is not None and not pair.moves_by_row:
        absent = absent_sites(pair, batch)
        theta[absent] = thetas_of(pair)[absent]
        moves = theta[:, manipulation.of_latents(pair.moving)]
        resting = absent & (moves.abs() < 0.05).all(-1)
        theta[resting] = 0.0
    values = held_do(pair)
    for m in latent.each:
        if m.name in pair.moving:
            values[m.name] = _directions(m, sites, resting).to(pair.model.like)
    value = side_by_side(latent, values)
    if manipulation.size:
        manipulation.solve_for(value, theta, pair.moving)
    with torch.no_grad():
        for name in pair.moving:
            q, direction = pair.guide.posterior_of(name), values[name]
            if isinstance(q, SharedPosterior):
                q.loc.copy_(direction)
                q.raw_scale.fill_(raw_scale)
            else:
                last = q.network[-1]
                assert isinstance(last, nn.Linear)
                last.weight.mul_(0.1)
                last.bias.copy_(torch.cat([direction[0], torch.full_like(direction[0], -3.0)]))
    return value, theta


def _directions(m: Latent, sites: int, resting: Tensor) -> Tensor:
    """Where m stands at every site, ``(sites, dim)``, each in a direction of its own while there are enough.

    A site at rest stands at 0 and takes no direction from the others.
    """
    direction = torch.nn.functional.normalize(torch.randn(sites, m.dim), dim=-1).to(resting.device)
    if m.site_column is not None:
        direction[resting] = 0.0
        if int((~resting).sum()) <= m.dim:
            direction[~resting] = torch.linalg.qr(direction[~resting].T)[0].T
    return direction


def absent_sites(pair: ModelGuidePair, batch: Batch) -> Tensor:
    """Returns which sites have no rows here, bool ``(sites,)``."""
    assert batch.site is not None
    present = torch.bincount(batch.site[batch.site >= 0], minlength=pair.model.sites)
    return present == 0


def keep_at_rest(pair: ModelGuidePair, before: ModelGuidePair, batch: Batch) -> None:
    """Sets q(m) of sites without rows here back to 0 where it stood there before: minibatches have jogged it."""
    if batch.site is None:
        return
    resting = sites_at_rest(before.guide) & absent_sites(pair, batch)
    for m in pair.graph.manipulations:
        q = pair.guide.posterior_of(m.name)
        if isinstance(q, SharedPosterior) and m.site_column is not None:
            with torch.no_grad():
                q.loc[resting] = 0.0


def thetas_of(pair: ModelGuidePair) -> Tensor:
    """Every site's theta, ``(sites, size)``; zero in a model that was never adapted."""
    manipulation = pair.manipulation
    with torch.no_grad():
        theta = manipulation.structured(shared_mean(pair.guide))
    return theta * manipulation.of_latents(pair.trained)


def _moments(pair: ModelGuidePair, batch: Batch, site: int | None, mix: Tensor | None) -> Tensor:
    """theta at which the training rows, manipulated, have the moments of the new ones, ``(size,)``."""
    manipulation = pair.manipulation
    rows = torch.ones(batch.rows, dtype=torch.bool, device=pair.device) if site is None else batch.site == site
    parts = []
    for group in manipulation.groups:
        if group.theta_size == 0:
            continue
        if not group.mechanism.guesses:
            parts.append(torch.zeros(group.units * group.theta_size))
            continue
        statistics = _statistics(pair, group, mix)
        for name, width in zip(group.nodes, (1,) if group.image else group.widths, strict=True):
            known = rows & batch.observed.get(name, rows)
            values = batch.values[name][known]
            values = values[~values.isnan()][:, None] if group.image else values.reshape(-1, width)
            for i in range(width):
                own = {k: v[i] for k, v in statistics[name].items()}
                start = torch.zeros(group.theta_size)
                parts.append(_guessed(pair, group, values[:, i], own) if len(values) >= 2 else start)
    return torch.cat([p.to(pair.model.like) for p in parts])


def _statistics(pair: ModelGuidePair, group: Group, mix: Tensor | None = None) -> dict[str, dict[str, Tensor]]:
    """Mean and sd of every component of the training rows in encoded units; of all pixels of an image.

    Args:
        mix: of the classes, ``(classes,)``: numbers are taken in this one.
    """
    found: dict[str, dict[str, Tensor]] = {}
    like = pair.model.like
    for name in group.nodes:
        node, given = pair.graph.nodes[name], pair.encoder.statistics[name]
        if group.image or node.type == "count":
            found[name] = {k: given[k].reshape(-1).to(like) for k in ("mean", "sd") if k in given}
        elif mix is not None and "mean" in (known := pair.encoder.by_class.get(name, {})):
            shares = mix.double().cpu()
            mean, square = (shares @ known[key].reshape(len(shares), -1) for key in ("mean", "square"))
            found[name] = {"mean": mean.to(like), "sd": (square - mean**2).clamp_min(1e-6).sqrt().to(like)}
        else:
            width = node.dim or 1
            found[name] = {"mean": torch.zeros(width).to(like), "sd": torch.ones(width).to(like)}
    return found


def random_theta(pair: ModelGuidePair) -> Tensor:
    """theta of a random manipulation, ``(size,)``; zeros for mechanisms that cannot simulate."""
    parts = []
    for group in pair.manipulation.groups:
        node = pair.graph.nodes[group.nodes[0]]
        nothing = torch.zeros(group.units, group.theta_size)
        simulates = group.mechanism.simulates
        parts.append((group.mechanism.simulate((group.units,), node, 1.0) if simulates else nothing).flatten())
    return torch.cat(parts).to(pair.model.like)
