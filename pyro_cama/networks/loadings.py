"""A linear style's part in the mean of its children, beside a mean for every class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Loadings(nn.Module):
    """mu_y + L_y z of a group of children.

    Args:
        classes: of the target.
        width: components of the group.
        dim: of the style.
        shared: whether all classes have the same L.

    Attributes:
        means: mu, ``(classes, width)``.
        factors: L, ``(classes, width, dim)``, or ``(1, width, dim)`` where shared.
    """

    def __init__(self, classes: int, width: int, dim: int, shared: bool) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.zeros(classes, width))
        self.factors = nn.Parameter(torch.randn(1 if shared else classes, width, dim) * 0.1)

    def of_class(self, y: Tensor) -> Tensor:
        """Returns L of the given classes, ``(..., width, dim)``, or ``(width, dim)`` where it is every class's.

        Args:
            y: classes, long, ``(...)``.
        """
        return self.factors[0] if len(self.factors) == 1 else self.factors[y]
