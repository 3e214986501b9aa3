"""m and sites of the world that a model was adapted to, for rows drawn by default; m = 0 until it is adapted."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.handlers.distributions import draw
from pyro_cama.inference.bounds import shared_mean
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.posteriors import SharedPosterior


def remember_world(pair: ModelGuidePair, new: Batch) -> None:
    """Keeps with the model what m is in rows it was adapted to: draws from q's aggregate, or their sites' shares."""
    posterior = pair.guide.m_posterior
    with torch.no_grad(), pair.seeded():
        if isinstance(posterior, SharedPosterior):
            counts = new.rows_per_site(len(posterior.share))
            posterior.share.copy_(counts / counts.sum())
        else:  # a draw of m a row, rows again where they are few
            order = torch.randperm(new.rows, device=pair.device)
            picked = order[torch.arange(len(posterior.world), device=pair.device) % new.rows]
            posterior.world.copy_(draw(pair.guide.m_dist(new.select(picked))))


def draw_m(pair: ModelGuidePair, rows: int) -> Tensor:
    """Draws m of rows of the world adapted to: one a row in scope row, ``(rows, dim)``, else the posterior's mean.

    Returns:
        Zeros, ``(dim,)``, of a model that was never adapted; ``(dim,)`` in scope dataset, ``(sites, dim)`` for a scope
        column, zero at sites without rows there.
    """
    m, posterior = pair.graph.require_m(), pair.guide.m_posterior
    if isinstance(posterior, SharedPosterior):
        mean = shared_mean(pair.guide)
        return mean * (posterior.share > 0).reshape(mean.shape[:-1])[..., None]
    if not bool(posterior.world.any()):
        return posterior.world.new_zeros(m.dim)
    return posterior.world[torch.randint(len(posterior.world), (rows,), device=pair.device)]


def draw_sites(pair: ModelGuidePair, rows: int) -> Tensor | None:
    """Draws sites in their shares of the rows last adapted to, of all known ones alike before, ``(rows,)``.

    None in the other scopes, and where no site is known.
    """
    m = pair.graph.m
    if m is None or m.site_column is None or not pair.encoder.sites:
        return None
    posterior = pair.guide.m_posterior
    assert isinstance(posterior, SharedPosterior)
    share = posterior.share if bool(posterior.share.any()) else torch.ones_like(posterior.share)
    return torch.multinomial(share, rows, replacement=True)
