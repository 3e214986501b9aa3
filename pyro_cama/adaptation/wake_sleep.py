"""The sleep phase of images (Hinton et al. 1995, *The wake-sleep algorithm*): q(m | x) learns from rows of known m.

A network that `fit` trained asleep reads theta off the new rows (:mod:`pyro_cama.training.asleep`).  NN_pM becomes as
wide as they are; NN_qM begins with what that network reads, and learns on from clean rows manipulated as widely.
Labels have no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from pyro_cama.adaptation.guard import WORTH
from pyro_cama.adaptation.start import EXPLAINS, Start
from pyro_cama.data.batch import Batch
from pyro_cama.data.minibatches import Shuffled, row_selector
from pyro_cama.inference.do import clean_do, encode_do
from pyro_cama.inference.evidence import importance_evidence
from pyro_cama.inference.generation import ancestral_sample
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.posteriors import RowPosterior
from pyro_cama.training.asleep import WIDE, laid_over, manipulated, prior_variance
from pyro_cama.training.optimise import optimise
from pyro_cama.training.stages import Stage

LEAST = 0.1  # prior scales, where the new rows seem not to move at all
FARTHEST = 6.0  # prior scales that a new row is believed to have moved by
COMPARED = 150  # rows whose evidence tells what moves
RIDGE = 1e-4  # of the features' mean square, what draws weights to 0 in least squares
PACE = 0.1  # of the learning rate where theta is known well: usual steps in every weight would lose it
ALIKE = -4.0  # raw deviation of q(m | x), before its softplus, where one theta is all rows'
TOLD = 0.1  # of a number's variance, the least share that a reading is believed to explain


class Reading(NamedTuple):
    """What was read off rows, of theta in units of its prior asleep; all rows' as precise as the mean row's.

    Attributes:
        moments: second moments of what was read, ``(size, size)``.
        variance: of q(theta | x), ``(size,)``.
        precision: of the likelihood of theta, ``(size,)``.
    """

    moments: Tensor
    variance: Tensor
    precision: Tensor


def epochs_of(steps: int) -> int:
    """Returns tens of steps of the sleep before so many steps awake: they cost a fraction of those."""
    return max(1, 2 * steps // 10)


def sleep(
    pair: ModelGuidePair,
    new: Batch,
    clean: Batch | None,
    steps: int,
    *,
    seed: int,
    progress: bool | tqdm[Any],
    alone: bool = False,
    trainer_kwargs: dict[str, Any] | None = None,
    rows: int = 2000,
) -> Start:
    """Sets NN_pM to manipulations as wide as those of the new rows, and NN_qM to what reads them.

    Args:
        pair: whose NN_pM and NN_qM are set.
        new: the new rows.
        clean: rows to manipulate; None means that the model dreams them up.
        steps: that follow awake; see :func:`epochs_of`.
        seed: of minibatches and noise.
        alone: one family of theta's numbers moves, that which gives the new rows the highest evidence; else all do.
        progress, trainer_kwargs: see :func:`pyro_cama.training.optimise.optimise`.
        rows: dreamt up, and of the new rows that are looked at.

    Returns:
        The start, of a small pace where NN_qM restores half of the evidence that the new rows lost beside clean ones.
    """
    clean = _dreamt(pair, rows, seed) if clean is None else clean
    seen = new.evenly(rows)
    reading = _read(pair, seen)
    compared = seen.select(torch.arange(min(COMPARED, seen.rows), device=pair.device))
    start = _most_likely(pair, compared, reading, seed) if alone else Start("sleep")
    _begin(pair, reading, start.resting, seed)
    with suppress(FloatingPointError):  # the weights are those of before
        optimise(
            [Stage(_loss(pair), epochs_of(steps), 2e-3, title="adapt, asleep")], pair.modules,
            list(pair.guide.m_posterior.parameters()), Shuffled(clean.rows, row_selector(clean), 128, seed, steps=10),
            anneal=True, seed=seed, progress=progress, per_step=pair.minibatches_per_step,
            trainer_kwargs=trainer_kwargs,
        )  # fmt: skip
    restored = _restored(pair, compared, clean.evenly(COMPARED))
    return replace(start, pace=PACE if restored >= EXPLAINS else 1.0, restored=restored)


@torch.no_grad()
def begin_at(
    pair: ModelGuidePair,
    new: Batch,
    clean: Batch | None,
    theta: Tensor,
    resting: Tensor | None,
    seed: int,
    *,
    rows: int = 1000,
) -> Start:
    """Sets NN_pM to manipulations as wide as one that all new rows may share, and NN_qM to what tells them from clean.

    New rows are to have the m of that theta and clean ones m = 0: NN_qM's last layer has the least squares.  An m that
    clean rows had as well would cost thousands of nats of theirs where it is large, as of a negative, and unlearning it
    would take the new rows' with it.  What m has no need of moves nothing, so that all of it may be drawn.

    Args:
        pair, new, clean: as for :func:`sleep`.
        theta: ``(size,)``.
        resting: numbers of theta that stay at 0, bool ``(size,)``; None means none of them.
        seed: of noise.
        rows: of either kind that are looked at.
    """
    manipulation, q = pair.manipulation, pair.guide.m_posterior
    assert isinstance(q, RowPosterior)
    clean, seen = (_dreamt(pair, rows, seed) if clean is None else clean).evenly(rows), new.evenly(rows)
    own = theta / manipulation.prior_scale() / WIDE
    read = _read(pair, seen)
    axes = _begin(pair, Reading(_moments(pair, own[None]), read.variance, read.precision), resting, seed)
    m = F.pad(torch.linalg.pinv(axes.T) @ own, (0, manipulation.dim - len(axes)))
    acts = F.pad(axes.any(1), (0, manipulation.dim - len(axes)))
    first, bias = manipulation.network[0].weight, q.network[-1].bias
    assert isinstance(first, Tensor)
    assert isinstance(bias, Tensor)
    first.masked_fill_(~acts, 0.0)  # the other directions of m are free: they move nothing
    manipulation.solve_for(m[None], theta[None])
    found: list[Tensor] = []
    hook = q.network[-1].register_forward_hook(lambda _, inputs, __: found.append(inputs[0]))
    for batch in (seen, clean):
        pair.guide.m_dist(batch)
    hook.remove()
    features = F.pad(torch.cat(found), (0, 1), value=1.0)
    is_new = torch.cat([features.new_ones(seen.rows), features.new_zeros(clean.rows)])
    square = features.T @ features
    penalty = RIDGE * square.diagonal().mean() * torch.eye(len(square)).to(square)
    tells = torch.linalg.solve(square + penalty, features.T @ is_new)
    last = {name: parameter[: len(m)] for name, parameter in q.network[-1].named_parameters()}
    last["weight"].copy_(torch.outer(m, tells[:-1]))
    last["bias"].copy_(m * tells[-1])
    bias[manipulation.dim :][acts] = ALIKE
    return Start("moments", resting, PACE, _restored(pair, seen.evenly(COMPARED), clean.evenly(COMPARED)))


def _dreamt(pair: ModelGuidePair, rows: int, seed: int) -> Batch:
    """Clean rows that the model draws itself."""
    with pair.seeded(seed):
        return ancestral_sample(pair, encode_do(pair, clean_do(pair.graph)), rows)


def _most_likely(pair: ModelGuidePair, rows: Batch, reading: Reading, seed: int) -> Start:
    """Returns which family of theta's numbers is to move, that which gives the rows the highest evidence."""
    starts = [Start(f"sleep, {name} alone", ~acts) for name, acts in pair.manipulation.families().items()]

    def evidence(start: Start) -> float:
        _begin(pair, reading, start.resting, seed)
        return _evidence(pair, rows, None)

    return max(starts, key=evidence)


def restored(pair: ModelGuidePair, new: Batch, clean: Batch | None, seed: int) -> float:
    """Returns the share of the evidence that new rows lost beside clean ones which NN_qM restores as it is.

    Args:
        pair, new, clean, seed: as for :func:`sleep`.
    """
    clean = _dreamt(pair, COMPARED, seed) if clean is None else clean
    return _restored(pair, new.evenly(COMPARED), clean.evenly(COMPARED))


def _restored(pair: ModelGuidePair, rows: Batch, clean: Batch) -> float:
    """The share of the evidence that rows lost beside clean ones which NN_qM restores as it reads them.

    0 where they lost none.  What lies over the rows is laid over the clean ones: hidden pixels cost no evidence.
    """
    unmoved = encode_do(pair, clean_do(pair.graph))
    usual = _evidence(pair, laid_over(pair.manipulation, clean, pair.overlaid), unmoved)
    before = _evidence(pair, rows, unmoved)
    return (_evidence(pair, rows, None) - before) / (usual - before) if usual - before > WORTH else 0.0


def _evidence(pair: ModelGuidePair, rows: Batch, do: dict[str, Tensor] | None) -> float:
    """Mean log p(x | a, c) of the rows, in nats; least where it is not finite."""
    expected = torch.zeros(pair.model.classes).to(pair.model.like)
    found = float(importance_evidence(pair, rows, expected, do=do).mean())
    return found if math.isfinite(found) else -math.inf


@torch.no_grad()
def _read(pair: ModelGuidePair, rows: Batch) -> Reading:
    """Reads theta off rows by what was trained asleep.

    A reading r of variance s² under a prior of variance v is a likelihood of precision L = 1/s² - 1/v about r / (s² L).
    """
    manipulation = pair.manipulation
    read = pair.guide.recognised(rows)
    theta, variance = read.mean.clamp(-FARTHEST / WIDE, FARTHEST / WIDE), read.variance.mean(0)
    told = (1 - variance / prior_variance(manipulation)).clamp_min(TOLD)
    return Reading(_moments(pair, theta), variance, told / variance)


def _moments(pair: ModelGuidePair, theta: Tensor) -> Tensor:
    """Second moments of thetas ``(rows, size)``, and the least that there are, in units of the prior asleep."""
    return theta.T @ theta / len(theta) + (LEAST / WIDE) ** 2 * torch.eye(pair.manipulation.size).to(theta)


@torch.no_grad()
def _begin(pair: ModelGuidePair, reading: Reading, resting: Tensor | None, seed: int) -> Tensor:
    """Sets NN_pM to thetas of the second moments read, as far as they do not rest, and NN_qM to what reads them.

    Returns what a standard deviation of m's first numbers moves, in units of the prior asleep, ``(size, size)``.
    """
    manipulation, moments = pair.manipulation, reading.moments
    if resting is not None:
        moments = moments.masked_fill(resting | resting[:, None], 0.0)
    variances, directions = torch.linalg.eigh(moments)
    axes = (directions * variances.clamp_min(0.0).sqrt()).T  # as long as a standard deviation
    if resting is not None:
        axes = axes.masked_fill(resting, 0.0)
    m = torch.randn(4000, manipulation.dim, generator=torch.Generator().manual_seed(seed)).to(axes)
    manipulation.network[-1].weight.zero_()  # type: ignore[operator]
    manipulation.solve_for(m, m[:, : len(axes)] @ axes * manipulation.prior_scale() * WIDE)
    _begin_at_reading(pair, axes, reading)
    return axes


@torch.no_grad()
def _begin_at_reading(pair: ModelGuidePair, axes: Tensor, reading: Reading) -> None:
    """Sets NN_qM to what the recognition network reads, where m is to stand for theta = m @ axes.

    With m's prior N(0, 1) and the likelihood of :func:`_read`, q(m | x) has the precision P = 1 + axes L axes' and the
    mean P^-1 axes (r / s²): a linear map of r.
    """
    q, read = pair.guide.m_posterior, pair.guide.recognition
    assert isinstance(q, RowPosterior)
    size, dim = len(axes), pair.manipulation.dim
    covariance = torch.linalg.inv(torch.eye(size).to(axes) + axes * reading.precision @ axes.T)
    through = covariance @ axes / reading.variance
    state = {name: value for name, value in read.state_dict().items() if name != "world"}
    last = f"network.{len(read.network) - 1}"
    weight, bias = state[f"{last}.weight"], state[f"{last}.bias"]
    new_weight, new_bias = weight.new_zeros(2 * dim, weight.shape[1]), bias.new_zeros(2 * dim)
    new_weight[:size], new_bias[:size] = through @ weight[:size], through @ bias[:size]
    scale = torch.cat([covariance.diagonal().sqrt(), axes.new_ones(dim - size)])
    new_bias[dim:] = scale.expm1().log()  # the inverse of softplus
    q.load_state_dict({**state, f"{last}.weight": new_weight, f"{last}.bias": new_bias, "world": q.world})


def _loss(pair: ModelGuidePair) -> Callable[[Batch], Tensor]:
    """-log q(m | x) of rows that the model has manipulated by m."""
    manipulation = pair.manipulation

    def loss(batch: Batch) -> Tensor:
        m = torch.randn(batch.rows, manipulation.dim).to(pair.model.like)
        with torch.no_grad():
            theta = manipulation(m)
        rows = laid_over(manipulation, manipulated(manipulation, batch, theta), pair.overlaid)
        total: Tensor = -pair.guide.m_dist(rows).log_prob(m).mean()
        return total

    return loss
