"""The sleep phase of images (Hinton et al. 1995, *The wake-sleep algorithm*): q(m | x) learns from rows of known m.

Manipulations of the mechanism's own family are done to clean images, and NN_qM learns to read m off what comes out.  It
first reads wide ones, then such as it found in the new rows: NN_pM becomes as wide as those are.  Labels have no part.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from tqdm.auto import tqdm

from pyro_cama.data import Batch
from pyro_cama.distributions import GreyBernoulli
from pyro_cama.elbo import Do, intervene
from pyro_cama.engine import Stage, fast, optimise
from pyro_cama.fitting import per_step
from pyro_cama.minibatches import Shuffled, rows_of
from pyro_cama.training import manipulation_of

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA

WIDE = 3.0  # of the mechanism's usual sizes: half of a side is two standard deviations of what is dreamt first
PARTS = 0.4  # of m's directions that a row moves along while its manipulations are wide
LEAST = 0.1  # of the mechanism's usual sizes, where the new rows seem not to move at all
FARTHEST = 6.0  # usual sizes that a new row is believed to have moved by


def sleeps(cama: CAMA) -> bool:
    """Whether m is every row's own, manipulates images alone, and has a direction for each of theta's numbers."""
    m = cama.graph.m
    if m is None or m.scope != "row":
        return False
    manipulation = manipulation_of(cama.model)
    able = all(g.image and g.theta_size and g.mechanism and g.mechanism.simulates for g in manipulation.groups)
    return able and 0 < manipulation.size <= manipulation.dim


def epochs_of(steps: int) -> tuple[int, int]:
    """Tens of steps of both parts of the sleep before so many steps awake: they cost a fraction of those."""
    return max(1, 4 * steps // 10), max(1, 2 * steps // 10)


def sleep(
    cama: CAMA,
    new: Batch,
    clean: Batch | None,
    steps: int,
    *,
    seed: int,
    progress: bool | tqdm[Any],
    trainer_kwargs: dict[str, Any] | None = None,
    rows: int = 2000,
) -> None:
    """Sets NN_pM to manipulations as wide as those of the new rows, and NN_qM to what reads them.

    Args:
        clean: rows to manipulate; None means that the model dreams them up.
        steps: that follow awake; see :func:`epochs_of`.
        rows: dreamt up, and of the new rows that are looked at.
    """
    manipulation = manipulation_of(cama.model)
    usual, like = manipulation.typical(), cama.model.like
    if clean is None:
        with cama._seeded(seed):
            clean = imagined(cama, cama._do(cama._clean()), rows)
    source = Shuffled(clean.rows, rows_of(clean), 128, seed, steps=10)

    def dream(directions: Tensor, parts: float, epochs: int) -> None:
        """theta = directions' m, ``(dim, size)``; a row moves along some of them."""
        m = torch.randn(4000, manipulation.dim, generator=torch.Generator().manual_seed(seed)).to(like)
        with torch.no_grad():
            manipulation.network[-1].weight.zero_()  # type: ignore[operator]
        manipulation.aim(m, m @ directions)
        with suppress(FloatingPointError):  # the weights are those of before it diverged
            optimise(
                [Stage(_loss(cama, parts), epochs, 2e-3, title="adapt, asleep")], cama.modules,
                list(cama.guide._networks["m"].parameters()), source, anneal=True, seed=seed, progress=progress,
                per_step=per_step(cama), trainer_kwargs=trainer_kwargs,
            )  # fmt: skip

    wide, narrow = epochs_of(steps)
    dream(torch.eye(manipulation.dim, manipulation.size).to(like) * usual * WIDE, PARTS, wide)
    seen = torch.linspace(0, new.rows - 1, min(rows, new.rows)).long().to(like.device)
    with torch.no_grad():
        theta = manipulation(cama.guide.m_dist(new.select(seen)).mean)[..., : manipulation.size]
    moved = (theta / usual).clamp(-FARTHEST, FARTHEST)
    spread = moved.T @ moved / len(moved) + LEAST**2 * torch.eye(manipulation.size).to(like)
    variances, axes = torch.linalg.eigh(spread)
    directions = torch.zeros(manipulation.dim, manipulation.size).to(like)
    directions[: manipulation.size] = (axes * variances.sqrt()).T * usual
    dream(directions, 1.0, narrow)


def _loss(cama: CAMA, parts: float) -> Callable[[Batch], Tensor]:
    """-log q(m | x) of rows that the model has manipulated by m."""
    manipulation = manipulation_of(cama.model)

    def loss(batch: Batch) -> Tensor:
        m = torch.randn(batch.rows, manipulation.dim).to(cama.model.like)
        m = m * (torch.rand(m.shape) < parts).to(m)
        values = dict(batch.values)
        with torch.no_grad():
            theta = manipulation(m)
            for group in manipulation.groups:
                assert group.mechanism is not None
                (name,) = group.nodes
                pushed = group.mechanism.push(values[name], manipulation.theta(theta, group))
                values[name] = pushed.clamp(0.0, 1.0)  # as every recorded image
        found = Batch(values=values, observed=batch.observed, site=batch.site, rows=batch.rows)
        total: Tensor = -cama.guide.m_dist(found).log_prob(m).mean()
        return total

    return loss


class _Greys(Messenger):
    """Inside, a Bernoulli image is its mean: no grey image looks like a draw of black and white pixels."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if isinstance(getattr(msg["fn"], "base_dist", None), GreyBernoulli):
            msg["value"], msg["done"] = msg["fn"].mean, True


def imagined(cama: CAMA, do: Do | None, rows: int, site: Tensor | None = None, *, greys: bool = True) -> Batch:
    """Rows that the model draws itself under ``do``, labels among them.

    Args:
        greys: a Bernoulli image is its mean, and no draw of black and white pixels.
    """
    nothing = Batch(values={}, observed={}, site=site, rows=rows)
    with torch.no_grad(), fast(), _Greys() if greys else nullcontext():
        drawn = intervene(cama.model, do)(nothing)
    values = {name: value.expand(rows, *cama.graph.nodes[name].event_shape) for name, value in drawn.items()}
    return Batch(values=values, observed={}, site=site, rows=rows)
