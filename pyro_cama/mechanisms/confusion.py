"""Confusion: levels of a categorical or binary child recorded as others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Mechanism, bounded, magnitude


class Confusion(Mechanism):
    """A categorical or binary child, recorded through a row-stochastic matrix R(theta); theta = L * L numbers.

    Row i, ``R_ij = p(x = j | x~ = i)``, is proportional to 1 on the diagonal and ``exp(|theta_ij|) - 1`` off it: the
    identity at theta = 0, and not flat there.  The likelihood sums over the clean level; the encoder sees the clean
    level's posterior under the training frequencies.
    """

    types = ("categorical", "binary")
    simulates = True
    noticeable = 0.05

    def size(self, node: Node) -> int:
        return node.classes**2

    def matrix(self, theta: Tensor) -> Tensor:
        """Returns R, ``(..., L, L)``, rows summing to 1, from theta ``(..., L * L)``."""
        levels = round(theta.shape[-1] ** 0.5)
        theta = bounded(theta, 6.0).unflatten(-1, (levels, levels))
        eye = torch.eye(levels, dtype=theta.dtype, device=theta.device)
        weight = torch.expm1(magnitude(theta)) * (1 - eye) + eye
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
        """Returns recoded levels: every permutation of up to four, of more every swap of two and the reversal."""
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

    def range_of(self, parameter: str) -> tuple[float, float]:
        """Returns 0 and 1: all are shares."""
        return 0.0, 1.0


def _is_code(x: Tensor) -> bool:
    """Returns whether values are integer codes, as a categorical node's are; a binary node's are floats."""
    return not x.is_floating_point()
