"""What mechanisms of images share: the mean of the likelihood is changed, pixel grid or intensities.

A mechanism acts on the image as a whole: theta is ``(..., size)``, images and batch shapes are ``(..., C, H, W)``.
What comes from outside the frame is 0.  The likelihood's mean is moved and the noise about it stays.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.errors import GraphError
from pyro_cama.graph.nodes import Node
from pyro_cama.likelihoods import MIN_PROBABILITY
from pyro_cama.mechanisms.base import Mechanism


class ImageMechanism(Mechanism):
    """A mechanism of ``numbers`` numbers that acts on the image as a whole.

    Abstract are :meth:`push` and :meth:`invert`; ``numbers`` has to be set, on the class or by its constructor, or
    :meth:`size` to say how many an image takes, where ``numbers`` is None.

    Attributes:
        numbers: of theta; None where the image decides.
        moves: pixels may leave the frame: it overrides :meth:`known`.
        hides: something may lie over the image that hides pixels of it (:meth:`cover`).
        random: :meth:`push` draws, and :meth:`transform` is overridden; of a sum it acts after what moves the mean.

    Raises:
        TypeError: on definition of a subclass that overrides :meth:`known` and does not declare it, or that does the
            opposite.
    """

    types = ("image",)
    numbers: int | None
    moves: bool = False
    hides: bool = False
    random: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.moves != (cls.known is not ImageMechanism.known):
            raise TypeError(f"{cls.__name__}: found moves = {cls.moves}; expected moves = True and a known, or neither")

    def size(self, node: Node) -> int:
        assert self.numbers is not None
        return self.numbers

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        return moved(clean, lambda mean: self.push(mean, theta))

    @abstractmethod
    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        """Returns T(x~) of images ``(..., C, H, W)``, leading shapes broadcast; also of the likelihood's mean."""

    def known(self, known: Tensor, theta: Tensor) -> Tensor:
        """Returns which pixels of T^-1(x) are known where some of x are, ``(..., 1, H, W)``, from 0 to 1."""
        return known

    def cover(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images with what hides pixels drawn over them, and which those are, bool ``(..., 1, H, W)``."""
        return x, torch.zeros_like(x[..., :1, :, :], dtype=torch.bool)


def recorded(mechanism: Mechanism, x: Tensor, theta: Tensor) -> Tensor:
    """Returns T(x~) of images as it would be recorded, in [0, 1]."""
    return mechanism.push(x, theta).clamp(0.0, 1.0)


def moved(clean: TorchDistribution, change: Callable[[Tensor], Tensor]) -> TorchDistribution:
    """Returns the distribution of an image with its mean changed, the noise about it as it was.

    Raises:
        GraphError: the likelihood is neither Bernoulli nor normal.
    """
    if isinstance(clean, dist.Bernoulli):
        probs = change(clean.probs).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        return type(clean)(probs=probs, validate_args=False)  # grey values are none of its support
    if isinstance(clean, dist.Normal):
        mean = change(clean.loc)
        return dist.Normal(mean, clean.scale.expand_as(mean))
    raise GraphError(f"an image's mechanism needs a Bernoulli or normal likelihood, found {clean}: override transform")
