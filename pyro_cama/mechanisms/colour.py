"""Colour: an image's grey value in other proportions to its channels, as in another light or another ink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import bounded
from pyro_cama.mechanisms.image import ImageMechanism


class Colour(ImageMechanism):
    """Adds (gain - 1) times the image's grey value to every channel, the mean of its channels.

    The gains sum to the number of channels, so the grey value stays and the inverse is exact.  A grey image comes to
    have its grey value times the gain in every channel; an image of one channel has no colour.

    theta are the logs of the gains over the last channel's, one a channel but the last, of slope 1 at 0.
    """

    numbers = 1  # of an image of two channels; size() counts
    simulates = True

    def size(self, node: Node) -> int:
        assert node.shape is not None
        return node.shape[0] - 1

    def prior_scale(self, node: Node) -> Tensor:
        return torch.full((self.size(node),), 1.0)

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        return x + self._more(theta) * x.mean(-3, keepdim=True)

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return x - self._more(theta) * x.mean(-3, keepdim=True)

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.randn(*shape, self.size(node)) * self.prior_scale(node) * scale

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        more = self._more(theta).flatten()
        gains = {f"gain of channel {i}": 1 + float(value) for i, value in enumerate(more, 1)}
        return {"change": float(more.norm())} | gains

    def _more(self, theta: Tensor) -> Tensor:
        """Returns gain - 1 of every channel, ``(..., C, 1, 1)``; exactly 0 at theta = 0."""
        logs = bounded(torch.cat([theta, theta.new_zeros(*theta.shape[:-1], 1)], -1), 8.0)
        weights = torch.expm1(logs)  # a gain is (1 + weight) over the mean of these
        mean = weights.mean(-1, keepdim=True)
        return ((weights - mean) / (1 + mean))[..., None, None]
