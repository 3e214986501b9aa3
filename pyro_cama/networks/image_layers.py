"""What the encoders and decoders of images share: sizes of their layers, initial weights, unknown
pixels, the last layer's bias."""

from __future__ import annotations

from abc import abstractmethod
from math import prod

import torch
from torch import Tensor, nn

from pyro_cama.graph.nodes import Node

CHANNELS = 32
_SMALL = 4  # layers halve the image until no side is longer


def initialise_weights(module: nn.Module) -> None:
    """Draws He et al.'s normal weights: torch's own shrink what passes so many layers that z is given up early on."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan = part.weight[0].numel()
            if isinstance(part, nn.ConvTranspose2d):  # a pixel is reached by one in stride * stride of the kernel
                fan = part.weight.numel() // part.weight.shape[1] // prod(part.stride)
            nn.init.normal_(part.weight, 0.0, (2 / max(fan, 1)) ** 0.5)


def image_shape(node: Node) -> tuple[int, int, int]:
    """Returns channels, height and width of an image node."""
    assert node.shape is not None
    channels, height, width = node.shape
    return channels, height, width


def sizes_of(node: Node) -> list[tuple[int, int]]:
    """Returns height and width at every layer, the image's own first."""
    _, height, width = image_shape(node)
    sizes = [(height, width)]
    while max(sizes[-1]) > _SMALL:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def known_pixels(images: Tensor) -> Tensor:
    """Returns which pixels of images are known, bool ``(..., 1, H, W)``: unknown ones are NaN."""
    return ~images.isnan().any(-3, keepdim=True)


def filled(images: Tensor) -> Tensor:
    """Returns images with 0 where they are unknown."""
    return images.masked_fill(images.isnan(), 0.0)


def beside_known(images: Tensor) -> Tensor:
    """Returns images, 0 where they are unknown, and which pixels are known as a channel more, ``(n, C + 1, H, W)``."""
    return torch.cat([filled(images), known_pixels(images).to(images)], -3)


class GeneratedDecoder(nn.Module):
    """A decoder that a node's size asks for, whose last layer is a convolution."""

    inputs: int
    start: tuple[int, int, int]

    @property
    @abstractmethod
    def last(self) -> nn.Module:
        """The last layer."""

    @torch.no_grad()
    def set_bias(self, numbers: Tensor) -> None:
        """Sets the last layer's bias to these numbers in every channel, ``(numbers,)``."""
        last = self.last
        assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
        assert last.bias is not None
        last.bias.copy_(numbers.repeat(last.out_channels // len(numbers)))
