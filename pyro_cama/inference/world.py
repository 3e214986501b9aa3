"""m and sites of the world that a model was adapted to, for rows drawn by default; m = 0 until it is adapted."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.handlers.distributions import draw
from pyro_cama.inference.bounds import shared_means
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.posteriors import SharedPosterior


def remember_world(pair: ModelGuidePair, new: Batch) -> None:
    """Keeps with the model what m is in rows it was adapted to: draws from q's aggregate, or their sites' shares."""
    with torch.no_grad(), pair.seeded():
        for m in pair.graph.manipulations:
            posterior = pair.guide.posterior_of(m.name)
            if isinstance(posterior, SharedPosterior):
                counts = new.rows_per_site(len(posterior.share))
                posterior.share.copy_(counts / counts.sum())
            elif m.name in pair.trained:  # a draw of m a row, rows again where they are few
                order = torch.randperm(new.rows, device=pair.device)
                picked = order[torch.arange(len(posterior.world), device=pair.device) % new.rows]
                q = next(q for q in pair.guide.m_dists(new.select(picked), [m.name]) if q is not None)
                posterior.world.copy_(draw(q))


def draw_m(pair: ModelGuidePair, rows: int) -> dict[str, Tensor]:
    """Draws m of rows of the world adapted to, by name of the manipulation: one a row, ``(rows, dim)``, in scope row,
    else the posterior's mean.

    Returns:
        Zeros, ``(dim,)``, of a manipulation that was never adapted; ``(dim,)`` in scope dataset, ``(sites, dim)`` for a
        scope column, zero at sites without rows there.
    """
    means, found = shared_means(pair.guide), {}
    for m in pair.graph.manipulations:
        posterior = pair.guide.posterior_of(m.name)
        if isinstance(posterior, SharedPosterior):
            mean = means[m.name]
            found[m.name] = mean * (posterior.share > 0).reshape(mean.shape[:-1])[..., None]
        elif not bool(posterior.world.any()):
            found[m.name] = posterior.world.new_zeros(m.dim)
        else:
            found[m.name] = posterior.world[torch.randint(len(posterior.world), (rows,), device=pair.device)]
    return found


def draw_sites(pair: ModelGuidePair, rows: int) -> Tensor | None:
    """Draws sites in their shares of the rows last adapted to, of all known ones alike before, ``(rows,)``.

    None in the other scopes, and where no site is known.
    """
    m = next((m for m in pair.graph.manipulations if m.site_column is not None), None)
    if m is None or not pair.encoder.sites:
        return None
    posterior = pair.guide.posterior_of(m.name)
    assert isinstance(posterior, SharedPosterior)
    share = posterior.share if bool(posterior.share.any()) else torch.ones_like(posterior.share)
    return torch.multinomial(share, rows, replacement=True)
