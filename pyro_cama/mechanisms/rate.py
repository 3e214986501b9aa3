"""Rate: the rate of a count times a factor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama import counts
from pyro_cama.errors import GraphError
from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Mechanism, log_gain, raw_gain


class Rate(Mechanism):
    """A count whose rate is multiplied by exp(g); theta = (g,).  ``push`` rounds to whole numbers."""

    types = ("count",)
    composes = True
    guesses = True
    simulates = True
    noticeable = 0.1

    def size(self, node: Node) -> int:
        return 1

    def prior_scale(self, node: Node) -> Tensor:
        return torch.tensor([0.2])

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        gain = log_gain(theta[..., 0]).exp()
        if isinstance(clean, dist.GammaPoisson):
            return counts.GammaPoisson(clean.concentration, clean.rate / gain)
        if isinstance(clean, dist.Poisson):
            return counts.Poisson(clean.rate * gain)
        raise GraphError(f"mechanism rate needs a Poisson or negative-binomial likelihood, found {clean}")

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return x * (-log_gain(theta[..., 0])).exp()

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        return torch.round(x * log_gain(theta[..., 0]).exp())

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.randn(*shape, 1) * 0.5 * scale * (torch.rand(*shape, 1) < 0.5)

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        ratio = x.mean().clamp_min(1e-2) / statistics["mean"].clamp_min(1e-2)
        return raw_gain(ratio.log()).reshape(1)

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        gain = float(log_gain(theta[0]).exp())
        return {"change": abs(gain - 1), "gain": gain}

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns 0 as the least: a factor of rates."""
        return 0.0, math.inf
