"""Paired differences of the evidence of rows, winsorised, since it has heavy tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def compare(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Estimates the mean of ``a - b`` over rows and its standard error, the outer twentieths winsorised."""
    gain = a - b
    if not bool(torch.isfinite(gain).all()):
        return math.nan, math.inf
    if len(gain) < 2:
        return float(gain.mean()), math.inf
    gain = winsorised(gain)
    return float(gain.mean()), float(gain.std() / len(gain) ** 0.5)


def winsorised(values: Tensor) -> Tensor:
    """Returns the values, the outer twentieths pulled in to the 5th and 95th percentile."""
    return winsorised_rows(values[None])[0] if bool(torch.isfinite(values).all()) else values


def winsorised_rows(values: Tensor) -> Tensor:
    """Returns :func:`winsorised` of every row of a matrix."""
    if values.shape[1] < 2:
        return values
    share = torch.tensor([0.05, 0.95], dtype=values.dtype, device=values.device)
    low, high = torch.quantile(values, share, dim=1, keepdim=True)
    return values.clamp(low, high)
