"""Images looked up at points of the plane, as mechanisms that move pixels do."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(images: Tensor) -> Tensor:
    """Returns the coordinates (x, y) of the pixels' centres, ``(H, W, 2)``; the longer side runs from -1 to 1."""
    height, width = images.shape[-2:]
    longer = max(height, width)
    y = (2 * torch.arange(height, dtype=images.dtype, device=images.device) + 1 - height) / longer
    x = (2 * torch.arange(width, dtype=images.dtype, device=images.device) + 1 - width) / longer
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def sample_grid(images: Tensor, grid: Tensor) -> Tensor:
    """Returns bilinear values of images at points of the plane, zero outside.

    Args:
        images: ``(..., C, H, W)``.
        grid: ``(..., H', W', 2)`` in the coordinates of :func:`pixel_grid`; leading shapes broadcast.  Leading
            dimensions that only the images have are looked up together: a grid a row serves all classes.

    Returns:
        ``(..., C, H', W')``.
    """
    height, width = images.shape[-2:]
    longer = max(height, width)
    grid = grid * grid.new_tensor([longer / width, longer / height])
    n = max(images.dim() - 3, grid.dim() - 3)
    images = images.reshape(*[1] * (n + 3 - images.dim()), *images.shape)
    grid = grid.reshape(*[1] * (n + 3 - grid.dim()), *grid.shape)
    own = [i for i in range(n) if grid.shape[i] == 1]  # dimensions without a grid of their own
    others = [i for i in range(n) if i not in own]
    lead = torch.broadcast_shapes(images.shape[:n], grid.shape[:n])
    images = images.expand(*(lead[i] if i in others else images.shape[i] for i in range(n)), *images.shape[n:])
    folded = images.permute(*others, *own, n, n + 1, n + 2)
    together = prod(images.shape[i] for i in own) * images.shape[n]
    stacked = folded.reshape(prod(lead[i] for i in others), together, height, width)
    points = grid.permute(*others, *own, n, n + 1, n + 2).reshape(stacked.shape[0], *grid.shape[-3:])
    found = F.grid_sample(stacked, points, align_corners=False)
    found = found.reshape(*folded.shape[: n + 1], *found.shape[-2:])
    back = [(others + own).index(i) for i in range(n)]
    return found.permute(*back, n, n + 1, n + 2)
