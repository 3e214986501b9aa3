"""Overlay: what lies over an image, a stripe, a patch, a scribble, dots or dead pixels, and hides what is beneath."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.networks.resampling import pixel_grid

SLIGHT = 0.05  # what is covered of a pixel that is left as it was


class Overlay(ImageMechanism):
    """Something may lie over the image, and hide pixels of it.

    A hidden pixel tells nothing: neither of the class nor of the style.  Which pixels are hidden is read off the image
    as measured by a network of its own (:class:`pyro_cama.networks.hidden_pixels.HiddenPixels`), which `fit` trains on
    clean rows over which :meth:`cover` has laid shapes of every kind; adaptation looks whether something lies over most
    of the new images, and hidden pixels are unknown from then on.  The others are what they were, so m has no part: the
    mechanism takes no numbers of theta.
    """

    numbers = 0
    simulates = True
    hides = True

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        """Returns the images: an overlay changes no pixel that it leaves to be seen."""
        return x.expand(torch.broadcast_shapes(x.shape, (*theta.shape[:-1], 1, 1, 1)))

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return self.push(x, theta)

    def cover(self, x: Tensor) -> tuple[Tensor, Tensor]:
        covered, specks = _shapes(x)
        hidden = covered > SLIGHT
        return torch.where(hidden, torch.lerp(x, _ink(x, specks), covered), x), hidden

    def families(self, size: int) -> dict[str, slice]:
        """Returns none: it has no numbers."""
        return {}

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.zeros(*shape, 0)


def _shapes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Draws how much of every pixel is covered, ``(rows, 1, H, W)``, and which images have specks, ``(rows,)``.

    Lengths are in longer sides of the image.  Edges cut through pixels, and are blurred by up to a pixel and a half.
    """
    x, y = pixel_grid(images).mul(0.5).unbind(-1)  # the longer side runs from -1/2 to 1/2
    rows, like = len(images), images
    u = torch.rand(rows, 10, 1, 1).to(like)
    turn = 2 * math.pi * u[:, 0]
    right, down = x - 0.7 * (u[:, 1] - 0.5), y - 0.7 * (u[:, 2] - 0.5)
    along, across = right * turn.cos() + down * turn.sin(), down * turn.cos() - right * turn.sin()
    tilted = u[:, 4] > 0.7
    patch = torch.maximum(
        torch.where(tilted, along, right).abs() - (0.05 + 0.2 * u[:, 5]),
        torch.where(tilted, across, down).abs() - (0.05 + 0.2 * u[:, 6]),
    )
    waves, height = 1 + 5 * u[:, 4], 0.02 + 0.15 * u[:, 5]
    zigzag = height * (2 / math.pi) * torch.asin(torch.sin(2 * math.pi * (waves * along + u[:, 6])))
    steepness = (1 + (4 * height * waves).square()).sqrt()  # from a distance across to one from the line
    every = 1 / (4 + 6 * u[:, 6])
    outside = torch.stack([  # signed distances from the edge
        across.abs() - (0.01 + 0.17 * u[:, 3]),  # a stripe
        patch,
        (across - zigzag).abs() / steepness - (0.015 + 0.035 * u[:, 7]),  # a scribble
        torch.hypot(along - (along / every).round() * every, across) - (0.02 + 0.04 * u[:, 5]),  # dots
    ])  # fmt: skip
    blurred = (0.1 + 1.4 * u[:, 8]) / max(images.shape[-2:])
    specks = (torch.rand(rows, *images.shape[-2:]).to(like) < 0.4 * u[:, 3]).to(like)
    covered = torch.cat([(0.5 - outside / blurred).clamp(0.0, 1.0), specks[None]])
    covered = covered * (1 - 0.6 * (u[:, 9] - 0.7).clamp_min(0.0) / 0.3)  # some can be seen through
    kind = torch.randint(5, (rows, 1, 1)).to(like.device)
    return covered.gather(0, kind.expand(1, *specks.shape))[0][:, None], (kind == 4).flatten()


def _ink(images: Tensor, specks: Tensor) -> Tensor:
    """Draws what overlays look like: the negative, black, white or a colour; specks are black and white."""
    rows, channels = images.shape[-4:-2]
    kind = torch.randint(5, (rows, 1, 1, 1)).to(images.device)
    colour = torch.rand(rows, channels, 1, 1).to(images)
    plain = torch.where(kind == 1, 0.0, torch.where(kind == 2, 1.0, colour)).to(images)
    ink = torch.where((kind == 0) | (kind == 4), 1.0 - images, plain)  # the hardest to tell, hence oftener
    salt = (torch.rand(rows, 1, *images.shape[-2:]) < 0.5).to(images)
    return torch.where(specks[:, None, None, None], salt, ink)
