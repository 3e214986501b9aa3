"""Images to experiment on: MNIST, USPS, CIFAR-10's airplanes and frogs, and scikit-learn's digits, which need no file.

experiment_parser = experiment.parser(__doc__)
image_data.add_data_dir(experiment_parser)
options = experiment_parser.parse_args()
images = image_data.load("mnist", options.data_dir)
split = image_data.protocol(images)
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional as F

from pyro_cama._arguments import expect

VARIABLE = "PYRO_CAMA_DATA"  # the environment's name of the folder with image files
USPS_FILE = "usps_train.npz"
USPS_SHA256 = "d61d3ae93998e0154a67db34bbe4f1186b7d179ea0be457dd659a56f8e8cc98e"
USPS_ROWS = 7291
CIFAR_FILE = "cifar10_airplane_frog.npz"
CIFAR_CLASSES = ("airplane", "frog")  # labels 0 and 1
Rows = tuple[Tensor, Tensor]
"""Images and their labels."""


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        train_x, test_x: ``(rows, channels, height, width)``, uint8, or float32 in [0, 1]; see :func:`pixels`.
        train_y, test_y: class codes from 0, ``(rows,)``, int64.
        name: of the data set.
        note: what to say wherever a figure from them is shown.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    name: str
    note: str = ""

    def __post_init__(self) -> None:
        shape = tuple(self.train_x.shape[1:])
        for part, x, y in (("train", self.train_x, self.train_y), ("test", self.test_x, self.test_y)):
            expect_images("Images", f"{part}_x", x)
            expect("Images", f"{part}_x.shape", tuple(x.shape), tuple(x.shape[1:]) == shape, f"(rows, *{shape})")
            expect_codes("Images", f"{part}_y", y, len(x))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image: channels, height, width."""
        return tuple(self.train_x.shape[1:])

    @property
    def classes(self) -> int:
        """How many classes the training labels have."""
        return int(self.train_y.max()) + 1


@dataclass(frozen=True)
class Protocol:
    """Images to train on, others to adapt on without labels, and others again to score; all float32 in [0, 1]."""

    train_x: Tensor
    train_y: Tensor
    adapt_x: Tensor
    score_x: Tensor
    score_y: Tensor


def protocol(images: Images, limit: int | None = None) -> Protocol:
    """All training images; the first half of the test images to adapt on, the second half to score.

    Args:
        limit: at most so many images of each of the three, the first ones; for smoke runs.

    Raises:
        ValueError: ``limit`` is below 1.

    >>> split = protocol(digits(), limit=100)
    >>> split.train_x.shape, split.adapt_x.shape, split.score_x.shape
    (torch.Size([100, 1, 8, 8]), torch.Size([100, 1, 8, 8]), torch.Size([100, 1, 8, 8]))
    """
    expect("protocol", "limit", limit, limit is None or limit >= 1, "at least 1, or None")
    half = len(images.test_x) // 2
    adapt, score = images.test_x[:half], images.test_x[half:]
    return Protocol(
        pixels(images.train_x[:limit]),
        images.train_y[:limit],
        pixels(adapt[:limit]),
        pixels(score[:limit]),
        images.test_y[half:][:limit],
    )


def pixels(x: Tensor) -> Tensor:
    """Intensities in [0, 1]: uint8 becomes float32, floats stay as they are.

    >>> pixels(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return x.float() / 255 if x.dtype == torch.uint8 else x


# data sets ----------------------------------------------------------------------------------------------------------


def digits(data_dir: Path | str | None = None, size: int = 8) -> Images:
    """scikit-learn's 1,797 digits, 8 by 8 pixels of 17 greys: 1,000 to train and 797 to test, classes in equal shares.

    Args:
        data_dir: not needed: scikit-learn brings them along.
        size: height and width in pixels; other than 8, interpolated bilinearly.

    Raises:
        ValueError: ``size`` is below 8.

    >>> digits(size=28).test_x.shape
    torch.Size([797, 1, 28, 28])
    """
    expect("digits", "size", size, size >= 8, "at least 8")
    bunch = load_digits()
    x = torch.as_tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    if size > 8:
        x = F.interpolate(x, size=(size, size), mode="bilinear")
    y = torch.as_tensor(bunch.target).long()
    train, test = train_test_split(np.arange(len(y)), test_size=797, stratify=y, random_state=0)
    return Images(x[train], y[train], x[test], y[test], "digits")


def mnist(data_dir: Path | str | None = None) -> Images:
    """MNIST, 60,000 + 10,000 images of 28 by 28 greys, as uint8. LeCun et al., "Gradient-based learning", 1998.

    Args:
        data_dir: the folder that holds ``MNIST/raw``; None takes the one that ``PYRO_CAMA_DATA`` names, or downloads
            to :func:`cache`.

    Raises:
        ValueError: they are not there, cannot be read, or cannot be downloaded.
    """
    parts = _torchvision("MNIST", data_dir, "MNIST/raw/train-images-idx3-ubyte and the three files beside it")
    train, test = ((part.data[:, None], part.targets.long()) for part in parts)
    return Images(*train, *test, "mnist")


def usps(data_dir: Path | str | None = None) -> Rows:
    """The training part of USPS, 7,291 digits of 16 by 16 greys, white on black, as uint8, and their labels.

    Hull, "A database for handwritten text recognition research", 1994.

    Args:
        data_dir: the folder that holds ``real/usps_train.npz``, or torchvision's ``usps.bz2``; None takes the one that
            ``PYRO_CAMA_DATA`` names, or downloads to :func:`cache`, where torchvision compares a checksum.

    Raises:
        ValueError: they are not there, are others, or cannot be downloaded.
    """
    given = folder(data_dir)
    path = None if given is None else given / "real" / USPS_FILE
    if path is None or not path.is_file():
        root, download = (cache(), True) if given is None else (given, False)
        part = _torchvision_part("USPS", root, download, f"real/{USPS_FILE} or usps.bz2", train=True)
        x, y = torch.as_tensor(part.data), torch.as_tensor(part.targets)
    else:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        expect(str(path), "sha256", found, found == USPS_SHA256, f"{USPS_SHA256}: another version, or damaged")
        with np.load(path, allow_pickle=False) as file:
            x, y = torch.as_tensor(file["image"]), torch.as_tensor(file["digit"])
    expect("usps", "rows", len(x), len(x) == USPS_ROWS, f"{USPS_ROWS}: the source has changed")
    return x[:, None], y.long()


def cifar(data_dir: Path | str | None = None) -> Images:
    """Airplanes and frogs of CIFAR-10, 10,000 + 2,000 images of 32 by 32 colours, as uint8, shuffled.

    Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Args:
        data_dir: the folder that holds ``cifar10_airplane_frog.npz`` or torchvision's ``cifar-10-batches-py``; None
            takes the one that ``PYRO_CAMA_DATA`` names, or downloads to :func:`cache`.

    Raises:
        ValueError: they are not there, cannot be read, or cannot be downloaded.
    """
    given = folder(data_dir)
    note = ""
    if given is not None and (given / CIFAR_FILE).is_file():
        train, test = _arrays(given / CIFAR_FILE)
        note = "from a JPEG copy of CIFAR-10: pixels differ slightly from the original"
    else:
        expected = f"{CIFAR_FILE} or cifar-10-batches-py/"
        train, test = (_two_classes(part) for part in _torchvision("CIFAR10", data_dir, expected))
    # the classes come one after the other: halves and first rows would be of one class
    return Images(*_shuffled(*train), *_shuffled(*test), "cifar_airplane_frog", note)


LOADERS: dict[str, Callable[[Path | str | None], Images]] = {"mnist": mnist, "cifar": cifar, "digits": digits}


def load(name: str, data_dir: Path | str | None = None) -> Images:
    """Images by name, one of `LOADERS`.

    Raises:
        ValueError: there are none of this name, or what the loader raises.

    >>> load("digits").classes
    10
    """
    expect("load", "name", name, name in LOADERS, f"one of {', '.join(LOADERS)}")
    return LOADERS[name](data_dir)


# where they are -----------------------------------------------------------------------------------------------------


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds ``--data-dir``, None where it is not given."""
    parser.add_argument(
        "--data-dir", type=Path, help=f"folder with the image files; else ${VARIABLE}, else they are downloaded"
    )


def folder(data_dir: Path | str | None = None) -> Path | None:
    """The folder that was given, or else the one that the environment names, if any.

    Raises:
        ValueError: it is no folder.
    """
    given = data_dir or os.environ.get(VARIABLE)
    if not given:
        return None
    source = "data_dir" if data_dir else f"${VARIABLE}"
    path = Path(given)
    expect("image_data", source, str(given), path.is_dir(), "a folder that exists")
    return path


def cache() -> Path:
    """Where downloads go."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyro_cama"


def _torchvision(name: str, data_dir: Path | str | None, expected: str) -> tuple[Any, Any]:
    """Training and test part of a data set of torchvision's."""
    given = folder(data_dir)
    root, download = (cache(), True) if given is None else (given, False)
    train, test = (_torchvision_part(name, root, download, expected, train=part) for part in (True, False))
    return train, test


def _torchvision_part(name: str, root: Path, download: bool, expected: str, *, train: bool) -> Any:
    """One part of a data set of torchvision's."""
    from torchvision import datasets  # type: ignore[import-untyped]  # takes a second

    try:
        return getattr(datasets, name)(root, train=train, download=download)
    except Exception as error:  # torchvision's are of many kinds, down to failed assertions
        happened = f"could not be downloaded to {root}" if download else f"cannot be read from {root}"
        raise ValueError(
            f"{name} {happened} ({type(error).__name__}: {error}); expected a folder that holds {expected}: "
            f"name it with --data-dir or {VARIABLE}" + ("" if download else ", or neither to download them")
        ) from error


def _arrays(path: Path) -> tuple[Rows, Rows]:
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = [(file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test")]
    except Exception as error:  # a broken zip, a missing array, pickled objects
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected arrays x_train, x_test "
            "(rows, 32, 32, 3) uint8 and y_train, y_test (rows,), 0 airplane, 1 frog"
        ) from error
    for x, y in parts:
        fits = x.dtype == np.uint8 and x.shape[1:] == (32, 32, 3)
        expect(str(path), "x", (x.dtype.name, x.shape), fits, "uint8 of (rows, 32, 32, 3)")
        fits = y.shape == (len(x),) and bool(np.isin(y, (0, 1)).all())
        expect(str(path), "y", (y.dtype.name, y.shape), fits, f"({len(x)},), each 0 or 1")
    train, test = (_channels_first(x, y) for x, y in parts)
    return train, test


def _two_classes(part: Any) -> Rows:
    """Of all of CIFAR-10."""
    codes = torch.as_tensor([part.class_to_idx[name] for name in CIFAR_CLASSES])
    is_class = torch.as_tensor(part.targets)[:, None] == codes
    rows = is_class.any(1)
    return _channels_first(part.data[rows.numpy()], is_class[rows].long().argmax(1).numpy())


def _channels_first(x: np.ndarray, y: np.ndarray) -> Rows:
    return torch.as_tensor(x).permute(0, 3, 1, 2).contiguous(), torch.as_tensor(y).long()


def _shuffled(x: Tensor, y: Tensor) -> Rows:
    order = torch.as_tensor(np.random.default_rng(0).permutation(len(y)))
    return x[order], y[order]


# arguments ----------------------------------------------------------------------------------------------------------


def expect_images(where: str, name: str, x: Tensor) -> None:
    """Refuses what are no images: ``(rows, channels, height, width)``, uint8 or floats.

    Raises:
        ValueError: another shape or dtype.
    """
    expect(where, f"{name}.shape", tuple(x.shape), x.dim() == 4, "(rows, channels, height, width)")
    expect(where, f"{name}.dtype", x.dtype, x.dtype == torch.uint8 or x.is_floating_point(), "uint8 or floats")


def expect_codes(where: str, name: str, y: Tensor, rows: int) -> None:
    """Refuses what are no class codes, ``(rows,)``, int64 from 0.

    Raises:
        ValueError: another shape, dtype or a negative code.
    """
    expect(where, f"{name}.shape", tuple(y.shape), tuple(y.shape) == (rows,), f"({rows},), a code for every image")
    expect(where, f"{name}.dtype", y.dtype, y.dtype == torch.long, "torch.int64")
    lowest = int(y.min()) if len(y) else 0
    expect(where, f"{name}.min()", lowest, lowest >= 0, "codes from 0")
