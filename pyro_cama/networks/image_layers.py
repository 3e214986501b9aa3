"""What the encoders and decoders of images share: sizes of their layers, initial weights, what
unknown pixels are, how maps are read and made."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

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


class GeneratedEncoder(nn.Module):
    """An encoder that a node's size asks for: layers of convolutions, then one linear layer.

    Args:
        layers: of convolutions, the first of which takes a channel more, that says which pixels are known.
        width: numbers that they make of an image.
        features: numbers that it makes of these.

    Attributes:
        reads_unknown: it takes images with unknown pixels, which are NaN; others are given 0 there.
    """

    reads_unknown = True

    def __init__(self, layers: Sequence[nn.Module], width: int, features: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # twice as fast on a CPU
        self.output = nn.Sequential(nn.Linear(width, features), nn.SiLU())
        initialise_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """Returns ``(n, features)`` from ``(n, C, H, W)``."""
        maps = self.convolutions(beside_known(images).contiguous(memory_format=torch.channels_last))
        features: Tensor = self.output(maps.flatten(1))
        return features


class GeneratedDecoder(nn.Module):
    """A decoder that a node's size asks for, whose last layer is a convolution.

    Args:
        layers: from the smallest maps to the numbers of every pixel.
        start: channels, height and width of these maps.

    Attributes:
        inputs: how many features it takes.
    """

    def __init__(self, layers: Sequence[nn.Module], start: tuple[int, int, int]) -> None:
        super().__init__()
        self.start, self.inputs = start, prod(start)
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        initialise_weights(self)

    @torch.no_grad()
    def set_bias(self, numbers: Tensor) -> None:
        """Sets the last layer's bias to these numbers in every channel, ``(numbers,)``."""
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
        assert last.bias is not None
        last.bias.copy_(numbers.repeat(last.out_channels // len(numbers)))

    def forward(self, features: Tensor) -> Tensor:
        """Returns ``(n, C * numbers, H, W)`` from ``(n, inputs)``."""
        maps = features.unflatten(-1, self.start).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.layers(maps))
