"""Convolutional encoders and decoders of image nodes (section 4.1 of the paper), and values between pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from pyro_cama._arguments import expect
from pyro_cama.graph.nodes import Node
from pyro_cama.graph.schema import ImageSize
from pyro_cama.networks.image_layers import (
    CHANNELS,
    GeneratedDecoder,
    GeneratedEncoder,
    filled,
    image_shape,
    sizes_of,
)
from pyro_cama.networks.residual import ResidualDecoder, ResidualEncoder

EncoderFactory = Callable[[Node, int], nn.Module]
"""From an image node and a number of features to a module, images ``(n, C, H, W)`` -> features ``(n, features)``."""
DecoderFactory = Callable[[Node, int], nn.Module]
"""From an image node and the likelihood's numbers a pixel to a module with an attribute ``inputs`` (how many features
it takes), features ``(n, inputs)`` -> ``(n, C * numbers, H, W)``, a channel's numbers side by side."""


class ImageEncoder(GeneratedEncoder):
    """Convolutions of stride 2 down to 4 pixels, then one linear layer."""

    def __init__(self, node: Node, features: int) -> None:
        channels = node.channels or CHANNELS
        sizes = sizes_of(node)
        layers: list[nn.Module] = []
        before = image_shape(node)[0] + 1
        for _ in sizes[1:]:
            layers += [nn.Conv2d(before, channels, 3, stride=2, padding=1), nn.ReLU()]
            before = channels
        super().__init__(layers, before * prod(sizes[-1]), features)


class ImageDecoder(GeneratedDecoder):
    """Transposed convolutions of stride 2, from maps of at most 4 pixels to the numbers of every pixel."""

    def __init__(self, node: Node, numbers: int) -> None:
        channels = node.channels or CHANNELS
        sizes = sizes_of(node)[::-1]
        out = image_shape(node)[0] * numbers
        layers: list[nn.Module] = []
        for (h, w), (high, wide) in pairwise(sizes):
            last = (high, wide) == sizes[-1]
            extra = (high - 2 * h + 1, wide - 2 * w + 1)  # an even size has one row more than an odd one
            layers += [nn.ReLU(), nn.ConvTranspose2d(channels, out if last else channels, 3, 2, 1, extra)]
        if not layers:
            layers = [nn.ReLU(), nn.Conv2d(channels, out, 1)]
        super().__init__(layers, (channels, *sizes[0]))


ENCODERS: dict[ImageSize, EncoderFactory] = {"small": ImageEncoder, "base": ResidualEncoder}
DECODERS: dict[ImageSize, DecoderFactory] = {"small": ImageDecoder, "base": ResidualDecoder}


def encoder_of(node: Node, features: int, chosen: Mapping[str, EncoderFactory] | None = None) -> nn.Module:
    """Returns the encoder chosen for an image node, tried once, or a new one of the node's size.

    Raises:
        ValueError: what was chosen does not take the node's images to ``(n, features)``.
    """
    if not chosen or node.name not in chosen:
        return ENCODERS[node.size](node, features)
    encoder = chosen[node.name](node, features)
    _try(f"encoders[{node.name!r}]", encoder, image_shape(node), (features,))
    return encoder


def decoder_of(node: Node, numbers: int, chosen: Mapping[str, DecoderFactory] | None = None) -> nn.Module:
    """Returns the decoder chosen for an image node, tried once, or a new one of the node's size.

    Raises:
        ValueError: what was chosen has no ``inputs``, or does not take ``(n, inputs)`` to ``(n, C * numbers, H, W)``.
    """
    if not chosen or node.name not in chosen:
        return DECODERS[node.size](node, numbers)
    decoder = chosen[node.name](node, numbers)
    where, inputs = f"decoders[{node.name!r}]", getattr(decoder, "inputs", None)
    fits = isinstance(inputs, int) and inputs >= 1
    expect(f"build({where})", "inputs", inputs, fits, "an attribute that says how many features it takes")
    channels, height, width = image_shape(node)
    _try(where, decoder, (int(inputs or 0),), (channels * numbers, height, width))
    return decoder


def decoder_inputs(decoder: nn.Module) -> int:
    """Returns how many features an image's decoder takes."""
    inputs = decoder.inputs
    assert isinstance(inputs, int)
    return inputs


def _try(where: str, module: nn.Module, takes: tuple[int, ...], gives: tuple[int, ...]) -> None:
    """Calls a module once on two rows of zeros, in eval mode, to see whether it fits."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad():
            found = tuple(module.eval()(torch.zeros(2, *takes)).shape)
    except RuntimeError as error:
        raise ValueError(f"build({where}): fails on a tensor of shape {(2, *takes)}: {error}") from error
    finally:
        for part, training in modes:
            part.training = training
    if found != (2, *gives):
        raise ValueError(f"build({where}): from {(2, *takes)} it gives {found}; expected {(2, *gives)}")


def encode_images(encoder: nn.Module, images: Tensor) -> Tensor:
    """Returns features ``(..., features)`` of images ``(..., C, H, W)``."""
    lead = images.shape[:-3]
    images = images if getattr(encoder, "reads_unknown", False) else filled(images)
    features: Tensor = encoder(images.reshape(-1, *images.shape[-3:]))
    return features.unflatten(0, lead) if len(lead) != 1 else features


def decode_images(decoder: nn.Module, features: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns the likelihood's numbers of every pixel, ``(..., C, H, W, numbers)``, from features ``(..., inputs)``."""
    lead = features.shape[:-1]
    out: Tensor = decoder(features.reshape(-1, features.shape[-1]))
    channels, height, width = shape
    return out.reshape(*lead, channels, -1, height, width).movedim(-3, -1)
