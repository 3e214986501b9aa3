"""What the networks read of an encoded value: one-hot levels, counts on a log scale, binaries as -1 and 1."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Node


class NodeInputs(nn.Module):
    """Encoded values as the networks read them: one-hot levels, counts on a standardised log scale.

    Holds the training statistics this takes as buffers, so that they travel with the weights.
    """

    def __init__(self, graph: CausalGraph) -> None:
        super().__init__()
        self.nodes: dict[str, Node] = {name: graph.nodes[name] for name in graph.order}
        self._index = {name: i for i, name in enumerate(self.nodes)}
        for name, node in self.nodes.items():
            i = self._index[name]
            if node.type == "count":
                self.register_buffer(f"log_mean_{i}", torch.zeros(node.event_shape))
                self.register_buffer(f"log_sd_{i}", torch.ones(node.event_shape))
            elif node.classes:
                self.register_buffer(f"frequencies_{i}", torch.full((node.classes,), 1.0 / node.classes))

    def width(self, name: str) -> int:
        """Returns how many numbers a node's value becomes; 0 for an image, which an encoder reads."""
        node = self.nodes[name]
        if node.type == "image":
            return 0
        return node.classes if node.type == "categorical" else (node.dim or 1)

    def set_statistics(self, statistics: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes over what :class:`pyro_cama.data.encoder.TableEncoder` learned from the training rows."""
        for name in self.nodes:
            for key in ("log_mean", "log_sd", "frequencies"):
                buffer = getattr(self, f"{key}_{self._index[name]}", None)
                if buffer is not None and key in statistics.get(name, {}):
                    buffer.copy_(statistics[name][key])

    def frequencies(self, name: str) -> Tensor | None:
        """Returns the training frequencies of a discrete node's levels, ``(levels,)``; None for other types."""
        found: Tensor | None = getattr(self, f"frequencies_{self._index[name]}", None)
        return found

    def forward(self, name: str, value: Tensor) -> Tensor:
        """Returns ``(..., width)`` from a value ``(...)`` or ``(..., dim)``; soft levels and images pass through."""
        node = self.nodes[name]
        if node.type == "image":
            return value
        if node.type == "categorical":
            if value.is_floating_point():
                return value
            frequencies = self.frequencies(name)
            assert frequencies is not None
            return F.one_hot(value, node.classes).to(frequencies.dtype)
        if node.type == "count":
            i = self._index[name]
            log = torch.log1p(value.clamp_min(0.0))
            value = (log - getattr(self, f"log_mean_{i}")) / getattr(self, f"log_sd_{i}")
        elif node.type == "binary":
            value = 2.0 * value - 1.0
        return value if node.dim is not None else value.unsqueeze(-1)
