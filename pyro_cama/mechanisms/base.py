"""Mechanism: how the manipulation m acts on a child, x = T_m(x~), and how the guide undoes it.

Every mechanism is the identity at theta = 0, and ``theta(m) = NN_pM(m) - NN_pM(0)``, so ``do(m=0)`` means "not
manipulated" exactly, whatever NN_pM has learned.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.likelihoods import expect_types, is_abstract


class Clean(NamedTuple):
    """Readings as they would be clean, of a mechanism that adds no more than normal noise to what it maps.

    Attributes:
        x: the clean readings, ``(...)``.
        log_slope: log of |dx~/dx| there.
        variance: of the noise, on the clean scale.
    """

    x: Tensor
    log_slope: Tensor
    variance: Tensor


class Line(NamedTuple):
    """x~ = slope x + offset, and the variance of the noise on the clean scale; each shaped as the readings.

    Attributes:
        slope, offset, variance: of the line.
        log_slope: log of |slope|.
    """

    slope: Tensor
    offset: Tensor
    log_slope: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Readings:
    """New values of one component, and what the model expects of them under draws of class and latents.

    Attributes:
        x: as measured, ``(rows,)``.
        clean: p(x~ | pa(x), z) under every draw, batch shape ``(draws, rows)``.
        weights: log of the draws' posterior weights over p(x | pa(x), z, m), the component as it is now explained,
            ``(draws, rows)``: the other factors' part.
    """

    x: Tensor
    clean: TorchDistribution
    weights: Tensor

    def log_evidence(self, recorded: TorchDistribution) -> Tensor:
        """Returns log of E[p(x | ...) / p(x | ... as now)], ``(rows,)``: what evidence gains by another distribution.

        Exact but for Monte Carlo where nothing else depends on theta: of all factors it is the component's own that
        changes, given the draws.
        """
        return torch.logsumexp(self.weights + recorded.log_prob(self.x), 0)


_ABILITIES = (
    ("guesses", ("guess_from_moments",)),
    ("simulates", ("simulate", "push")),
    ("pulls_back", ("pull_back",)),
)


class Mechanism(ABC):
    """How m changes one scalar component of a child, or an image.

    A user adds a mechanism by subclassing: ``types`` and the abstract methods :meth:`size`, :meth:`transform` and
    :meth:`invert` are needed.  Three abilities are optional, each declared by an attribute of the class beside its
    methods: ``simulates`` (:meth:`push` and :meth:`simulate`, for simulated interventions), ``guesses``
    (:meth:`guess_from_moments`, where an adaptation may begin) and ``pulls_back`` (:meth:`pull_back`, for a linear
    style to be summed out exactly).  :func:`pyro_cama.testing.check_mechanism` checks what
    a mechanism has to hold.  Shapes: ``theta`` is ``(..., size)``, values and batch shapes are ``(...)``.

    Attributes:
        types: the types of nodes that it serves.
        guesses: it has a :meth:`guess_from_moments`.
        simulates: it has a :meth:`push` and a :meth:`simulate`.
        pulls_back: it has a :meth:`pull_back`.
        linear: that maps readings on a straight line, and neither slope nor noise depend on them; an override of it
            says so anew.
        composes: :meth:`transform` may be applied to what it returned, and :meth:`invert` likewise.
        in_merge: theta joins the features that make the child's parameters.
        noticeable: a change (see :meth:`describe`) below this is not called one.

    Raises:
        TypeError: on definition of a subclass that serves no type, or whose abilities are not as declared.

    Example:
        A meter whose zero has moved:

        >>> from pyro import distributions as dist
        >>> from pyro_cama import Mechanism, Node
        >>> from pyro_cama.testing import check_mechanism
        >>> class ZeroShift(Mechanism):
        ...     types = ("continuous",)
        ...     guesses = True
        ...
        ...     def size(self, node):
        ...         return 1
        ...
        ...     def transform(self, clean, theta):
        ...         return dist.Normal(clean.loc + theta[..., 0], clean.scale)
        ...
        ...     def invert(self, x, theta, frequencies):
        ...         return x - theta[..., 0]
        ...
        ...     def guess_from_moments(self, x, statistics):
        ...         return (x.mean() - statistics["mean"]).reshape(1)
        >>> check_mechanism(ZeroShift(), Node("voltage", "continuous"))

        ``build(graph, mechanisms={"voltage": ZeroShift()})`` makes it the node's.
    """

    types: ClassVar[tuple[str, ...]] = ()
    guesses: bool = False
    simulates: bool = False
    pulls_back: bool = False
    linear: bool = False
    composes: ClassVar[bool] = False
    in_merge: ClassVar[bool] = False
    noticeable: ClassVar[float] = 0.25

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not is_abstract(cls):
            expect_types(cls)
        if "pull_back" in vars(cls) and "linear" not in vars(cls):
            cls.linear = False
        for ability, methods in _ABILITIES:
            missing = [name for name in methods if getattr(cls, name) is getattr(Mechanism, name)]
            if getattr(cls, ability) and missing:
                raise TypeError(
                    f"{cls.__name__} declares {ability} = True and has no {' and no '.join(missing)}; "
                    f"define {' and '.join(missing)}, or leave {ability} out"
                )
            if methods[0] in vars(cls) and not getattr(cls, ability):
                raise TypeError(
                    f"{cls.__name__} defines {methods[0]} and does not declare it; set {ability} = True in the class"
                )

    @abstractmethod
    def size(self, node: Node) -> int:
        """Returns how many numbers of theta one scalar component takes; 0 is the identity."""

    def prior_scale(self, node: Node) -> Tensor:
        """Returns the size of a usual theta, ``(size,)``: under a shared m, the scale of adaptation's Laplace prior.

        Infinite for a switch, a number that no gradient moves; under a shared m it stays where the start has put it.
        """
        return torch.ones(self.size(node))

    def even(self, node: Node) -> Tensor:
        """Returns which numbers of theta act by their size alone, T at -t being T at t, bool ``(size,)``."""
        return torch.zeros(self.size(node), dtype=torch.bool)

    def felt(self, theta: Tensor) -> Tensor:
        """Returns how large a step in each number of theta is felt as one of 1 is at theta = 0, shaped as ``theta``."""
        return torch.ones_like(theta)

    def of_scope(self, scope: str) -> Mechanism:
        """Returns the mechanism for an m of this scope, where a graph names it: one row tells less of m than many."""
        return self

    @abstractmethod
    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        """Returns the distribution of x = T(x~), x~ from ``clean``; equal to ``clean`` at theta = 0."""

    @abstractmethod
    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        """Returns x~ = T^-1(x), or its expectation where T cannot be undone; equal to ``x`` at theta = 0.

        Args:
            x: observed values, ``(...)``; codes of a categorical node's levels, whose clean values are probabilities
                ``(..., levels)``, and 0 or 1 of a binary node's, whose clean values are the probability of 1.
            theta: ``(..., size)``; leading shapes broadcast against those of ``x``.
            frequencies: of a discrete node's levels in the training rows, else None.
        """

    def pull_back(self, x: Tensor, theta: Tensor) -> Clean:
        """Returns readings on the clean scale, where T maps a clean reading and then adds normal noise at most.

        With :class:`Clean` c, T of a normal has the density N(c.x; loc, scale^2 + c.variance) exp(c.log_slope): what
        :meth:`transform` says, for every loc and scale.
        """
        raise NotImplementedError(f"{type(self).__name__} has no pull_back: override it, and set pulls_back = True")

    def line(self, theta: Tensor) -> Line:
        """Returns :meth:`pull_back` as a line, of a mechanism that is ``linear``."""
        found = self.pull_back(theta.new_tensor([0.0, 1.0]).reshape(2, *[1] * (theta.dim() - 1)), theta)
        offset, there = found.x
        return Line(there - offset, offset, found.log_slope, found.variance)

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        """Returns T(x~), drawn where T is random: what a simulated intervention does to clean rows."""
        raise self._no_simulation()

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        """Draws theta, ``(*shape, size)``, for simulated interventions of the given scale; zero at scale 0."""
        raise self._no_simulation()

    def families(self, size: int) -> dict[str, slice]:
        """Returns which of so many numbers of theta can be all that moves, by a name."""
        return {type(self).__name__.lower(): slice(0, size)}

    def guessed(self, size: int) -> slice:
        """Returns which of so many numbers of theta :meth:`guess_from_moments` tells; the others are 0 there."""
        return slice(0, size)

    def guess_from_moments(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
        """Returns a first guess of theta, ``(size,)``, from new values of one component; None where there is none.

        Args:
            x: observed new values, ``(rows,)``; an image's pixels.
            statistics: of the training rows, in encoded units (``mean`` and ``sd``); of an image, of its pixels.
        """
        return None

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> Iterable[Tensor]:
        """Returns other thetas of one component, ``(size,)``, that no gradient leads to; adaptation tries them out.

        A handful at most, however many there might be: each is scored.  A generator need not hold them all.

        Args:
            statistics: as for :meth:`guess_from_moments`.
            readings: the new values beside what the model expects of them, to choose by; None where that is not
                worked out (images).
        """
        return ()

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns what a theta of one component, ``(size,)``, does to its readings.

        Args:
            statistics: of the training rows (``mean`` and ``sd`` on the node's scale, its ``unit``), or the levels'
                ``frequencies``.

        Returns:
            ``change``, how far a usual reading moves (see :class:`pyro_cama.adaptation.explanation.Explanation`), 0 at
            theta = 0, and named parameters in raw units.
        """
        named = {f"theta {i}": float(value) for i, value in enumerate(theta)}
        return {"change": float((theta / self.prior_scale(node).to(theta)).norm())} | named

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns the least and the greatest value that what :meth:`describe` names can have; intervals end there."""
        return (0.0 if parameter == "change" else -math.inf), math.inf

    def _no_simulation(self) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} cannot simulate interventions: override push and simulate, and set simulates = True"
        )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(vars(self).items()))))


LARGEST_LOG = 20.0
"""Of a gain: g for kg, V for uV and more, and still no overflow in float32."""


def log_gain(raw: Tensor) -> Tensor:
    """Returns the log of a gain, of slope 1 at 0; :func:`raw_gain` is its inverse."""
    return bounded(raw, LARGEST_LOG)


def raw_gain(log: Tensor) -> Tensor:
    """Returns what :func:`log_gain` makes this log of a gain of, cut where that bends."""
    largest = 0.8 * LARGEST_LOG
    return LARGEST_LOG * torch.atanh(log.clamp(-largest, largest) / LARGEST_LOG)


def bounded(raw: Tensor, limit: float = 4.0) -> Tensor:
    """Returns ``limit * tanh(raw / limit)``, of slope 1 at 0: an exponent that cannot overflow while adapting."""
    return limit * torch.tanh(raw / limit)


def magnitude(raw: Tensor) -> Tensor:
    """Returns |raw| with slope 1 at 0, not 0: identity at 0, and no gradient is lost there."""
    return torch.where(raw >= 0, raw, -raw)
