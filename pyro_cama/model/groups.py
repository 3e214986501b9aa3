"""Nodes of one kind with the same causes form a group: one merge, one distribution, one mechanism for all of them.

The sites stay one per node; a group is how they are computed, so that 200 children do not cost 200 small networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.likelihoods import Likelihood, Normal, likelihood_of
from pyro_cama.mechanisms.base import Mechanism
from pyro_cama.mechanisms.composed import Composed
from pyro_cama.mechanisms.registry import mechanism_of


@dataclass(frozen=True, kw_only=True)
class Group:
    """Nodes with the same causes and likelihood, laid out as ``width`` scalar components side by side.

    An image is a group of its own and keeps its shape.

    Attributes:
        nodes: their names.
        parents: their observed causes, in topological order.
        has_z: whether the style z is a cause of them.
        linear_z: whether it acts linearly on their means.
        likelihood: of every component.
        dims: dimensions of each node; None is a scalar.
        size: how many numbers the likelihood takes per component.
        image: channels, height and width; None for all other types.
    """

    nodes: tuple[str, ...]
    parents: tuple[str, ...]
    has_z: bool
    linear_z: bool
    likelihood: Likelihood
    dims: tuple[int | None, ...]
    size: int
    image: tuple[int, ...] | None = None

    @property
    def merged(self) -> tuple[str, ...]:
        """The observed causes that the merge reads.

        A linear style comes with a mean a class, which says all if the class is the only cause.
        """
        return () if self.linear_z and len(self.parents) == 1 else self.parents

    @property
    def widths(self) -> tuple[int, ...]:
        """How many components each node has."""
        return (prod(self.image),) if self.image else tuple(dim or 1 for dim in self.dims)

    @property
    def width(self) -> int:
        """How many components the group has."""
        return sum(self.widths)

    @property
    def event_dim(self) -> int:
        """How many dimensions the group's values have in one row."""
        return len(self.image) if self.image else 1

    def component(self, name: str) -> slice | int:
        """Returns where a node stands among the components: an index for a scalar, a slice for a vector or an image."""
        if self.image:
            return slice(None)
        i = self.nodes.index(name)
        start = sum(self.widths[:i])
        return start if self.dims[i] is None else slice(start, start + self.widths[i])

    def stack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Returns the nodes' values side by side, ``(..., width)``; an image as it is."""
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
        """Returns which components are observed, ``(rows, width)``, of an image ``(rows, 1, 1, 1)``; None for all."""
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


class Acting(NamedTuple):
    """A manipulation that acts on a group: its name, mechanism, and where its numbers stand in a component's theta."""

    latent: str
    mechanism: Mechanism
    numbers: slice


@dataclass(frozen=True, kw_only=True)
class MovedGroup(Group):
    """Nodes that the manipulation acts on, all by the same mechanism.

    Attributes:
        mechanism: how m changes every component; of several manipulations, theirs composed.
        theta_size: how many numbers it takes per component, of an image as a whole; 0 for ``concat``.
        latents: names of the manipulations that act, the first nearest to the clean nodes.
    """

    mechanism: Mechanism
    theta_size: int
    latents: tuple[str, ...]

    @property
    def units(self) -> int:
        """How many thetas there are: one a component, or one an image."""
        return 1 if self.image else self.width

    @property
    def acting(self) -> tuple[Acting, ...]:
        """What each of :attr:`latents` does."""
        if len(self.latents) == 1 or not isinstance(self.mechanism, Composed):
            return (Acting(self.latents[0], self.mechanism, slice(0, self.theta_size)),)
        found, start, sizes = [], 0, self.mechanism.sizes(self.theta_size)
        for latent, part, size in zip(self.latents, self.mechanism.parts, sizes, strict=True):
            found.append(Acting(latent, part, slice(start, start + size)))
            start += size
        return tuple(found)


def acts_linearly(graph: CausalGraph, name: str, likelihood: Likelihood) -> bool:
    """Returns whether the style acts linearly on the mean of a node: of the others it is a feature, as causes are."""
    linear = graph.z is not None and name in graph.z.children and graph.z.effect == "linear"
    return linear and type(likelihood) is Normal


def with_style(
    graph: CausalGraph,
    likelihoods: Mapping[str, Likelihood] | None = None,
    mechanisms: Mapping[str, Mechanism] | None = None,
    *,
    custom: bool = False,
) -> CausalGraph:
    """Returns the graph with the style's effect decided, where it leaves that open (``effect: auto``).

    It is linear where it can be summed out exactly: continuous children, all of them normal, moved by mechanisms that
    pull back.  Of counts and levels it is then no cause, unless the graph names them among its children.

    Args:
        likelihoods, mechanisms: those that a user gave, by node.
        custom: the guide is a user's own, which infers z its own way.
    """
    z = graph.z
    if z is None or z.effect != "auto":
        return graph
    numbers = [name for name in z.children if graph.nodes[name].type == "continuous"]
    others = set(z.children) - set(numbers)
    named = bool(others) and z.children != graph.blanket.children
    images = any(graph.nodes[name].is_image for name in graph.blanket.children)

    def exact(name: str) -> bool:
        mechanism = mechanism_of(graph, name, mechanisms) if graph.m and name in graph.m.children else None
        undone = mechanism is None or mechanism.pulls_back or not mechanism.size(graph.nodes[name])
        return undone and type(likelihood_of(graph.nodes[name], likelihoods)) is Normal

    linear = bool(numbers) and not custom and not named and not images and all(map(exact, numbers))
    raw = graph.to_dict()
    style = raw["latents"][z.name]
    if linear:
        style |= {"effect": "linear", "children": numbers}
    else:
        style["effect"] = "deep"
        del style["loadings"]
    return CausalGraph(raw)


def make_groups(
    graph: CausalGraph,
    likelihoods: Mapping[str, Likelihood] | None = None,
    mechanisms: Mapping[str, Mechanism] | None = None,
) -> tuple[Group, ...]:
    """Returns the groups of the target and its blanket; the target always stands alone.

    Args:
        likelihoods, mechanisms: those that a user gave, by node.

    Raises:
        GraphError: a likelihood or mechanism is unknown or does not serve its node's type.
    """
    moved = graph.m.children if graph.m is not None else ()
    idle = [name for name in mechanisms or {} if name not in moved]
    if idle:
        raise GraphError(f"mechanisms given for {idle}, on which no manipulation acts; expected some of {list(moved)}")
    members: dict[tuple[object, ...], list[str]] = {}
    common: dict[tuple[object, ...], tuple[type[Group], dict[str, Any]]] = {}
    for name in graph.order:
        node = graph.nodes[name]
        likelihood = likelihood_of(node, likelihoods)
        mechanism = mechanism_of(graph, name, mechanisms)
        kind: dict[str, Any] = {
            "parents": graph.parents_of(name),
            "has_z": graph.z is not None and name in graph.z.children,
            "linear_z": acts_linearly(graph, name, likelihood),
            "likelihood": likelihood,
            "size": likelihood.size(node),
            "image": node.shape,
        }
        group_type: type[Group] = Group
        if mechanism is not None:
            group_type = MovedGroup
            acting = tuple(latent.name for latent in graph.manipulations if name in latent.children)
            kind |= {"mechanism": mechanism, "theta_size": mechanism.size(node), "latents": acting}
        alone = name == graph.target or node.type == "image"
        key = (group_type, *kind.values(), name if alone else None)
        members.setdefault(key, []).append(name)
        common[key] = group_type, kind
    groups = []
    for key, names in members.items():
        group_type, kind = common[key]
        groups.append(group_type(nodes=tuple(names), dims=tuple(graph.nodes[n].dim for n in names), **kind))
    return tuple(groups)
