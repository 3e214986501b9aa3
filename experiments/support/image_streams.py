"""A stream of MNIST digits in three worlds, as :mod:`support.streams` reads them.

A is the training world.  In B the camera has moved: every digit is shifted by 2.1 pixels to the right and 1.4 down, and
turned by 20 degrees.  In C pictures are negatives, and paler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

import pyro_cama
from pyro_cama.mechanisms.intensity import Intensity
from pyro_cama.mechanisms.warp import Warp
from support import image_data
from support.image_baselines import CNN, tent
from support.images import IMAGE
from support.streams import Stream

MOVED = torch.tensor([0.15, 0.10, 0.35, 0.0, 0.0, 0.0])
PALE_NEGATIVE = torch.tensor([-1.8, 0.95])  # of gain - 1, offset
FEW = {"samples": 4, "m_samples": 1}  # draws of a prediction


@dataclass(frozen=True)
class Size:
    """How large it all is.

    Attributes:
        train, epochs, net_epochs: images to train on, and passes over them.
        held: images of the training world for detectors.
        rows: of a batch.
        hidden, channels: of networks.
    """

    train: int
    epochs: int
    net_epochs: int
    held: int
    rows: int
    hidden: int = 128
    channels: int = 16


SIZES = {
    "smoke": Size(300, 2, 2, 40, 40, 16, 4),
    "quick": Size(2000, 6, 6, 300, 150, 64, 8),
    "full": Size(6000, 16, 10, 1000, 250),
}


@dataclass(frozen=True)
class Net:
    """A CNN that reads tables with images, as :class:`support.streams.Tent` asks for."""

    cnn: CNN

    def adapt_tent(self, rows: Mapping[str, Any]) -> Self:
        return replace(self, cnn=tent(self.cnn, torch.as_tensor(rows[IMAGE])))

    def predict(self, rows: Mapping[str, Any]) -> Any:
        return self.cnn.predict_proba(torch.as_tensor(rows[IMAGE])).argmax(1).numpy()


def in_world(x: Tensor, world: str) -> Tensor:
    """Images as they are recorded in a world."""
    if world == "B":
        x = Warp().push(x, MOVED.expand(len(x), -1))
    if world == "C":
        x = Intensity().push(x, PALE_NEGATIVE.expand(len(x), -1))
    return x.clamp(0.0, 1.0)


def image_stream(course: Sequence[str], seed: int, size: str, data_dir: str | None) -> Stream:
    """Batches of test images, each once, in the worlds of a course; the model's m is one for all rows."""
    s = SIZES[size]
    images = image_data.load("digits" if size == "smoke" else "mnist", data_dir)
    generator = torch.Generator().manual_seed(seed)
    train = torch.randperm(len(images.train_x), generator=generator)[: s.train]
    x, y = image_data.pixels(images.train_x[train]), images.train_y[train]
    order = torch.randperm(len(images.test_x), generator=generator)
    test_x, test_y = image_data.pixels(images.test_x[order]), images.test_y[order]

    raw: dict[str, Any] = pyro_cama.datasets.graph("mnist").to_dict()
    raw["nodes"][IMAGE] |= {"channels": s.channels, "shape": list(x.shape[1:])}
    raw["latents"]["m"] |= {"mechanism": "warp+intensity", "scope": "dataset"}
    cama = pyro_cama.build(raw, seed=seed, hidden=s.hidden, device="cpu")
    cama.fit(_rows(x, y), max_epochs=s.epochs, batch_size=128, lr=2e-3, anneal=True, progress=False)
    cnn = CNN(channels=s.channels, batch_norm=True, epochs=s.net_epochs, seed=seed).fit(x, y)
    batches = []
    for i, world in enumerate(course):
        own = slice(s.held + i * s.rows, s.held + (i + 1) * s.rows)
        batches.append((world, _rows(in_world(test_x[own], world), test_y[own])))
    return Stream(cama, Net(cnn), _rows(test_x[: s.held], test_y[: s.held]), batches, FEW)


def _rows(x: Tensor, y: Tensor) -> dict[str, Any]:
    return {IMAGE: x.numpy(), "digit": np.asarray(y)}
