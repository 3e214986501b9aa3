"""Field: a smooth displacement of an image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import bounded
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.networks.resampling import pixel_grid, sample_grid


class Field(ImageMechanism):
    """A smooth displacement of every pixel, bicubic between ``knots`` x ``knots`` points; theta = their two offsets.

    A pixel p of the image shows the clean image at p + d(p).  The inverse is found by fixed-point iteration, which
    holds while the field folds nowhere.
    """

    knots: ClassVar[int] = 4
    numbers = 2 * 4 * 4
    simulates = True
    moves = True

    def prior_scale(self, node: Node) -> Tensor:
        return torch.full((self.numbers,), 0.15)

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        grid = pixel_grid(x)
        return sample_grid(x, grid + self._field(theta, *x.shape[-2:]))

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        height, width = x.shape[-2:]
        grid = pixel_grid(x)
        field = self._field(theta, height, width).movedim(-1, -3)
        at = grid
        for _ in range(4):  # q = p - d(q)
            at = grid - sample_grid(field, at).movedim(-3, -1)
        return sample_grid(x, at)

    def known(self, known: Tensor, theta: Tensor) -> Tensor:
        """Returns which pixels of T^-1(x) T has left within the frame."""
        return self.invert(known, theta, None)

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.randn(*shape, self.numbers) * self.prior_scale(node) * scale

    def _field(self, theta: Tensor, height: int, width: int) -> Tensor:
        """Returns the displacements d of all pixels, ``(..., H, W, 2)``."""
        knots = bounded(theta, 0.6).unflatten(-1, (2, self.knots, self.knots))
        lead = knots.shape[:-3]
        fine = F.interpolate(knots.reshape(-1, *knots.shape[-3:]), (height, width), mode="bicubic", align_corners=True)
        return fine.reshape(*lead, *fine.shape[1:]).movedim(-3, -1)
