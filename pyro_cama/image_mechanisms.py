"""Mechanisms of images: the pixel grid moved (``warp``, ``field``), intensities changed, or one after the other.

A mechanism acts on the image as a whole: theta is ``(..., size)``, images and batch shapes are ``(..., C, H, W)``.
What comes from outside the frame is 0.  The likelihood's mean is moved and the noise about it stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.distributions import MIN_PROBABILITY
from pyro_cama.errors import GraphError
from pyro_cama.graph import Node
from pyro_cama.image_networks import look_up, pixel_grid
from pyro_cama.mechanisms import Mechanism


class ImageMechanism(Mechanism):
    """A mechanism of ``numbers`` numbers; :meth:`push` and :meth:`invert` are needed, the rest follows."""

    types = ("image",)
    numbers: int

    def size(self, node: Node) -> int:
        return self.numbers

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        return moved(clean, lambda mean: self.push(mean, theta))


def moved(clean: TorchDistribution, change: Callable[[Tensor], Tensor]) -> TorchDistribution:
    """The distribution of an image whose mean is changed.

    Raises:
        GraphError: the likelihood is neither Bernoulli nor normal.
    """
    if isinstance(clean, dist.Bernoulli):
        probs = change(clean.probs).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        return type(clean)(probs=probs, validate_args=False)  # grey values are none of its support
    if isinstance(clean, dist.Normal):
        mean = change(clean.loc)
        return dist.Normal(mean, clean.scale.expand_as(mean))
    raise GraphError(f"an image's mechanism needs a Bernoulli or normal likelihood, found {clean}: override transform")


def _limited(raw: Tensor, limit: float) -> Tensor:
    """Slope 1 at 0, never beyond the limit."""
    return limit * torch.tanh(raw / limit)


class Warp(ImageMechanism):
    """An affine map of the pixel grid; theta = (right, down, turn, log widen, log heighten, shear).

    A point of the clean image at (u, v), the longer side running from -1 to 1, comes to lie at
    ``R(turn) [[widen, shear], [0, heighten]] (u, v) + (right, down)``; turn in radians, clockwise as seen.
    """

    numbers = 6

    def typical(self, node: Node) -> Tensor:
        return torch.tensor([0.2, 0.2, 0.3, 0.15, 0.15, 0.2])

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        matrix, offset = self._map(theta)
        grid = pixel_grid(x) - offset[..., None, None, :]
        return look_up(x, _applied(_inverse(matrix), grid))

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        matrix, offset = self._map(theta)
        return look_up(x, _applied(matrix, pixel_grid(x)) + offset[..., None, None, :])

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return (2 * torch.rand(*shape, self.numbers) - 1) * 1.7 * self.typical(node) * scale

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        assert node.shape is not None
        half = max(node.shape[1:]) / 2
        (right, down), turn = _limited(theta[:2], 2.0).tolist(), math.degrees(float(theta[2]))
        widen, heighten = _limited(theta[3:5], 1.5).exp().tolist()
        return {
            "change": float((theta / self.typical(node).to(theta)).norm()),
            "right": right * half,
            "down": down * half,
            "degrees": turn,
            "width": widen,
            "height": heighten,
            "shear": float(_limited(theta[5], 2.0)),
        }

    def _map(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix ``(..., 2, 2)`` and the offset ``(..., 2)``."""
        cos, sin = theta[..., 2].cos(), theta[..., 2].sin()
        widen, heighten = _limited(theta[..., 3], 1.5).exp(), _limited(theta[..., 4], 1.5).exp()
        shear = _limited(theta[..., 5], 2.0)
        first = torch.stack([cos * widen, cos * shear - sin * heighten], -1)
        second = torch.stack([sin * widen, sin * shear + cos * heighten], -1)
        return torch.stack([first, second], -2), _limited(theta[..., :2], 2.0)


def _applied(matrix: Tensor, grid: Tensor) -> Tensor:
    """``(..., H, W, 2)`` points through matrices ``(..., 2, 2)``."""
    x, y = grid.unbind(-1)
    m = matrix[..., None, None, :, :]
    return torch.stack([m[..., 0, 0] * x + m[..., 0, 1] * y, m[..., 1, 0] * x + m[..., 1, 1] * y], -1)


def _inverse(matrix: Tensor) -> Tensor:
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    rows = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return rows / (a * d - b * c)[..., None, None]


class Field(ImageMechanism):
    """A smooth displacement of every pixel, bicubic between ``knots`` x ``knots`` points; theta = their two offsets.

    A pixel p of the image shows the clean image at p + d(p).  The inverse is found by fixed-point iteration, which
    holds while the field folds nowhere.
    """

    knots: ClassVar[int] = 4
    numbers = 2 * 4 * 4

    def typical(self, node: Node) -> Tensor:
        return torch.full((self.numbers,), 0.15)

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        grid = pixel_grid(x)
        return look_up(x, grid + self._field(theta, *x.shape[-2:]))

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        height, width = x.shape[-2:]
        grid = pixel_grid(x)
        field = self._field(theta, height, width).movedim(-1, -3)
        at = grid
        for _ in range(4):  # q = p - d(q)
            at = grid - look_up(field, at).movedim(-3, -1)
        return look_up(x, at)

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.randn(*shape, self.numbers) * self.typical(node) * scale

    def _field(self, theta: Tensor, height: int, width: int) -> Tensor:
        """``(..., H, W, 2)``."""
        knots = _limited(theta, 0.6).unflatten(-1, (2, self.knots, self.knots))
        lead = knots.shape[:-3]
        fine = F.interpolate(knots.reshape(-1, *knots.shape[-3:]), (height, width), mode="bicubic", align_corners=True)
        return fine.reshape(*lead, *fine.shape[1:]).movedim(-3, -1)


class Intensity(ImageMechanism):
    """Intensities x = gain x~ + offset; theta = (gain - 1, offset).  A gain below 0 is a negative."""

    numbers = 2

    def typical(self, node: Node) -> Tensor:
        return torch.tensor([0.3, 0.2])

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        gain, offset = self._of(theta)
        return gain * x + offset

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        gain, offset = self._of(theta)
        away = torch.where(gain >= 0, gain.clamp_min(0.1), gain.clamp_max(-0.1))  # what has faded is not blown up
        return (x - offset) / away

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return (2 * torch.rand(*shape, self.numbers) - 1) * 1.7 * self.typical(node) * scale

    def start(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        gain = (x.std() / statistics["sd"].clamp_min(1e-3)).clamp(0.1, 3.0)
        return torch.stack([gain - 1, x.mean() - gain * statistics["mean"]])

    def alternatives(self, theta: Tensor, statistics: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The negative of the same mean; and, should pixels' moments mislead, the image itself and its negative."""
        gain, offset = 1 + theta[0], theta[1]
        turned = torch.stack([-gain - 1, offset + 2 * gain * statistics["mean"]])
        return turned, torch.zeros_like(theta), theta.new_tensor([-2.0, 1.0])

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        gain, offset = 1 + float(theta[0]), float(theta[1])
        return {"change": math.hypot(gain - 1, offset), "gain": gain, "offset": offset}

    def _of(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and offset, ``(..., 1, 1, 1)`` each."""
        return 1 + theta[..., 0, None, None, None], theta[..., 1, None, None, None]


class Composed(ImageMechanism):
    """One mechanism after another, ``x = T_n(... T_1(x~))``, their thetas side by side.

    Args:
        parts: in the order in which they act.
    """

    def __init__(self, parts: tuple[ImageMechanism, ...]) -> None:
        self.parts = parts
        self.numbers = sum(part.numbers for part in parts)

    def typical(self, node: Node) -> Tensor:
        return torch.cat([part.typical(node) for part in self.parts])

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        for part, own in self._with_theta(theta):
            x = part.push(x, own)
        return x

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        for part, own in reversed(self._with_theta(theta)):
            x = part.invert(x, own, frequencies)
        return x

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.cat([part.simulate(shape, node, scale) for part in self.parts], -1)

    @property
    def guesses(self) -> bool:
        return any(part.guesses for part in self.parts)

    def start(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
        found = [part.start(x, statistics) for part in self.parts]
        rest = [x.new_zeros(part.numbers) for part in self.parts]
        return torch.cat([zero if own is None else own for own, zero in zip(found, rest, strict=True)])

    def alternatives(self, theta: Tensor, statistics: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        parts = self._with_theta(theta)
        found = []
        for i, (part, own) in enumerate(parts):
            for other in part.alternatives(own, statistics):
                found.append(torch.cat([other if j == i else kept for j, (_, kept) in enumerate(parts)]))
        return tuple(found)

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        each = [part.describe(own, node, statistics) for part, own in self._with_theta(theta)]
        change = math.hypot(*(found.pop("change") for found in each))
        return {"change": change} | {name: value for found in each for name, value in found.items()}

    def _with_theta(self, theta: Tensor) -> list[tuple[ImageMechanism, Tensor]]:
        return list(zip(self.parts, theta.split([part.numbers for part in self.parts], -1), strict=True))
