"""Which pixels of an image something hides that lies over it, read off the image itself."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_cama.graph.nodes import Node
from pyro_cama.networks.image_layers import image_shape, initialise_weights

CHANNELS = 32
SELDOM = -4.0  # logit of a pixel before anything is known


class HiddenPixels(nn.Module):
    """A small U-net (Ronneberger, Fischer and Brox 2015): from images to a logit a pixel that it is hidden.

    It works on blocks of 2 x 2 pixels, side by side as channels: a quarter of the cost, and no pixel is lost.  The
    coarsest maps know the mean of all their places: what a line far away is like.
    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        c = CHANNELS
        self.down = nn.ModuleList(
            [
                _layers(4 * image_shape(node)[0], c, c),
                _layers(c, c, c, stride=2),
                _layers(c, 2 * c, 2 * c, stride=2),
                _layers(2 * c, 4 * c, 4 * c, stride=2),
            ]
        )
        self.whole = nn.Linear(4 * c, 4 * c)
        self.up = nn.ModuleList([_layers(6 * c, 2 * c), _layers(3 * c, c), _layers(2 * c, c, c)])
        self.logits = nn.Conv2d(c, 4, 1)
        initialise_weights(self)
        nn.init.constant_(self.logits.bias, SELDOM)  # type: ignore[arg-type]
        nn.init.zeros_(self.logits.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``(n, 1, H, W)`` of images ``(n, C, H, W)``."""
        height, width = images.shape[-2:]
        even = F.pad(images, (0, width % 2, 0, height % 2))
        maps, passed = F.pixel_unshuffle(even, 2).contiguous(memory_format=torch.channels_last), []
        for layers in self.down:
            maps = layers(maps)
            passed.append(maps)
        maps = F.relu(maps + self.whole(maps.mean((-2, -1)))[..., None, None])
        for layers, finer in zip(self.up, passed[-2::-1], strict=True):
            enlarged = F.interpolate(maps, finer.shape[-2:], mode="nearest")
            maps = layers(torch.cat([enlarged, finer], 1))
        logits: Tensor = F.pixel_shuffle(self.logits(maps), 2)[..., :height, :width]
        return logits


def _layers(*widths: int, stride: int = 1) -> nn.Sequential:
    """Convolutions from one width to the next, of which the first takes strides."""
    found: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        found += [nn.Conv2d(before, after, 3, stride if i == 0 else 1, 1), nn.ReLU()]
    return nn.Sequential(*found)
