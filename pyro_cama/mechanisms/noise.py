"""Noise: an image recorded with too little light, or by a worse sensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import bounded, magnitude
from pyro_cama.mechanisms.image import ImageMechanism, moved

MOST = 0.25  # variance
SLIGHT = 1e-4  # variance, up to which grey values hardly change: their gradient at rest is finite
WINDOW = 5  # pixels a side of the neighbourhood that tells noise from what is seen


class Noise(ImageMechanism):
    """Adds normal noise of variance ``|theta| / 10`` to every pixel of every channel, of a quarter at most.

    The likelihood knows of it: a normal one gets the variance of both.  A Bernoulli one gets the mean grey of clean
    black and white pixels with noise of deviation s, cut off at 0 and 1: p becomes p + w (1/2 - p), w = s sqrt(2 / pi).
    What is read of the clean image is its local linear estimate from 5 x 5 pixels (Lee 1980, Digital image enhancement
    and noise filtering by use of local statistics).  Noise is that of recording: in a sum of mechanisms it is the
    likelihood's, after all that moves the mean, wherever it stands.
    """

    numbers = 1
    simulates = True
    random = True

    def prior_scale(self, node: Node) -> Tensor:
        return torch.tensor([0.3])

    def even(self, node: Node) -> Tensor:
        return torch.ones(1, dtype=torch.bool)

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        noise = _variance(theta)
        if isinstance(clean, dist.Normal):
            loc, scale = torch.broadcast_tensors(clean.loc, clean.scale * (1 + noise / clean.scale.square()).sqrt())
            return dist.Normal(loc, scale)
        grey = math.sqrt(2 / math.pi) * ((noise + SLIGHT).sqrt() - math.sqrt(SLIGHT))
        return moved(clean, lambda mean: mean + grey * (0.5 - mean))

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        level = _variance(theta).sqrt()
        return x + level * torch.randn_like(x + level)

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        mean = _local_mean(x)
        spread = (_local_mean(x.square()) - mean.square()).clamp_min(1e-6)
        return x + (_variance(theta) / spread).clamp_max(1.0) * (mean - x)

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.rand(*shape, self.numbers) * 2 * self.prior_scale(node) * scale

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        level = math.sqrt(float(_variance(theta)))
        return {"change": level, "noise": level}

    def range_of(self, parameter: str) -> tuple[float, float]:
        return (0.0 if parameter in ("change", "noise") else -math.inf), math.inf


def _variance(theta: Tensor) -> Tensor:
    """Returns the noise's variance, ``(..., 1, 1, 1)``."""
    return bounded(magnitude(theta[..., 0, None, None, None]) / 10, MOST)


def _local_mean(x: Tensor) -> Tensor:
    """Returns the mean of the pixels around every pixel; the image goes on as its edge beyond the frame."""
    around = WINDOW // 2
    images = F.pad(x.reshape(-1, *x.shape[-3:]), (around, around, around, around), mode="replicate")
    return F.avg_pool2d(images, WINDOW, 1).reshape(x.shape)
