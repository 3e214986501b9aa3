"""Nodes of one kind with the same causes form a group: one merge, one distribution, one mechanism for all of them.

The sites stay one per node; a group is how they are computed, so that 200 children do not cost 200 small networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.likelihoods import Likelihood, likelihood_of
from pyro_cama.mechanisms.base import Mechanism
from pyro_cama.mechanisms.registry import mechanism_of


@dataclass(frozen=True)
class Group:
    """Nodes with the same causes, likelihood and mechanism, laid out as ``width`` scalar components side by side.

    An image is a group of its own and keeps its shape.
    """

    nodes: tuple[str, ...]
    parents: tuple[str, ...]  # observed causes, in topological order
    has_z: bool
    likelihood: Likelihood
    mechanism: Mechanism | None
    dims: tuple[int | None, ...]  # of each node; None is a scalar
    size: int  # numbers the likelihood takes per component
    theta_size: int  # numbers the mechanism takes per component; for an image as a whole
    image: tuple[int, ...] | None = None  # channels, height and width

    @property
    def widths(self) -> tuple[int, ...]:
        """Components of each node."""
        return (prod(self.image),) if self.image else tuple(dim or 1 for dim in self.dims)

    @property
    def width(self) -> int:
        """Components of the group."""
        return sum(self.widths)

    @property
    def units(self) -> int:
        """How many thetas there are: one a component, or one an image."""
        return 1 if self.image else self.width

    @property
    def event_dim(self) -> int:
        """Dimensions of the group's values in one row."""
        return len(self.image) if self.image else 1

    def component(self, name: str) -> slice | int:
        """Where a node stands among the components: an index for a scalar, a slice for a vector or an image."""
        if self.image:
            return slice(None)
        i = self.nodes.index(name)
        start = sum(self.widths[:i])
        return start if self.dims[i] is None else slice(start, start + self.widths[i])

    def stack(self, values: Mapping[str, Tensor]) -> Tensor:
        """The nodes' values side by side, ``(..., width)``; an image as it is."""
        parts = [values[name] for name in self.nodes]
        if self.image:
            return parts[0]
        if len(parts) == 1:
            return parts[0].unsqueeze(-1) if self.dims[0] is None else parts[0]
        if all(dim is None for dim in self.dims):
            if any(part.shape != parts[0].shape for part in parts):  # draws of missing values have samples in front
                parts = list(torch.broadcast_tensors(*parts))
            return torch.stack(parts, -1)
        parts = [part.unsqueeze(-1) if dim is None else part for part, dim in zip(parts, self.dims, strict=True)]
        lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], -1)

    def stack_masks(self, observed: Mapping[str, Tensor], rows: int) -> Tensor | None:
        """Which components are observed, ``(rows, width)``, of an image ``(rows, 1, 1, 1)``; None where all are."""
        known = [observed.get(name) for name in self.nodes]
        if all(mask is None for mask in known):
            return None
        some = next(mask for mask in known if mask is not None)
        if self.image:
            return some[:, None, None, None]
        columns = [
            (torch.ones(rows, dtype=torch.bool, device=some.device) if mask is None else mask)[:, None].expand(rows, w)
            for mask, w in zip(known, self.widths, strict=True)
        ]
        return torch.cat(columns, -1)


def make_groups(
    graph: CausalGraph,
    likelihoods: Mapping[str, Likelihood] | None = None,
    mechanisms: Mapping[str, Mechanism] | None = None,
) -> tuple[Group, ...]:
    """The groups of the target and its blanket; the target always stands alone.

    Raises:
        GraphError: a likelihood or mechanism is unknown or does not serve its node's type.
    """
    moved = graph.m.children if graph.m is not None else ()
    idle = [name for name in mechanisms or {} if name not in moved]
    if idle:
        raise GraphError(f"mechanisms given for {idle}, on which no manipulation acts; expected some of {list(moved)}")
    members: dict[tuple[object, ...], list[str]] = {}
    common: dict[tuple[object, ...], dict[str, Any]] = {}
    for name in graph.order:
        node = graph.nodes[name]
        likelihood = likelihood_of(node, likelihoods)
        mechanism = mechanism_of(graph, name, mechanisms)
        kind = {
            "parents": graph.parents_of(name),
            "has_z": graph.z is not None and name in graph.z.children,
            "likelihood": likelihood,
            "mechanism": mechanism,
            "size": likelihood.size(node),
            "theta_size": mechanism.size(node) if mechanism else 0,
            "image": node.shape,
        }
        alone = name == graph.target or node.type == "image"
        key = (*kind.values(), name if alone else None)
        members.setdefault(key, []).append(name)
        common[key] = kind
    return tuple(
        Group(nodes=tuple(names), dims=tuple(graph.nodes[n].dim for n in names), **common[key])
        for key, names in members.items()
    )
