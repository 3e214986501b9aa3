"""Intensity: brightness and contrast of an image, and its negative."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.gain import GainAndOffset


class Intensity(GainAndOffset):
    """Intensities x = gain x~ + offset; theta = (gain - 1, offset).  A gain below 0 is a negative."""

    numbers = 2

    def prior_scale(self, node: Node) -> Tensor:
        return torch.tensor([0.3, 0.2])

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        gain, offset = 1 + float(theta[0]), float(theta[1])
        return {"change": math.hypot(gain - 1, offset), "gain": gain, "offset": offset}

    def gain_and_offset(self, theta: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns gain and offset, ``(..., 1, 1, 1)`` each."""
        return 1 + theta[..., 0, None, None, None], theta[..., 1, None, None, None]

    def even_theta(self, gain: Tensor, offset: Tensor) -> Tensor:
        return torch.stack([gain - 1, offset])
