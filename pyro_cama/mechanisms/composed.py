"""Composed: mechanisms of images one after another, as ``warp+intensity`` in a graph file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Readings
from pyro_cama.mechanisms.image import ImageMechanism


class Composed(ImageMechanism):
    """One mechanism after another, ``x = T_n(... T_1(x~))``, their thetas side by side.

    Args:
        parts: in the order in which they act; one at most of a size that the image decides.

    Raises:
        ValueError: several parts of such a size.
    """

    guesses = simulates = True  # of a class; an object has them where its parts do

    def __init__(self, parts: tuple[ImageMechanism, ...]) -> None:
        self.parts = parts
        known = [part.numbers for part in parts if part.numbers]
        if len(known) < len(parts) - 1:
            raise ValueError(
                "found several parts whose size the image decides; expected one at most, such as one colour"
            )
        self.numbers = sum(known) if len(known) == len(parts) else 0
        self.known = sum(known)
        self.guesses = bool(self.numbers) and any(part.guesses for part in parts)
        self.simulates = all(part.simulates for part in parts)

    def size(self, node: Node) -> int:
        return sum(part.size(node) for part in self.parts)

    def prior_scale(self, node: Node) -> Tensor:
        return torch.cat([part.prior_scale(node) for part in self.parts])

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        for part, own in self._with_theta(theta):
            x = part.push(x, own)
        return x

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        for part, own in reversed(self._with_theta(theta)):
            x = part.invert(x, own, frequencies)
        return x

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.cat([part.simulate(shape, node, scale) for part in self.parts], -1)

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
        if not self.guesses:
            return None
        found = [part.guess_from_moments(x, statistics) for part in self.parts]
        rest = [x.new_zeros(part.numbers) for part in self.parts]
        return torch.cat([zero if own is None else own for own, zero in zip(found, rest, strict=True)])

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> tuple[Tensor, ...]:
        parts = self._with_theta(theta)
        found = []
        for i, (part, own) in enumerate(parts):
            for other in part.alternatives(own, statistics):
                found.append(torch.cat([other if j == i else kept for j, (_, kept) in enumerate(parts)]))
        return tuple(found)

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        each = [part.describe(own, node, statistics) for part, own in self._with_theta(theta)]
        change = math.hypot(*(found.pop("change") for found in each))
        return {"change": change} | {name: value for found in each for name, value in found.items()}

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns what holds for all parts."""
        lows, highs = zip(*(part.range_of(parameter) for part in self.parts), strict=True)
        return max(lows), min(highs)

    def _with_theta(self, theta: Tensor) -> list[tuple[ImageMechanism, Tensor]]:
        """Returns every part with its own numbers of theta, ``(..., part.numbers)``."""
        left = theta.shape[-1] - self.known
        sizes = [part.numbers or left for part in self.parts]
        return list(zip(self.parts, theta.split(sizes, -1), strict=True))
