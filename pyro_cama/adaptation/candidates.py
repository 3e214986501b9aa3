"""What is known of an optimised start, as a :class:`Candidate`: evidence, labels, proportions, recovery, theta."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_cama.adaptation.new_rows import NewRows
from pyro_cama.adaptation.objective import log_train
from pyro_cama.adaptation.options import AdaptOptions
from pyro_cama.adaptation.recovery import recovery_of
from pyro_cama.adaptation.result import Candidate, Theta
from pyro_cama.data.batch import Batch
from pyro_cama.handlers.distributions import draw, mean_of
from pyro_cama.inference.bounds import shared_mean
from pyro_cama.inference.class_posterior import class_log_posterior
from pyro_cama.inference.class_prior import imagined_rows, log_ratio_of, posterior_mode
from pyro_cama.inference.do import held_do
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.plates import joined

NUMBERS = 2**24  # of theta, held at once
ROWS = 50  # whose theta is kept, where each has its own


def mean_theta(pair: ModelGuidePair, batch: Batch, *, draws: int = 64) -> Theta:
    """Returns theta of every site; of these rows in the mean where each has its own.

    That mean is over draws of m as well, since q(m | x) may be broad.
    """
    manipulation = pair.manipulation
    with torch.no_grad(), pair.seeded():
        if pair.moves_by_row:
            m = _drawn(pair, batch, draws)
            at_a_time = max(1, NUMBERS // (batch.rows * max(manipulation.size, 1)))
            theta = torch.cat([manipulation(part).mean(1) for part in m.split(at_a_time)]).mean(0)
        else:
            theta = manipulation(shared_mean(pair.guide))
    return tuple(tuple(site) for site in torch.atleast_2d(theta[..., : manipulation.size]).tolist())


@torch.no_grad()
def thetas_of_rows(pair: ModelGuidePair, batch: Batch) -> Theta:
    """Returns theta of some rows, each at the mean of its own q(m | x); none where rows share m."""
    if not pair.moves_by_row:
        return ()
    rows, held = batch.evenly(ROWS), held_do(pair)
    posteriors = zip(pair.graph.manipulations, pair.guide.m_dists(rows, pair.moving), strict=True)
    means = {m.name: mean_of(q, "q(m | x)") for m, q in posteriors if q is not None}
    theta = pair.manipulation(joined(pair.graph.require_m(), held | means, rows.site))
    return tuple(map(tuple, theta[:, : pair.manipulation.size].tolist()))


def _drawn(pair: ModelGuidePair, batch: Batch, draws: int) -> Tensor:
    """m of every row, ``(draws, rows, dim)``, what does not move held."""
    posteriors = zip(pair.graph.manipulations, pair.guide.m_dists(batch, pair.moving), strict=True)
    drawn = {m.name: draw(q, (draws,)) for m, q in posteriors if q is not None}
    return joined(pair.graph.require_m(), held_do(pair) | drawn, batch.site)


def _penalty(pair: ModelGuidePair, sparsity: float) -> float:
    """Minus the log-prior of a shared theta; zero in scope row, where theta belongs to the rows."""
    if sparsity == 0 or pair.moves_by_row:
        return 0.0
    with torch.no_grad():
        theta = pair.manipulation.structured(shared_mean(pair.guide)) * pair.manipulation.of_latents(pair.moving)
    return sparsity * float(pair.manipulation.extent(theta / pair.manipulation.prior_scale()).sum())


def examine(
    pair: ModelGuidePair,
    start: str,
    new: Batch,
    counted: Batch,
    ratio: Tensor,
    options: AdaptOptions,
    *,
    do: dict[str, Tensor] | None,
    sparsity: float = 0.0,
) -> Candidate:
    """Estimates what candidates are compared by.

    Args:
        pair: as one start left it.
        start: the start's name.
        new: rows for evidence, labels and recovery.
        counted: rows for the class proportions, the first of which are those of ``new``.
        ratio: log of class proportions over the training ones, ``(classes,)``.
        options: how many draws to take.
        do: an intervention on m; None infers it.
        sparsity: strength of theta's prior; 0 leaves no penalty.
    """
    posterior = class_log_posterior(pair, counted, do, PredictionOptions(options.label_draws))
    recovery = recovery_of(pair, new, do, options)
    return _candidate(pair, start, new, posterior, ratio, recovery, options, do=do, sparsity=sparsity)


def unadapted(pair: ModelGuidePair, new: NewRows, options: AdaptOptions, do: dict[str, Tensor] | None) -> Candidate:
    """Estimates the same of the model as it is, the class mix alone being free to change.

    It has the freedom that every candidate has: else a change of the mix alone would be evidence of a manipulation.
    """
    posterior = class_log_posterior(pair, new.counted, do, PredictionOptions(options.label_draws))
    ratio = new.fixed
    if options.learns_proportions:
        train = torch.softmax(log_train(pair), 0).double()
        imagined = float(imagined_rows(torch.as_tensor(float(new.counted.rows)), new.ambiguity))
        ratio = log_ratio_of(posterior_mode(posterior.double(), train, imagined), train).to(new.fixed)
    return _candidate(pair, "before", new.compared, posterior, ratio, new.recovery, options, do=do)


def _candidate(
    pair: ModelGuidePair,
    start: str,
    new: Batch,
    posterior: Tensor,
    ratio: Tensor,
    recovery: float,
    options: AdaptOptions,
    *,
    do: dict[str, Tensor] | None,
    sparsity: float = 0.0,
) -> Candidate:
    """Puts together what is known; ``posterior`` is of the counted rows, under the training class proportions."""
    p = torch.softmax(posterior + ratio[:, None], 0)
    return Candidate(
        start=start,
        evidence=importance_evidence(pair, new, ratio, do=do),
        probabilities=p.cpu()[:, : new.rows],
        proportions=p.mean(1).cpu(),
        counted=posterior.shape[1],
        generated=options.recovery_rows,
        recovery=recovery,
        state=state_of(pair),
        penalty=_penalty(pair, sparsity) / new.rows,
        theta=mean_theta(pair, new),
    )


def state_of(pair: ModelGuidePair) -> dict[str, Tensor]:
    """Returns copies of what adaptation trains, by name."""
    return {name: parameter.detach().clone() for name, parameter in pair.manipulation_parameters().items()}
