"""Sums over rows of log p(x | a, c), where classes differ in their means alone: products of few numbers a row.

With loadings and scales that all classes share, and a mechanism that maps readings on a straight line, x~ = a x + b,

    log p(x | y) = log N(x~; c, S) + d_y' S^-1 (x~ - c) - d_y' S^-1 d_y / 2 + log |a|,   d_y = mu_y - c,
    S^-1 = P - B'B,   P = (D + noise)^-1,   B = A^-1/2 L' P,   A = I + L' P L

(c is the middle of the means).  The first term is the same of every class, so that its sum over rows needs no more than
their squares and B x~; the second is Fisher's linear discriminant.  No tensor has rows, columns and classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_cama.data.batch import Batch
from pyro_cama.mechanisms.base import Line
from pyro_cama.model.causes import Causes
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.groups import Group, MovedGroup


class Classes(NamedTuple):
    """Densities of classes: means ``(classes, width)``, loadings ``(width, dim)`` and variances ``(width,)``."""

    means: Tensor
    loadings: Tensor
    variances: Tensor


class Rows(NamedTuple):
    """Rows by site, others of weight 0 filling up.

    Attributes:
        x: ``(sites, width, most)``, float64: sums of large squares cancel.
        weights: ``(problems, sites, most)``.
        total: sums of the weights, ``(problems, sites)``.
        first, second: weighted sums of x and its square, ``(problems, sites, width)``.
    """

    x: Tensor
    weights: Tensor
    total: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, x: Tensor, weights: Tensor) -> Rows:
        """Returns them with their sums."""
        first, second = ((part @ weights.unsqueeze(-1)).squeeze(-1) for part in (x, x.square()))
        return cls(x, weights, weights.sum(-1), first, second)

    def read(self, seen: Tensor) -> Tensor:
        """Returns products of ``(problems, sites, k, width)`` with all rows, ``(problems, sites, k, most)``."""
        problems, _, number, _ = seen.shape
        found = seen.transpose(0, 1).flatten(1, 2) @ self.x  # one product for all problems
        return found.unflatten(1, (problems, number)).transpose(0, 1)

    def pulled(self, read: Tensor) -> Tensor:
        """Returns the sums over rows of x times what was read of them, shaped as ``seen`` of :meth:`read`."""
        problems, _, number, _ = read.shape
        found = read.transpose(0, 1).flatten(1, 2) @ self.x.mT
        return found.unflatten(1, (problems, number)).transpose(0, 1)


def differ_in_means(model: CAMAModel, batch: Batch, *, moved: bool = True) -> bool:
    """Returns whether classes differ in the means of the children of a linear style alone, all of these measured.

    Args:
        moved: m acts on the rows: then its mechanisms also have to map readings on straight lines.
    """
    groups = styled(model)
    return bool(groups) and all(
        not group.merged
        and len(model.loadings(group).factors) == 1
        and all(name in batch.values and name not in batch.observed for name in group.nodes)
        and (not moved or not isinstance(group, MovedGroup) or not group.theta_size or group.mechanism.linear)
        for group in groups
    )


def scored(rows: Rows, classes: Classes, lines: Line) -> tuple[Tensor, Tensor]:
    """Returns what all classes share of the log-densities, summed over rows, and what tells them apart.

    Returns:
        ``(problems, sites)``, and of every row ``(problems, sites, classes, most)``: log p(x | y) but for the shared
        part.

    Args:
        rows, classes: what is scored, and by what.
        lines: of every column, ``(problems, sites, width)``.
    """
    shared, apart = _Scored.apply(*rows, *classes, *lines)
    return shared, apart


class _Scored(torch.autograd.Function):
    """:func:`scored`; its gradient by hand is as many small products as its value, a third of what a graph takes."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        rows, (means, loadings, variances), lines = Rows(*given[:5]), given[5:8], Line(*given[8:])
        apart = means - means.mean(0)
        precision, offset = (variances + lines.variance).reciprocal(), lines.offset - means.mean(0)
        weighted = loadings * precision.unsqueeze(-1)
        eye = torch.eye(weighted.shape[-1], dtype=weighted.dtype, device=weighted.device)
        cholesky = torch.linalg.cholesky(eye + loadings.mT @ weighted)
        half = torch.linalg.solve_triangular(cholesky, weighted.mT, upper=False)  # B
        solved = apart * precision.unsqueeze(-2) - (apart @ half.mT) @ half  # S^-1 d
        seen = torch.cat([half, solved], -2)
        read = rows.read(lines.slope.unsqueeze(-2) * seen) + seen @ offset.unsqueeze(-1)
        ctx.save_for_backward(*given, apart, precision, offset, cholesky, seen, read)
        squares, _ = _sums(rows, lines.slope, offset)
        whitened, told = read[..., : half.shape[-2], :], read[..., half.shape[-2] :, :]
        left = (precision * squares).sum(-1) - (whitened.square().sum(-2) * rows.weights).sum(-1)
        logs = (lines.log_slope + 0.5 * precision.log() - _HALF_LOG_2_PI).sum(-1)
        logs = logs - cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return rows.total * logs - 0.5 * left, told - 0.5 * (apart * solved).sum(-1, keepdim=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        *given, apart, precision, offset, cholesky, seen, read = ctx.saved_tensors
        rows, loadings, lines = Rows(*given[:5]), given[6], Line(*given[8:])
        whole, of_class = upstream[0].unsqueeze(-1), upstream[1]
        dim = loadings.shape[-1]
        half, solved, whitened = seen[..., :dim, :], seen[..., dim:, :], read[..., :dim, :]
        pulled = torch.cat([whitened * (rows.weights * whole).unsqueeze(-2), of_class], -2)
        moments, totals = rows.pulled(pulled), pulled.sum(-1, keepdim=True)  # with x, and with 1
        squares, sums = _sums(rows, lines.slope, offset)
        slope = (seen * moments).sum(-2) - whole * precision * (lines.slope * rows.second + offset * rows.first)
        shift = (seen * totals).sum(-2) - whole * precision * sums
        with_rest = lines.slope.unsqueeze(-2) * moments + totals * offset.unsqueeze(-2)  # with x~ - c
        crossed = pulled @ whitened.mT
        among, between, labels = crossed[..., :dim, :], crossed[..., dim:, :], totals[..., dim:, :]
        explained = precision.unsqueeze(-2) * with_rest - crossed @ half  # sums of S^-1 (x~ - c)
        own = whole * precision * (precision * squares - rows.total.unsqueeze(-1))
        own = own + (half * (whole.unsqueeze(-2) * rows.total[..., None, None] * half)).sum(-2)
        own = own - (half * (2 * precision.unsqueeze(-2) * with_rest[..., :dim, :] - among @ half)).sum(-2)
        variance = 0.5 * own - (solved * (explained[..., dim:, :] - 0.5 * labels * solved)).sum(-2)
        found: list[Tensor | None] = [None] * len(given)
        found[8:] = slope, shift, (whole * rows.total.unsqueeze(-1)).expand_as(slope), variance
        if not any(ctx.needs_input_grad[5:8]):
            return tuple(found)
        of_means = (explained[..., dim:, :] - labels * solved).sum((0, 1))
        found[5] = of_means - (shift.sum((0, 1)) + of_means.sum(0)) / len(apart)
        seen_by = solved @ loadings
        inner = explained[..., :dim, :] - whole.unsqueeze(-2) * rows.total[..., None, None] * half
        left = torch.linalg.solve_triangular(cholesky, inner.mT - solved.mT @ between, upper=False, left=False)
        found[6] = (left - explained[..., dim:, :].mT @ seen_by + solved.mT @ (labels * seen_by)).sum((0, 1))
        found[7] = variance.sum((0, 1))
        return tuple(found)


def _sums(rows: Rows, slope: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums of (slope x + offset)^2 and of slope x + offset, ``(problems, sites, width)``."""
    sums = slope * rows.first + offset * rows.total.unsqueeze(-1)
    return slope * (slope * rows.second + offset * rows.first) + offset * sums, sums


def classes_of(model: CAMAModel, causes: Causes) -> Classes:
    """Returns the densities of the children of a linear style, where :func:`differ_in_means` holds; side by side.

    Args:
        causes: of every class, without a z.
    """
    found = [causes.distributions(group) for group in styled(model)]
    means = [d.loc.reshape(model.classes, -1) for d in found]
    loadings = [model.loadings(group).factors[0] for group in styled(model)]
    variances = [d.scale.square().expand(d.loc.shape)[..., 0, :].reshape(model.classes, -1)[0] for d in found]
    return Classes(torch.cat(means, -1).double(), torch.cat(loadings).double(), torch.cat(variances).double())


def lines_of(model: CAMAModel) -> Callable[[Tensor], Line]:
    """Returns the lines on which m's mechanisms map the same children, of thetas ``(problems, sites, size)``."""
    manipulation, groups = model.manipulation, styled(model)

    def joined(parts: list[Line]) -> Line:
        return parts[0] if len(parts) == 1 else Line(*(torch.cat(part, -1) for part in zip(*parts, strict=True)))

    last = joined([manipulation.line_compared(group) for group in groups])
    widened = (2 * last.log_slope).exp()

    def lines(theta: Tensor) -> Line:
        first = joined([manipulation.line(theta, group) for group in groups])
        return Line(
            last.slope * first.slope,
            last.slope * first.offset + last.offset,
            first.log_slope + last.log_slope,
            last.variance + first.variance * widened,
        )

    return lines


def styled(model: CAMAModel) -> list[Group]:
    """Returns the groups on which the style acts linearly."""
    return [group for group in model.groups if group.linear_z]


_HALF_LOG_2_PI = 0.9189385332046727
