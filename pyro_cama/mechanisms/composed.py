"""Composed: mechanisms one after another, as ``warp+intensity`` in a graph file, or under several manipulations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import ClassVar, TypeVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Clean, Line, Mechanism, Readings
from pyro_cama.mechanisms.image import ImageMechanism, moved

Named = TypeVar("Named")
_OF_PART = " of part "  # in a name that several parts have, before the part's number


class Composed(Mechanism):
    """One mechanism after another, ``x = T_n(... T_1(x~))``, their thetas side by side.

    Args:
        parts: in the order in which they act; the first is nearest to the clean child, and one at most is of a size
            that the image decides.
        node: that they act on; of images it is not needed.

    Raises:
        ValueError: several parts of such a size.
    """

    types: ClassVar[tuple[str, ...]] = ("continuous", "count")
    guesses = simulates = pulls_back = True  # of a class; an object has them where its parts do

    def __init__(self, parts: Sequence[Mechanism], node: Node | None = None) -> None:
        self.parts = tuple(parts)
        self._sizes = tuple(_size(part, node) for part in parts)
        if self._sizes.count(None) > 1:
            raise ValueError(
                "found several parts whose size the image decides; expected one at most, such as one colour"
            )
        self._known = sum(size for size in self._sizes if size is not None)
        self.guesses = None not in self._sizes and any(part.guesses for part in parts)
        self.simulates = all(part.simulates for part in parts)
        self.pulls_back = all(part.pulls_back for part in parts)
        self.linear = all(part.linear for part in parts)

    @property
    def composes(self) -> bool:  # type: ignore[override]
        """Whether every part does."""
        return all(part.composes for part in self.parts)

    def size(self, node: Node) -> int:
        return sum(part.size(node) for part in self.parts)

    def prior_scale(self, node: Node) -> Tensor:
        return torch.cat([part.prior_scale(node) for part in self.parts])

    def even(self, node: Node) -> Tensor:
        return torch.cat([part.even(node) for part in self.parts])

    def felt(self, theta: Tensor) -> Tensor:
        return torch.cat([part.felt(own) for part, own in self.with_theta(theta)], -1)

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        for part, own in self.with_theta(theta):
            clean = part.transform(clean, own)
        return clean

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        for part, own in reversed(self.with_theta(theta)):
            x = part.invert(x, own, frequencies)
        return x

    def pull_back(self, x: Tensor, theta: Tensor) -> Clean:
        slope = variance = torch.zeros_like(x)
        for part, own in reversed(self.with_theta(theta)):
            found = part.pull_back(x, own)
            x, slope = found.x, slope + found.log_slope
            variance = found.variance + variance * (2 * found.log_slope).exp()
        return Clean(x, slope, variance)

    def line(self, theta: Tensor) -> Line:
        lines = [part.line(own) for part, own in reversed(self.with_theta(theta))]
        whole = lines[0]
        for line in lines[1:]:
            whole = Line(
                line.slope * whole.slope,
                line.slope * whole.offset + line.offset,
                whole.log_slope + line.log_slope,
                line.variance + whole.variance * line.slope.square(),
            )
        return whole

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        for part, own in self.with_theta(theta):
            x = part.push(x, own)
        return x

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.cat([part.simulate(shape, node, scale) for part in self.parts], -1)

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
        """Returns the guess of the first part that has one; the others rest, since one is enough."""
        for i, part in enumerate(self.parts):
            own = part.guess_from_moments(x, statistics) if part.guesses and self.guesses else None
            if own is not None:
                rest = [x.new_zeros(size or 0) for size in self._sizes]
                return torch.cat([*rest[:i], own, *rest[i + 1 :]])
        return None

    def guessed(self, size: int) -> slice:
        """Returns those of the first part that guesses."""
        for part, at in self.places(size):
            if part.guesses:
                own = part.guessed(at.stop - at.start)
                return slice(at.start + own.start, at.start + own.stop)
        return slice(0, 0)

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> tuple[Tensor, ...]:
        parts = self.with_theta(theta)
        found = []
        for i, (part, own) in enumerate(parts):
            for other in part.alternatives(own, statistics):
                found.append(torch.cat([other if j == i else kept for j, (_, kept) in enumerate(parts)]))
        return tuple(found)

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        each = [part.describe(own, node, statistics) for part, own in self.with_theta(theta)]
        change = math.hypot(*(found.pop("change") for found in each))
        return {"change": change, **_told_apart(each)}

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns what holds for all parts, or for the one that the name tells."""
        name, told, number = parameter.partition(_OF_PART)
        parts = [self.parts[int(number) - 1]] if told else self.parts
        lows, highs = zip(*(part.range_of(name) for part in parts), strict=True)
        return max(lows), min(highs)

    def sizes(self, total: int) -> list[int]:
        """Returns how many numbers of theta each part takes, of so many in all."""
        return [total - self._known if size is None else size for size in self._sizes]

    def places(self, total: int) -> list[tuple[Mechanism, slice]]:
        """Returns every part and where its numbers stand in theta, of so many in all."""
        ends = [*accumulate(self.sizes(total))]
        return [(part, slice(start, end)) for part, start, end in zip(self.parts, [0, *ends], ends, strict=False)]

    def with_theta(self, theta: Tensor) -> list[tuple[Mechanism, Tensor]]:
        """Returns every part with its own numbers of theta, ``(..., size of the part)``."""
        return [(part, theta[..., at]) for part, at in self.places(theta.shape[-1])]


class ComposedImages(Composed, ImageMechanism):
    """Mechanisms of images one after another; the mean is moved by all of them, and bounded once.

    Args:
        parts: in the order in which they act.

    Raises:
        ValueError: several parts of a size that the image decides, or one that hides pixels is not the last.
    """

    types = ("image",)
    moves = True  # of a class; an object does where a part does

    def __init__(self, parts: Sequence[ImageMechanism]) -> None:
        super().__init__(parts)
        self.numbers = None if None in self._sizes else self._known
        if any(part.hides for part in parts[:-1]):
            raise ValueError("found a part behind one that hides pixels; expected that one, such as overlay, last")
        self.moves = any(part.moves for part in parts)
        self.hides = any(part.hides for part in parts)
        self.random = any(part.random for part in parts)

    def families(self, size: int) -> dict[str, slice]:
        """Returns those of every part."""
        return _told_apart(
            {name: slice(at.start + own.start, at.start + own.stop) for name, own in families.items()}
            for part, at in self.places(size)
            for families in [part.families(at.stop - at.start)]
        )

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        parts = [*self._innermost(theta)]

        def change(mean: Tensor) -> Tensor:
            for part, own in parts:
                mean = mean if part.random else part.push(mean, own)
            return mean

        found = moved(clean, change)
        for part, own in parts:
            found = part.transform(found, own) if part.random else found
        return found

    def _innermost(self, theta: Tensor) -> Iterator[tuple[ImageMechanism, Tensor]]:
        """The parts, those of a sum in the place of the sum, with their numbers of theta."""
        for part, own in self.with_theta(theta):
            assert isinstance(part, ImageMechanism)
            if isinstance(part, ComposedImages):
                yield from part._innermost(own)
            else:
                yield part, own

    def known(self, known: Tensor, theta: Tensor) -> Tensor:
        for part, own in reversed(self.with_theta(theta)):
            assert isinstance(part, ImageMechanism)
            known = part.known(known, own)
        return known

    def cover(self, x: Tensor) -> tuple[Tensor, Tensor]:
        last = self.parts[-1]
        assert isinstance(last, ImageMechanism)
        return last.cover(x)


def one_after_another(parts: Sequence[Mechanism], node: Node) -> Composed:
    """Returns the mechanisms composed, the first nearest to the clean node."""
    images = [part for part in parts if isinstance(part, ImageMechanism)]
    return ComposedImages(images) if len(images) == len(parts) else Composed(parts, node)


def _told_apart(each: Iterable[Mapping[str, Named]]) -> dict[str, Named]:
    """Returns what parts name, in one; a name that several have is told by the number of the part."""
    parts = [*each]
    times = Counter(name for part in parts for name in part)
    return {
        name if times[name] == 1 else f"{name}{_OF_PART}{number}": value
        for number, part in enumerate(parts, 1)
        for name, value in part.items()
    }


def _size(part: Mechanism, node: Node | None) -> int | None:
    """How many numbers of theta a part takes; None where the image decides."""
    if isinstance(part, ImageMechanism):
        return part.numbers
    if node is None:
        raise ValueError(f"Composed: found {type(part).__name__} and no node; expected the node that it acts on")
    return part.size(node)
