"""Encoders and decoders of image nodes of ``size: base``: residual blocks, and wider maps where they are small.

He et al. 2016, *Identity mappings in deep residual networks*; a gain that starts at 0 stands for their normalisation
(Bachlechner et al. 2021, *ReZero is all you need*), so that every row's result is its own.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_cama.graph.nodes import Node
from pyro_cama.networks.image_layers import (
    CHANNELS,
    GeneratedDecoder,
    beside_known,
    image_shape,
    initialise_weights,
    sizes_of,
)


class ResidualBlock(nn.Module):
    """x + gain f(x), f two convolutions of 3 pixels behind a ReLU each; the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """Returns maps of the shape that it is given, ``(n, channels, h, w)``."""
        out = maps
        for convolution in self.convolutions:
            out = convolution(F.relu(out))
        return maps + self.gain * out


def widths_of(node: Node) -> list[int]:
    """Returns the channels at every layer, the image's own first: twice as many from the second halving on."""
    channels = node.channels or CHANNELS
    return [image_shape(node)[0], channels, *[2 * channels] * len(sizes_of(node)[2:])]


class ResidualEncoder(nn.Module):
    """Convolutions of stride 2 down to 4 pixels, a residual block after each, then one linear layer.

    It reads unknown pixels, as :class:`pyro_cama.networks.images.ImageEncoder` does.
    """

    reads_unknown = True

    def __init__(self, node: Node, features: int) -> None:
        super().__init__()
        sizes, widths = sizes_of(node), widths_of(node)
        widths[0] += 1
        layers: list[nn.Module] = []
        for before, channels in pairwise(widths[: len(sizes)]):
            layers += [nn.Conv2d(before, channels, 3, stride=2, padding=1), ResidualBlock(channels), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # twice as fast on a CPU
        width = widths[len(sizes) - 1] * prod(sizes[-1])
        self.output = nn.Sequential(nn.Linear(width, features), nn.SiLU())
        initialise_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """Returns ``(n, features)`` from ``(n, C, H, W)``."""
        maps = self.convolutions(beside_known(images).contiguous(memory_format=torch.channels_last))
        features: Tensor = self.output(maps.flatten(1))
        return features


class ResidualDecoder(GeneratedDecoder):
    """Residual blocks, a transposed convolution of stride 2 after each, from maps of at most 4 pixels to the image."""

    def __init__(self, node: Node, numbers: int) -> None:
        super().__init__()
        sizes, widths = sizes_of(node)[::-1], widths_of(node)
        out = image_shape(node)[0] * numbers
        widths = [*widths[max(1, len(sizes) - 1) : 0 : -1], out]
        self.start = (widths[0], *sizes[0])
        self.inputs = prod(self.start)
        layers: list[nn.Module] = [] if sizes[1:] else [nn.ReLU(), nn.Conv2d(widths[0], out, 1)]
        for ((h, w), (high, wide)), (before, channels) in zip(pairwise(sizes), pairwise(widths), strict=False):
            extra = (high - 2 * h + 1, wide - 2 * w + 1)  # an even size has one row more than an odd one
            layers += [ResidualBlock(before), nn.ReLU(), nn.ConvTranspose2d(before, channels, 3, 2, 1, extra)]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        initialise_weights(self)

    @property
    def last(self) -> nn.Module:
        """The last layer."""
        return self.layers[-1]

    def forward(self, features: Tensor) -> Tensor:
        """Returns ``(n, C * numbers, H, W)`` from ``(n, inputs)``."""
        maps = features.unflatten(-1, self.start).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.layers(maps))
