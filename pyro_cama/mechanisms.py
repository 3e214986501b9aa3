"""Mechanisms: how the manipulation m acts on a child, x = T_m(x~), and how the guide undoes it.

Every mechanism is the identity at theta = 0, and ``theta(m) = NN_pM(m) - NN_pM(0)``, so ``do(m=0)`` means "not
manipulated" exactly, whatever NN_pM has learned.  ``concat`` is the paper's own: it has no inverse, and m's features
enter the child's merge beside those of its other causes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.errors import GraphError
from pyro_cama.graph import Node


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
            ``change``, how far a usual reading moves (see :class:`pyro_cama.explain.Explanation`), and named parameters
            in raw units.
        """
        named = {f"theta {i}": float(value) for i, value in enumerate(theta)}
        return {"change": float((theta / self.typical(node).to(theta)).norm())} | named

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(vars(self).items()))))


def _bounded(raw: Tensor, limit: float = 4.0) -> Tensor:
    """Slope 1 at 0, never beyond the limit: an exponent that cannot overflow while adapting."""
    return limit * torch.tanh(raw / limit)


def _magnitude(raw: Tensor) -> Tensor:
    """|raw| whose slope at 0 is 1, not 0: identity at 0, and no gradient is lost there."""
    return torch.where(raw >= 0, raw, -raw)


class _Affine(dist.TransformedDistribution):
    """One affine transform of any distribution: its mean, which torch does not work out."""

    @property
    def mean(self) -> Tensor:
        mean: Tensor = self.transforms[0](self.base_dist.mean)
        return mean


class Affine(Mechanism):
    """A continuous child: x = ±exp(g) x~ + b + noise, in training standard deviations; theta = (g, b, s, r).

    The noise has variance ``|s|``, so that a noisy, reversed or otherwise unexplained column can be trusted less; it
    widens normal and Student-t likelihoods and is left out of others.  A scale is reversed where ``r > 1``: no gradient
    finds that, so adaptation searches it (:meth:`alternatives`).

    Args:
        shared: many rows share an m.  If not, theta = (g, b): a single row cannot tell noise from an offset.
    """

    types = ("continuous",)
    composes = True
    _REVERSED = 2.0

    def __init__(self, shared: bool = True) -> None:
        self.shared = shared

    def size(self, node: Node) -> int:
        return 4 if self.shared else 2

    def typical(self, node: Node) -> Tensor:
        return torch.tensor([0.1, 1.0, 0.5, math.inf])[: self.size(node)]

    def of_scope(self, scope: str) -> Affine:
        return Affine(shared=scope != "row")

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        gain, offset = self._gain(theta), theta[..., 1]
        if isinstance(clean, dist.Normal | dist.StudentT):
            scale = gain.abs() * clean.scale
            if self.shared:
                scale = scale * (1 + _magnitude(theta[..., 2]) / scale.square()).sqrt()  # exactly times 1 without noise
            loc = gain * clean.loc + offset
            return dist.Normal(loc, scale) if isinstance(clean, dist.Normal) else dist.StudentT(clean.df, loc, scale)
        return _Affine(clean, [dist.transforms.AffineTransform(offset, gain)])

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        gain = self._gain(theta)
        clean: Tensor = (x - theta[..., 1]) / gain
        if self.shared:  # what of it is not noise, x~ being standardised
            clean = clean / (1 + _magnitude(theta[..., 2]) / gain.square())
        return clean

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        pushed: Tensor = x * self._gain(theta) + theta[..., 1]
        return pushed + torch.randn_like(x) * _magnitude(theta[..., 2]).sqrt() if self.shared else pushed

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        hit = torch.rand(*shape, 1) < 0.5  # a drift rarely moves every column
        size = self.size(node)
        return torch.randn(*shape, size) * torch.tensor([0.2, 1.0, 0.0, 0.0])[:size] * scale * hit

    def start(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
        sd = x.std().clamp_min(1e-3) if len(x) > 1 else torch.ones(())
        ratio = (sd / statistics["sd"]).log().clamp(-3.5, 3.5)
        gain = 4.0 * torch.atanh(ratio / 4.0)  # undoes _bounded
        rest = [torch.zeros_like(gain)] * 2 if self.shared else []
        return torch.stack([gain, x.mean() - ratio.exp() * statistics["mean"], *rest])

    def alternatives(self, theta: Tensor, statistics: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The scale reversed; a wider spread as noise, which gradients mistake for gain.  The mean of x stays."""
        if not self.shared:
            return ()
        gain = self._gain(theta)
        turned, noisy = theta.clone(), theta.clone()
        turned[3] = 0.0 if theta[3] > 1 else self._REVERSED
        noisy[0] = 0.0
        noisy[2] = _magnitude(theta[2]) + (gain.square() - 1) * statistics["sd"].square()
        found = (turned, noisy) if gain.abs() > 1 else (turned,)
        for other in found:
            other[1] += (gain - self._gain(other)) * statistics["mean"]
        return found

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        gain, offset = float(self._gain(theta)), float(theta[1])
        noise = abs(float(theta[2])) if self.shared else 0.0
        mean, sd = float(statistics["mean"]), float(statistics["sd"])
        return {
            "change": math.sqrt((gain - 1) ** 2 + offset**2 + noise),  # root mean square of x - x~, training rows
            "gain": gain,
            "offset": offset * sd + mean * (1 - gain),
            "shift at the mean": offset * sd,
            "noise": math.sqrt(noise) * sd if noise >= self.small**2 else 0.0,  # never negative, so small says nothing
        }

    def _gain(self, theta: Tensor) -> Tensor:
        gain = _bounded(theta[..., 0]).exp()
        return torch.where(theta[..., 3] > 1, -gain, gain) if self.shared else gain


class Rate(Mechanism):
    """A count: its rate times exp(g); theta = (g,)."""

    types = ("count",)
    composes = True
    small = 0.1

    def size(self, node: Node) -> int:
        return 1

    def typical(self, node: Node) -> Tensor:
        return torch.tensor([0.2])

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        gain = _bounded(theta[..., 0]).exp()
        if isinstance(clean, dist.GammaPoisson):
            return dist.GammaPoisson(clean.concentration, clean.rate / gain)
        if isinstance(clean, dist.Poisson):
            return dist.Poisson(clean.rate * gain)
        raise GraphError(f"mechanism rate needs a Poisson or negative-binomial likelihood, found {clean}")

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return x * (-_bounded(theta[..., 0])).exp()

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        return torch.round(x * _bounded(theta[..., 0]).exp())

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        return torch.randn(*shape, 1) * 0.5 * scale * (torch.rand(*shape, 1) < 0.5)

    def start(self, x: Tensor, statistics: Mapping[str, Tensor]) -> Tensor | None:
        ratio = (x.mean().clamp_min(1e-2) / statistics["mean"].clamp_min(1e-2)).log().clamp(-3.5, 3.5)
        return 4.0 * torch.atanh(ratio / 4.0).reshape(1)

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        gain = float(_bounded(theta[0]).exp())
        return {"change": abs(gain - 1), "gain": gain}


class Confusion(Mechanism):
    """A categorical or binary child, recorded through a row-stochastic matrix R(theta); theta = L * L numbers.

    Row i, ``R_ij = p(x = j | x~ = i)``, is proportional to 1 on the diagonal and ``exp(|theta_ij|) - 1`` off it: the
    identity at theta = 0, and not flat there.  The likelihood sums over the clean level; the encoder sees the clean
    level's posterior under the training frequencies.
    """

    types = ("categorical", "binary")
    small = 0.05

    def size(self, node: Node) -> int:
        return node.classes**2

    def matrix(self, theta: Tensor) -> Tensor:
        """R, shape ``(..., L, L)``."""
        levels = round(theta.shape[-1] ** 0.5)
        theta = _bounded(theta, 6.0).unflatten(-1, (levels, levels))
        eye = torch.eye(levels, dtype=theta.dtype, device=theta.device)
        weight = torch.expm1(_magnitude(theta)) * (1 - eye) + eye
        return weight / weight.sum(-1, keepdim=True)

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        matrix = self.matrix(theta)
        if isinstance(clean, dist.Bernoulli):
            probs = clean.probs * matrix[..., 1, 1] + (1 - clean.probs) * matrix[..., 0, 1]
            return dist.Bernoulli(probs=probs.clamp(1e-7, 1 - 1e-7))
        probs = (clean.probs.unsqueeze(-2) @ matrix).squeeze(-2)
        return dist.Categorical(probs=probs.clamp_min(1e-7))

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        matrix = self.matrix(theta)
        levels = matrix.shape[-1]
        seen = torch.nn.functional.one_hot(x.long(), levels).to(matrix.dtype)
        prior = torch.full((levels,), 1.0 / levels).to(matrix) if frequencies is None else frequencies
        prior = prior.clamp_min(1e-6)  # a level never seen in training is still itself where nothing is confused
        joint = prior * (matrix @ seen.unsqueeze(-1)).squeeze(-1)
        posterior = joint / joint.sum(-1, keepdim=True).clamp_min(1e-12)
        return posterior[..., 1] if not _is_code(x) else posterior

    def push(self, x: Tensor, theta: Tensor) -> Tensor:
        matrix = self.matrix(theta)
        index = x.long()[..., None, None].expand(*x.shape, 1, matrix.shape[-1])
        row = matrix.expand(*x.shape, *matrix.shape[-2:]).gather(-2, index).squeeze(-2)
        return dist.Categorical(probs=row).sample().to(x.dtype)

    def simulate(self, shape: Sequence[int], node: Node, scale: float) -> Tensor:
        size = self.size(node)
        return torch.rand(*shape, size) * scale * (torch.rand(*shape, 1) < 0.5)

    def alternatives(self, theta: Tensor, statistics: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Levels recoded: every permutation of up to four, of more every swap of two and the reversal."""
        levels = round(len(theta) ** 0.5)
        same = tuple(range(levels))
        if levels <= 4:
            codes = list(itertools.permutations(same))
        else:
            swaps = itertools.combinations(same, 2)
            codes = [same[::-1], *(tuple({i: j, j: i}.get(k, k) for k in same) for i, j in swaps)]
        found = []
        for code in codes:
            recoded = theta.new_zeros(levels, levels)
            for i, j in enumerate(code):
                recoded[i, j] = 0.0 if i == j else 4.0  # 97 % of i are recorded as j
            found.append(recoded.flatten())
        return tuple(new for code, new in zip(codes, found, strict=True) if code != same)

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        matrix = self.matrix(theta)
        levels = node.levels or (0, 1)
        moved = 1 - (statistics["frequencies"].to(matrix) * matrix.diagonal()).sum()
        pairs = [(i, j) for i in range(len(levels)) for j in range(len(levels)) if i != j]
        return {"change": float(moved)} | {f"{levels[i]} -> {levels[j]}": float(matrix[i, j]) for i, j in pairs}


def _is_code(x: Tensor) -> bool:
    """Categorical values are integer codes, binary ones are floats."""
    return not x.is_floating_point()


class Concat(Mechanism):
    """The paper's own (Figure 4): features of m beside those of the child's other causes, then a shallow merge.

    It can express any effect of m, and so also redraw the child altogether; it has no inverse.
    """

    types = ("continuous", "categorical", "binary", "count", "image")
    in_merge = True

    def size(self, node: Node) -> int:
        return 0

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        return clean

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        return x
