"""Spatial manipulations: matrices by kind, and the resampling of images through them.

A matrix takes (x, y, 1) of a pixel of the result to that of the point it shows; see
:class:`pyro_cama.image_manipulations.kinds.Kind`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unless_zero(idle: Tensor, images: Tensor, changed: Tensor) -> Tensor:
    """Returns the changed rows, clamped to [0, 1], and where ``idle`` (rows,) the rows as they were, bit by bit."""
    return torch.where(idle.to(images.device).reshape(-1, 1, 1, 1), images, changed.clamp(0.0, 1.0))


def resampled(images: Tensor, matrix: Tensor) -> Tensor:
    """Resamples images through matrices ``(rows, 3, 3)``: bilinear interpolation, zeros outside.

    torchvision's affine takes one matrix a call, hence grid_sample.
    """
    idle = (matrix == torch.eye(3, dtype=matrix.dtype)).all(2).all(1)
    if idle.all():
        return images
    height, width = images.shape[-2:]
    # cos 90° is 6e-17 in floats: rounded, what should read whole pixels does
    (xx, xy, x1), (yx, yy, y1) = matrix.round(decimals=12)[:, :2, :, None].to(images).permute(1, 2, 0, 3)
    x, y = pixel_axes(images)
    columns = (xx * x)[:, None, :] + (xy * y + x1)[:, :, None] + (width - 1) / 2
    rows = (yx * x)[:, None, :] + (yy * y + y1)[:, :, None] + (height - 1) / 2
    # grid_sample divides and multiplies by the sides: without rounding, where they are powers of two
    wide, high = 1 << (width - 1).bit_length(), 1 << (height - 1).bit_length()
    grid = torch.stack(((2 * columns + 1) / wide - 1, (2 * rows + 1) / high - 1), -1)
    padded = F.pad(images, (0, wide - width, 0, high - height))
    return unless_zero(idle, images, F.grid_sample(padded, grid, align_corners=False))


def pixel_axes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns x of the columns, ``(W,)``, and y of the rows, ``(H,)``, in pixels from the centre."""
    height, width = images.shape[-2:]
    x = torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=images.dtype, device=images.device) - (height - 1) / 2
    return x, y


def _affine(
    like: Tensor,
    xx: Tensor | float = 1.0,
    xy: Tensor | float = 0.0,
    x1: Tensor | float = 0.0,
    yx: Tensor | float = 0.0,
    yy: Tensor | float = 1.0,
    y1: Tensor | float = 0.0,
) -> Tensor:
    """Matrices ``(rows, 3, 3)`` of numbers or ``(rows,)``."""
    entries = [torch.as_tensor(e).to(like).expand_as(like) for e in (xx, xy, x1, yx, yy, y1, 0.0, 0.0, 1.0)]
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def vertical_shift(amount: Tensor, height: int, width: int) -> Tensor:
    """Returns the matrices ``(rows, 3, 3)`` that move images down by ``amount`` heights."""
    return _affine(amount, y1=-amount * height)


def horizontal_shift(amount: Tensor, height: int, width: int) -> Tensor:
    """Returns the matrices ``(rows, 3, 3)`` that move images to the right by ``amount`` widths."""
    return _affine(amount, x1=-amount * width)


def rotation(amount: Tensor, height: int, width: int) -> Tensor:
    """Returns the matrices ``(rows, 3, 3)`` that turn images counter-clockwise by ``amount`` degrees."""
    cos, sin = amount.deg2rad().cos(), amount.deg2rad().sin()
    return _affine(amount, xx=cos, xy=-sin, yx=sin, yy=cos)


def scaling(amount: Tensor, height: int, width: int) -> Tensor:
    """Returns the matrices ``(rows, 3, 3)`` that enlarge images by the factor exp(``amount``)."""
    return _affine(amount, xx=(-amount).exp(), yy=(-amount).exp())


def shear(amount: Tensor, height: int, width: int) -> Tensor:
    """Returns the matrices ``(rows, 3, 3)`` that make upright lines lean right by ``amount`` degrees."""
    return _affine(amount, xy=amount.deg2rad().tan())
