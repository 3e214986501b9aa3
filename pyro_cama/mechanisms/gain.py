"""What mechanisms of intensities share: a gain and an offset, of the image or of every pixel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Readings
from pyro_cama.mechanisms.image import ImageMechanism


class GainAndOffset(ImageMechanism):
    """Intensities x = gain x~ + offset; a gain below 0 is a negative.

    theta begins with gain - 1 and offset.  Abstract are :meth:`gain_and_offset` and :meth:`even_theta`.
    """

    guesses = True
    simulates = True

    @abstractmethod
    def gain_and_offset(self, theta: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns gain and offset, which broadcast to ``(..., 1, H, W)`` each."""

    @abstractmethod
    def even_theta(self, gain: Tensor, offset: Tensor) -> Tensor:
        """Returns theta of the same gain and offset everywhere, ``(size,)``."""

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        gain, offset = self.gain_and_offset(theta, *x.shape[-2:])
        return gain * x + offset

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        gain, offset = self.gain_and_offset(theta, *x.shape[-2:])
        away = torch.where(gain >= 0, gain.clamp_min(0.1), gain.clamp_max(-0.1))  # what has faded is not blown up
        return (x - offset) / away

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return (2 * torch.rand(*shape, self.size(node)) - 1) * 1.7 * self.prior_scale(node) * scale

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        gain = (x.std() / statistics["sd"].clamp_min(1e-3)).clamp(0.1, 3.0)
        return self.even_theta(gain, x.mean() - gain * statistics["mean"])

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> tuple[Tensor, ...]:
        """Returns the negative of equal mean and, should pixels' moments mislead, the image itself and its negative."""
        gain, offset = 1 + theta[0], theta[1]
        negative = self.even_theta(-gain, offset + 2 * gain * statistics["mean"])
        return negative, torch.zeros_like(theta), self.even_theta(theta.new_tensor(-1.0), theta.new_tensor(1.0))
