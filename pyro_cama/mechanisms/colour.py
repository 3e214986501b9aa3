"""Colour: an image's grey value in other proportions to its channels, as in another light or another ink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import bounded
from pyro_cama.mechanisms.image import ImageMechanism


class Colour(ImageMechanism):
    """Adds (gain - 1) times the image's grey value, the mean of its channels, to every channel; invertible.

    A grey image comes to have its grey value times the gain in every channel.  The largest gain is 1, as an ink or a
    filter takes away and adds nothing: what is in [0, 1] stays there, where a Bernoulli mean beyond 1 would be cut off
    and have no gradient to come back by.  An image of one channel has no colour.

    theta are the logs of the gains over the last channel's, one a channel but the last, of slope 1 at 0.
    """

    numbers = None  # the channels', less 1: size() says how many
    simulates = True

    def size(self, node: Node) -> int:
        assert node.shape is not None
        return node.shape[0] - 1

    def prior_scale(self, node: Node) -> Tensor:
        return torch.full((self.size(node),), 1.0)

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        return x + self._gains_less_1(theta) * x.mean(-3, keepdim=True)

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        less = self._gains_less_1(theta)
        return x - less * x.mean(-3, keepdim=True) / (1 + less.mean(-3, keepdim=True))

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.randn(*shape, self.size(node)) * self.prior_scale(node) * scale

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        less = self._gains_less_1(theta).flatten()
        gains = {f"gain of channel {i}": 1 + float(value) for i, value in enumerate(less, 1)}
        return {"change": float(less.norm())} | gains

    def _gains_less_1(self, theta: Tensor) -> Tensor:
        """Returns gain - 1 of every channel, ``(..., C, 1, 1)``."""
        logs = bounded(torch.cat([theta, theta.new_zeros(*theta.shape[:-1], 1)], -1), 8.0)
        return torch.expm1(logs - logs.amax(-1, keepdim=True))[..., None, None]
