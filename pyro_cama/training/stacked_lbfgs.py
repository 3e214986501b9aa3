"""Many small problems at once: L-BFGS with a batch dimension, every problem its own curvature, step and end.

Starts, folds and sites of an adaptation are problems of the same size.  One after the other they would pay for every
operation as often as there are problems; side by side they pay once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ARMIJO = 1e-4  # least share of the promised decrease
HALVINGS = 8
LEAST = 0.01  # at a root of 0 nothing would move


Loss = Callable[[Tensor], Tensor]
"""From ``(problems, n)`` to ``(problems,)``; each a function of its own row alone."""
Differentiated = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From ``(problems, n)`` to the losses and their gradients, ``(problems,)`` and ``(problems, n)``."""


def minimise_stacked(
    loss: Loss | Differentiated,
    start: Tensor,
    *,
    steps: int = 100,
    tolerance: float = 1e-5,
    memory: int = 10,
    each: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """Minimises every problem's own loss.

    Args:
        loss: of every problem, with its gradient or without.
        start: ``(problems, n)``; where a loss is not finite there, its problem stays.
        steps: at most so many.
        tolerance: a problem ends after two steps that lower its loss by less than this, times one plus its size.
        memory: steps whose curvature is remembered.
        each: called after every step with where it led to, and the losses there; the end, where it returns True.

    Returns:
        Where each problem ended, ``(problems, n)``.

    >>> centres = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    >>> minimise_stacked(lambda x: (x - centres).square().sum(1), torch.zeros(2, 2)).round(decimals=3)
    tensor([[ 1.0000, -2.0000],
            [ 0.5000,  3.0000]])
    """
    x = start.detach().clone()
    value, gradient = _differentiated(loss, x)
    running = value.isfinite() & gradient.isfinite().all(-1)
    idle = torch.zeros_like(running, dtype=torch.long)
    changes, differences = x.new_zeros(2, len(x), memory, x.shape[1])
    for step in range(steps):
        direction = -_times_inverse_hessian(gradient, changes, differences)
        slope = (direction * gradient).sum(-1)
        uphill = (slope >= 0) | ~slope.isfinite()
        direction = torch.where(uphill[:, None], -gradient, direction)
        slope = torch.where(uphill, -gradient.square().sum(-1), slope)
        size = 1.0 / gradient.abs().sum(-1).clamp_min(1.0) if step == 0 else torch.ones_like(value)
        size = torch.where(running, size, 0.0)
        x_new, value_new, gradient_new = _line_search(loss, x, value, gradient, direction, slope, size)
        change, difference = x_new - x, gradient_new - gradient
        curvature = (change * difference).sum(-1)
        useful = curvature > 1e-10 * difference.square().sum(-1).clamp_min(1e-30)
        newest = torch.where(useful, curvature.clamp_min(1e-30).rsqrt(), 0.0)[:, None, None]
        changes = torch.cat([changes[:, 1:], newest * change[:, None]], 1)
        differences = torch.cat([differences[:, 1:], newest * difference[:, None]], 1)
        small = value - value_new < tolerance * (1.0 + value_new.abs())
        idle = torch.where(small, idle + 1, 0)
        x, value, gradient = x_new, value_new, gradient_new
        running = running & (idle < 2) & (change != 0).any(-1)
        if (each is not None and each(x, value) is True) or not bool(running.any()):
            break
    return x


def _differentiated(loss: Loss | Differentiated, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        value = loss(point)
        if isinstance(value, tuple):
            return value
        (gradient,) = torch.autograd.grad(value.sum(), [point])
    return value.detach(), gradient


def _times_inverse_hessian(gradient: Tensor, changes: Tensor, differences: Tensor) -> Tensor:
    """H g in the compact form of Byrd, Nocedal and Schnabel 1994, every problem by its own pairs.

    Args:
        gradient: ``(problems, n)``.
        changes, differences: s and y, oldest first, scaled to s'y = 1, or 0 where there is none, ``(problems, k, n)``.
    """
    products = changes @ differences.mT
    diagonal = products.diagonal(dim1=-2, dim2=-1)
    none = (diagonal == 0).to(gradient)
    upper = products.triu() + none.diag_embed()
    among = differences @ differences.mT
    norms = among.diagonal(dim1=-2, dim2=-1)
    place = torch.arange(1, norms.shape[1] + 1, device=norms.device) * (1 - none)
    newest = place.argmax(1, keepdim=True)
    scale = torch.where(place.amax(1) > 0, 1 / norms.gather(1, newest)[:, 0].clamp_min(1e-30), 1.0)[:, None, None]
    column = gradient.unsqueeze(-1)
    by_change = torch.linalg.solve_triangular(upper, changes @ column, upper=True)
    inner = diagonal.unsqueeze(-1) * by_change + scale * (among @ by_change - differences @ column)
    outer = torch.linalg.solve_triangular(upper.mT, inner, upper=False)
    return (scale * column + changes.mT @ outer - scale * (differences.mT @ by_change)).squeeze(-1)


def _line_search(
    loss: Loss | Differentiated,
    x: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
    slope: Tensor,
    size: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backtracks until every problem's loss falls as it should; one that never does stays where it is."""
    best, best_value, best_gradient = x, value, gradient
    wanting = size > 0
    for _ in range(HALVINGS):
        trial = x + size[:, None] * direction
        trial = torch.where(wanting[:, None], trial, best)
        trial_value, trial_gradient = _differentiated(loss, trial)
        sound = trial_value.isfinite() & trial_gradient.isfinite().all(-1)
        good = wanting & sound & (trial_value <= value + ARMIJO * size * slope)
        best = torch.where(good[:, None], trial, best)
        best_value = torch.where(good, trial_value, best_value)
        best_gradient = torch.where(good[:, None], trial_gradient, best_gradient)
        wanting = wanting & ~good
        if not bool(wanting.any()):
            break
        # the minimum of a parabola through value, slope and trial, where that says something
        bend = trial_value - value - slope * size
        parabola = torch.where(sound & (bend > 0), -slope * size.square() / (2 * bend.clamp_min(1e-30)), 0.25 * size)
        size = torch.where(wanting, torch.minimum(torch.maximum(parabola, 0.1 * size), 0.5 * size), size)
    return best, best_value, best_gradient


def rooted(x: Tensor, even: Tensor) -> Tensor:
    """Returns numbers with the square roots of those that act by their size alone: smooth where that has a corner.

    Args:
        x: ``(..., n)``.
        even: which these are, bool ``(n,)``.
    """
    return torch.where(even, x.abs().clamp_min(LEAST).sqrt(), x)


def unrooted(x: Tensor, even: Tensor) -> Tensor:
    """Returns the numbers that :func:`rooted` took the roots of."""
    return torch.where(even, x.square(), x)
