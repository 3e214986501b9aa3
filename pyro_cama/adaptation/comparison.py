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
    if len(values) < 2 or not bool(torch.isfinite(values).all()):
        return values
    low, high = torch.quantile(values, torch.tensor([0.05, 0.95], dtype=values.dtype))
    return values.clamp(low, high)
