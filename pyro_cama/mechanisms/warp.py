"""Warp: an image shifted, turned, stretched and sheared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import bounded
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.networks.resampling import pixel_grid, sample_grid


class Warp(ImageMechanism):
    """An affine map of the pixel grid; theta = (right, down, turn, log widen, log heighten, shear).

    A point of the clean image at (u, v), the longer side running from -1 to 1, comes to lie at
    ``R(turn) [[widen, shear], [0, heighten]] (u, v) + (right, down)``; turn in radians, clockwise as seen.
    Reports have degrees and shear in the signs of :mod:`pyro_cama.image_manipulations`: counter-clockwise, and upright
    lines leaning right, if positive.
    """

    numbers = 6
    simulates = True
    moves = True

    def prior_scale(self, node: Node) -> Tensor:
        return torch.tensor([0.2, 0.2, 0.3, 0.15, 0.15, 0.2])

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        matrix, offset = self._map(theta)
        grid = pixel_grid(x) - offset[..., None, None, :]
        return sample_grid(x, _applied(_inverse(matrix), grid))

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        matrix, offset = self._map(theta)
        return sample_grid(x, _applied(matrix, pixel_grid(x)) + offset[..., None, None, :])

    def known(self, known: Tensor, theta: Tensor) -> Tensor:
        """Returns which pixels of T^-1(x) T has left within the frame."""
        return self.invert(known, theta, None)

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return (2 * torch.rand(*shape, self.numbers) - 1) * 1.7 * self.prior_scale(node) * scale

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        assert node.shape is not None
        half = max(node.shape[1:]) / 2
        (right, down), turn = bounded(theta[:2], 2.0).tolist(), 0.0 - math.degrees(float(theta[2]))
        widen, heighten = bounded(theta[3:5], 1.5).exp().tolist()
        return {
            "change": float((theta / self.prior_scale(node).to(theta)).norm()),
            "right": right * half,
            "down": down * half,
            "degrees": turn,
            "width": widen,
            "height": heighten,
            "shear": 0.0 - float(bounded(theta[5], 2.0)),
        }

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns 0 as the least of factors of size."""
        return (0.0 if parameter in ("change", "width", "height") else -math.inf), math.inf

    def _map(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the matrix, ``(..., 2, 2)``, and the offset, ``(..., 2)``."""
        cos, sin = theta[..., 2].cos(), theta[..., 2].sin()
        widen, heighten = bounded(theta[..., 3], 1.5).exp(), bounded(theta[..., 4], 1.5).exp()
        shear = bounded(theta[..., 5], 2.0)
        first = torch.stack([cos * widen, cos * shear - sin * heighten], -1)
        second = torch.stack([sin * widen, sin * shear + cos * heighten], -1)
        return torch.stack([first, second], -2), bounded(theta[..., :2], 2.0)


def _applied(matrix: Tensor, grid: Tensor) -> Tensor:
    """Returns the points ``(..., H, W, 2)`` multiplied by matrices ``(..., 2, 2)``."""
    x, y = grid.unbind(-1)
    m = matrix[..., None, None, :, :]
    return torch.stack([m[..., 0, 0] * x + m[..., 0, 1] * y, m[..., 1, 0] * x + m[..., 1, 1] * y], -1)


def _inverse(matrix: Tensor) -> Tensor:
    """Returns the inverse of matrices ``(..., 2, 2)``."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    rows = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return rows / (a * d - b * c)[..., None, None]
