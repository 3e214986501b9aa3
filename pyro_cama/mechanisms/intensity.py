"""Intensity: brightness and contrast of an image, and its negative."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Readings
from pyro_cama.mechanisms.image import ImageMechanism


class Intensity(ImageMechanism):
    """Intensities x = gain x~ + offset; theta = (gain - 1, offset).  A gain below 0 is a negative."""

    numbers = 2
    guesses = True
    simulates = True

    def prior_scale(self, node: Node) -> Tensor:
        return torch.tensor([0.3, 0.2])

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        gain, offset = self._of(theta)
        return gain * x + offset

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        gain, offset = self._of(theta)
        away = torch.where(gain >= 0, gain.clamp_min(0.1), gain.clamp_max(-0.1))  # what has faded is not blown up
        return (x - offset) / away

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return (2 * torch.rand(*shape, self.numbers) - 1) * 1.7 * self.prior_scale(node) * scale

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        gain = (x.std() / statistics["sd"].clamp_min(1e-3)).clamp(0.1, 3.0)
        return torch.stack([gain - 1, x.mean() - gain * statistics["mean"]])

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> tuple[Tensor, ...]:
        """Returns the negative of equal mean and, should pixels' moments mislead, the image itself and its negative."""
        gain, offset = 1 + theta[0], theta[1]
        turned = torch.stack([-gain - 1, offset + 2 * gain * statistics["mean"]])
        return turned, torch.zeros_like(theta), theta.new_tensor([-2.0, 1.0])

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        gain, offset = 1 + float(theta[0]), float(theta[1])
        return {"change": math.hypot(gain - 1, offset), "gain": gain, "offset": offset}

    def _of(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Returns gain and offset, ``(..., 1, 1, 1)`` each."""
        return 1 + theta[..., 0, None, None, None], theta[..., 1, None, None, None]
