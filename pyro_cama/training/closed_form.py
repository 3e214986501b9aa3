"""Where the training of a linear style starts: class means, and the leading directions of what is left of the rows.

The probabilistic principal components of every class's residuals (Tipping and Bishop 1999, *Probabilistic Principal
Component Analysis*), every column's own variance made up for: the factor analysis that follows begins near its end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.likelihoods import MIN_SCALE
from pyro_cama.model.generative_model import CAMAModel

LEAST = 0.05  # of a column's variance that is its own, at first


@torch.no_grad()
def start_style(model: CAMAModel, batch: Batch) -> None:
    """Sets means, loadings and scales of the children of a linear style to the moments of labelled rows.

    Args:
        model: with a linear style; others stay as they are.
        batch: training rows; those without a label have no part.
    """
    groups = [group for group in model.groups if group.linear_z]
    if not groups:
        return
    target, like = model.graph.target, model.like
    labelled = batch.observed.get(target)
    if labelled is not None:
        batch = batch.select(torch.nonzero(labelled).flatten())
    x = torch.cat([group.stack(batch.values) for group in groups], -1).double()
    masks = [group.stack_masks(batch.observed, batch.rows) for group in groups]
    known = torch.cat(
        [
            torch.ones(batch.rows, group.width, dtype=torch.bool, device=x.device) if mask is None else mask
            for group, mask in zip(groups, masks, strict=True)
        ],
        -1,
    )
    one_hot = F.one_hot(batch.values[target].long(), model.classes).double()
    means, residual = _class_means(x, known, one_hot)
    dim = next(model.loadings(group).factors.shape[-1] for group in groups)
    shared = len(model.loadings(groups[0]).factors) == 1
    pooled = residual.T @ residual / max(len(x), 1)
    covariances = pooled[None] if shared else _class_covariances(residual, one_hot, pooled)
    factors, own = _principal(covariances, dim)
    start = 0
    for group in groups:
        loadings, span = model.loadings(group), slice(start, start + group.width)
        loadings.means.copy_(means[:, span].to(like))
        loadings.factors.copy_(factors[:, span].to(like))
        scale = (own[:, span].sqrt() - MIN_SCALE).clamp_min(1e-3)
        raw = (scale + torch.log(-torch.expm1(-scale))).to(like).unsqueeze(-1)  # the inverse of softplus
        constants = model.constants(group)
        constants.copy_(raw if constants.dim() > 2 else raw[0])
        start += group.width


def _class_means(x: Tensor, known: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Class means, ``(classes, width)``, by one row of the whole held back from the extremes; what is left, else 0."""
    weight = known.double()
    overall = (x * weight).sum(0) / weight.sum(0).clamp_min(1.0)
    sums, counts = one_hot.T @ (x * weight), one_hot.T @ weight
    means = (sums + overall) / (counts + 1.0)
    return means, torch.where(known, x - one_hot @ means, 0.0)


def _class_covariances(residual: Tensor, one_hot: Tensor, pooled: Tensor) -> Tensor:
    """Covariances of every class, ``(classes, width, width)``; few rows lean on those of all."""
    counts, width = one_hot.sum(0), residual.shape[1]
    own = torch.stack([(residual * part[:, None]).T @ residual for part in one_hot.T])
    return (own + width * pooled) / (counts + width)[:, None, None]


def _principal(covariance: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Loadings ``(..., width, dim)`` and the variances that these leave, ``(..., width)``."""
    values, vectors = torch.linalg.eigh(covariance)
    width = values.shape[-1]
    kept = min(dim, width - 1) if width > 1 else 0
    rest = values[..., : width - kept].mean(-1, keepdim=True)
    scale = (values[..., width - kept :] - rest).clamp_min(0.0).sqrt()
    factors = vectors[..., width - kept :] * scale.unsqueeze(-2)
    variance = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(MIN_SCALE**2)
    own = torch.maximum(variance - factors.square().sum(-1), LEAST * variance)
    return F.pad(factors.flip(-1), (0, dim - kept)), own
