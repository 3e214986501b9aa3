"""p(m | y) of a manipulation that goes with the class: a normal of every class, learned where nobody intervened.

Parameters of the model, no part of NN_pM and NN_qM: a new world's manipulations say nothing of how the training rows
came about.
"""

from __future__ import annotations

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn


class ClassManipulation(nn.Module):
    """p(m | y), which starts at the standard normal of every class.

    Args:
        classes: of the target.
        dim: of m.
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(classes, dim))
        self.log_scale = nn.Parameter(torch.zeros(classes, dim))

    def given(self, y: Tensor) -> TorchDistribution:
        """Returns p(m | y), batch shape that of y, event ``(dim,)``."""
        loc, scale = self._moments()
        return dist.Normal(loc[y.long()], scale[y.long()]).to_event(1)

    def marginal(self, proportions: Tensor) -> TorchDistribution:
        """Returns sum_y p(y) p(m | y), the same for every class, batch shape ``()``, event ``(dim,)``.

        No gradient reaches p(m | y): rows on which somebody intervened say nothing of it.

        Args:
            proportions: p(y), ``(classes,)``.
        """
        loc, scale = (moment.detach() for moment in self._moments())
        each = dist.Normal(loc, scale).to_event(1)
        weights = dist.Categorical(probs=proportions.to(loc))
        found: TorchDistribution = dist.MixtureSameFamily(weights, each)
        return found

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Loc and scale of every class; no scale is so small that a row's m could rule a class out at once."""
        return self.loc, self.log_scale.clamp(-4.0, 4.0).exp()
