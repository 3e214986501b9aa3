"""Sample sites as functions of a noise of their own, which is what stays as it was in another world."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from pyro.poutine.messenger import Messenger


class Structural(Messenger):
    """Inside, a distribution with location and scale is standard noise that a transform maps, the same distribution.

    Counts, levels and images of pixels on or off have no such map and stay as they are.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], TorchDistributionMixin):
            msg["fn"] = from_noise(msg["fn"])


def from_noise(d: TorchDistribution) -> TorchDistribution:
    """Returns the distribution as standard noise mapped by one transform, where that is known; else as it is.

    >>> d = from_noise(dist.Normal(torch.tensor(2.0), 3.0))
    >>> d.base_dist, d.transforms[0](torch.tensor(1.0))
    (Normal(loc: 0.0, scale: 1.0), tensor(5.))
    """
    event = d.reinterpreted_batch_ndims if isinstance(d, dist.Independent) else 0
    noise, transforms = _taken_apart(d.base_dist if event else d)
    if not transforms:
        return d
    whole = transforms[0] if len(transforms) == 1 else dist.transforms.ComposeTransform(transforms)
    if event:
        noise, whole = noise.to_event(event), dist.transforms.IndependentTransform(whole, event)
    return dist.TransformedDistribution(noise, [whole])


def _taken_apart(d: TorchDistribution) -> tuple[TorchDistribution, list[Any]]:
    """Noise that does not depend on causes, and what maps it to values; no transforms where that is not known."""
    if isinstance(d, dist.Normal | dist.StudentT | dist.Laplace | dist.Logistic):
        zero, one = torch.zeros_like(d.loc), torch.ones_like(d.scale)
        noise = dist.StudentT(d.df, zero, one) if isinstance(d, dist.StudentT) else type(d)(zero, one)
        return noise, [dist.transforms.AffineTransform(d.loc, d.scale)]
    if isinstance(d, torch.distributions.TransformedDistribution):  # Pyro's is not the class of its LogNormal
        noise, transforms = _taken_apart(d.base_dist)
        return (noise, [*transforms, *d.transforms]) if transforms else (d, [])
    return d, []
