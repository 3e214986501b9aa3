"""Lower bounds on log p of rows: the ELBO of eqs. 3, 4 and 7, and evidence, which is the importance-weighted bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.data.tables import Table
from pyro_cama.handlers.common_noise import common_noise
from pyro_cama.handlers.contexts import fast
from pyro_cama.handlers.interventions import Regime
from pyro_cama.inference.bounds import context_of, importance_bound, marginal, mean_bound, shared_term
from pyro_cama.inference.chunks import chunk_size, row_chunks
from pyro_cama.inference.do import UserDo, clean_do, do_at_means, do_of_rows, encode_do
from pyro_cama.inference.log_weights import log_weights
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair


def importance_evidence(
    pair: ModelGuidePair, batch: Batch, ratio: Tensor, *, do: Mapping[str, Tensor] | None, samples: int | None = None
) -> Tensor:
    """Estimates log p(x | a, c) of every row, log p(a, c) with it, ``(rows,)``, in nats: eq. 7 by the importance bound.

    A shared m stands at its posterior mean; the density is the one that adaptation compares, see
    :meth:`pyro_cama.model.manipulation.Manipulation.calibrated`.

    Args:
        batch: rows; no label is looked at.
        ratio: log of class proportions over the training ones, ``(classes,)``.
        do: an intervention on m; None infers it.
        samples: draws of the latents: 32, of images 8.
    """
    samples = samples or (8 if pair.model.has_images else 32)
    do = do_at_means(pair, do)
    calibrated = pair.manipulation.calibrated()
    with torch.no_grad(), fast(), common_noise(pair.settings.seed), calibrated:
        parts = []
        for rows in torch.arange(batch.rows, device=pair.device).split(chunk_size(pair, samples)):
            weights = log_weights(pair.model, pair.guide, batch.select(rows), do=do, samples=samples, classes=True)
            parts.append((marginal(importance_bound(weights), ratio) + context_of(weights)).double().cpu())
        return torch.cat(parts)


def elbo(
    pair: ModelGuidePair,
    data: Table | Batch,
    do: Literal["clean"] | UserDo = "clean",
    *,
    samples: int = 16,
    regime: Regime = "interventional",
) -> Tensor:
    """Returns a lower bound on log p(x, y | a, c) of every row, ``(rows,)``: eq. 3, 4 or 7, by ``do`` and labels.

    Arguments as :meth:`pyro_cama.CAMA.elbo`.
    """
    PredictionOptions.checked("elbo", pair.graph, None, samples=samples, regime=regime)
    batch = pair.encode(data)
    given = encode_do(pair, clean_do(pair.graph) if isinstance(do, str) and do == "clean" else do, batch.rows)
    counts = batch.rows_per_site(pair.model.sites)
    parts = []
    with torch.no_grad(), fast(), common_noise(pair.settings.seed):
        for rows in row_chunks(pair, batch, samples):
            part = batch.select(rows)
            own = do_of_rows(pair, given, rows)
            weights = log_weights(pair.model, pair.guide, part, do=own, samples=samples, classes=True, regime=regime)
            bound = mean_bound(weights)
            total = marginal(bound)
            y = part.values.get(pair.graph.target)
            if y is not None:
                known = part.observed.get(pair.graph.target, torch.ones_like(y, dtype=torch.bool))
                total = torch.where(known, bound.gather(0, y.long()[None])[0], total)
            parts.append((total + shared_term(weights, part.site, counts)).cpu())
    return torch.cat(parts)


def elbo_of_unlabelled(pair: ModelGuidePair, rows: Table | Batch) -> NDArray[np.float64]:
    """Returns eq. 7's bound on log p(x | a, c) of every row, ``(rows,)``, in nats; each row's own, no label looked at.

    m is 0 in a model that was never adapted, inferred for each row in scope row, and else at its posterior mean.

    Raises:
        DataError: the rows do not fit the graph.
    """
    bounds: NDArray[np.float64] = marginal(class_elbos(pair, rows)).double().numpy()
    return bounds


def class_elbos(pair: ModelGuidePair, rows: Table | Batch, *, samples: int = 16) -> Tensor:
    """Returns a lower bound on log p(x, y | a, c) of every class and row, ``(classes, rows)``, in nats.

    m is as in :func:`elbo_of_unlabelled`, which sums them over the classes.

    Args:
        rows: no label is looked at.
        samples: draws of the latents.

    Raises:
        DataError: the rows do not fit the graph.
    """
    batch = pair.encode(rows, target="ignore")
    given = do_at_means(pair, encode_do(pair, "auto"))
    parts = []
    with torch.no_grad(), fast(), common_noise(pair.settings.seed):
        for chosen in row_chunks(pair, batch, samples):
            part, do = batch.select(chosen), do_of_rows(pair, given, chosen)
            weights = log_weights(pair.model, pair.guide, part, do=do, samples=samples, classes=True)
            parts.append(mean_bound(weights).cpu())
    return torch.cat(parts, 1)
