"""Mechanisms: how the manipulation m acts on a child, x = T_m(x~), and how the guide undoes it.

Every mechanism is the identity at theta = 0, and ``theta(m) = NN_pM(m) - NN_pM(0)``, so ``do(m=0)`` means "not
manipulated" exactly, whatever NN_pM has learned.  ``concat`` is the paper's own: it has no inverse, and m's features
enter the child's merge beside those of its other causes.
"""

from __future__ import annotations

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama.graph.nodes import Node
from pyro_cama.mechanisms.base import Mechanism


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
