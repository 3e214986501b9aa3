"""log p(x | a, c) of rows without labels, by which adaptations are compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_cama.data import Batch
from pyro_cama.elbo import context_of, importance_bound, marginal, shared_mean
from pyro_cama.engine import fast
from pyro_cama.noise import common_noise
from pyro_cama.training import manipulation_of

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA


def evidence_of(cama: CAMA, batch: Batch, ratio: Tensor, *, do: Any, samples: int | None = None) -> Tensor:
    """log p(x | a, c) of every row, ``(rows,)``; a shared m at its posterior mean."""
    m = cama.graph.m
    assert m is not None
    samples = samples or (8 if cama.model.has_images else 32)
    if do is None and m.scope != "row":
        do = {m.name: shared_mean(cama.guide)}
    calibrated = manipulation_of(cama.model).calibrated()
    with torch.no_grad(), fast(), common_noise(cama.settings.seed), calibrated:
        found = []
        for rows in torch.arange(batch.rows, device=cama.device).split(cama._chunk(samples)):
            weights = cama.log_weights(batch.select(rows), do=do, samples=samples, classes=True)
            found.append((marginal(importance_bound(weights), ratio) + context_of(weights)).double().cpu())
        return torch.cat(found)


def compare(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean of ``a - b`` over rows and its standard error, the outer twentieths winsorised: evidence has heavy tails."""
    gain = a - b
    if not bool(torch.isfinite(gain).all()):
        return math.nan, math.inf
    if len(gain) < 2:
        return float(gain.mean()), math.inf
    gain = winsorised(gain)
    return float(gain.mean()), float(gain.std() / len(gain) ** 0.5)


def winsorised(values: Tensor) -> Tensor:
    """The values, their outer twentieths pulled in."""
    if len(values) < 2 or not bool(torch.isfinite(values).all()):
        return values
    low, high = torch.quantile(values, torch.tensor([0.05, 0.95], dtype=values.dtype))
    return values.clamp(low, high)
