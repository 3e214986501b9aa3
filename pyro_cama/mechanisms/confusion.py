"""Confusion: levels of a categorical or binary child recorded as others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions.utils import lazy_property

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Mechanism, Readings, bounded, magnitude

_SHARE = 0.97  # of a recoded level that is recorded as the other
_ODDS = 2.5  # nats against a level's moving: a swap of two has those of a reversed scale against it
_LEAST = 1e-7  # probability of a reading that the clean levels all but rule out


class Confusion(Mechanism):
    """A categorical or binary child, recorded through a row-stochastic matrix R(theta); theta = L * L numbers.

    Row i, ``R_ij = p(x = j | x~ = i)``, is proportional to 1 on the diagonal and ``(exp(|theta_ij|) - 1) / (L - 1)``
    off it: the identity at theta = 0, and not flat there; thetas of one size confuse as much among many levels as
    among two.  The likelihood sums over the clean level; the encoder sees the clean level's posterior under the
    training frequencies.
    """

    types = ("categorical", "binary")
    simulates = True
    noticeable = 0.05

    def size(self, node: Node) -> int:
        return node.classes**2

    def matrix(self, theta: Tensor) -> Tensor:
        """Returns R, ``(..., L, L)``, rows summing to 1, from theta ``(..., L * L)``."""
        levels = round(theta.shape[-1] ** 0.5)
        theta = bounded(theta, _limit(levels)).unflatten(-1, (levels, levels))
        eye = torch.eye(levels, dtype=theta.dtype, device=theta.device)
        weight = torch.expm1(magnitude(theta)) / max(levels - 1, 1) * (1 - eye) + eye
        return weight / weight.sum(-1, keepdim=True)

    def transform(self, clean: TorchDistribution, theta: Tensor) -> TorchDistribution:
        matrix = self.matrix(theta)
        if isinstance(clean, dist.Bernoulli):
            probs = clean.probs * matrix[..., 1, 1] + (1 - clean.probs) * matrix[..., 0, 1]
            return dist.Bernoulli(probs=probs.clamp(1e-7, 1 - 1e-7))
        return _Recorded(clean.probs, matrix)

    def invert(self, x: Tensor, theta: Tensor, frequencies: Tensor | None) -> Tensor:
        matrix = self.matrix(theta)
        levels = matrix.shape[-1]
        prior = torch.full((levels,), 1.0 / levels).to(matrix) if frequencies is None else frequencies
        prior = prior.clamp_min(1e-6)  # a level never seen in training is still itself where nothing is confused
        joint = prior * _column(matrix, x)
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

    def alternatives(
        self, theta: Tensor, statistics: Mapping[str, Tensor], readings: Readings | None = None
    ) -> Iterator[Tensor]:
        """Yields recoded levels: every permutation of up to four; of more the few that suit the readings best."""
        levels = round(len(theta) ** 0.5)
        same = tuple(range(levels))
        if levels <= 4:
            codes: Iterable[tuple[int, ...]] = itertools.permutations(same)
        else:
            codes = [] if readings is None else _recodings(readings, levels)
        for code in codes:
            if code != same:
                recoded = theta.new_zeros(levels, levels)
                recoded[torch.arange(levels), list(code)] = _recoded(levels)
                yield recoded.fill_diagonal_(0.0).flatten()

    def describe(self, theta: Tensor, node: Node, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        matrix = self.matrix(theta)
        levels = node.levels or (0, 1)
        moved = 1 - (statistics["frequencies"].to(matrix) * matrix.diagonal()).sum()
        pairs = [(i, j) for i in range(len(levels)) for j in range(len(levels)) if i != j]
        return {"change": float(moved)} | {f"{levels[i]} -> {levels[j]}": float(matrix[i, j]) for i, j in pairs}

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns 0 and 1: all are shares."""
        return 0.0, 1.0


def _limit(levels: int) -> float:
    """Bounds theta: a weight off the diagonal of exp(6) at most."""
    return 6.0 + math.log(max(levels - 1, 1))


def _recoded(levels: int) -> float:
    """Returns theta_ij of a level i that is recorded as j in a share of :data:`_SHARE`."""
    limit = _limit(levels)
    return limit * math.atanh(math.log1p(_SHARE / (1 - _SHARE) * (levels - 1)) / limit)


def _recodings(readings: Readings, levels: int) -> list[tuple[int, ...]]:
    """Returns what every level may have been recorded as: the best of all permutations, the best swap, the reversal.

    Which level a reading stands for is scored for all pairs at once, given the draws of class and latents: levels
    may change places although both are as frequent as before, if the class tells them apart.
    """
    from scipy.optimize import linear_sum_assignment  # not needed where nothing adapts

    weights = readings.weights.exp().unsqueeze(-1)
    likely = (weights * readings.clean.probs).sum(0).double()  # (rows, L): E[p(x~ = i) / p(x)]
    itself = likely.gather(-1, readings.x[:, None])
    gain = (_SHARE * likely + (1 - _SHARE) * itself).clamp_min(1e-7).log() - itself.clamp_min(1e-7).log()
    gain = gain.new_zeros(levels, levels).index_add(0, readings.x, gain).T  # of level i being recorded as j
    odds = _ODDS + math.log(levels)  # against every move, to one level of L
    gain = gain - odds * (1 - torch.eye(levels).to(gain))
    best = tuple(linear_sum_assignment(gain.cpu().numpy(), maximize=True)[1].tolist())
    i, j = divmod(int((gain + gain.T).fill_diagonal_(-math.inf).argmax()), levels)
    same = tuple(range(levels))
    swap = tuple({i: j, j: i}.get(k, k) for k in same)
    return list(dict.fromkeys((best, swap, same[::-1])))


class _Recorded(dist.Categorical):
    """Levels recorded through a matrix: log p of a reading takes its column of the matrix, no product with all of it.

    Args:
        clean: probabilities of the clean levels, ``(..., L)``.
        matrix: R, ``(..., L, L)``.
    """

    def __init__(self, clean: Tensor, matrix: Tensor) -> None:
        self._clean, self._matrix = clean, matrix
        self._num_events = clean.shape[-1]
        batch_shape = torch.broadcast_shapes(clean.shape[:-1], matrix.shape[:-2])
        torch.distributions.Distribution.__init__(self, batch_shape, validate_args=False)

    @lazy_property
    def probs(self) -> Tensor:
        # a dimension of one on either side is summed over as a matrix product does, and not copied to the other's size
        probs = torch.einsum("...i,...ij->...j", self._clean, self._matrix).clamp_min(_LEAST)
        return probs / probs.sum(-1, keepdim=True)

    @property
    def _param(self) -> Tensor:  # type: ignore[override]  # set by the base class, of its probabilities
        return self.probs

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> _Recorded:
        return _Recorded(self._clean.expand(*batch_shape, -1), self._matrix)

    def log_prob(self, value: Tensor) -> Tensor:
        return (self._clean * _column(self._matrix, value)).sum(-1).clamp_min(_LEAST).log()


def _column(matrix: Tensor, x: Tensor) -> Tensor:
    """Returns how readings come from every clean level, R_{. x}, ``(..., L)``, from ``(..., L, L)`` and ``(...)``.

    A matrix that rows share is not copied to every row, in the gradient neither.
    """
    batch, levels = matrix.shape[:-2], matrix.shape[-1]
    at = levels * torch.arange(math.prod(batch), device=x.device).reshape(batch) + x.long()
    return torch.nn.functional.embedding(at, matrix.mT.reshape(-1, levels))


def _is_code(x: Tensor) -> bool:
    """Returns whether values are integer codes, as a categorical node's are; a binary node's are floats."""
    return not x.is_floating_point()
