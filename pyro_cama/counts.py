"""Distributions of counts whose log-probabilities hold in float32 too, for counts and means of any size.

The textbook forms are differences of lgammas: at 1e8 a float32 lgamma is a multiple of 128, and so is their log p.
Here log p is a sum of small parts, as in Loader (2000, "Fast and accurate computation of binomial probabilities").
"""

from __future__ import annotations

import math

import torch
from pyro import distributions as dist
from torch import Tensor

_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Poisson(dist.Poisson):
    """Poisson, scored at counts of any size."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p of whole numbers from 0 on."""
        if self._validate_args:
            self._validate_sample(value)
        rate = self.rate
        x = value.clamp_min(1.0)
        log_p = -stirling_error(x) - deviance(rate, (x - rate) / rate) - _HALF_LOG_TWO_PI - 0.5 * x.log()
        return torch.where(value > 0, log_p, -rate)


class GammaPoisson(dist.GammaPoisson):
    """Gamma-Poisson (negative binomial), scored at counts of any size."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p of whole numbers from 0 on: that of Loader's binomial, times r / (r + x)."""
        if self._validate_args:
            self._validate_sample(value)
        r, mean = self.concentration, self.concentration / self.rate
        x = value.clamp_min(1.0)
        total, far = x + r, x - mean
        binomial = stirling_error(total) - stirling_error(r) - stirling_error(x)
        binomial = binomial - deviance(total / (1 + mean / r), -far / total)  # r beside its expectation, given the sum
        binomial = binomial - deviance(total / (1 + r / mean), far / total * (r / mean))  # x beside its own
        log_p = binomial + 0.5 * (r.log() - total.log() - x.log()) - _HALF_LOG_TWO_PI
        return torch.where(value > 0, log_p, -r * torch.log1p(mean / r))


def deviance(expected: Tensor, excess: Tensor) -> Tensor:
    """Returns x log(x / e) - x + e, for x = e (1 + excess) above 0."""
    excess = excess.clamp_min(torch.finfo(excess.dtype).eps - 1)  # 1 beside 1e8 would round to none
    return expected * ((1 + excess) * torch.log1p(excess) - excess)


def stirling_error(x: Tensor) -> Tensor:
    """Returns lgamma(x + 1) - (x + 1/2) log x + x - log(2 pi) / 2, of x above 0."""
    inverse = 1 / x.clamp_min(8.0)
    series = torch.zeros_like(inverse)
    for factor in reversed(_SERIES):
        series = series * inverse.square() + factor
    small = x.clamp_max(8.0)
    exact = torch.lgamma(small + 1) - (small + 0.5) * small.log() + small - _HALF_LOG_TWO_PI
    return torch.where(x > 8, series * inverse, exact)
