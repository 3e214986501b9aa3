"""The contract of a likelihood, as a check."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pyro_cama.data.column_statistics import ColumnStatistics
from pyro_cama.graph.nodes import Node
from pyro_cama.likelihoods import Likelihood
from pyro_cama.testing.expectations import (
    expect_close,
    expect_finite,
    expect_hashable,
    expect_holds,
    expect_normalised,
    expect_serves,
    expect_shape,
    expect_smooth,
    expect_values,
    in_float64,
)

_LEAD = (2, 3, 4)  # samples, classes, rows
_TIGHT = 1e-8
_EXTREME = 1e4


def check_likelihood(likelihood: Likelihood, node: Node) -> None:
    """Raises AssertionError unless a likelihood holds what model and guide rely on.

    - ``size``, ``constants`` and ``start`` agree, before there are training rows and after.
    - ``distribution`` has the batch shape of its numbers and scalar events, and can be sampled; samples have finite
      log-probabilities; they are levels' codes or whole numbers where the node's type asks for them.
    - Densities integrate to 1, probabilities sum to 1 (of pixels this is not looked at: grey values have no support).
    - ``joined`` is the same distribution as ``distribution``.
    - Numbers as large as 10,000 overflow nothing: log-probabilities and their gradients are finite.
    - It can be compared and hashed, as nodes of equal likelihoods are computed together.

    Errors that the likelihood's own methods raise are passed on.

    Args:
        likelihood: an object of the class.
        node: a node that it serves.

    Raises:
        AssertionError: what does not hold, and by how much.

    Example:
        >>> from pyro_cama import Node
        >>> from pyro_cama.likelihoods import Poisson
        >>> check_likelihood(Poisson(), Node("visits", "count"))
    """
    with in_float64():
        _LikelihoodChecks(likelihood, node).check()


class _LikelihoodChecks:
    """The checks of one likelihood, which share its numbers."""

    def __init__(self, likelihood: Likelihood, node: Node) -> None:
        self.likelihood = likelihood
        self.node = node
        self.name = type(likelihood).__name__

    def check(self) -> None:
        """Runs all checks."""
        expect_serves(self.name, self.likelihood.types, self.node)
        expect_hashable(self.name, self.likelihood)
        self.numbers()
        self.distribution()
        self.normalisation()
        self.joined()
        self.extremes()

    def params(self, *lead: int) -> Tensor:
        """Draws numbers about their start, ``(*lead, size)``."""
        return self.likelihood.start(self.node, {}).double() + 0.5 * torch.randn(*lead, self.likelihood.size(self.node))

    def numbers(self) -> None:
        """Checks that size, constants and start agree."""
        size, constants = self.likelihood.size(self.node), self.likelihood.constants
        whole = isinstance(size, int) and size > 0
        expect_holds(whole, f"{self.name}.size: found {size!r}; expected a whole number above 0")
        expect_holds(
            0 <= constants < size,
            f"{self.name}.constants: found {constants} of {size} numbers; expected some that depend on the causes",
        )
        for given in ({}, _some_statistics(self.node)):
            start = self.likelihood.start(self.node, given)
            components = (self.node.dim,) if given and self.node.dim and start.dim() == 2 else ()
            expect_shape(f"{self.name}.start", start, (*components, size))
            expect_finite(f"{self.name}.start", start)

    def distribution(self) -> None:
        """Checks shapes of the distribution and its samples, and that these have finite log-probabilities."""
        found = self.likelihood.distribution(self.params(*_LEAD))
        expect_holds(
            tuple(found.batch_shape) == _LEAD and tuple(found.event_shape) == (),
            f"{self.name}.distribution of numbers {(*_LEAD, self.likelihood.size(self.node))}: found batch shape "
            f"{tuple(found.batch_shape)} and event shape {tuple(found.event_shape)}; expected {_LEAD} and ()",
        )
        x = found.sample(torch.Size([5]))
        expect_shape(f"a sample of {self.name}", x, (5, *_LEAD))
        expect_values(f"a sample of {self.name}", x, self.node)
        expect_shape(f"{self.name}'s log_prob", found.log_prob(x), (5, *_LEAD))
        expect_finite(f"{self.name}'s log_prob of its samples", found.log_prob(x))

    def normalisation(self) -> None:
        """Checks that the total probability is 1."""
        if self.node.type != "image":
            expect_normalised(f"{self.name}.distribution", self.likelihood.distribution(self.params(3)), self.node)

    def joined(self) -> None:
        """Compares what is joined with the distribution of numbers side by side."""
        constants = self.likelihood.constants
        if not constants:
            return
        free, other = self.params(*_LEAD)[..., :-constants], self.params(_LEAD[-1])[..., -constants:]
        whole = self.likelihood.distribution(torch.cat([free, other.expand(*_LEAD, constants)], -1))
        x = whole.sample()
        found = self.likelihood.joined(free, other)
        expect_close(
            f"{self.name}.joined: log_prob beside distribution's", found.log_prob(x), whole.log_prob(x), _TIGHT
        )

    def extremes(self) -> None:
        """Checks that very large numbers overflow nothing."""
        size = self.likelihood.size(self.node)
        x = self.likelihood.distribution(self.params(1)).sample()
        for sign in (torch.ones(size), -torch.ones(size), torch.randn(8, size).sign()):
            params = (_EXTREME * sign).requires_grad_(True)
            expect_smooth(f"{self.name}'s log_prob", lambda p: self.likelihood.distribution(p).log_prob(x), params)


def _some_statistics(node: Node) -> dict[str, Tensor]:
    """Returns the statistics of a few training entries of a node."""
    found, shape = ColumnStatistics(node), node.event_shape
    found.add(np.arange(node.classes) if node.levels else np.linspace(0, 1, 5 * math.prod(shape)).reshape(5, *shape))
    return found.statistics()
