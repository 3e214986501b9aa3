"""Illumination: brightness and contrast that vary smoothly over an image, as in fog, glare or a vignette."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Readings
from pyro_cama.mechanisms.image import ImageMechanism


class Illumination(ImageMechanism):
    """Intensities x = gain(p) x~ + offset(p) at every pixel p; both smooth, and a gain below 0 is a negative.

    theta = (gain - 1, offset, what the gain has more at 3 x 3 points, what the offset has more at 5 x 5); bicubic
    between the points, the outer of which are the corners of the image.  The same for all channels.
    """

    gains: ClassVar[int] = 3
    offsets: ClassVar[int] = 5
    numbers = 2 + 3 * 3 + 5 * 5
    guesses = True
    simulates = True

    def prior_scale(self, node: Node) -> Tensor:
        return torch.cat([torch.tensor([0.3, 0.2]), torch.full((self.numbers - 2,), 0.1)])

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        gain, offset = self._of(theta, *x.shape[-2:])
        return gain * x + offset

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        gain, offset = self._of(theta, *x.shape[-2:])
        away = torch.where(gain >= 0, gain.clamp_min(0.1), gain.clamp_max(-0.1))  # what has faded is not blown up
        return (x - offset) / away

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return (2 * torch.rand(*shape, self.numbers) - 1) * 1.7 * self.prior_scale(node) * scale

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        gain = (x.std() / statistics["sd"].clamp_min(1e-3)).clamp(0.1, 3.0)
        return self._even(gain, x.mean() - gain * statistics["mean"])

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> tuple[Tensor, ...]:
        """Returns the negative of equal mean and, should pixels' moments mislead, the image itself and its negative."""
        gain, offset = 1 + theta[0], theta[1]
        negative = self._even(-gain, offset + 2 * gain * statistics["mean"])
        return negative, torch.zeros_like(theta), self._even(theta.new_tensor(-1.0), theta.new_tensor(1.0))

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        assert node.shape is not None
        gain, offset = self._of(theta, *node.shape[1:])
        change = (gain - 1).square().mean() + offset.square().mean()
        found = {"gain": gain, "offset": offset}
        spread = {f"{name} varies by": float(field.std(correction=0)) for name, field in found.items()}
        means = {name: float(field.mean()) for name, field in found.items()}
        return {"change": math.sqrt(float(change)), **means, **spread}

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns 0 as the least of what varies."""
        return (-math.inf if parameter in ("gain", "offset") else 0.0), math.inf

    def _even(self, gain: Tensor, offset: Tensor) -> Tensor:
        """Returns theta of the same gain and offset everywhere, ``(size,)``."""
        return torch.cat([torch.stack([gain - 1, offset]), gain.new_zeros(self.numbers - 2)])

    def _of(self, theta: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
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
