"""Concat: the paper's own mechanism (Figure 4), features of m in the merge of the child's causes."""

from __future__ import annotations

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Mechanism


class Concat(Mechanism):
    """Features of m beside those of the child's other causes, then a shallow merge: the paper's own (Figure 4).

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
