"""What every factor of the model is conditioned on, and the likelihood parameters that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_cama.data.batch import Batch
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.model.groups import Group, MovedGroup
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.plates import m_of_rows
from pyro_cama.networks.features import FeatureNetworks, Merge, NamedModules, network_of
from pyro_cama.networks.images import decode_images
from pyro_cama.networks.inputs import NodeInputs
from pyro_cama.networks.loadings import Loadings


class ModelNetworks(Protocol):
    """What the factors of a model are computed with: a :class:`pyro_cama.model.generative_model.CAMAModel`."""

    graph: CausalGraph
    groups: tuple[Group, ...]
    group_of: dict[str, Group]
    places: dict[str, int]

    @property
    def _networks(self) -> nn.ModuleDict: ...

    @property
    def _merges(self) -> Sequence[Merge]: ...

    @property
    def manipulation(self) -> Manipulation:
        """NN_pM."""

    @property
    def inputs(self) -> NodeInputs:
        """Encoded values as the networks read them."""

    @property
    def like(self) -> Tensor:
        """A tensor of the model's dtype and device."""

    def loadings(self, group: Group) -> Loadings:
        """Returns what a linear style adds to a group."""


class Causes:
    """What has been sampled so far, and the features made of it, each computed once per call.

    Attributes:
        values: of nodes, as recorded.
        recorded, unknown: values of the rows, of those nodes that have any; images with unknown pixels among them.
        clean: of children under ``affects: measurement``, where they are known apart from m: what their effects read.
        z, m, theta: as they act on rows; theta is None where every mechanism is seen to be the identity.
    """

    def __init__(self, model: ModelNetworks, batch: Batch, z: Tensor | None = None, samples: int | None = None) -> None:
        networks = model._networks
        self.lead = () if samples is None else (samples, 1)  # draws are shared by the classes
        self.graph = model.graph
        self._group_of = model.group_of
        self._places = model.places
        self.values: dict[str, Tensor] = {}
        self.clean: dict[str, Tensor] = {}
        self.z = z
        self.m: Tensor | None = None
        self.theta: Tensor | None = None
        self.site = batch.site
        self.recorded, self.unknown = batch.values, batch.unknown
        self.manipulation = model.manipulation if model.graph.m is not None else None
        self._inputs = model.inputs
        self._networks = network_of(networks, "features", FeatureNetworks)
        self._merges = model._merges
        self._constants = network_of(networks, "constants", nn.ParameterList)
        self._decoders = network_of(networks, "decoders", NamedModules)
        self.loadings = model.loadings
        self._features: dict[str, Tensor] = {}
        self._params: dict[str, tuple[Tensor, Tensor]] = {}
        self._parts: dict[str, tuple[tuple[Tensor, ...], ...]] = {}
        self._normal: dict[str, bool] = {}
        self.like = model.like

    def set_m(self, m: Tensor) -> None:
        """Takes m as sampled or given by ``do``, ``(..., dim)``, before it is dealt out to rows."""
        assert self.graph.m is not None
        assert self.manipulation is not None
        self.m = m_of_rows(m, self.graph.m, self.site)
        self.theta = None if self.manipulation.is_identity(m) else self.manipulation(self.m)

    def features(self, source: str) -> Tensor:
        """Returns NN_v of a cause's value, ``(..., hidden)``."""
        if source not in self._features:
            if self.graph.z is not None and source == self.graph.z.name:
                assert self.z is not None
                self._features[source] = self._networks(source, self.z)
            elif self.graph.m is not None and source == self.graph.m.name:
                assert self.manipulation is not None
                assert self.theta is not None
                self._features[source] = self.manipulation.features(self.theta)
            else:
                self._features[source] = self._networks(source, self._inputs(source, self._read(source)))
        return self._features[source]

    def _read(self, source: str) -> Tensor:
        """Returns a cause as its effects see it: as recorded, or the clean value under ``affects: measurement``."""
        if self.manipulation is None or self.manipulation.affects.get(source) != "measurement":
            return self.values[source]
        return self.clean[source] if source in self.clean else self.undone(source)

    def undone(self, name: str) -> Tensor:
        """Returns a node's value with m's mechanism undone, where one acts; levels then as probabilities.

        Of an image what is not known is NaN, as in :meth:`pyro_cama.model.manipulation.Manipulation.undo`.
        """
        group = self._group_of[name]
        if self.theta is None or not isinstance(group, MovedGroup) or not group.theta_size:
            return self.values[name]
        assert self.manipulation is not None
        if group.image:
            clean = self.manipulation.undo(self.values, self.theta, group)
            assert isinstance(clean, dict)
            return clean[name]
        frequencies = self._inputs.frequencies(name)
        return self.manipulation.invert(self.values[name], self.theta, group, group.component(name), frequencies)

    def measured(self, clean: TorchDistribution, group: Group, at: int | slice = slice(None)) -> TorchDistribution:
        """Returns a group's distribution (or some components') with m's mechanism applied, where one acts."""
        if self.theta is None or not isinstance(group, MovedGroup) or not group.theta_size:
            return clean
        assert self.manipulation is not None
        return self.manipulation.transform(clean, self.theta, group, at)

    def distributions(self, group: Group) -> TorchDistribution:
        """Returns the clean distribution of a group's components, shape ``(..., width)`` or ``(..., C, H, W)``."""
        free, constants = self.params(group)
        likelihood = group.likelihood
        return likelihood.joined(free, constants) if likelihood.constants else likelihood.distribution(free)

    def distribution(self, name: str) -> TorchDistribution:
        """Returns the clean distribution of one node, batch shape ``(...)``, ``(..., dim)`` or ``(..., C, H, W)``."""
        group = self._group_of[name]
        if group.image:
            return self.distributions(group)
        at, key, likelihood = group.nodes.index(name), group.nodes[0], group.likelihood
        if key not in self._parts:  # taken apart at once: slices one by one would each differentiate the whole
            whole = self.distributions(group)
            if type(whole) is dist.Normal:
                self._parts[key] = _apart(whole.loc, group, -1), _apart(whole.scale, group, -1)
            else:
                free, constants = self.params(group)
                self._parts[key] = _apart(free, group, -2), _apart(constants, group, -2)
            self._normal[key] = type(whole) is dist.Normal
        one, other = (parts[at] for parts in self._parts[key])
        if self._normal[key]:
            return dist.Normal(one, other)
        return likelihood.joined(one, other) if likelihood.constants else likelihood.distribution(one)

    def params(self, group: Group) -> tuple[Tensor, Tensor]:
        """Returns a group's likelihood parameters: those its causes set, and those they do not, of every component.

        Returns:
            ``(..., width, size - constants)`` and ``(width, constants)``; of an image ``(..., C, H, W, numbers)``
            and ``(1, constants)``.
        """
        key = group.nodes[0]  # no two groups share a node; hashing a group costs as much as it is wide
        if key not in self._params:
            sources = list(group.merged)
            if group.has_z and not group.linear_z and self.graph.z is not None:
                sources.append(self.graph.z.name)
            rests = self.m is not None and self.theta is None  # m = 0 would add nothing
            merged = isinstance(group, MovedGroup) and group.mechanism.in_merge
            if merged and self.graph.m is not None and not rests:
                sources.append(self.graph.m.name)
            index = self._places[key]
            flat: Tensor = self._merges[index]((source, self.features(source)) for source in sources)
            if group.image:
                free = decode_images(self._decoders[group.nodes[0]], flat, group.image)
                free = free.mean(-4, keepdim=True).expand_as(free) if group.likelihood.grey else free
            else:
                free = flat.unflatten(-1, (group.width, -1))
            constants: Tensor = self._constants[index]
            if group.linear_z:
                free, constants = self._with_style(group, free, constants)
            self._params[key] = free, constants
        return self._params[key]

    def _with_style(self, group: Group, free: Tensor, constants: Tensor) -> tuple[Tensor, Tensor]:
        """Adds class means and a linear style, where it was drawn, to a group's means; and takes its class's scales."""
        y, loadings = self.values[self.graph.target].long(), self.loadings(group)
        mean = loadings.means[y]
        if self.z is not None:
            mean = mean + (loadings.of_class(y) @ self.z.unsqueeze(-1)).squeeze(-1)
        return free + mean.unsqueeze(-1), constants[y] if constants.dim() > 2 else constants


def _apart(params: Tensor, group: Group, dim: int) -> tuple[Tensor, ...]:
    """Splits a group's parameters along the dimension of its components, node by node; a scalar's loses it."""
    if all(size is None for size in group.dims):
        return params.unbind(dim)
    parts = params.split(list(group.widths), dim)
    return tuple(p.squeeze(dim) if size is None else p for p, size in zip(parts, group.dims, strict=True))
