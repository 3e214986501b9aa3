"""Manipulations of pixels, by kind.

Each takes images ``(rows, C, H, W)``, amounts ``(rows, 1, 1, 1)`` and a generator on the CPU. The caller clamps the
results to [0, 1]; :data:`pyro_cama.image_manipulations.KINDS` has the units of the amounts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from pyro_cama.image_manipulations.geometry import pixel_axes

_SMALLEST_SD = 1e-6  # of noise and blur: nobody can see less, and its square is still a number


def brightness(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Adds the amount to every pixel."""
    return images + amount


def contrast(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Multiplies the distance of every pixel from 0.5 by exp(amount)."""
    return 0.5 + (images - 0.5) * amount.exp()


def inversion(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Mixes images with their negatives, of weight ``amount``."""
    return images.lerp(1.0 - images, amount)


def gaussian_noise(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Adds normal noise of standard deviation ``amount`` to every pixel and channel."""
    return images + amount * torch.randn(images.shape, generator=generator, dtype=torch.float32).to(images)


def shot_noise(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Replaces pixels by Poisson counts of the same mean, in quanta of the squared amount."""
    quantum = amount.double().cpu().clamp_min(_SMALLEST_SD).square()
    counts = torch.poisson(images.double().cpu() / quantum, generator=generator)
    return (quantum * counts).to(images)


def impulse_noise(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Makes a share ``amount`` of the pixels black or white, each as likely."""
    uniform = _uniform(images, generator, *images.shape[-2:])
    black, white = uniform < amount / 2, uniform >= 1 - amount / 2
    return images.masked_fill(black, 0.0).masked_fill(white, 1.0)


def blur(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Blurs images by a Gaussian of standard deviation ``amount``, in pixels."""
    # separable, and a matrix for each side of each row: no kernel size to choose, and no loop over rows
    across, down = (_averages(axis, amount) for axis in pixel_axes(images))
    return down @ images @ across.mT


def _averages(axis: Tensor, sd: Tensor) -> Tensor:
    """Gaussian weights of every pixel of a side (last) in every other, ``(rows, 1, n, n)``; each sums to 1."""
    return (-0.5 * ((axis[:, None] - axis) / sd.clamp_min(_SMALLEST_SD)).square()).softmax(-1)


def stripe(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Inverts images within a straight stripe at a random place, by weight ``amount``."""
    _, across = _line(images, generator)
    return images.lerp(1.0 - images, amount * _ink(across.abs(), min(images.shape[-2:]) / 8))


def dotted_line(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Draws a white dotted line at a random place, of opacity ``amount``."""
    along, across = _line(images, generator)
    side = min(images.shape[-2:])
    along = along - (along / (side / 7)).round() * (side / 7)
    return images + (1.0 - images) * amount * _ink(torch.hypot(along, across), side / 28)


def zigzag(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Draws a white zigzag line at a random place, of opacity ``amount``."""
    along, across = _line(images, generator)
    side = min(images.shape[-2:])
    turns = along / (side / 3.5)
    wave = (4 * (turns - turns.round()).abs() - 1) * side / 14
    # its slope is 1, so that the distance from it is a half of the square root of 2 of the distance across
    return images + (1.0 - images) * amount * _ink((across - wave).abs() * math.sqrt(0.5), side / 40)


def _line(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Every pixel's place along and across a random line, ``(rows, 1, H, W)``, in pixels.

    Its direction is uniform, and so is the point from which it starts both ways, in the middle half of the image.
    """
    turn, right, down = _uniform(images, generator, 3, 1).unbind(2)
    x, y = pixel_axes(images)
    x = x - (right[..., None] - 0.5) * len(x) / 2
    y = y[:, None] - (down[..., None] - 0.5) * len(y) / 2
    angle = 2 * math.pi * turn[..., None]
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def _ink(distance: Tensor, radius: float) -> Tensor:
    """How much of a pixel a pen covers whose centre passes at a distance, from 0 to 1."""
    return (radius + 0.5 - distance).clamp(0.0, 1.0)


def occlusion(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Covers a black square of side ``amount``, in shorter sides of the image, at a random place."""
    height, width = images.shape[-2:]
    side = amount * min(height, width)
    right, down = _uniform(images, generator, 2, 1).unbind(2)
    across = _covered(width, side, right[..., None])
    return images * (1.0 - _covered(height, side, down[..., None]).mT * across)


def _covered(pixels: int, side: Tensor, place: Tensor) -> Tensor:
    """How much of each pixel an interval covers, ``(rows, 1, 1, pixels)``; at place 0 it is first, at 1 last."""
    start = place * (pixels - side)
    first = torch.arange(pixels, dtype=side.dtype, device=side.device)
    return (torch.minimum(first + 1, start + side) - torch.maximum(first, start)).clamp_min(0.0)


def fog(images: Tensor, amount: Tensor, generator: Generator) -> Tensor:
    """Mixes images with a smooth random field, of weight ``amount``."""
    size = images.shape[-2:]
    field = images.new_zeros(())
    for octave in range(3):
        knots = 2 ** (octave + 1) + 1
        coarse = _uniform(images, generator, knots, knots)
        smooth = F.interpolate(coarse, list(size), mode="bicubic", align_corners=True)
        field = field + 0.5**octave * smooth
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    field = (field - low) / (high - low).clamp_min(torch.finfo(field.dtype).tiny)
    return images.lerp(field.expand_as(images), amount)


def _uniform(images: Tensor, generator: Generator, height: int, width: int) -> Tensor:
    """Numbers from [0, 1), ``(rows, 1, height, width)``: the same for all channels, whatever the device and dtype."""
    return torch.rand(len(images), 1, height, width, generator=generator, dtype=torch.float32).to(images)
