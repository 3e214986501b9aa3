"""Encoders and decoders of image nodes of ``size: base``: residual blocks, and wider maps where they are small.

He et al. 2016, *Identity mappings in deep residual networks*; a gain that starts at 0 stands for their normalisation
(Bachlechner et al. 2021, *ReZero is all you need*), so that every row's result is its own.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_cama.graph.nodes import Node
from pyro_cama.networks.image_layers import (
    CHANNELS,
    GeneratedDecoder,
    GeneratedEncoder,
    image_shape,
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


class ResidualEncoder(GeneratedEncoder):
    """Convolutions of stride 2 down to 4 pixels, a residual block after each, then one linear layer."""

    def __init__(self, node: Node, features: int) -> None:
        sizes, widths = sizes_of(node), widths_of(node)
        widths[0] += 1
        layers: list[nn.Module] = []
        for before, channels in pairwise(widths[: len(sizes)]):
            layers += [nn.Conv2d(before, channels, 3, stride=2, padding=1), ResidualBlock(channels), nn.ReLU()]
        super().__init__(layers, widths[len(sizes) - 1] * prod(sizes[-1]), features)


class ResidualDecoder(GeneratedDecoder):
    """Residual blocks, a transposed convolution of stride 2 after each, from maps of at most 4 pixels to the image."""

    def __init__(self, node: Node, numbers: int) -> None:
        sizes, widths = sizes_of(node)[::-1], widths_of(node)
        out = image_shape(node)[0] * numbers
        widths = [*widths[max(1, len(sizes) - 1) : 0 : -1], out]
        layers: list[nn.Module] = [] if sizes[1:] else [nn.ReLU(), nn.Conv2d(widths[0], out, 1)]
        for ((h, w), (high, wide)), (before, channels) in zip(pairwise(sizes), pairwise(widths), strict=False):
            extra = (high - 2 * h + 1, wide - 2 * w + 1)  # an even size has one row more than an odd one
            layers += [ResidualBlock(before), nn.ReLU(), nn.ConvTranspose2d(before, channels, 3, 2, 1, extra)]
        super().__init__(layers, (widths[0], *sizes[0]))
