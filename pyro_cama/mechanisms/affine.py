"""Affine: gain, offset, noise and reversal of a continuous child (a mechanism of the library, not of the paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.data.scales import off_scale, slope
from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Clean, Line, Mechanism, Readings, log_gain, magnitude, raw_gain


class _Affine(dist.TransformedDistribution):
    """One affine transform of any distribution, with the mean that torch does not work out."""

    @property
    def mean(self) -> Tensor:
        mean: Tensor = self.transforms[0](self.base_dist.mean)
        return mean


class Affine(Mechanism):
    """A continuous child: x = ±exp(g) x~ + b + noise, in training standard deviations; theta = (g, b, s, r).

    The noise has variance ``|s|``, so that a noisy, reversed or otherwise unexplained column can be trusted less; it
    widens normal and Student-t likelihoods and is left out of others.  A scale is reversed where ``r > 1``: no gradient
    finds that, so adaptation searches it (:meth:`alternatives`).

    Args:
        shared: many rows share an m.  If not, theta = (g, b): a single row cannot tell noise from an offset.
    """

    types = ("continuous",)
    composes = True
    guesses = True
    simulates = True
    pulls_back = True
    linear = True
    _REVERSED = 2.0

    def __init__(self, shared: bool = True) -> None:
        self.shared = shared

    def size(self, node: Node) -> int:
        return 4 if self.shared else 2

    def prior_scale(self, node: Node) -> Tensor:
        return torch.tensor([0.1, 1.0, 0.5, math.inf])[: self.size(node)]

    def even(self, node: Node) -> Tensor:
        return torch.tensor([False, False, True, False])[: self.size(node)]

    def felt(self, theta: Tensor) -> Tensor:
        gain = self._gain(theta).abs()
        one = torch.ones_like(gain)
        return torch.stack([one, gain, gain.square(), one][: theta.shape[-1]], -1)

    def of_scope(self, scope: str) -> Affine:
        return Affine(shared=scope != "row")

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        gain, offset = self._gain(theta), theta[..., 1]
        if isinstance(clean, dist.Normal | dist.StudentT):
            scale = gain.abs() * clean.scale
            if self.shared:
                scale = scale * (1 + magnitude(theta[..., 2]) / scale.square()).sqrt()  # exactly times 1 without noise
            loc = gain * clean.loc + offset
            return dist.Normal(loc, scale) if isinstance(clean, dist.Normal) else dist.StudentT(clean.df, loc, scale)
        return _Affine(clean, [dist.transforms.AffineTransform(offset, gain)])

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        gain = self._gain(theta)
        clean: Tensor = (x - theta[..., 1]) / gain
        if self.shared:  # what of it is not noise, x~ being standardised
            clean = clean / (1 + magnitude(theta[..., 2]) / gain.square())
        return clean

    def pull_back(self, x: Tensor, theta: Tensor) -> Clean:
        gain = self._gain(theta)
        noise = magnitude(theta[..., 2]) if self.shared else torch.zeros_like(gain)
        return Clean((x - theta[..., 1]) / gain, -gain.abs().log(), noise / gain.square())

    def line(self, theta: Tensor) -> Line:
        log = log_gain(theta[..., 0])
        slope = (-log).exp()
        variance = magnitude(theta[..., 2]) * slope.square() if self.shared else torch.zeros_like(slope)
        if self.shared:
            slope = torch.where(theta[..., 3] > 1, -slope, slope)
        return Line(slope, -theta[..., 1] * slope, -log, variance)

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        pushed: Tensor = x * self._gain(theta) + theta[..., 1]
        return pushed + torch.randn_like(x) * magnitude(theta[..., 2]).sqrt() if self.shared else pushed

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        hit = torch.rand(*shape, 1) < 0.5  # a drift rarely moves every column
        size = self.size(node)
        return torch.randn(*shape, size) * torch.tensor([0.2, 1.0, 0.0, 0.0])[:size] * scale * hit

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        sd = x.std() if len(x) > 1 else torch.zeros(())
        still = sd <= 1e-6 * x.abs().amax().clamp_min(1e-3)  # readings that do not move tell nothing of a gain
        gain = raw_gain(torch.where(still, torch.zeros_like(sd), (sd / statistics["sd"]).log()))
        rest = [torch.zeros_like(gain)] * 2 if self.shared else []
        return torch.stack([gain, x.mean() - log_gain(gain).exp() * statistics["mean"], *rest])

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> tuple[Tensor, ...]:
        """Returns the scale reversed, and a wider spread as noise (gradients mistake it for gain); x keeps its mean."""
        if not self.shared:
            return ()
        gain = self._gain(theta)
        turned, noisy = theta.clone(), theta.clone()
        turned[3] = 0.0 if theta[3] > 1 else self._REVERSED
        noisy[0] = 0.0
        noisy[2] = magnitude(theta[2]) + (gain.square() - 1) * statistics["sd"].square()
        found = (turned, noisy) if gain.abs() > 1 else (turned,)
        for other in found:
            other[1] += (gain - self._gain(other)) * statistics["mean"]
        return found

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Describes the change; on a logarithmic scale gain, offset and noise are those around the mean reading."""
        gain, offset = float(self._gain(theta)), float(theta[1])
        noise = abs(float(theta[2])) if self.shared else 0.0
        mean, sd, unit = (np.asarray(float(statistics.get(key, 0.0))) for key in ("mean", "sd", "unit"))
        usual, moved = (float(off_scale(value, unit)) for value in (mean, mean + sd * offset))
        before, after = (float(sd / slope(np.asarray(reading), unit)) for reading in (usual, moved))
        return {
            "change": math.sqrt((gain - 1) ** 2 + offset**2 + noise),  # root mean square of x - x~, training rows
            "gain": gain * after / before,
            "offset": moved - usual * gain * after / before,
            "shift at the mean": moved - usual,
            "noise": math.sqrt(noise) * after
            if noise >= self.noticeable**2
            else 0.0,  # never negative: a little of it says nothing
        }

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns 0 as the least of a noise, and of a gain that cannot turn readings round."""
        positive = {"change", "noise"} if self.shared else {"change", "noise", "gain"}
        return (0.0 if parameter in positive else -math.inf), math.inf

    def _gain(self, theta: Tensor) -> Tensor:
        gain = log_gain(theta[..., 0]).exp()
        return torch.where(theta[..., 3] > 1, -gain, gain) if self.shared else gain
