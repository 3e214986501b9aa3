"""adapt: NN_pM and NN_qM follow a changed world without labels (eq. 8); the change is kept if it can be trusted.

The unlabelled objective has wrong optima: classes permuted, or children redrawn so that the class no longer matters.
So several starts are optimised and compared by evidence, the best one is compared with no adaptation on rows held out
from it, and has to pass :func:`pyro_cama.adaptation.guard.judge`; else the copy that comes back predicts as the
original did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pyro_cama._messages import listed
from pyro_cama.adaptation.candidates import state_of, thetas_of_rows, unadapted
from pyro_cama.adaptation.class_mix import mix_alone_explains
from pyro_cama.adaptation.drawn import Drawn
from pyro_cama.adaptation.exchanged_columns import exchange_text, exchanged_columns, log_slope, put_right
from pyro_cama.adaptation.expected_accuracy import ADAPTED, NOT_ADAPTED
from pyro_cama.adaptation.guard import insists, judge, proportion_tolerance, total_variation
from pyro_cama.adaptation.initialisation import keep_at_rest
from pyro_cama.adaptation.new_rows import NewRows
from pyro_cama.adaptation.options import AdaptOptions, default_options, moving_together
from pyro_cama.adaptation.result import Adaptation, Candidate, CrossFit, Modes, Theta
from pyro_cama.adaptation.solved import Solved, can_solve
from pyro_cama.adaptation.start import EXPLAINS
from pyro_cama.data.open_stream import DataSource
from pyro_cama.inference.class_prior import ClassPrior
from pyro_cama.inference.comparison import compare, winsorised
from pyro_cama.inference.do import encode_do
from pyro_cama.inference.world import remember_world
from pyro_cama.model.pair import ModelGuidePair, PairT

MIX_ALONE = "a change of the class mix alone explains the readings (pass class_prior='estimate' to predict)"
AS_IN_TRAINING = "each column is distributed as in training, and adapting explains the rows little better"
LOST = 1.0  # nats a row less than usual, from which columns that look as in training need an explanation all the same
EXCHANGE_ALONE = "an exchange of columns alone explains the readings: {} (put them right, and predict without adapting)"


def adapt(
    pair: PairT,
    new_data: DataSource,
    clean: DataSource | None = None,
    *,
    alpha: float = 0.5,
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    samples: int | None = None,
    sparsity: float = 1.0,
    restarts: int | None = None,
    folds: int | None = None,
    class_prior: ClassPrior = "estimate",
    keep: Literal["trusted", "always"] = "trusted",
    only: Sequence[str] | None = None,
    progress: bool = True,
    trainer_kwargs: dict[str, Any] | None = None,
) -> tuple[PairT, Adaptation]:
    """Adapts a copy of the model to new unlabelled rows.

    Maximises ``alpha * E_clean[ELBO] + (1 - alpha) * E_new[eq. 7]`` over NN_pM and NN_qM alone, with the tighter bound
    logsumexp_c (logsumexp_k w_k - log K) in the place of eq. 7, which is its case K = 1.  What is left out takes a
    default for tables, or the one in parentheses for graphs with images, where a step costs more and rows are many.

    Where a linear style is summed out and rows share m, eq. 7 is exact: theta itself is solved for, all starts and
    folds side by side, without draws (:mod:`pyro_cama.adaptation.solved`); ``steps`` is then the most that one takes,
    and ``batch_size``, ``lr``, ``samples`` and ``trainer_kwargs`` have no part.

    Args:
        new_data: rows from the changed world; a target column in it is not looked at.  Of more than 20,000 a
            uniform sample of so many is taken, and of ``clean`` likewise: more than the steps can use.
        clean: the training rows, where they are at hand; None means alpha = 0.
        alpha: weight of the clean rows' joint ELBO (eq. 4), in scope row.  Their intervention ELBO (eq. 3) is constant
            in NN_pM and NN_qM, since every mechanism is the identity at m = 0; under a shared m clean rows are of
            another dataset than the new ones, so there they have no part.
        steps: gradient steps of every start: 100 (200).
        batch_size, lr: 256 and 3e-2 (32 and 2e-3, of which a start that explains the rows well takes a tenth).
        sparsity: strength of the Laplace prior on theta: a sensor that the rows do not ask to move stays put.  In scope
            row it holds the rows' own thetas to their mean, and the mean to zero.
        samples: draws of the latents per row and step, 4 (1); the bound is the importance-weighted one.
        restarts: starts tried, 3: at the training moments of the new rows, where the model is, and random ones
            (where theta is solved for, the third moves what no mix of the classes explains).  (2: at
            the moments or where the model is, and after :func:`pyro_cama.adaptation.wake_sleep.sleep`; of a sum of
            mechanisms 3: after a sleep in which one part of it moves alone; 1 for what cannot sleep.  Where the best
            of them restores half of the evidence that the new rows lost beside clean ones, it alone takes steps.)
        folds: for the comparison with no adaptation the new rows are split in so many parts (of two rows at least),
            and each part's evidence comes from a model adapted to the others: 4.  With 1 (images), a fifth of the rows,
            500 at most, is kept from every adaptation and compared on.
        class_prior: "estimate" lets class proportions change, so that m need not absorb such a change.
        keep: "trusted" keeps the change only where :func:`pyro_cama.adaptation.guard.judge` accepts it.
        only: names of the manipulations that move; the others stay as they are.  All that move are shared by rows, or
            all are every row's own; :meth:`pyro_cama.CAMA.adapt` moves the one kind after the other.
        trainer_kwargs: passed to ``lightning.pytorch.Trainer``.

    Returns:
        An adapted copy, and what was decided about it.  Of images over which something lies in most of the new rows
        (:class:`pyro_cama.mechanisms.Overlay`) the copy takes hidden pixels for unknown, whatever became of m.

    Raises:
        DataError: the rows do not fit the graph, or hold no reading that tells anything about m.
        ValueError: the graph has no manipulation latent, or an argument is out of range.
    """
    moving = moving_together(pair.graph, only)
    if len(moving) > 1:
        kinds = "; then ".join(map(listed, moving))
        raise ValueError(f"adapt(only=...): found manipulations of different kinds of scope; expected first {kinds}")
    base = pair.copy(pair.encoder_with_sites(new_data))
    base.moving, base.overlaid = moving[0], frozenset()
    defaults = default_options(
        base, steps=steps, batch_size=batch_size, lr=lr, samples=samples, restarts=restarts, folds=folds
    )
    options = replace(defaults, alpha=alpha, sparsity=sparsity, class_prior=class_prior, keep=keep)
    new = NewRows.of(base, new_data, clean, options)
    base.overlaid = new.overlaid
    search = _search(base, new, options, progress, trainer_kwargs)
    with search.bar:
        before = unadapted(base, new, options, encode_do(base, "auto"))
        same = new.overlaid == pair.overlaid
        original = before if same else unadapted(base, new.seen_by(pair), options, encode_do(base, "auto"))
        best, candidates, fit, insisted = _found(search, new, options)
        unmoved, exchanged = "", dict[str, str]()
        if base.trained.isdisjoint(base.moving):  # an adapted model has left the training rows' moments behind
            if mix_alone_explains(base, new.batch, other_than=new.expected):
                unmoved = MIX_ALONE
            elif best.start != "alternatives" and mix_alone_explains(base, new.batch):
                unmoved = "" if _restores(base, before, fit) else AS_IN_TRAINING
            elif exchanged := _exchanged(base, new, fit, options, trainer_kwargs):
                unmoved = EXCHANGE_ALONE.format(exchange_text(exchanged))
    insisted = insisted and options.proves_proportions
    verdict = judge(before, best, candidates, fit, new.expected, insisted=insisted, unmoved=unmoved, agree=search.agree)
    modes = search.modes(best, candidates, before, fit)
    adapted, applied = base.copy(), verdict[0] or keep == "always"
    of_rows: Theta = ()
    if applied:
        adapted.load_manipulation(best.state)
        adapted.trained |= {*base.moving}
        keep_at_rest(adapted, base, new.batch)
        remember_world(adapted, new.batch)
        of_rows = thetas_of_rows(adapted, new.batch)
    adapted.moving = pair.moving
    if applied:
        here = state_of(adapted)
        others = () if {*base.moving} == {*pair.moving} else base.modes  # of what has not moved
        own = [dict(mode.state) for mode in modes.averaged[1:]]
        adapted.modes = (*(here | state for state in own), *({**mode, **best.state} for mode in others))
    mixed = before.proportions if unmoved and not exchanged else new.expected
    kept = best.proportions if applied else mixed
    return adapted, _record(verdict, before, original, modes, fit, applied, new, base, kept, of_rows)


class _Found(NamedTuple):
    """What a search has found: the best start and all, the rows under it, and whether they insist on its class mix."""

    best: Candidate
    candidates: list[Candidate]
    fit: CrossFit
    insisted: bool


def _search(
    base: ModelGuidePair, new: NewRows, options: AdaptOptions, progress: bool, trainer_kwargs: dict[str, Any] | None
) -> Solved | Drawn:
    if can_solve(base, new.batch):
        return Solved(base, new, options, progress)
    return Drawn(base, new, options, progress, trainer_kwargs)


def _found(search: Solved | Drawn, new: NewRows, options: AdaptOptions) -> _Found:
    """Optimises the starts, and the best anew for its comparison with no adaptation."""
    candidates = search.starts()
    highest = _highest(candidates, search)
    winner: int | None = highest
    best, insisted = candidates[highest], True
    if _unexpected(best, new, options):
        anchored = search.anchored()
        insisted = insists(best, anchored)
        if not insisted:
            best, winner, candidates = anchored, None, [anchored]
    best = search.examined(best)
    return _Found(best, candidates, _cross_fit(search, new, winner, best), insisted)


def _restores(base: ModelGuidePair, before: Candidate, fit: CrossFit) -> bool:
    """Whether rows are less likely than usual, and adapting restores half: what moved lies between the columns."""
    worse, now = (float(winsorised(evidence).mean()) for evidence in (before.evidence, fit.evidence))
    lost = base.usual_evidence - worse
    return lost > LOST and now - worse >= EXPLAINS * lost


def _exchanged(
    base: ModelGuidePair, new: NewRows, fit: CrossFit, options: AdaptOptions, trainer_kwargs: dict[str, Any] | None
) -> dict[str, str]:
    """Returns whose readings stand under each name, where rows put right are explained as well as they are as they are.

    Args:
        fit: the rows as they are, adapted to.
    """
    exchanged = exchanged_columns(base, new.batch)
    if not exchanged:
        return {}
    righted = put_right(base, new, exchanged)
    other = _found(_search(base, righted, options, False, trainer_kwargs), righted, options).fit
    gain, se = compare(
        *(
            found.evidence + log_slope(base, rows.batch if new.folds > 1 else rows.compared, exchanged)
            for found, rows in ((other, righted), (fit, new))
        )
    )
    return exchanged if gain > -se else {}


def _highest(candidates: list[Candidate], search: Solved | Drawn) -> int:
    """Returns which start has the highest evidence, or comes within ``slack`` of it and is preferred."""
    evidence = [float(candidate.evidence.mean()) - candidate.penalty for candidate in candidates]
    highest = max(evidence, key=lambda mean: -math.inf if math.isnan(mean) else mean)
    near = [k for k, mean in enumerate(evidence) if mean >= highest - search.slack] or [0]
    rank = {name: place for place, name in enumerate(search.preferred)}
    return min(near, key=lambda k: rank.get(candidates[k].start, len(rank)))


def _cross_fit(search: Solved | Drawn, new: NewRows, winner: int | None, best: Candidate) -> CrossFit:
    """Estimates what the new rows are under an adaptation that has not seen them.

    With folds, from the winning start optimised on the other folds; with one, it is what ``best`` says, whose rows were
    held out from the first; NaN where there are too few rows to hold any out.
    """
    if new.too_few:
        return CrossFit(torch.full_like(best.evidence, math.nan), best.labels, ())
    if new.folds == 1:
        return CrossFit(best.evidence.clone(), best.labels, ())
    return search.cross_fit(winner)


def _unexpected(best: Candidate, new: NewRows, options: AdaptOptions) -> bool:
    """Whether class proportions need a proof that evidence can give: they are free, and far from the expected ones."""
    far = total_variation(best.proportions, new.expected) > proportion_tolerance(new.counted.rows)
    return options.learns_proportions and options.proves_proportions and far


def _record(
    verdict: tuple[bool, str, float],
    before: Candidate,
    original: Candidate,
    modes: Modes,
    fit: CrossFit,
    applied: bool,
    new: NewRows,
    base: PairT,
    class_prior: Tensor,
    of_rows: Theta,
) -> Adaptation:
    (accepted, reason, agreement), best = verdict, modes.starts[0]
    return Adaptation(
        accepted=accepted,
        reason=reason,
        evidence_before=float(winsorised(before.evidence).mean()),
        evidence_after=float(winsorised(fit.evidence).mean()),
        gain_se=compare(fit.evidence, before.evidence)[1],
        proportions_before=tuple(before.proportions.tolist()),
        proportions_after=tuple(best.proportions.tolist()),
        agreement=agreement,
        recovery=best.recovery,
        recovery_before=before.recovery,
        start=best.start,
        rows=new.batch.rows,
        class_prior=tuple(class_prior.tolist()),
        applied=applied,
        accuracy_before=NOT_ADAPTED.of(modes.sureness(original.labels)),
        accuracy_after=ADAPTED.of(modes.sureness(modes.labels)),
        theta=best.theta,
        replicates=fit.replicates,
        of_rows=of_rows,
        manipulations=base.moving,
        sites=new.sites(base),
        unread=new.unread(base),
        overlaid=tuple(sorted(new.overlaid)),
    )
