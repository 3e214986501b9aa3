"""Blur: an image out of focus, or sharper than it was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import bounded
from pyro_cama.mechanisms.image import ImageMechanism


class Blur(ImageMechanism):
    """Blurs by a variance of theta / 2 square pixels, and sharpens by as much where theta is below 0.

    Of every pair of spatial frequencies (those of a cosine transform: the image goes on as its mirror image beyond the
    frame) exp(-theta (1 - g)) is left, g what the binomial kernel of 3 x 3 pixels leaves of it.  theta is the time of a
    diffusion from pixel to pixel, so -theta undoes theta exactly; it is bounded by 4, at which the finest pattern is 55
    times as weak or as strong.
    """

    numbers = 1
    simulates = True

    def prior_scale(self, node: Node) -> Tensor:
        return torch.tensor([1.2])

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        high, wide = (_cosines(side).to(x) for side in x.shape[-2:])
        left = (_left(len(high))[:, None] * _left(len(wide))).to(x)
        factor = torch.expm1(-bounded(theta[..., 0, None, None, None]) * (1 - left))
        return x + high.mT @ ((high @ x @ wide.mT) * factor) @ wide

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return self.push(x, -theta)

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return (2 * torch.rand(*shape, self.numbers) - 1) * 1.7 * self.prior_scale(node) * scale

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        variance = float(bounded(theta[0])) / 2
        deviation = math.copysign(math.sqrt(abs(variance)), variance)  # of a Gaussian, in pixels
        return {"change": abs(deviation), "blur": deviation}


def _cosines(side: int) -> Tensor:
    """Returns the orthonormal cosine transform of a side (DCT-II), ``(side, side)``, a frequency a row."""
    at = torch.arange(side, dtype=torch.float64)
    found = torch.cos(math.pi / side * at[:, None] * (at + 0.5)) * math.sqrt(2 / side)
    found[0] /= math.sqrt(2)
    return found


def _left(side: int) -> Tensor:
    """Returns what the kernel (1, 2, 1) / 4 leaves of each of them, ``(side,)``."""
    return torch.cos(math.pi / (2 * side) * torch.arange(side, dtype=torch.float64)).square()
