"""A linear style, summed out: exact densities of rows, and the exact posterior of z.

With children x~ | y, a, c, z ~ N(mu + L_y z, D_y), z ~ N(0, I), and a manipulation that maps readings x to x~ and adds
noise of variance S (:class:`pyro_cama.mechanisms.base.Clean`),

    A = I + L' P L,  P = (D + S)^-1 of what was measured,  h = L' P (x~ - mu)
    q(z | x, y, m, a, c) = N(A^-1 h, A^-1)
    log p(x | y, m, a, c) = log N(x~; mu + L A^-1 h, D + S) - |A^-1 h|^2 / 2 - log|A| / 2 + log |dx~/dx|

whose first line would be -h'A^-1 h / 2 in other words, but for the digits that a difference of large numbers loses.
The weight log p(x, z | y, m) - log q(z | x, y, m) is then the same number for every z: a draw adds no noise to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.model.causes import Causes
from pyro_cama.model.groups import Group, MovedGroup


@dataclass(frozen=True)
class _Part:
    """A group's part of the sums, for the rows of every class.

    Attributes:
        residual: x~ - mu, ``(..., rows, width)``.
        precision: P, 0 where nothing was measured, ``(..., rows or 1, width)``.
        loadings: L, ``(width, dim)`` or ``(..., rows or 1, width, dim)``.
        logs: what of log p(x | y) does not depend on the style, 0 where nothing was measured, ``(..., width)``.
    """

    residual: Tensor
    precision: Tensor
    loadings: Tensor
    logs: Tensor


@dataclass(frozen=True)
class StylePosterior:
    """q(z | x, y, m, a, c).

    Attributes:
        mean: ``(..., rows, dim)``.
        cholesky: of its precision A, ``(..., rows or 1, dim, dim)``.
    """

    mean: Tensor
    cholesky: Tensor

    def distribution(self) -> dist.MultivariateNormal:
        """Returns it as a distribution, batch shape ``(..., rows)``."""
        eye = torch.eye(self.cholesky.shape[-1], dtype=self.cholesky.dtype, device=self.cholesky.device)
        tril = torch.linalg.cholesky(torch.cholesky_solve(eye, self.cholesky))
        return dist.MultivariateNormal(self.mean, scale_tril=tril)

    @property
    def scale(self) -> Tensor:
        """Standard deviation of every dimension by itself, ``(..., rows or 1, dim)``."""
        eye = torch.eye(self.cholesky.shape[-1], dtype=self.cholesky.dtype, device=self.cholesky.device)
        return torch.cholesky_solve(eye, self.cholesky).diagonal(dim1=-2, dim2=-1).sqrt()


def sums_out(groups: Sequence[Group]) -> bool:
    """Returns whether the style of a model can be summed out: it acts linearly on all of its children, and m's
    mechanisms on these pull back.
    """
    styled = [group for group in groups if group.has_z]
    return bool(styled) and all(
        group.linear_z and (not isinstance(group, MovedGroup) or not group.theta_size or group.mechanism.pulls_back)
        for group in styled
    )


def style_posterior(causes: Causes, groups: Sequence[Group], batch: Batch) -> StylePosterior:
    """Returns q(z | x, y, m, a, c) of every row, from the children on which the style acts linearly.

    Args:
        causes: without a z.
    """
    return _posterior(causes, batch, _parts(causes, groups, batch))


def style_log_prob(causes: Causes, groups: Sequence[Group], batch: Batch) -> Tensor:
    """Returns log p of the children of a linear style given y, m, a, c, the style summed out, ``(..., rows)``.

    Args:
        causes: without a z.
    """
    parts = _parts(causes, groups, batch)
    posterior = _posterior(causes, batch, parts)
    total = -0.5 * posterior.mean.square().sum(-1) - posterior.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    for part in parts:
        error = part.residual - _applied(part.loadings, posterior.mean)
        total = total + (part.logs - 0.5 * error.square() * part.precision).sum(-1)
    return total


def change_of_each(causes: Causes, other: Causes, groups: Sequence[Group], batch: Batch) -> dict[str, Tensor]:
    """Returns by how much log p(x | y, m, a, c) changes if one component's theta alone is another one.

    In closed form for all components at once: a changed reading is a change of rank one in A and h.

    Args:
        causes, other: without a z; their thetas differ, and nothing that effects read of their causes does.

    Returns:
        By the first node of each group on which the style acts linearly, ``(..., classes, rows, width)``.
    """
    parts = _parts(causes, groups, batch)
    posterior, found = _posterior(causes, batch, parts), {}
    keys = [group.nodes[0] for group in groups if group.linear_z]
    for key, now, then in zip(keys, parts, _parts(other, groups, batch), strict=True):
        expected = _applied(now.loadings, posterior.mean)
        factor = now.loadings.mT
        if posterior.cholesky.dim() > factor.dim():
            factor = factor.expand(*posterior.cholesky.shape[:-2], *factor.shape[-2:])
        spread = torch.linalg.solve_triangular(posterior.cholesky, factor, upper=False).square().sum(-2)
        delta = then.precision - now.precision
        shift = then.residual * then.precision - now.residual * now.precision
        grown = 1 + delta * spread
        moved = expected + shift * spread
        explained = 2 * shift * expected + shift.square() * spread - delta * moved.square() / grown
        error = then.residual.square() * then.precision - now.residual.square() * now.precision
        found[key] = then.logs - now.logs - 0.5 * (error - explained + grown.log())
    return found


def conditional_scales(causes: Causes, groups: Sequence[Group], batch: Batch) -> dict[str, Tensor]:
    """Returns how far a child is from what all the others say of it, a standard deviation, of a complete first row.

    Args:
        causes: of every class, without a z.

    Returns:
        By the first node of each group on which the style acts linearly, ``(classes, width)``.
    """
    parts = _parts(causes, groups, batch)
    cholesky = _posterior(causes, batch, parts).cholesky
    found = {}
    for key, part in zip((g.nodes[0] for g in groups if g.linear_z), parts, strict=True):
        classes = part.residual.shape[-3]
        loadings = (
            part.loadings.expand(classes, *part.loadings.shape[-2:])
            if part.loadings.dim() == 2
            else (part.loadings[..., 0, :, :])
        )
        factor = cholesky.expand(classes, *cholesky.shape[-2:]) if cholesky.dim() == 2 else cholesky[..., 0, :, :]
        own = part.precision.expand(*part.residual.shape)[..., 0, :]
        half = torch.linalg.solve_triangular(factor, loadings.mT, upper=False)  # A^-1/2 L'
        found[key] = (own - own.square() * half.square().sum(-2)).clamp_min(1e-12).rsqrt()
    return found


def _parts(causes: Causes, groups: Sequence[Group], batch: Batch) -> list[_Part]:
    y = causes.values[causes.graph.target].long()
    found = []
    for group in groups:
        if not group.linear_z or not any(name in batch.values for name in group.nodes):
            continue
        clean = causes.distributions(group)
        x, variance = group.stack(causes.values), clean.scale.square()
        slope = torch.zeros((), dtype=x.dtype, device=x.device)
        pulled = causes.manipulation.pull_back(x, causes.theta, group) if causes.manipulation is not None else None
        if pulled is not None:
            x, slope, variance = pulled.x, pulled.log_slope, variance + pulled.variance
        logs = slope - 0.5 * variance.log() - _HALF_LOG_2_PI
        precision = variance.reciprocal()
        nowhere = torch.zeros(batch.rows, dtype=torch.bool, device=x.device)
        known = dict(batch.observed) | {name: nowhere for name in group.nodes if name not in batch.values}
        mask = group.stack_masks(known, batch.rows)
        if mask is not None:
            precision, logs = precision * mask, logs * mask
        found.append(_Part(x - clean.loc, precision, causes.loadings(group).of_class(y), logs))
    return found


def _posterior(causes: Causes, batch: Batch, parts: list[_Part]) -> StylePosterior:
    assert causes.graph.z is not None
    dim, like = causes.graph.z.dim, causes.like
    precision = torch.eye(dim, dtype=like.dtype, device=like.device)
    moment = torch.zeros(batch.rows, dim, dtype=like.dtype, device=like.device)
    for part in parts:
        weighted = part.loadings * part.precision.unsqueeze(-1)  # P L, of one row where all are alike
        precision = precision + weighted.mT @ part.loadings
        moment = moment + _transposed(part.loadings, part.residual * part.precision)
    cholesky = torch.linalg.cholesky(precision)
    alike = cholesky.dim() == 2 or cholesky.shape[-3] == 1  # one factor for all rows of a class
    if alike:
        factor = cholesky if cholesky.dim() == 2 else cholesky[..., 0, :, :]
        return StylePosterior(torch.cholesky_solve(moment.mT, factor).mT, cholesky)
    return StylePosterior(torch.cholesky_solve(moment.unsqueeze(-1), cholesky).squeeze(-1), cholesky)


def _applied(loadings: Tensor, z: Tensor) -> Tensor:
    """L z, ``(..., rows, width)``; one product for all rows of a class where they share L."""
    if loadings.dim() == 2:
        return z @ loadings.mT
    if loadings.shape[-3] == 1:
        return z @ loadings[..., 0, :, :].mT
    return (loadings @ z.unsqueeze(-1)).squeeze(-1)


def _transposed(loadings: Tensor, values: Tensor) -> Tensor:
    """L' v, ``(..., rows, dim)``."""
    if loadings.dim() == 2:
        return values @ loadings
    if loadings.shape[-3] == 1:
        return values @ loadings[..., 0, :, :]
    return (loadings.mT @ values.unsqueeze(-1)).squeeze(-1)


_HALF_LOG_2_PI = 0.9189385332046727
