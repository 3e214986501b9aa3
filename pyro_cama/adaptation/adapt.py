"""adapt: NN_pM and NN_qM follow a changed world without labels (eq. 8); the change is kept if it can be trusted.

The unlabelled objective has wrong optima: classes permuted, or children redrawn so that the class no longer matters.
So several starts are optimised and compared by evidence, the best one is compared with no adaptation on rows held out
from it, and has to pass :func:`pyro_cama.adaptation.guard.judge`; else the copy that comes back predicts as the
original did.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.adaptation.candidates import examine, mean_theta
from pyro_cama.adaptation.comparison import compare, winsorised
from pyro_cama.adaptation.guard import judge, proportion_tolerance, total_variation
from pyro_cama.adaptation.initialisation import SLEEP, initialise_start, keep_at_rest, set_theta
from pyro_cama.adaptation.new_rows import NewRows, split_folds
from pyro_cama.adaptation.objective import adaptation_loss, log_ratio
from pyro_cama.adaptation.options import AdaptOptions, ClassPrior, default_options
from pyro_cama.adaptation.result import Adaptation, Candidate, Theta
from pyro_cama.adaptation.wake_sleep import can_sleep, epochs_of
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.data.open_stream import DataSource
from pyro_cama.inference.do import encode_do
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.inference.world import remember_world
from pyro_cama.model.pair import ModelGuidePair, PairT
from pyro_cama.training.optimise import optimise
from pyro_cama.training.stages import Stage


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
    progress: bool = True,
    trainer_kwargs: dict[str, Any] | None = None,
) -> tuple[PairT, Adaptation]:
    """Adapts a copy of the model to new unlabelled rows.

    Maximises ``alpha * E_clean[ELBO] + (1 - alpha) * E_new[eq. 7]`` over NN_pM and NN_qM alone, with the tighter bound
    logsumexp_c (logsumexp_k w_k - log K) in the place of eq. 7, which is its case K = 1.  What is left out takes a
    default for tables, or the one in parentheses for graphs with images, where a step costs more and rows are many.

    Args:
        new_data: rows from the changed world; a target column in it is not looked at.  Of more than 20,000 a
            uniform sample of so many is taken, and of ``clean`` likewise: more than the steps can use.
        clean: the training rows, where they are at hand; None means alpha = 0.
        alpha: weight of the clean rows' joint ELBO (eq. 4), in scope row.  Their intervention ELBO (eq. 3) is constant
            in NN_pM and NN_qM, since every mechanism is the identity at m = 0; under a shared m clean rows are of
            another dataset than the new ones, so there they have no part.
        steps: gradient steps of every start: 100 (200).
        batch_size, lr: 256 and 3e-2 (32 and 2e-3).
        sparsity: strength of the Laplace prior on theta: a sensor that the rows do not ask to move stays put.  In scope
            row it holds the rows' own thetas to their mean, and the mean to zero.
        samples: draws of the latents per row and step, 4 (1); the bound is the importance-weighted one.
        restarts: starts tried, 3: at the training moments of the new rows, where the model is, and random ones.  (2: at
            the moments or where the model is, and after :func:`pyro_cama.adaptation.wake_sleep.sleep`; 1 for what
            cannot sleep.)
        folds: for the comparison with no adaptation the new rows are split in so many parts (of two rows at least),
            and each part's evidence comes from a model adapted to the others: 4.  With 1 (images), a fifth of the rows,
            500 at most, is kept from every adaptation and compared on.
        class_prior: "estimate" lets class proportions change, so that m need not absorb such a change.
        keep: "trusted" keeps the change only where :func:`pyro_cama.adaptation.guard.judge` accepts it.
        trainer_kwargs: passed to ``lightning.pytorch.Trainer``.

    Returns:
        An adapted copy, and what was decided about it.

    Raises:
        DataError: the rows do not fit the graph, or hold no reading that tells anything about m.
        ValueError: the graph has no manipulation latent, or an argument is out of range.
    """
    if pair.graph.m is None:
        raise ValueError("adapt: this graph has no manipulation latent (m is null), so nothing can adapt")
    defaults = default_options(
        pair, steps=steps, batch_size=batch_size, lr=lr, samples=samples, restarts=restarts, folds=folds
    )
    options = replace(defaults, alpha=alpha, sparsity=sparsity, class_prior=class_prior, keep=keep)
    base = pair.copy(pair.encoder_with_sites(new_data))
    new = NewRows.of(base, new_data, clean, options)
    with tqdm(total=_epochs(pair, new, options), disable=not progress, leave=False) as bar:
        run = Run(new, options, bar, trainer_kwargs)
        before = examine(base, "before", new.compared, new.counted, new.fixed, options, do=encode_do(base, "auto"))
        starts = range(options.restarts)
        candidates = [optimised_candidate(base, run, k, f"start {k + 1} of {len(starts)}") for k in starts]
        winner = max(starts, key=lambda k: float(candidates[k].evidence.mean()))
        best = candidates[winner]
        held_out, replicates = cross_fit(base, run, winner, best)
        anchored = anchored_candidate(base, run, best)
    verdict = judge(before, best, candidates, held_out, new.expected, anchored, nearer=not options.proves_proportions)
    adapted, applied = base.copy(), verdict[0] or keep == "always"
    if applied:
        adapted.modules.load_state_dict(best.state)
        adapted.m_trained = True
        keep_at_rest(adapted, base, new.batch)
        remember_world(adapted, new.batch)
    return adapted, _record(verdict, before, best, held_out, replicates, applied, new, new.sites(base))


class Run(NamedTuple):
    """What the optimisations of one adaptation have in common: rows, options, progress bar, Lightning's arguments."""

    new: NewRows
    options: AdaptOptions
    bar: tqdm[Any]
    trainer_kwargs: dict[str, Any] | None


def run_start(
    pair: PairT, run: Run, k: int | None, rows: Tensor, title: str, *, learns_proportions: bool
) -> tuple[PairT, str, Tensor]:
    """Optimises a copy of the model from one start.

    Args:
        pair: the unadapted model.
        k: the start's number, see :func:`pyro_cama.adaptation.initialisation.initialise_start`; None is no
            manipulation.
        rows: numbers of the new rows to adapt to.
        title: for the progress bar.
        learns_proportions: lets class proportions change with NN_pM and NN_qM.

    Returns:
        The adapted copy, the start's name, and log of the class proportions over the training ones, ``(classes,)``.
    """
    new, options, bar, trainer_kwargs = run
    twin, part, seed = pair.copy(), new.batch.select(rows.to(pair.device)), pair.settings.seed + (k or 0)
    with twin.seeded(seed), twin.manipulation.calibrated():
        moving = list(twin.manipulation_parameters().values())
        twin.modules.requires_grad_(False)
        for parameter in moving:
            parameter.requires_grad_(True)
        if k is None:
            start = "identity"
            set_theta(twin, part, torch.zeros(twin.model.sites, twin.manipulation.size))
        else:
            start = initialise_start(
                twin, part, new.clean, k, options.steps, progress=bar, trainer_kwargs=trainer_kwargs
            )
        free = nn.Parameter(torch.zeros_like(new.fixed))
        loss = adaptation_loss(twin, part, new.clean, options.alpha, options.samples, options.sparsity, new.fixed, free)
        with suppress(FloatingPointError):  # a start that diverges counts as it began
            optimise(
                [Stage(loss, options.epochs, options.lr, title=f"adapt, {title} ({start})")],
                twin.modules,
                [*moving, *([free] if learns_proportions else [])],
                Shuffled(part.rows, row_selector(part), options.batch_size, seed, steps=10),
                anneal=True,
                seed=seed,
                progress=bar,
                per_step=twin.minibatches_per_step,
                trainer_kwargs=trainer_kwargs,
            )
    return twin, start, log_ratio(twin, new.fixed, free.detach())


def optimised_candidate(pair: ModelGuidePair, run: Run, k: int | None, title: str) -> Candidate:
    """Optimises one start on the rows that are not held out, and examines it; class proportions held for k None."""
    new, options, *_ = run
    learns_proportions = options.learns_proportions and k is not None
    twin, start, ratio = run_start(pair, run, k, new.adapted_to, title, learns_proportions=learns_proportions)
    return examine(twin, start, new.compared, new.counted, ratio, options, do=None, sparsity=options.sparsity)


def cross_fit(pair: ModelGuidePair, run: Run, k: int, best: Candidate) -> tuple[Tensor, tuple[Theta, ...]]:
    """Estimates the evidence of rows that the adaptation has not seen.

    With folds, that of every row from the k-th start optimised on the other folds; with one, ``best``'s own, whose
    rows were held out from the first.

    Returns:
        The evidence, ``(rows,)``, NaN where there are too few rows to hold any out, and theta of every fold.
    """
    new, options, *_ = run
    if new.too_few:
        return torch.full_like(best.evidence, math.nan), ()
    if new.folds == 1:
        return best.evidence.clone(), ()
    evidence, thetas = torch.empty_like(best.evidence), []
    parts = split_folds(new.batch.rows, new.folds, pair.settings.seed)
    for i, part in enumerate(parts):
        rest = torch.cat([p for p in parts if p is not part])
        title = f"fold {i + 1} of {len(parts)}"
        twin, _, ratio = run_start(pair, run, k, rest, title, learns_proportions=options.learns_proportions)
        evidence[part] = importance_evidence(twin, new.batch.select(part.to(pair.device)), ratio, do=None)
        thetas.append(mean_theta(twin, new.batch.select(rest.to(pair.device))))
    return evidence, tuple(thetas)


def anchored_candidate(pair: ModelGuidePair, run: Run, best: Candidate) -> Candidate | None:
    """Optimises from no manipulation, the class proportions held at the expected ones, for the guard to compare.

    None where it need not: proportions are as expected, cannot change, or evidence cannot prove them.
    """
    new, options, *_ = run
    unexpected = total_variation(best.proportions, new.expected) > proportion_tolerance(new.counted.rows)
    if not (options.learns_proportions and options.proves_proportions and unexpected):
        return None
    return optimised_candidate(pair, run, None, "class proportions held")


def _epochs(pair: ModelGuidePair, new: NewRows, options: AdaptOptions) -> int:
    """How many epochs the starts and folds take, those asleep among them: the length of the progress bar."""
    asleep = sum(epochs_of(options.steps)) if can_sleep(pair) and options.restarts > SLEEP else 0
    folds = 0 if new.folds == 1 or new.too_few else new.folds
    return asleep + (options.restarts + folds) * options.epochs


def _record(
    verdict: tuple[bool, str, float],
    before: Candidate,
    best: Candidate,
    held_out: Tensor,
    replicates: tuple[Theta, ...],
    applied: bool,
    new: NewRows,
    sites: tuple[Any, ...],
) -> Adaptation:
    accepted, reason, agreement = verdict
    return Adaptation(
        accepted=accepted,
        reason=reason,
        evidence_before=float(winsorised(before.evidence).mean()),
        evidence_after=float(winsorised(held_out).mean()),
        gain_se=compare(held_out, before.evidence)[1],
        proportions_before=tuple(before.proportions.tolist()),
        proportions_after=tuple(best.proportions.tolist()),
        agreement=agreement,
        recovery=best.recovery,
        recovery_before=before.recovery,
        start=best.start,
        rows=new.batch.rows,
        class_prior=tuple((best.proportions if applied else new.expected).tolist()),
        applied=applied,
        theta=best.theta,
        replicates=replicates,
        sites=sites,
    )
