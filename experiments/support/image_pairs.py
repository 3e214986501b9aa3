"""Pairs of digits that nobody made alike: other writers, other scanners, other preparations; brought to one frame.

Whatever is done to bring them to a frame looks at no label, is said before any image is seen, and is the same for every
method.  MNIST's digits were scaled to a box of 20 x 20 and laid into 28 x 28 by their centre of mass; USPS's fill
16 x 16 and scikit-learn's 8 x 8, without a margin.

split = image_pairs.split("mnist_usps", "cut")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from pyro_cama._arguments import expect
from support import image_data
from support.image_data import Protocol, Rows, pixels

BOX = 20  # to whose size MNIST's digits were brought
MARGIN = 4  # about it


def resized(x: Tensor, side: int) -> Tensor:
    """Images of another size: interpolated, or averaged where they become smaller."""
    return F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)


def centred(x: Tensor) -> Tensor:
    """Images moved so that their centre of mass is in the middle, as MNIST's were.

    >>> one = torch.zeros(1, 1, 9, 9)
    >>> one[..., 2, 5] = 1
    >>> bool((centred(one)[..., 4, 4] > 0.999).all())
    True
    """
    mass = x.sum((1, 2, 3)).clamp_min(1e-6)
    height, width = x.shape[-2:]
    across, down = (2 * (torch.arange(side, dtype=x.dtype) + 0.5) / side - 1 for side in (width, height))
    right = (x.sum((1, 2)) * across).sum(1) / mass
    below = (x.sum((1, 3)) * down).sum(1) / mass
    maps = torch.eye(2, 3).to(x).repeat(len(x), 1, 1)
    maps[:, 0, 2], maps[:, 1, 2] = right, below
    return F.grid_sample(x, F.affine_grid(maps, list(x.shape), align_corners=False), align_corners=False)


@dataclass(frozen=True)
class Preparation:
    """How images come to one frame.

    Attributes:
        mnist: of images of 28 x 28.
        filled: of images that fill their frame of 16 x 16 or 8 x 8.
        meaning: in words.
    """

    mnist: Callable[[Tensor], Tensor]
    filled: Callable[[Tensor], Tensor]
    meaning: str


def _in_margin(x: Tensor, box: int, side: int) -> Tensor:
    """The box enlarged or reduced, in the middle of a black frame."""
    left = (side - box) // 2
    return F.pad(resized(x, box), (left, side - box - left) * 2)


PREPARATIONS: dict[str, Preparation] = {
    "cut": Preparation(
        lambda x: resized(x[..., MARGIN:-MARGIN, MARGIN:-MARGIN], 16),
        lambda x: resized(x, 16),
        "MNIST's box of 20 x 20 reduced to 16 x 16, the others' frame enlarged to it",
    ),
    "centred": Preparation(
        lambda x: centred(resized(x, 22)),
        lambda x: centred(_in_margin(x, 16, 22)),
        "22 x 22: MNIST reduced, so that its box is 16 x 16, the others with that margin, and by centre of mass",
    ),
    "enlarged": Preparation(
        lambda x: x,
        lambda x: _in_margin(x, BOX, BOX + 2 * MARGIN),
        "28 x 28: the others' frame enlarged to 20 x 20, with MNIST's margin",
    ),
}


@cache
def _mnist(data_dir: Path | str | None) -> image_data.Images:
    return image_data.mnist(data_dir)


@cache
def _usps(data_dir: Path | str | None) -> Rows:
    return image_data.usps(data_dir)


def _optdigits(data_dir: Path | str | None) -> Rows:
    bunch = load_digits()
    return torch.as_tensor(bunch.images / 16, dtype=torch.float32)[:, None], torch.as_tensor(bunch.target).long()


PAIRS = {"mnist_usps": "MNIST to USPS", "optdigits_mnist": "optdigits to MNIST"}


def split(
    name: str,
    preparation: str = "cut",
    data_dir: Path | str | None = None,
    train: int | None = None,
    new: int | None = None,
) -> Protocol:
    """Images to train on, every other of the new ones to adapt to without labels, and those between to score.

    Args:
        name: one of `PAIRS`.
        preparation: one of `PREPARATIONS`.
        data_dir: of MNIST and USPS, see :func:`image_data.folder`.
        train: at most so many to train on, the first ones.
        new: at most so many to adapt to, and to score.

    Raises:
        ValueError: an unknown name, or data that are not there.

    >>> small = split("optdigits_optdigits", train=100, new=50)
    >>> small.train_x.shape, small.adapt_x.shape, small.score_y.shape
    (torch.Size([100, 1, 16, 16]), torch.Size([50, 1, 16, 16]), torch.Size([50]))
    """
    known = (*PAIRS, "optdigits_optdigits")
    expect("split", "name", name, name in known, f"one of {', '.join(known)}")
    expect("split", "preparation", preparation, preparation in PREPARATIONS, f"one of {', '.join(PREPARATIONS)}")
    source, target = name.split("_")
    x, y = _part(source, data_dir, training=True)
    other, labels = _part(target, data_dir, training=False)
    if source == target:  # smoke runs need no file: odd digits are new
        x, y, other, labels = x[::2], y[::2], other[1::2], labels[1::2]
    x, y = x[:train], y[:train]
    adapt, score = other[::2][:new], other[1::2][:new]
    made = PREPARATIONS[preparation]
    first, second = (made.mnist if one == "mnist" else made.filled for one in (source, target))
    return Protocol(first(pixels(x)), y, second(pixels(adapt)), second(pixels(score)), labels[1::2][:new])


def _part(name: str, data_dir: Path | str | None, *, training: bool) -> Rows:
    """All images of a set: of MNIST's two parts, one to train on and one that is new."""
    if name == "mnist":
        images = _mnist(data_dir)
        return (images.train_x, images.train_y) if training else (images.test_x, images.test_y)
    return _usps(data_dir) if name == "usps" else _optdigits(data_dir)
