"""adapt: NN_pM and NN_qM follow a changed world without labels (eq. 8); the change is kept if it can be trusted.

The unlabelled objective has wrong optima: classes permuted, or children redrawn so that the class no longer matters.
So several starts are optimised and compared by evidence, the best one is compared with no adaptation on rows held out
from it, and has to pass :func:`pyro_cama.judge.judge`; else the copy that comes back predicts as the original did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.budget import Budget
from pyro_cama.data import Batch
from pyro_cama.elbo import shared_mean
from pyro_cama.engine import Stage, fast, optimise
from pyro_cama.errors import DataError, expect, number, whole
from pyro_cama.evidence import compare, evidence_of, winsorised
from pyro_cama.fitting import Data, encoded, per_step
from pyro_cama.judge import Adaptation, Candidate, judge, plausible, total_variation
from pyro_cama.minibatches import Shuffled, rows_of
from pyro_cama.objective import adaptation_loss, log_ratio, log_train
from pyro_cama.schema import listed
from pyro_cama.sleep import epochs_of, imagined, sleeps
from pyro_cama.starts import SLEEP, begin, initialise
from pyro_cama.streams import open_stream, with_sites
from pyro_cama.training import manipulation_of

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA


@dataclass(frozen=True)
class Defaults:
    """What adapting takes where the user does not say, and what comparing candidates costs.

    Attributes:
        steps, batch_size, lr, samples, restarts, folds: see :func:`adapt`.
        label_draws: of the latents, for the labels of a candidate.
        recovery_rows, recovery_draws: generated for a candidate's recovery, and draws that read them.
        insists: whether evidence can prove class proportions far from those expected: the likelihood of an image is too
            far from the truth for that.
    """

    steps: int = 100
    batch_size: int = 256
    lr: float = 3e-2
    samples: int = 4
    restarts: int = 3
    folds: int = 4
    label_draws: int = 16
    recovery_rows: int = 500
    recovery_draws: int = 8
    insists: bool = True


TABLES = Defaults()
IMAGES = Defaults(  # an image costs more, and says more
    steps=200, batch_size=32, lr=2e-3, samples=1, restarts=1, folds=1,
    label_draws=4, recovery_rows=300, recovery_draws=4, insists=False,
)  # fmt: skip
COUNTED = 500  # rows whose classes are counted where few are held out


def adapt(
    cama: CAMA,
    new_data: Data,
    clean: Data | None = None,
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
) -> CAMA:
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
            the moments or where the model is, and after :func:`pyro_cama.sleep.sleep`; 1 for what cannot sleep.)
        folds: for the comparison with no adaptation the new rows are split in so many parts (of two rows at least),
            and each part's evidence comes from a model adapted to the others: 4.  With 1 (images), a fifth of the rows,
            500 at most, is kept from every adaptation and compared on.
        class_prior: "estimate" lets class proportions change, so that m need not absorb such a change.
        keep: "trusted" keeps the change only where :func:`pyro_cama.judge.judge` accepts it.
        trainer_kwargs: passed to ``lightning.pytorch.Trainer``.

    Returns:
        An adapted copy; its ``adaptation`` tells what was decided.

    Raises:
        DataError: the rows do not fit the graph, or hold no reading that tells anything about m.
        ValueError: the graph has no manipulation latent, or an argument is out of range.
    """
    m = cama.graph.m
    if m is None:
        raise ValueError("adapt: this graph has no manipulation latent (m is null), so nothing can adapt")
    able = sleeps(cama)
    given: dict[str, Any] = {
        "steps": steps, "batch_size": batch_size, "lr": lr, "samples": samples, "folds": folds,
        "restarts": 2 if able and restarts is None else restarts,
    }  # fmt: skip
    usual = IMAGES if cama.model.has_images else TABLES
    use = replace(usual, **{name: value for name, value in given.items() if value is not None})
    expect("adapt", "alpha", alpha, number(alpha) and 0 <= alpha <= 1, "a number from 0 to 1")
    for name in ("steps", "batch_size", "samples", "restarts", "folds"):
        expect("adapt", name, getattr(use, name), whole(getattr(use, name), 1), "a whole number of at least 1")
    expect("adapt", "lr", use.lr, number(use.lr) and use.lr > 0, "a finite number above 0")
    expect("adapt", "sparsity", sparsity, number(sparsity) and sparsity >= 0, "a finite number of at least 0")
    expect("adapt", "keep", keep, keep in ("trusted", "always"), "'trusted' or 'always'")
    base = _with_sites(cama, new_data)
    new = encoded(base, new_data, "ignore", sampled=True)
    use = replace(use, folds=min(use.folds, max(TABLES.folds, new.rows // 2)))
    _expect_readings(base, new)
    kept = None if clean is None else encoded(base, clean, "require", sampled=True)
    fixed = _fixed_ratio(base, class_prior)
    expected = torch.softmax(log_train(base) + fixed, 0)
    learns_prior = isinstance(class_prior, str) and class_prior == "estimate"

    def run(k: int | None, rows: Tensor, title: str, learns_prior: bool) -> tuple[CAMA, str, Tensor]:
        """The k-th start (None: no manipulation), optimised: the copy, the start's name, log of the prior's ratio."""
        twin = base.copy()
        part = new.select(rows)
        with twin._seeded(cama.settings.seed + (k or 0)), manipulation_of(twin.model).calibrated():
            moving = twin.manipulation_parameters().values()
            twin.modules.requires_grad_(False)
            for parameter in moving:
                parameter.requires_grad_(True)
            if k is None:
                start = "identity"
                begin(twin, part, torch.zeros(twin.model.sites, manipulation_of(twin.model).size))
            else:
                start = initialise(twin, part, kept, k, use.steps, progress=bar, trainer_kwargs=trainer_kwargs)
            free = nn.Parameter(torch.zeros_like(fixed))
            loss = adaptation_loss(twin, part, kept, alpha, use.samples, sparsity, fixed, free)
            began = {name: value.clone() for name, value in twin.modules.state_dict().items()}
            try:
                seed = cama.settings.seed + (k or 0)
                optimise(
                    [Stage(loss, max(1, use.steps // 10), use.lr, title=f"adapt, {title} ({start})")], twin.modules,
                    [*moving, *([free] if learns_prior else [])],
                    Shuffled(part.rows, rows_of(part), use.batch_size, seed, steps=10), anneal=True, seed=seed,
                    progress=bar, per_step=per_step(twin), trainer_kwargs=trainer_kwargs,
                )  # fmt: skip
            except FloatingPointError:  # a start that diverges counts as it began
                twin.modules.load_state_dict(began)
                free.data.zero_()
        return twin, start, log_ratio(twin, fixed, free.detach())

    rows, held = _hold_out(new.rows, use.folds, cama.settings.seed)
    seen = new.select(held.to(base.device))  # what candidates are compared on
    # a handful of held-out rows may well lack a class: others help to count
    more = torch.cat([held, rows])[: max(COUNTED, len(held))]
    counted = new.select(more.to(base.device)) if len(held) < new.rows else seen
    asleep = sum(epochs_of(use.steps)) if able and use.restarts > SLEEP else 0
    total = asleep + (use.restarts + use.folds * (use.folds > 1)) * max(1, use.steps // 10)
    bar = tqdm(total=total, disable=not progress, leave=False)
    before = _examine(base, "before", seen, counted, fixed, use, do=base._do("auto"))
    candidates = []
    for k in range(use.restarts):
        twin, start, ratio = run(k, rows.to(base.device), f"start {k + 1} of {use.restarts}", learns_prior)
        candidates.append(_examine(twin, start, seen, counted, ratio, use, do=None, sparsity=sparsity))
    winner = max(range(use.restarts), key=lambda k: float(candidates[k].evidence.mean()))
    best = candidates[winner]
    replicates = []
    if use.folds == 1:
        held_out = best.evidence.clone()
        parts = []
    else:
        held_out = torch.empty_like(before.evidence)
        parts = _folds(new.rows, use.folds, cama.settings.seed)
    for i, part in enumerate(parts):
        rest = torch.cat([p for p in parts if p is not part]) if len(parts) > 1 else part
        twin, _, ratio = run(winner, rest.to(base.device), f"fold {i + 1} of {len(parts)}", learns_prior)
        held_out[part] = evidence_of(twin, new.select(part.to(base.device)), ratio, do=None)
        replicates.append(_usual(twin, new.select(rest.to(base.device))))
    if len(parts) == 1 or new.rows < 2 * max(use.folds, 2):
        held_out.fill_(math.nan)  # nothing was held out, so nothing is known
    anchored = None
    far = total_variation(best.proportions, expected) > plausible(counted.rows)
    if learns_prior and use.insists and far:
        twin, start, ratio = run(None, rows.to(base.device), "class proportions held", False)
        anchored = _examine(twin, start, seen, counted, ratio, use, do=None, sparsity=sparsity)
    bar.close()
    accepted, reason, agreement = judge(before, best, candidates, held_out, expected, anchored, nearer=not use.insists)
    twin = base.copy()
    applied = accepted or keep == "always"
    if applied:
        twin.modules.load_state_dict(best.state)
        twin.m_trained = True
    else:
        twin.m_trained = base.m_trained
    twin.adaptation = Adaptation(
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
    return twin


def _fixed_ratio(cama: CAMA, class_prior: Any) -> Tensor:
    """log of the given class proportions over the training ones, ``(classes,)``; zeros for "train" and "estimate"."""
    train = log_train(cama)
    if isinstance(class_prior, str) and class_prior in ("train", "estimate"):
        return torch.zeros_like(train)
    found = cama._log_prior_ratio(class_prior, train[:, None])
    assert found is not None
    return found


def _with_sites(cama: CAMA, new_data: Data) -> CAMA:
    """The model with a place for sites it has not met; a plain copy in the other scopes."""
    m = cama.graph.m
    assert m is not None
    if m.scope in ("row", "dataset"):
        return cama.copy()
    stream = open_stream(new_data, cama.graph)
    encoder = cama.encoder.with_sites(new_data) if stream is None else with_sites(stream, cama.encoder)  # type: ignore[arg-type]
    if encoder.sites == cama.encoder.sites:
        return cama.copy()
    return cama.copy(encoder)


def _expect_readings(cama: CAMA, new: Batch) -> None:
    """Refuses rows whose evidence cannot depend on m: log p of nothing is 0, any gain an error of Monte Carlo.

    Raises:
        DataError: of what m manipulates, and of all that this causes, nothing was measured; or no row is of a site.
    """
    graph = cama.graph
    assert graph.m is not None
    placed = torch.ones(new.rows, dtype=torch.bool) if new.site is None else (new.site >= 0).cpu()
    if not placed.any():
        raise DataError(
            f"adapt: found no {graph.m.scope!r} in the new rows ({new.rows} looked at); expected some, since it says "
            "which rows share a manipulation"
        )
    reached = {name for name in graph.m.children if graph.m.affects[name] == "quantity"}
    for name in graph.order:  # causes first; a missing child is drawn manipulated, and its effects tell of it
        if reached & set(graph.parents_of(name)):
            reached.add(name)
    reached |= set(graph.m.children)
    if all(name in new.observed and not bool(new.observed[name].cpu()[placed].any()) for name in reached):
        raise DataError(
            f"adapt: found no reading of {listed(graph.m.children)} in the new rows ({new.rows} looked at); expected "
            "some to learn the manipulation from: adapt to rows that were measured"
        )


def _hold_out(rows: int, folds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers to adapt to and to compare on: all of them where folds follow, else apart."""
    if folds > 1 or rows < 4:
        return torch.arange(rows), torch.arange(rows)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[(kept := min(500, math.ceil(rows / 5))) :], order[:kept]


def _folds(rows: int, folds: int, seed: int) -> list[Tensor]:
    """Row numbers in random parts; one part of all rows where there are too few to hold any out."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return list(order.chunk(folds)) if rows >= 2 * folds else [order]


def _usual(cama: CAMA, batch: Batch, *, draws: int = 64) -> tuple[tuple[float, ...], ...]:
    """theta of every site; of these rows in the mean where each has its own, over draws: q(m | x) may be broad."""
    assert cama.graph.m is not None
    manipulation = manipulation_of(cama.model)
    with torch.no_grad(), cama._seeded():
        if cama.graph.m.scope == "row":
            theta = manipulation(cama.guide.m_dist(batch).sample((draws,))).mean((0, 1))
        else:
            theta = manipulation(shared_mean(cama.guide))
    return tuple(tuple(site) for site in torch.atleast_2d(theta[..., : manipulation.size]).tolist())


def _penalty(cama: CAMA, sparsity: float) -> float:
    """Minus the log-prior of a shared theta; zero in scope row, where theta belongs to the rows."""
    assert cama.graph.m is not None
    if sparsity == 0 or cama.graph.m.scope == "row":
        return 0.0
    with torch.no_grad():
        theta = manipulation_of(cama.model)(shared_mean(cama.guide))[..., : manipulation_of(cama.model).size]
    return sparsity * float((theta.abs() / manipulation_of(cama.model).typical()).sum())


def _examine(
    cama: CAMA,
    start: str,
    new: Batch,
    counted: Batch,
    ratio: Tensor,
    use: Defaults,
    *,
    do: Any,
    sparsity: float = 0.0,
) -> Candidate:
    """Evidence and labels of the new rows, proportions of ``counted``, whose first rows they are, and recovery."""
    log_p = torch.log_softmax(cama._class_log_probs(counted, do, Budget(use.label_draws)) + ratio[:, None], 0)
    return Candidate(
        start=start,
        evidence=evidence_of(cama, new, ratio, do=do),
        labels=log_p.argmax(0).cpu()[: new.rows],
        proportions=log_p.exp().mean(1).cpu(),
        counted=counted.rows,
        generated=use.recovery_rows,
        recovery=_recovery(cama, new, do, rows=use.recovery_rows, samples=use.recovery_draws),
        state={k: v.clone() for k, v in cama.modules.state_dict().items()},
        penalty=_penalty(cama, sparsity) / new.rows,
        theta=_usual(cama, new),
    )


def _recovery(cama: CAMA, new: Batch, do: Any, *, rows: int, samples: int) -> float:
    """How often the class of rows the model draws itself, under the manipulations it infers, is recognised.

    Images are drawn in black and white and in greys, and the more recognised ones count: with a small offset most of a
    draw is noise, and where the new images are noisy, smooth greys are what NN_qM has not seen.
    """
    m = cama.graph.m
    assert m is not None
    found = []
    for greys in (False, True) if cama.model.has_images else (False,):
        with torch.no_grad(), fast(), cama._seeded():
            like = new.select(torch.randint(new.rows, (rows,), device=cama.device))
            value = do[m.name] if do is not None else cama.guide.m_dist(like).sample()
            batch = imagined(cama, {m.name: value}, rows, like.site, greys=greys)
        y = batch.values.pop(cama.graph.target)
        found.append(float((cama._class_log_probs(batch, do, Budget(samples, 2)).argmax(0) == y.long()).float().mean()))
    return max(found)
