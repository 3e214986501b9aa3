"""TODO adaptation.candidates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_cama.adaptation.options import AdaptOptions
from pyro_cama.adaptation.result import Candidate
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.contexts import fast
from pyro_cama.inference.bounds import shared_mean
from pyro_cama.inference.class_posterior import class_log_posterior
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.inference.generation import ancestral_sample
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair


def mean_theta(pair: ModelGuidePair, batch: Batch, *, draws: int = 64) -> tuple[tuple[float, ...], ...]:
    """theta of every site; of these rows in the mean where each has its own, over draws: q(m | x) may be broad."""
    assert pair.graph.m is not None
    manipulation = pair.manipulation
    with torch.no_grad(), pair.seeded():
        if pair.graph.m.scope == "row":
            theta = manipulation(pair.guide.m_dist(batch).sample((draws,))).mean((0, 1))
        else:
            theta = manipulation(shared_mean(pair.guide))
    return tuple(tuple(site) for site in torch.atleast_2d(theta[..., : manipulation.size]).tolist())


def _penalty(pair: ModelGuidePair, sparsity: float) -> float:
    """Minus the log-prior of a shared theta; zero in scope row, where theta belongs to the rows."""
    assert pair.graph.m is not None
    if sparsity == 0 or pair.graph.m.scope == "row":
        return 0.0
    with torch.no_grad():
        theta = pair.manipulation(shared_mean(pair.guide))[..., : pair.manipulation.size]
    return sparsity * float((theta.abs() / pair.manipulation.prior_scale()).sum())


def examine(
    pair: ModelGuidePair,
    start: str,
    new: Batch,
    counted: Batch,
    ratio: Tensor,
    use: AdaptOptions,
    *,
    do: Any,
    sparsity: float = 0.0,
) -> Candidate:
    """Evidence and labels of the new rows, proportions of ``counted``, whose first rows they are, and recovery."""
    log_p = torch.log_softmax(
        class_log_posterior(pair, counted, do, PredictionOptions(use.label_draws)) + ratio[:, None], 0
    )
    return Candidate(
        start=start,
        evidence=importance_evidence(pair, new, ratio, do=do),
        labels=log_p.argmax(0).cpu()[: new.rows],
        proportions=log_p.exp().mean(1).cpu(),
        counted=counted.rows,
        generated=use.recovery_rows,
        recovery=_recovery(pair, new, do, rows=use.recovery_rows, samples=use.recovery_draws),
        state={k: v.clone() for k, v in pair.modules.state_dict().items()},
        penalty=_penalty(pair, sparsity) / new.rows,
        theta=mean_theta(pair, new),
    )


def _recovery(pair: ModelGuidePair, new: Batch, do: Any, *, rows: int, samples: int) -> float:
    """How often the class of rows the model draws itself, under the manipulations it infers, is recognised.

    Images are drawn in black and white and in greys, and the more recognised ones count: with a small offset most of a
    draw is noise, and where the new images are noisy, smooth greys are what NN_qM has not seen.
    """
    m = pair.graph.m
    assert m is not None
    found = []
    for greys in (False, True) if pair.model.has_images else (False,):
        with torch.no_grad(), fast(), pair.seeded():
            like = new.select(torch.randint(new.rows, (rows,), device=pair.device))
            value = do[m.name] if do is not None else pair.guide.m_dist(like).sample()
            batch = ancestral_sample(pair, {m.name: value}, rows, like.site, greys=greys)
        y = batch.values.pop(pair.graph.target)
        found.append(
            float(
                (class_log_posterior(pair, batch, do, PredictionOptions(samples, 2)).argmax(0) == y.long())
                .float()
                .mean()
            )
        )
    return max(found)
