"""TODO mechanisms.base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node


class Mechanism:
    """How m changes one scalar component of a child.

    A user adds a mechanism by subclassing: ``types``, ``size``, ``transform`` and ``invert`` are needed; ``push``,
    ``simulate`` and ``start`` serve simulated interventions and the first guess of an adaptation.
    Shapes: ``theta`` is ``(..., size)``, values and batch shapes are ``(...)``.
    """

    types: ClassVar[tuple[str, ...]] = ()
    in_merge: ClassVar[bool] = False  # True: theta joins the features that make the child's parameters
    composes: ClassVar[bool] = False  # True: transform may be applied to what transform returns, and invert likewise
    small: ClassVar[float] = 0.25  # a change (see describe) under this is not worth a word

    def size(self, node: Node) -> int:
        """How many numbers of theta one scalar component takes; 0 is the identity."""
        raise NotImplementedError

    def typical(self, node: Node) -> Tensor:
        """Size of a usual theta, ``(size,)``: adaptation under a shared m has a Laplace prior of this scale on it.

        Infinite for a switch, a number that no gradient moves; under a shared m it stays where the start has put it.
        """
        return torch.ones(self.size(node))

    def of_scope(self, scope: str) -> Mechanism:
        """The mechanism as a graph that names it gets it: one row tells less of its m than many rows that share it."""
        return self

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        """The distribution of x = T(x~), x~ from ``clean``; equal to ``clean`` at theta = 0."""
        raise NotImplementedError

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        """x~ = T^-1(x), or its expectation where T cannot be undone; equal to ``x`` at theta = 0.

        Args:
            frequencies: of a discrete node's levels in the training rows, else None.
        """
        raise NotImplementedError

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        """T(x~), drawn where T is random: what a simulated intervention does to clean rows."""
        raise NotImplementedError(f"{type(self).__name__} cannot simulate interventions: override push and simulate")

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        """Random theta of shape ``(*shape, size)`` for simulated interventions of the given scale."""
        raise NotImplementedError(f"{type(self).__name__} cannot simulate interventions: override push and simulate")

    @property
    def guesses(self) -> bool:
        """Whether it has a :meth:`start` of its own."""
        return type(self).start is not Mechanism.start

    @property
    def simulates(self) -> bool:
        """Whether it has a :meth:`simulate` of its own."""
        return type(self).simulate is not Mechanism.simulate

    def start(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
        """A first guess of theta, ``(size,)``, from new values of one component; None where there is none.

        Args:
            x: observed new values, ``(rows,)``; an image's pixels.
            statistics: of the training rows, in encoded units (``mean`` and ``sd``); of an image, of its pixels.
        """
        return None

    def alternatives(self, theta: Tensor, statistics: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Other thetas of one component, ``(size,)``, that no gradient leads to; adaptation tries them by evidence.

        Args:
            statistics: as for :meth:`start`.
        """
        return ()

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """What a theta of one component, ``(size,)``, does to its readings.

        Args:
            statistics: of the training rows in raw units (``mean``, ``sd``), or the levels' ``frequencies``.

        Returns:
            ``change``, how far a usual reading moves (see :class:`pyro_cama.adaptation.explanation.Explanation`), and named parameters
            in raw units.
        """
        named = {f"theta {i}": float(value) for i, value in enumerate(theta)}
        return {"change": float((theta / self.typical(node).to(theta)).norm())} | named

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(vars(self).items()))))


def bounded(raw: Tensor, limit: float = 4.0) -> Tensor:
    """Slope 1 at 0, never beyond the limit: an exponent that cannot overflow while adapting."""
    return limit * torch.tanh(raw / limit)


def magnitude(raw: Tensor) -> Tensor:
    """|raw| whose slope at 0 is 1, not 0: identity at 0, and no gradient is lost there."""
    return torch.where(raw >= 0, raw, -raw)
