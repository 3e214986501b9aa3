"""Illumination: brightness and contrast that vary smoothly over an image, as in fog, glare or a vignette."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.gain import GainAndOffset


class Illumination(GainAndOffset):
    """Intensities x = gain(p) x~ + offset(p) at every pixel p; both smooth, and a gain below 0 is a negative.

    theta = (gain - 1, offset, what the gain has more at 3 x 3 points, what the offset has more at 5 x 5); bicubic
    between the points, the outer of which are the corners of the image.  The same for all channels.
    """

    gains: ClassVar[int] = 3
    offsets: ClassVar[int] = 5
    numbers = 2 + 3 * 3 + 5 * 5

    def prior_scale(self, node: Node) -> Tensor:
        return torch.cat([torch.tensor([0.3, 0.2]), torch.full((self.numbers - 2,), 0.1)])

    def families(self, size: int) -> dict[str, slice]:
        return {"even illumination": self.guessed(size), "illumination": slice(0, size)}

    def guessed(self, size: int) -> slice:
        """Returns the mean gain and offset."""
        return slice(0, 2)

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        assert node.shape is not None
        gain, offset = self.gain_and_offset(theta, *node.shape[1:])
        change = (gain - 1).square().mean() + offset.square().mean()
        found = {"gain": gain, "offset": offset}
        spread = {f"{name} varies by": float(field.std(correction=0)) for name, field in found.items()}
        means = {name: float(field.mean()) for name, field in found.items()}
        return {"change": math.sqrt(float(change)), **means, **spread}

    def range_of(self, parameter: str) -> tuple[float, float]:
        return (0.0 if parameter in ("change", "gain varies by", "offset varies by") else -math.inf), math.inf

    def even_theta(self, gain: Tensor, offset: Tensor) -> Tensor:
        return torch.cat([torch.stack([gain - 1, offset]), gain.new_zeros(self.numbers - 2)])

    def gain_and_offset(self, theta: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns gain and offset of every pixel, ``(..., 1, H, W)`` each."""
        means, gains, offsets = theta.split([2, self.gains**2, self.offsets**2], -1)
        gain, offset = (m[..., None, None, None] for m in means.unbind(-1))
        return 1 + gain + _smooth(gains, height, width), offset + _smooth(offsets, height, width)


def _smooth(knots: Tensor, height: int, width: int) -> Tensor:
    """Returns a field through knots ``(..., n * n)``, ``(..., 1, H, W)``."""
    side = math.isqrt(knots.shape[-1])
    square = knots.reshape(-1, 1, side, side)
    fine = F.interpolate(square, (height, width), mode="bicubic", align_corners=True)
    return fine.reshape(*knots.shape[:-1], *fine.shape[1:])
