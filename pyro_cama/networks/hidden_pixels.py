"""Which pixels of an image something hides that lies over it, read off the image itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_cama.graph.nodes import Node
from pyro_cama.networks.image_layers import image_shape, initialise_weights

CHANNELS = 32
SELDOM = -4.0  # logit of a pixel before anything is known


class HiddenPixels(nn.Module):
    """A small U-net (Ronneberger, Fischer and Brox 2015): from images to a logit a pixel that it is hidden.

    It works on blocks of 2 x 2 pixels, side by side as channels: a quarter of the cost, and no pixel is lost.
    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        c = CHANNELS
        self.fine = nn.Sequential(*_layer(4 * image_shape(node)[0], c), *_layer(c, c))
        self.middle = nn.Sequential(*_layer(c, c, 2), *_layer(c, c))
        self.coarse = nn.Sequential(*_layer(c, 2 * c, 2), *_layer(2 * c, 2 * c))
        self.up_to_middle = nn.Sequential(*_layer(3 * c, c))
        self.up_to_fine = nn.Sequential(*_layer(2 * c, c))
        self.logits = nn.Conv2d(c, 4, 1)
        initialise_weights(self)
        nn.init.constant_(self.logits.bias, SELDOM)  # type: ignore[arg-type]
        nn.init.zeros_(self.logits.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``(n, 1, H, W)`` of images ``(n, C, H, W)``."""
        height, width = images.shape[-2:]
        even = F.pad(images, (0, width % 2, 0, height % 2))
        fine = self.fine(F.pixel_unshuffle(even, 2).contiguous(memory_format=torch.channels_last))
        middle = self.middle(fine)
        middle = self.up_to_middle(torch.cat([_enlarged(self.coarse(middle), middle), middle], 1))
        fine = self.up_to_fine(torch.cat([_enlarged(middle, fine), fine], 1))
        logits: Tensor = F.pixel_shuffle(self.logits(fine), 2)[..., :height, :width]
        return logits


def _layer(before: int, after: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, after, 3, stride, 1), nn.ReLU()


def _enlarged(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps, like.shape[-2:], mode="nearest")
