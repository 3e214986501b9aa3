"""Images of which a part is taken for unknown, so that q(z | ...) and p(y | x) come to read what is left of others.

What leaves the frame, or is hidden, tells nothing (:meth:`pyro_cama.mechanisms.image.ImageMechanism.known`).  So some
training rows lose a side of the image, a stripe, a patch or single pixels, and only the rest of them is scored.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.model.groups import Group, MovedGroup
from pyro_cama.networks.resampling import pixel_grid


def images_with_unknown(groups: tuple[Group, ...]) -> tuple[str, ...]:
    """Returns the images of which a mechanism may leave parts unknown: others are always known as a whole."""
    acting = [(g.nodes[0], g.mechanism) for g in groups if isinstance(g, MovedGroup) and g.image]
    return tuple(name for name, m in acting if isinstance(m, ImageMechanism) and (m.moves or m.hides))


def partly_unknown(batch: Batch, names: tuple[str, ...], share: float) -> Batch:
    """Returns rows of which a share has unknown pixels, NaN, in each of the named images."""
    if not names or share == 0:
        return batch
    values = dict(batch.values)
    for name in names:
        values[name] = values[name].masked_fill(_unknown(values[name], share), torch.nan)
    return replace(batch, values=values, unknown=frozenset(names))


def _unknown(images: Tensor, share: float) -> Tensor:
    """Draws which pixels of every image are unknown, bool ``(rows, 1, H, W)``."""
    rows = len(images)
    x, y = pixel_grid(images).mul(0.5).unbind(-1)  # the longer side runs from -1/2 to 1/2
    u = torch.rand(rows, 6, 1, 1).to(images)
    turn = 2 * math.pi * u[:, 0]
    right_angles = (turn / (math.pi / 2)).round() * (math.pi / 2)
    turn_of_side = torch.where(u[:, 1] < 0.7, right_angles, turn)  # frames are upright more often than not
    side = x * turn_of_side.cos() + y * turn_of_side.sin() > 0.5 - 0.5 * u[:, 2]
    across = y * turn.cos() - x * turn.sin() - 0.6 * (u[:, 1] - 0.5)
    stripe = across.abs() < 0.02 + 0.16 * u[:, 2]
    high, wide = 0.1 + 0.4 * u[:, 2], 0.1 + 0.4 * u[:, 3]
    below, right = y - (u[:, 4] - 0.5) * (1 - high), x - (u[:, 5] - 0.5) * (1 - wide)
    patch = (below.abs() < high / 2) & (right.abs() < wide / 2)
    single = torch.rand(rows, *images.shape[-2:]).to(images) < 0.5 * u[:, 2]
    shapes = torch.stack([side, side, stripe, patch, single])
    kind = torch.randint(len(shapes), (rows, 1, 1)).to(images.device)
    gone = shapes.gather(0, kind.expand(1, *single.shape))[0]
    return (gone & (torch.rand(rows, 1, 1).to(images) < share))[:, None]
