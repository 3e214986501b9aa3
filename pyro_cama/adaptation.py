"""adapt: NN_pM and NN_qM follow a changed world without labels (eq. 8); the change is kept if it can be trusted.

The unlabelled objective has wrong optima: classes permuted, or children redrawn so that the class no longer matters.
So several starts are optimised and compared by evidence, the best one is compared with no adaptation on rows held out
from it, and has to pass every check of :func:`judge`; else the copy that comes back predicts as the original did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_cama.data import Batch
from pyro_cama.elbo import (
    context_of,
    importance_bound,
    log_weights,
    marginal,
    mean_bound,
    shared_draw,
    shared_mean,
    shared_term,
)
from pyro_cama.engine import Stage, fast, optimise
from pyro_cama.errors import expect
from pyro_cama.evidence import compare, evidence_of, winsorised
from pyro_cama.fitting import Data, encoded, per_step
from pyro_cama.minibatches import Shuffled, rows_of
from pyro_cama.sleep import epochs_of, imagined, sleeps
from pyro_cama.starts import SLEEP, away_of, begin, initialise
from pyro_cama.streams import open_stream, with_sites
from pyro_cama.training import labelled_bound, manipulation_of

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA


TABLES: dict[str, Any] = {
    "steps": 100, "batch_size": 256, "lr": 3e-2, "samples": 4, "restarts": 3, "folds": 4,
}  # fmt: skip
IMAGES: dict[str, Any] = {
    "steps": 200, "batch_size": 32, "lr": 2e-3, "samples": 1, "restarts": 1, "folds": 1,
}  # fmt: skip
COUNTED = 500  # rows whose classes are counted where few are held out
WORTH = 0.05  # nats a row: a smaller gain is not worth a change, however certain


@dataclass(frozen=True)
class Candidate:
    """One start of the adaptation, optimised.

    Attributes:
        start: where it began: "here", "moments", "sleep" or "random k".
        evidence: log p(x | a, c) of every new row, ``(rows,)``, in nats.
        labels: the most probable class of every new row, ``(rows,)``.
        proportions: of the classes among the new rows, ``(classes,)``.
        recovery: how often the adapted model recognises the class of rows it made itself and manipulated as it now
            believes the world does.
        penalty: what the prior of a shared theta takes off the evidence, in nats a row.
        theta: see :class:`Adaptation`.
        counted: rows that the proportions are of, if not of those that have labels here.
    """

    start: str
    evidence: Tensor
    labels: Tensor
    proportions: Tensor
    recovery: float
    state: dict[str, Tensor]
    penalty: float = 0.0
    theta: tuple[tuple[float, ...], ...] = ()
    counted: int = 0


@dataclass(frozen=True)
class Adaptation:
    """What :meth:`CAMA.adapt` decided, and why.

    Attributes:
        accepted: False means that the copy predicts exactly as the original.
        reason: the decision in a sentence.
        applied: whether the copy carries the change: it was accepted, or to be kept always.
        evidence_before, evidence_after: winsorised mean of log p(x | a, c) over the new rows, in nats; the latter
            is cross-fitted.
        gain_se: standard error of their difference.
        proportions_before, proportions_after: predicted class proportions of the new rows.
        agreement: share of new rows on which the starts of about equal evidence agree.
        recovery: see :class:`Candidate`, beside that of the unadapted model on unmanipulated rows.
        start: the start that won.
        rows: how many new rows there were.
        class_prior: class proportions the adaptation settled on, for ``predict(class_prior=...)``.
        theta: of the best candidate, a tuple a site (one in the scopes row, where it is the rows' mean, and dataset).
        replicates: the same of every fold, adapted to the other rows.
        sites: the sites that had new rows, in a scope that has sites.
    """

    accepted: bool
    reason: str
    evidence_before: float
    evidence_after: float
    gain_se: float
    proportions_before: tuple[float, ...]
    proportions_after: tuple[float, ...]
    agreement: float
    recovery: float
    recovery_before: float
    start: str
    rows: int
    class_prior: tuple[float, ...]
    theta: tuple[tuple[float, ...], ...] = ()
    replicates: tuple[tuple[tuple[float, ...], ...], ...] = ()
    sites: tuple[Any, ...] = ()
    applied: bool = False

    def __str__(self) -> str:
        return (
            f"{'kept' if self.accepted else 'not kept'}: {self.reason} (evidence {self.evidence_before:.2f} -> "
            f"{self.evidence_after:.2f} nats a row, start {self.start!r}, agreement {self.agreement:.0%})"
        )


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
        folds: for the comparison with no adaptation the new rows are split in so many parts, and each part's evidence
            comes from a model adapted to the others: 4.  With 1 (images), a fifth of the rows, 500 at most, is kept
            from every adaptation and compared on.
        class_prior: "estimate" lets class proportions change, so that m need not absorb such a change.
        keep: "trusted" keeps the change only where :func:`judge` accepts it.
        trainer_kwargs: passed to ``lightning.pytorch.Trainer``.

    Returns:
        An adapted copy; its ``adaptation`` tells what was decided.

    Raises:
        DataError: the rows do not fit the graph.
        ValueError: the graph has no manipulation latent, or an argument is out of range.
    """
    m = cama.graph.m
    if m is None:
        raise ValueError("adapt: this graph has no manipulation latent (m is null), so nothing can adapt")
    usual = IMAGES if cama.model.has_images else TABLES
    steps = usual["steps"] if steps is None else steps
    batch_size = usual["batch_size"] if batch_size is None else batch_size
    lr, samples = usual["lr"] if lr is None else lr, usual["samples"] if samples is None else samples
    able = sleeps(cama)
    if restarts is None:
        restarts = 2 if able else usual["restarts"]
    folds = usual["folds"] if folds is None else folds
    if not 0 <= alpha <= 1 or restarts < 1 or steps < 1 or folds < 1:
        raise ValueError(
            f"adapt: expected 0 <= alpha <= 1, restarts >= 1, steps >= 1, folds >= 1; "
            f"found {alpha=}, {restarts=}, {steps=}, {folds=}"
        )
    for name, value in (("batch_size", batch_size), ("samples", samples)):
        expect("adapt", name, value, value >= 1, "at least 1")
    expect("adapt", "lr", lr, lr > 0, "more than 0")
    expect("adapt", "sparsity", sparsity, sparsity >= 0, "at least 0")
    expect("adapt", "keep", keep, keep in ("trusted", "always"), "'trusted' or 'always'")
    base = _with_sites(cama, new_data)
    new = encoded(base, new_data, "ignore", sampled=True)
    kept = None if clean is None else encoded(base, clean, "require", sampled=True)
    fixed = _fixed_ratio(base, class_prior)
    expected = torch.softmax(_log_train(base) + fixed, 0)
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
                start = initialise(twin, part, kept, k, steps, progress=bar, trainer_kwargs=trainer_kwargs)
            free = nn.Parameter(torch.zeros_like(fixed))
            loss = _loss(twin, part, kept, alpha, samples, sparsity, fixed, free)
            began = {name: value.clone() for name, value in twin.modules.state_dict().items()}
            try:
                seed = cama.settings.seed + (k or 0)
                optimise(
                    [Stage(loss, max(1, steps // 10), lr, title=f"adapt, {title} ({start})")], twin.modules,
                    [*moving, *([free] if learns_prior else [])],
                    Shuffled(part.rows, rows_of(part), batch_size, seed, steps=10), anneal=True, seed=seed,
                    progress=bar, per_step=per_step(twin), trainer_kwargs=trainer_kwargs,
                )  # fmt: skip
            except FloatingPointError:  # a start that diverges counts as it began
                twin.modules.load_state_dict(began)
                free.data.zero_()
        return twin, start, _ratio(twin, fixed, free.detach())

    rows, held = _hold_out(new.rows, folds, cama.settings.seed)
    seen = new.select(held.to(base.device))  # what candidates are compared on
    # a handful of held-out rows may well lack a class: others help to count
    more = torch.cat([held, rows])[: max(COUNTED, len(held))]
    counted = new.select(more.to(base.device)) if len(held) < new.rows else seen
    asleep = sum(epochs_of(steps)) if able and restarts > SLEEP else 0
    total = asleep + (restarts + folds * (folds > 1)) * max(1, steps // 10)
    bar = tqdm(total=total, disable=not progress, leave=False)
    before = _examine(base, "before", seen, counted, fixed, do=base._do("auto"))
    candidates = []
    for k in range(restarts):
        twin, start, ratio = run(k, rows.to(base.device), f"start {k + 1} of {restarts}", learns_prior)
        candidates.append(_examine(twin, start, seen, counted, ratio, do=None, sparsity=sparsity))
    winner = max(range(restarts), key=lambda k: float(candidates[k].evidence.mean()))
    best = candidates[winner]
    replicates = []
    if folds == 1:
        held_out = best.evidence.clone()
        parts = []
    else:
        held_out = torch.empty_like(before.evidence)
        parts = _folds(new.rows, folds, cama.settings.seed)
    for i, part in enumerate(parts):
        rest = torch.cat([p for p in parts if p is not part]) if len(parts) > 1 else part
        twin, _, ratio = run(winner, rest.to(base.device), f"fold {i + 1} of {len(parts)}", learns_prior)
        held_out[part] = evidence_of(twin, new.select(part.to(base.device)), ratio, do=None)
        replicates.append(_usual(twin, new.select(rest.to(base.device))))
    if len(parts) == 1 or new.rows < 2 * max(folds, 2):
        held_out.fill_(math.nan)  # nothing was held out, so nothing is known
    anchored = None
    images = cama.model.has_images  # their likelihood is too far from the truth to insist on class proportions
    if learns_prior and not images and _moved(best.proportions, expected) > _plausible(counted.rows):
        twin, start, ratio = run(None, rows.to(base.device), "class proportions held", False)
        anchored = _examine(twin, start, seen, counted, ratio, do=None, sparsity=sparsity)
    bar.close()
    accepted, reason, agreement = judge(before, best, candidates, held_out, expected, anchored, nearer=images)
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


def judge(
    before: Candidate,
    best: Candidate,
    candidates: list[Candidate],
    held_out: Tensor,
    expected: Tensor,
    anchored: Candidate | None = None,
    *,
    nearer: bool = False,
    agree: float = 0.75,
    recover: float = 0.1,
) -> tuple[bool, str, float]:
    """Whether the best candidate can be trusted: ``(accepted, reason, agreement)``.

    Adapted to the other folds, it must explain held-out new rows better than no adaptation does, by more than a
    standard error; starts that explain the rows about as well must give the same labels; class proportions must be
    plausible; and the adapted model must still recognise the class of what it generates, else m has learned to redraw
    the children.

    Args:
        held_out: cross-fitted evidence of every new row under the best start, ``(rows,)``.
        expected: class proportions to be expected, ``(classes,)``: the training ones, or those the user gave.
        anchored: adapted from no manipulation, the class proportions held at the expected ones.  Proportions far from
            those are believed only if the rows insist: their evidence is higher by three standard errors.
        nearer: class proportions nearer to the expected ones than those before are no objection, however far they are.
        agree: least share of rows with equal labels among the starts of about equal evidence.
        recover: largest loss of recovery.
    """
    gain, se = compare(held_out, before.evidence)
    rivals = [c for c in candidates if c is not best and _about_equal(best.evidence, c.evidence)]
    agreement = min([float((c.labels == best.labels).float().mean()) for c in rivals], default=1.0)
    moved = _moved(best.proportions, expected)
    believed = nearer and moved <= _moved(before.proportions, expected)
    if anchored is not None:
        over, over_se = compare(best.evidence - best.penalty, anchored.evidence - anchored.penalty)
        believed = over > 3 * over_se
    if not math.isfinite(gain):
        reason = "the evidence of the held-out rows is not finite, or there were too few rows to hold any out"
    elif gain <= max(se, WORTH):
        reason = f"held-out evidence did not improve ({gain:+.2f} nats a row, standard error {se:.2f})"
    elif agreement < agree:
        reason = f"starts of about equal evidence agree on {agreement:.0%} of the labels only"
    elif moved > _plausible(best.counted or len(best.labels)) and not believed:
        found = f"class proportions would be {_percent(best.proportions)}, expected about {_percent(expected)}"
        reason = f"{found} (pass class_prior= if they did change)"
    elif best.recovery < before.recovery - recover:
        reason = (
            f"m would redraw the children: the class of generated rows is recovered in {best.recovery:.0%} "
            f"({before.recovery:.0%} before)"
        )
    else:
        return (
            True,
            f"held-out evidence improved by {gain:.2f} nats a row, and the labels are consistent",
            agreement,
        )
    return False, reason, agreement


def _moved(proportions: Tensor, expected: Tensor) -> float:
    """Total-variation distance of class proportions."""
    return float((proportions.cpu() - expected.cpu()).abs().sum()) / 2


def _plausible(rows: int) -> float:
    """The largest distance that needs no proof: 0.15, beside sampling noise."""
    return 0.15 + rows**-0.5


def _percent(proportions: Tensor) -> str:
    return "/".join(f"{p:.0%}" for p in proportions.tolist())


def _log_train(cama: CAMA) -> Tensor:
    return cama.encoder.statistics[cama.graph.target]["frequencies"].to(cama.model.like).clamp_min(1e-12).log()


def _fixed_ratio(cama: CAMA, class_prior: Any) -> Tensor:
    """log of the given class proportions over the training ones, ``(classes,)``; zeros for "train" and "estimate"."""
    train = _log_train(cama)
    if isinstance(class_prior, str) and class_prior in ("train", "estimate"):
        return torch.zeros_like(train)
    found = cama._log_prior_ratio(class_prior, train[:, None])
    assert found is not None
    return found


def _ratio(cama: CAMA, fixed: Tensor, free: Tensor) -> Tensor:
    train = _log_train(cama)
    return torch.log_softmax(train + fixed + free, 0) - train


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


def _loss(
    cama: CAMA,
    new: Batch,
    clean: Batch | None,
    alpha: float,
    samples: int,
    sparsity: float,
    fixed: Tensor,
    free: Tensor,
) -> Callable[[Batch], Tensor]:
    """The negative of eq. 8 per row, as a function of minibatches of the new rows."""
    graph = cama.graph
    assert graph.m is not None
    row_scope = graph.m.scope == "row"
    counts = None
    typical = manipulation_of(cama.model).typical()
    if not row_scope:
        q: Any = cama.guide._networks["m"]
        index = torch.zeros(new.rows, dtype=torch.long, device=cama.device) if new.site is None else new.site
        counts = torch.bincount(index[index >= 0], minlength=q.loc.shape[0])
        switches = typical.isinf()  # no gradient holds them where they are while m moves
        switched = manipulation_of(cama.model)(shared_mean(cama.guide))[..., : len(typical)][..., switches].detach()
    away = None if new.site is None else away_of(cama, new)
    settled = None if away is None else manipulation_of(cama.model)(shared_mean(cama.guide))[away].detach()

    def loss(batch: Batch) -> Tensor:
        ratio = _ratio(cama, fixed, free)
        if row_scope:
            weights = log_weights(cama.model, cama.guide, batch, samples=samples, classes=True)
            total = (marginal(importance_bound(weights), ratio) + context_of(weights)).mean()
            if sparsity:
                theta = manipulation_of(cama.model)(cama.guide.m_dist(batch).mean)[..., : len(typical)] / typical
                common = theta.mean(0)
                apart = (theta - common).abs().sum(-1).mean()
                total = total - sparsity * (common.abs().sum() / new.rows + apart)
        else:
            m, given = shared_draw(cama.model, cama.guide)
            weights = log_weights(cama.model, cama.guide, batch, do={graph.m.name: m}, samples=samples, classes=True)  # type: ignore[union-attr]
            weights = replace(weights, shared=given)
            rows_bound = marginal(importance_bound(weights), ratio) + context_of(weights)
            total = (rows_bound + shared_term(weights, batch.site, counts)).mean()
            theta = manipulation_of(cama.model)(m)
            total = total - 10.0 * (theta[..., : len(typical)][..., switches] - switched).square().sum()
            if away is not None:  # NN_pM serves all sites: the others must not forget
                total = total - 10.0 * (theta[away] - settled).square().sum()
                theta = theta[~away]
            total = total - sparsity / new.rows * (theta[..., : len(typical)].abs() / typical).sum()
        # ten imagined rows of the expected classes: proportions wander only where the new rows insist
        expected = torch.softmax(_log_train(cama) + fixed, 0)
        total = total + 10.0 / new.rows * (expected * (_log_train(cama) + ratio)).sum()
        if clean is not None and alpha > 0 and row_scope:
            pick = torch.randint(clean.rows, (batch.rows,), device=cama.device)
            part = clean.select(pick)
            y, known = part.values[graph.target], part.observed.get(graph.target)
            weights = log_weights(cama.model, cama.guide, part, samples=samples, classes=known is not None)
            bound = mean_bound(weights)[0] if known is None else labelled_bound(weights, y, known, 0.0)
            total = alpha * bound.mean() + (1 - alpha) * total
        return -total

    return loss


def _examine(
    cama: CAMA, start: str, new: Batch, counted: Batch, ratio: Tensor, *, do: Any, sparsity: float = 0.0
) -> Candidate:
    """Evidence and labels of the new rows, proportions of ``counted``, whose first rows they are, and recovery."""
    # an image costs more, and says more
    samples, drawn, read = (4, 300, 4) if cama.model.has_images else (16, 500, 8)
    log_p = torch.log_softmax(cama._class_log_probs(counted, do, samples, 4) + ratio[:, None], 0)
    return Candidate(
        start=start,
        evidence=evidence_of(cama, new, ratio, do=do),
        labels=log_p.argmax(0).cpu()[: new.rows],
        proportions=log_p.exp().mean(1).cpu(),
        counted=counted.rows,
        recovery=_recovery(cama, new, do, rows=drawn, samples=read),
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
        found.append(float((cama._class_log_probs(batch, do, samples, 2).argmax(0) == y.long()).float().mean()))
    return max(found)


def _about_equal(best: Tensor, other: Tensor) -> bool:
    gap, se = compare(best, other)
    return gap <= se
