"""adapt: NN_pM and NN_qM follow a changed world without labels (eq. 8); the change is kept if it can be trusted.

The unlabelled objective has wrong optima: classes permuted, or children redrawn so that the class no longer matters.
So several starts are optimised and compared by evidence, the best one is compared with no adaptation on rows held out
from it, and has to pass :func:`pyro_cama.adaptation.guard.judge`; else the copy that comes back predicts as the original did.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama._arguments import expect, expect_whole, number
from pyro_cama.adaptation.candidates import examine, mean_theta
from pyro_cama.adaptation.comparison import compare, winsorised
from pyro_cama.adaptation.guard import judge, proportion_tolerance, total_variation
from pyro_cama.adaptation.initialisation import SLEEP, initialise_start, set_theta
from pyro_cama.adaptation.new_rows import expect_readings, fixed_log_ratio, hold_out, pair_with_sites, split_folds
from pyro_cama.adaptation.objective import adaptation_loss, log_ratio, log_train
from pyro_cama.adaptation.options import IMAGES, TABLES
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.adaptation.wake_sleep import can_sleep, epochs_of
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.data.open_stream import DataSource
from pyro_cama.inference.do import encode_do
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.model.pair import PairT
from pyro_cama.training.optimise import optimise
from pyro_cama.training.stages import Stage

COUNTED = 500  # rows whose classes are counted where few are held out


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
    class_prior: Literal["train", "estimate"] | NDArray[np.float64] = "estimate",
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
            the moments or where the model is, and after :func:`pyro_cama.adaptation.wake_sleep.sleep`; 1 for what cannot sleep.)
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
    m = pair.graph.m
    if m is None:
        raise ValueError("adapt: this graph has no manipulation latent (m is null), so nothing can adapt")
    able = can_sleep(pair)
    given: dict[str, Any] = {
        "steps": steps, "batch_size": batch_size, "lr": lr, "samples": samples, "folds": folds,
        "restarts": 2 if able and restarts is None else restarts,
    }  # fmt: skip
    usual = IMAGES if pair.model.has_images else TABLES
    use = replace(usual, **{name: value for name, value in given.items() if value is not None})
    expect("adapt", "alpha", alpha, number(alpha) and 0 <= alpha <= 1, "a number from 0 to 1")
    for name in ("steps", "batch_size", "samples", "restarts", "folds"):
        expect_whole("adapt", name, getattr(use, name))
    expect("adapt", "lr", use.lr, number(use.lr) and use.lr > 0, "a finite number above 0")
    expect("adapt", "sparsity", sparsity, number(sparsity) and sparsity >= 0, "a finite number of at least 0")
    expect("adapt", "keep", keep, keep in ("trusted", "always"), "'trusted' or 'always'")
    base = pair_with_sites(pair, new_data)
    new = base.read(new_data, "ignore", sampled=True)
    use = replace(use, folds=min(use.folds, max(TABLES.folds, new.rows // 2)))
    expect_readings(base, new)
    kept = None if clean is None else base.read(clean, "require", sampled=True)
    fixed = fixed_log_ratio(base, class_prior)
    expected = torch.softmax(log_train(base) + fixed, 0)
    learns_prior = isinstance(class_prior, str) and class_prior == "estimate"

    def run(k: int | None, rows: Tensor, title: str, learns_prior: bool) -> tuple[PairT, str, Tensor]:
        """The k-th start (None: no manipulation), optimised: the copy, the start's name, log of the prior's ratio."""
        twin = base.copy()
        part = new.select(rows)
        with twin.seeded(pair.settings.seed + (k or 0)), twin.manipulation.calibrated():
            moving = twin.manipulation_parameters().values()
            twin.modules.requires_grad_(False)
            for parameter in moving:
                parameter.requires_grad_(True)
            if k is None:
                start = "identity"
                set_theta(twin, part, torch.zeros(twin.model.sites, twin.manipulation.size))
            else:
                start = initialise_start(twin, part, kept, k, use.steps, progress=bar, trainer_kwargs=trainer_kwargs)
            free = nn.Parameter(torch.zeros_like(fixed))
            loss = adaptation_loss(twin, part, kept, alpha, use.samples, sparsity, fixed, free)
            began = {name: value.clone() for name, value in twin.modules.state_dict().items()}
            try:
                seed = pair.settings.seed + (k or 0)
                optimise(
                    [Stage(loss, max(1, use.steps // 10), use.lr, title=f"adapt, {title} ({start})")], twin.modules,
                    [*moving, *([free] if learns_prior else [])],
                    Shuffled(part.rows, row_selector(part), use.batch_size, seed, steps=10), anneal=True, seed=seed,
                    progress=bar, per_step=twin.minibatches_per_step, trainer_kwargs=trainer_kwargs,
                )  # fmt: skip
            except FloatingPointError:  # a start that diverges counts as it began
                twin.modules.load_state_dict(began)
                free.data.zero_()
        return twin, start, log_ratio(twin, fixed, free.detach())

    rows, held = hold_out(new.rows, use.folds, pair.settings.seed)
    seen = new.select(held.to(base.device))  # what candidates are compared on
    # a handful of held-out rows may well lack a class: others help to count
    more = torch.cat([held, rows])[: max(COUNTED, len(held))]
    counted = new.select(more.to(base.device)) if len(held) < new.rows else seen
    asleep = sum(epochs_of(use.steps)) if able and use.restarts > SLEEP else 0
    total = asleep + (use.restarts + use.folds * (use.folds > 1)) * max(1, use.steps // 10)
    bar = tqdm(total=total, disable=not progress, leave=False)
    before = examine(base, "before", seen, counted, fixed, use, do=encode_do(base, "auto"))
    candidates = []
    for k in range(use.restarts):
        twin, start, ratio = run(k, rows.to(base.device), f"start {k + 1} of {use.restarts}", learns_prior)
        candidates.append(examine(twin, start, seen, counted, ratio, use, do=None, sparsity=sparsity))
    winner = max(range(use.restarts), key=lambda k: float(candidates[k].evidence.mean()))
    best = candidates[winner]
    replicates = []
    if use.folds == 1:
        held_out = best.evidence.clone()
        parts = []
    else:
        held_out = torch.empty_like(before.evidence)
        parts = split_folds(new.rows, use.folds, pair.settings.seed)
    for i, part in enumerate(parts):
        rest = torch.cat([p for p in parts if p is not part]) if len(parts) > 1 else part
        twin, _, ratio = run(winner, rest.to(base.device), f"fold {i + 1} of {len(parts)}", learns_prior)
        held_out[part] = importance_evidence(twin, new.select(part.to(base.device)), ratio, do=None)
        replicates.append(mean_theta(twin, new.select(rest.to(base.device))))
    if len(parts) == 1 or new.rows < 2 * max(use.folds, 2):
        held_out.fill_(math.nan)  # nothing was held out, so nothing is known
    anchored = None
    far = total_variation(best.proportions, expected) > proportion_tolerance(counted.rows)
    if learns_prior and use.insists and far:
        twin, start, ratio = run(None, rows.to(base.device), "class proportions held", False)
        anchored = examine(twin, start, seen, counted, ratio, use, do=None, sparsity=sparsity)
    bar.close()
    accepted, reason, agreement = judge(before, best, candidates, held_out, expected, anchored, nearer=not use.insists)
    twin = base.copy()
    applied = accepted or keep == "always"
    if applied:
        twin.modules.load_state_dict(best.state)
        twin.m_trained = True
    else:
        twin.m_trained = base.m_trained
    adaptation = Adaptation(
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
        rows=new.rows,
        class_prior=tuple(best.proportions.tolist()),
        applied=applied,
        theta=best.theta,
        replicates=tuple(replicates) if len(parts) > 1 else (),
        sites=() if new.site is None else tuple(base.encoder.sites[i] for i in new.site.unique().tolist() if i >= 0),
    )
    return twin, adaptation
