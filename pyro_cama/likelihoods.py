"""Likelihoods: from the numbers a network puts out to the distribution of a node.

A likelihood is chosen by the node's type, by its name in the YAML (``likelihood: student_t``), or by an object of a
subclass given to :func:`pyro_cama.build`.  It knows nothing of graphs or manipulations.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama import counts
from pyro_cama.errors import GraphError
from pyro_cama.graph.nodes import Node
from pyro_cama.graph.schema import NodeType

MIN_SCALE = 1e-2  # standardised units: keeps a child that is constant within a class from owning the posterior
_CONCENTRATIONS = (-4.6, 20.0)  # logarithms
MIN_PROBABILITY = 1e-3  # of a pixel being on, or off


class Likelihood(ABC):
    """The distribution of one scalar component or pixel of a node, given ``size(node)`` unconstrained numbers.

    A user adds a likelihood by subclassing: ``types`` and the abstract methods :meth:`size` and
    :meth:`distribution` are needed; :func:`pyro_cama.testing.check_likelihood` checks what they have to hold.
    Nodes whose likelihoods are equal (``==``) and whose parents are the same are computed as one tensor.

    Attributes:
        types: the types of nodes that it serves.
        constants: how many of the numbers, the last ones, do not depend on the causes.
        grey: that an image's channels have the same numbers, the mean of what its causes make them, and that
            q(z | ...) reads the channels' mean.

    Raises:
        TypeError: on definition of a subclass that serves no type, or that defines :meth:`distribution` beside an
            inherited :meth:`joined` of another distribution.

    Example:
        Measurements of which some are far off:

        >>> from pyro import distributions as dist
        >>> from pyro_cama import Likelihood, Node
        >>> from pyro_cama.testing import check_likelihood
        >>> class Laplace(Likelihood):
        ...     types = ("continuous",)
        ...     constants = 1
        ...
        ...     def size(self, node):
        ...         return 2
        ...
        ...     def distribution(self, params):
        ...         return dist.Laplace(params[..., 0], F.softplus(params[..., 1]) + 0.01)
        >>> check_likelihood(Laplace(), Node("voltage", "continuous"))

        ``build(graph, likelihoods={"voltage": Laplace()})`` makes it the node's.
    """

    types: ClassVar[tuple[str, ...]] = ()
    constants: ClassVar[int] = 0
    grey: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if is_abstract(cls):
            return
        expect_types(cls)
        first = next(c for c in cls.__mro__ if {"distribution", "joined"} & vars(c).keys())
        if "joined" not in vars(first) and cls.joined is not Likelihood.joined:
            raise TypeError(
                f"{cls.__name__} gets its distribution from {first.__name__}, and a joined that does not ask for it "
                "from a class further up; define joined as well: joined = Likelihood.joined"
            )

    @abstractmethod
    def size(self, node: Node) -> int:
        """Returns how many unconstrained numbers one scalar component takes."""

    @abstractmethod
    def distribution(self, params: Tensor) -> TorchDistribution:
        """Returns the distribution with batch shape ``params.shape[:-1]`` and scalar events.

        Args:
            params: unconstrained, shape ``(..., size)``.
        """

    def joined(self, free: Tensor, constants: Tensor) -> TorchDistribution:
        """Returns :meth:`distribution` of the numbers that depend on the causes and, beside them, those that do not.

        A subclass may override it to spare the copies of the constants.

        Args:
            free: shape ``(..., size - constants)``.
            constants: shape ``(..., constants)``, leading dimensions that broadcast against those of ``free``.
        """
        return self.distribution(torch.cat([free, constants.expand(*free.shape[:-1], -1)], -1))

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        """Returns the numbers at which training starts, before a cause has a say: zeros unless overridden.

        Args:
            node: the node.
            statistics: of its training entries, as in :attr:`pyro_cama.data.encoder.TableEncoder.statistics`, float64;
                empty before there are any.

        Returns:
            ``(size,)``, or of a vector ``(dim, size)``.
        """
        return torch.zeros(self.size(node))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(vars(self).items()))))


def is_abstract(cls: type) -> bool:
    """Returns whether a class that is being defined still has abstract methods, as :mod:`abc` will find."""
    names = {name for c in cls.__mro__ for name in vars(c)}
    return any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in names)


def expect_types(cls: type[Any]) -> None:
    """Raises TypeError unless a class's ``types`` is a tuple of node types, and names one."""
    known = get_args(NodeType)
    if not isinstance(cls.types, tuple) or not cls.types or not set(cls.types) <= set(known):
        raise TypeError(
            f"{cls.__name__}: found types = {cls.types!r}; expected a tuple of the node types that it serves, "
            f"some of {', '.join(known)}"
        )


class Normal(Likelihood):
    """Normal about a mean that the causes set, with one scale a node: ``(loc, raw scale)``, in training sds.

    A scale that follows the causes (``heteroscedastic``) costs accuracy on small tables; what varies between classes
    is left to z.
    """

    types = ("continuous",)
    constants = 1

    def size(self, node: Node) -> int:
        return 2

    def distribution(self, params: Tensor) -> TorchDistribution:
        return dist.Normal(params[..., 0], F.softplus(params[..., 1]) + MIN_SCALE)

    def joined(self, free: Tensor, constants: Tensor) -> TorchDistribution:
        return dist.Normal(free.squeeze(-1), F.softplus(constants.squeeze(-1)) + MIN_SCALE)  # of a node, not of a row

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        return torch.tensor([0.0, 0.5])


class HeteroscedasticNormal(Normal):
    """Normal whose scale follows the causes as its mean does."""

    constants = 0


class StudentT(Likelihood):
    """Student-t with one scale and learned degrees of freedom above 2 a node, for measurements with outliers."""

    types = ("continuous",)
    constants = 2

    def size(self, node: Node) -> int:
        return 3

    def distribution(self, params: Tensor) -> TorchDistribution:
        df = 2.0 + F.softplus(params[..., 2])
        return dist.StudentT(df, params[..., 0], F.softplus(params[..., 1]) + MIN_SCALE)

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        return torch.tensor([0.0, 0.5, 5.0])


class Categorical(Likelihood):
    """Logits, one per level, which start at the log frequencies."""

    types = ("categorical",)

    def size(self, node: Node) -> int:
        return node.classes

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        logs = _log_frequencies(node, statistics)
        return logs - logs.mean()

    def distribution(self, params: Tensor) -> TorchDistribution:
        return dist.Categorical(logits=params)


class Bernoulli(Likelihood):
    """One logit, of the second level, which starts at the log odds."""

    types = ("binary",)

    def size(self, node: Node) -> int:
        return 1

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        return _log_frequencies(node, statistics).diff()

    def distribution(self, params: Tensor) -> TorchDistribution:
        return dist.Bernoulli(logits=params.squeeze(-1))


class Poisson(Likelihood):
    """Log mean of a count, which starts at the training mean's."""

    types = ("count",)

    def size(self, node: Node) -> int:
        return 1

    def distribution(self, params: Tensor) -> TorchDistribution:
        return counts.Poisson(_mean(params.squeeze(-1)))

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        return _log_mean(statistics).unsqueeze(-1)


class NegativeBinomial(Likelihood):
    """Gamma-Poisson: log mean, and one log concentration a node, so that counts may be over-dispersed."""

    types = ("count",)
    constants = 1

    def size(self, node: Node) -> int:
        return 2

    def distribution(self, params: Tensor) -> TorchDistribution:
        concentration = params[..., 1].clamp(*_CONCENTRATIONS).exp()
        return counts.GammaPoisson(concentration, concentration / _mean(params[..., 0]))

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        log_mean = _log_mean(statistics)
        if "log_sd" not in statistics:
            return torch.stack([log_mean, torch.full_like(log_mean, 0.75)], -1)
        excess = statistics["log_sd"].square() - 1 / statistics["mean"].clamp_min(1.0)  # over a Poisson's
        return torch.stack([log_mean, -excess.clamp(1e-8, 1.0).log()], -1)


def _mean(log_mean: Tensor) -> Tensor:
    return log_mean.clamp(-15.0, 40.0).exp()  # beyond any count there is, and far from what floats cannot hold


def _log_mean(statistics: Mapping[str, Tensor]) -> Tensor:
    """log of the mean count, () or (dim,): a network of some thousand small steps would not get there from 0."""
    return statistics["mean"].clamp_min(1e-4).log() if "mean" in statistics else torch.zeros(())


def _log_frequencies(node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
    even = torch.full((node.classes,), 1 / node.classes)
    frequencies = statistics.get("frequencies", even)
    return frequencies.where(frequencies > 0, 1e-4).log()


class GreyBernoulli(dist.Bernoulli):
    """Bernoulli scored at intensities from 0 to 1, its probabilities kept off 0 and 1: logarithms without logits."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns x log p + (1 - x) log(1 - p), ``(..., C, H, W)``."""
        probs: Tensor = self.probs
        return torch.lerp(torch.log1p(-probs), probs.log(), value.to(probs))


class PixelBernoulli(Likelihood):
    """An image of intensities in [0, 1], one logit a pixel: the cross-entropy, for grey values too.

    Probabilities keep ``MIN_PROBABILITY`` off 0 and 1, so that one odd pixel cannot rule a class out.
    """

    types = ("image",)

    def size(self, node: Node) -> int:
        return 1

    def distribution(self, params: Tensor) -> TorchDistribution:
        probs = MIN_PROBABILITY + (1 - 2 * MIN_PROBABILITY) * torch.sigmoid(params.squeeze(-1))
        return GreyBernoulli(probs=probs, validate_args=False)  # Pyro would refuse grey values

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        return torch.tensor([-2.0])


class GreyPixels(PixelBernoulli):
    """The same of an image that is grey apart from m: its colour is a mechanism's.

    So no class can take a colour for its own doing, and none sees it in z.
    """

    grey = True


class PixelNormal(Normal):
    """An image about a mean that the causes set, with one scale for all pixels."""

    types = ("image",)

    def start(self, node: Node, statistics: Mapping[str, Tensor]) -> Tensor:
        return torch.tensor([0.3, -1.5])


LIKELIHOODS: dict[str, Likelihood] = {
    "normal": Normal(),
    "heteroscedastic": HeteroscedasticNormal(),
    "student_t": StudentT(),
    "categorical": Categorical(),
    "bernoulli": Bernoulli(),
    "poisson": Poisson(),
    "negative_binomial": NegativeBinomial(),
}
IMAGE_LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": PixelBernoulli(),
    "normal": PixelNormal(),
    "grey": GreyPixels(),
}
DEFAULTS = {
    "image": "bernoulli",
    "continuous": "normal",
    "categorical": "categorical",
    "binary": "bernoulli",
    "count": "negative_binomial",
}


def likelihood_of(node: Node, chosen: Mapping[str, Likelihood] | None = None) -> Likelihood:
    """Returns the likelihood of a node: the one chosen for it, else the one its YAML names, else its type's default.

    Raises:
        GraphError: the name is unknown, or the likelihood does not serve the node's type.
    """
    if chosen and node.name in chosen:
        likelihood = chosen[node.name]
    else:
        name = node.likelihood or DEFAULTS[node.type]
        known = IMAGE_LIKELIHOODS if node.type == "image" else LIKELIHOODS
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise GraphError(f"node {node.name!r}: unknown likelihood {name!r}, expected one of {sorted(known)}{hint}")
        likelihood = known[name]
    if node.type not in likelihood.types:
        raise GraphError(
            f"node {node.name!r} is {node.type}; {type(likelihood).__name__} serves {', '.join(likelihood.types)}"
        )
    return likelihood
