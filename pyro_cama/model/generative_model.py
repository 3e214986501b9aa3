"""The generative model, eq. 9 of the paper, along the graph's own edges.

    p(x, y, z, m, a, c) = p(z) p(m) prod_v p(v | pa(v))   over the target y and its Markov blanket,
    p(x_i | pa(x_i), z, m) = T_m applied to p(x~_i | pa(x_i), z)

Call signature, of model and guide alike::

    model(data=None, *, rows=None, samples=None, classes=False) -> dict of values

``data`` is a :class:`pyro_cama.data.batch.Batch` or a mapping of node name to encoded tensor; nodes it lacks are sampled, and
``model()`` is a draw of one row from the prior.  Plates: ``samples`` at dim -3 (with ``samples=K``), ``classes`` at -2
(with ``classes=True``: the target takes every class), ``rows`` at -1.  z stands in all of them; m never in ``classes``:
scope ``row`` puts it in ``rows``, scope ``dataset`` in ``samples`` alone, a scope column in a plate of ``sites`` at -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_cama.data.batch import Batch
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.handlers.common_noise import draw_site
from pyro_cama.model.groups import Group
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.plates import EncodedRows, Plates, as_batch, class_values, m_of_rows
from pyro_cama.networks.features import FeatureNetworks, Merge, NamedModules, NetworkFactory
from pyro_cama.networks.images import (
    DecoderFactory,
    EncoderFactory,
    ImageDecoder,
    decode_images,
    decoder_of,
    encoder_of,
    initialise_weights,
)
from pyro_cama.networks.inputs import NodeInputs


class CAMAModel(PyroModule):
    """p(x, y, z, m, a, c), generated from a graph.

    Override :meth:`node_dist`, :meth:`z_dist` or :meth:`m_dist` to change a factor; the sites, their names and their
    plates stay as they are.
    """

    def __init__(
        self,
        graph: CausalGraph,
        groups: tuple[Group, ...],
        inputs: NodeInputs,
        manipulation: Manipulation | None,
        *,
        hidden: int,
        layers: int,
        networks: Mapping[str, NetworkFactory] | None = None,
        encoders: Mapping[str, EncoderFactory] | None = None,
        decoders: Mapping[str, DecoderFactory] | None = None,
        sites: int = 0,
        name: str = "",
    ) -> None:
        super().__init__(name)
        self.graph = graph
        self.groups = groups
        self.group_of = {node: group for group in groups for node in group.nodes}
        self.places = {group.nodes[0]: i for i, group in enumerate(groups)}
        self.sites = max(sites, 1)
        sources: dict[str, int] = {}
        for group in groups:
            for cause in group.parents:
                sources[cause] = inputs.width(cause)
        if graph.z is not None:
            sources[graph.z.name] = graph.z.dim
        numbers = [n for n in sources if n in graph.nodes and graph.nodes[n].is_number]
        images = {
            n: encoder_of(graph.nodes[n], hidden, encoders)
            for n in sources
            if n in graph.nodes and graph.nodes[n].type == "image" and n not in (networks or {})
        }
        features = FeatureNetworks(sources, hidden, layers, numbers, networks, images)
        merges, constants, drawn = [], [], {}
        for group in groups:
            widths = {cause: features.widths[cause] for cause in group.parents}
            if group.has_z:
                assert graph.z is not None
                widths[graph.z.name] = features.widths[graph.z.name]
            if group.mechanism is not None and group.mechanism.in_merge:
                assert graph.m is not None
                assert manipulation is not None
                widths[graph.m.name] = manipulation.hidden
            free = group.size - group.likelihood.constants
            if group.image:
                node = graph.nodes[group.nodes[0]]
                decoder: Any = decoder_of(node, free, decoders)
                start = group.likelihood.bias(node)
                if isinstance(decoder, ImageDecoder):
                    with torch.no_grad():
                        decoder.layers[-1].bias.copy_(start[:free].repeat(group.image[0]))  # type: ignore[operator]
                drawn[node.name] = decoder
                merges.append(Merge(widths, hidden, decoder.inputs, 0))
                constants.append(nn.Parameter(start[None, free:].clone()))
                continue
            merge = Merge(widths, hidden, group.width * free, min(layers, 1))
            bias = torch.cat(
                [
                    group.likelihood.bias(graph.nodes[n]).expand(w, -1)
                    for n, w in zip(group.nodes, group.widths, strict=True)
                ]
            )
            with torch.no_grad():
                merge.last_bias.copy_(bias[:, :free].flatten())
            constants.append(nn.Parameter(bias[:, free:].clone()))
            merges.append(merge)
        if drawn:
            given = {*(networks or {}), *(encoders or {})}  # these start as their makers left them
            initialise_weights(nn.ModuleList([*merges, *(features.networks[n] for n in sources if n not in given)]))
        # one plain module for all networks: PyroModule registers a child's parameters at every access
        self.networks = nn.ModuleDict({"features": features, "merges": nn.ModuleList(merges), "inputs": inputs})
        self.networks["constants"] = nn.ParameterList(constants)
        self.networks["decoders"] = NamedModules(drawn)
        if manipulation is not None:
            self.networks["manipulation"] = manipulation

    @property
    def has_images(self) -> bool:
        """Whether any node is an image."""
        return any(group.image for group in self.groups)

    @property
    def classes(self) -> int:
        """Classes of the target."""
        return self.graph.nodes[self.graph.target].classes

    @property
    def manipulation(self) -> Manipulation:
        """NN_pM, of a graph that has a manipulation latent."""
        found = self._networks["manipulation"]
        assert isinstance(found, Manipulation)
        return found

    @property
    def inputs(self) -> NodeInputs:
        """Encoded values as the networks read them."""
        found = self._networks["inputs"]
        assert isinstance(found, NodeInputs)
        return found

    @property
    def merges(self) -> nn.ModuleList:
        """The merge of every group of :attr:`groups`, in their order."""
        found = self._networks["merges"]
        assert isinstance(found, nn.ModuleList)
        return found

    @property
    def _networks(self) -> nn.ModuleDict:
        """Past PyroModule's attribute access, which costs a pass over all parameters."""
        found = self._modules["networks"]
        assert isinstance(found, nn.ModuleDict)
        return found

    def forward(
        self,
        data: EncodedRows | None = None,
        *,
        rows: int | None = None,
        samples: int | None = None,
        classes: bool = False,
    ) -> dict[str, Tensor]:
        """One sample site per node, in topological order; see the module's docstring for signature and plates."""
        if not pyro.settings.get("module_local_params"):
            self.networks  # noqa: B018 - the one access by which Pyro's store learns of the parameters
        batch = as_batch(data, rows)
        plates = Plates(self.graph, batch.rows, samples, classes, self.sites)
        causes = Causes(self, batch, samples=samples)
        with plates.samples:
            if self.graph.m is not None:
                with plates.m:
                    causes.set_m(pyro.sample(self.graph.m.name, self.m_dist()))
            with plates.classes, plates.rows:
                if self.graph.z is not None:
                    causes.z = pyro.sample(self.graph.z.name, self.z_dist())
                for name in self.graph.order:
                    causes.values[name] = self._node(name, causes, batch, classes)
        return causes.values

    def m_dist(self) -> TorchDistribution:
        """p(m): standard normal, event ``(dim,)``."""
        assert self.graph.m is not None
        return dist.Normal(*self._standard).expand([self.graph.m.dim]).to_event(1)

    def z_dist(self) -> TorchDistribution:
        """p(z): standard normal, event ``(dim,)``."""
        assert self.graph.z is not None
        return dist.Normal(*self._standard).expand([self.graph.z.dim]).to_event(1)

    def node_dist(self, name: str, causes: Causes) -> TorchDistribution:
        """p(v | pa(v), z, m) of one node, m's mechanism applied.

        Args:
            causes: the values sampled so far (``causes.values[parent]``), ``causes.z``, ``causes.m``.
        """
        group = self.group_of[name]
        at = group.component(name)
        d = causes.distribution(name)
        if group.theta_size and causes.theta is not None:
            assert group.mechanism is not None
            assert causes.manipulation is not None
            d = causes.manipulation.transform(d, causes.theta, group, at)
        event_dim = len(self.graph.nodes[name].event_shape)
        return d.to_event(event_dim) if event_dim else d

    def _node(self, name: str, causes: Causes, batch: Batch, classes: bool) -> Tensor:
        d = self.node_dist(name, causes)
        if name == self.graph.target and classes:
            value: Tensor = pyro.sample(name, d, obs=class_values(self.graph, causes.like))
            return value
        value, known = batch.values.get(name), batch.observed.get(name)  # type: ignore[assignment]
        if known is not None:
            value, d = self._fill(name, value, d, known, causes.lead), d.mask(known)
        filled: Tensor = pyro.sample(name, d, obs=value)
        return filled

    def _fill(self, name: str, value: Tensor, d: TorchDistribution, known: Tensor, lead: tuple[int, ...]) -> Tensor:
        """Draws a node's missing entries from its own factor, which thereby cancels: p(v | pa(v)) is the proposal."""
        if not self.effects(name) or bool(known.all()):  # no draw for nothing: it would move the draws after it
            return value
        shape = torch.broadcast_shapes(d.batch_shape, (*lead, len(known)))
        mask = known.reshape(*known.shape, *[1] * d.event_dim)
        return torch.where(mask, value, draw_site(d.expand(shape), name).to(value.dtype))

    def effects(self, name: str) -> tuple[str, ...]:
        """The nodes of the blanket that a node causes."""
        return tuple(n for n in self.graph.order if name in self.graph.parents_of(n))

    @property
    def _standard(self) -> tuple[Tensor, Tensor]:
        like = self.like
        return torch.zeros((), dtype=like.dtype, device=like.device), torch.ones(
            (), dtype=like.dtype, device=like.device
        )

    @property
    def like(self) -> Tensor:
        """A tensor of the model's dtype and device."""
        networks: Any = self._modules["networks"]
        tensor: Tensor = networks["merges"][0].bias
        return tensor

    def log_prob(
        self, batch: Batch, z: Tensor | None, m: Tensor | None, *, samples: int, classes: bool, power: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """log p(x, y | z, m, a, c) and log p(a, c) of every row, groups scored whole and nothing traced.

        The same values and gradients as the sites of :meth:`forward`, on any graph.

        Args:
            power: of the children's densities, :func:`pyro_cama.inference.log_weights.log_weights`.

        Returns:
            ``(likelihood, context)``: target and children; parents and co-parents.  Both broadcast to
            ``(samples, classes, rows)``.
        """
        causes = Causes(self, batch, z, samples)
        if m is not None:
            causes.set_m(m)
        causes.values.update(batch.values)
        if classes:
            causes.values[self.graph.target] = class_values(self.graph, self.like)
        for name in self.graph.order:
            known = batch.observed.get(name)
            if known is not None and self.effects(name) and not (classes and name == self.graph.target):
                causes.values[name] = self._fill(
                    name, causes.values[name], self.node_dist(name, causes), known, causes.lead
                )
        likelihood = context = torch.zeros((), dtype=self.like.dtype, device=self.like.device)
        inside = {self.graph.target, *self.graph.blanket.children}
        for group in self.groups:
            if not all(name in causes.values for name in group.nodes):
                missing = [name for name in group.nodes if name not in causes.values]
                raise KeyError(f"log_prob needs a value for every node; missing: {missing}")
            score = self._group_log_prob(group, causes, batch, classes)
            if power != 1 and group.nodes[0] in self.graph.blanket.children:
                score = power * score
            if group.nodes[0] in inside:  # a group is of one side: what y causes has y among its causes, y stands alone
                likelihood = likelihood + score
            else:
                context = context + score
        return likelihood, context

    def _group_log_prob(self, group: Group, causes: Causes, batch: Batch, classes: bool) -> Tensor:
        """log p of a group's nodes given their causes, summed over the nodes, missing entries left out."""
        d = causes.distributions(group)
        if group.theta_size and causes.theta is not None:
            assert group.mechanism is not None
            assert causes.manipulation is not None
            d = causes.manipulation.transform(d, causes.theta, group)
        log_prob = d.log_prob(group.stack(causes.values))
        known = batch.observed
        if classes and group.nodes == (self.graph.target,):
            known = {}
        mask = group.stack_masks(known, batch.rows)
        if mask is not None:
            log_prob = torch.where(mask, log_prob, torch.zeros_like(log_prob))
        return log_prob.sum(tuple(range(-group.event_dim, 0)))


class Causes:
    """What has been sampled so far, and the features made of it, each computed once per call."""

    def __init__(self, model: CAMAModel, batch: Batch, z: Tensor | None = None, samples: int | None = None) -> None:
        networks: Any = model._modules["networks"]  # past PyroModule's attribute access, a pass over all parameters
        self.lead = () if samples is None else (samples, 1)  # draws are shared by the classes
        self.graph = model.graph
        self.groups = model.groups
        self._group_of = model.group_of
        self._places = model.places
        self.values: dict[str, Tensor] = {}
        self.z = z
        self.m: Tensor | None = None
        self.theta: Tensor | None = None
        self.site = batch.site
        self.manipulation: Manipulation | None = networks["manipulation"] if "manipulation" in networks else None  # noqa: SIM401 - a ModuleDict has no get
        self._inputs: NodeInputs = networks["inputs"]
        self._networks: FeatureNetworks = networks["features"]
        self._merges = networks["merges"]
        self._constants = networks["constants"]
        self._decoders = networks["decoders"]
        self._features: dict[str, Tensor] = {}
        self._params: dict[str, tuple[Tensor, Tensor]] = {}
        self._parts: dict[str, tuple[tuple[Tensor, ...], ...]] = {}
        self._normal: dict[str, bool] = {}
        self.like: Tensor = self._merges[0].bias

    def set_m(self, m: Tensor) -> None:
        """m as sampled or given by ``do``, ``(..., dim)``, before it is dealt out to rows."""
        assert self.graph.m is not None
        assert self.manipulation is not None
        self.m = m_of_rows(m, self.graph.m.scope, self.site)
        self.theta = None if self.manipulation.is_identity(m) else self.manipulation(self.m)

    def features(self, source: str) -> Tensor:
        """NN_v of a cause's value, ``(..., hidden)``."""
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
        """What a cause's effects see of it: its recorded value, or the clean one under ``affects: measurement``."""
        manipulation = self.manipulation
        if manipulation is None or manipulation.affects.get(source) != "measurement" or self.theta is None:
            return self.values[source]
        group = next(g for g in manipulation.groups if source in g.nodes)
        assert group.mechanism is not None
        frequencies = self._inputs.frequencies(source)
        return manipulation.invert(self.values[source], self.theta, group, group.component(source), frequencies)

    def distributions(self, group: Group) -> TorchDistribution:
        """The clean distribution of a group's components, batch shape ``(..., width)``, or ``(..., C, H, W)``."""
        free, constants = self.params(group)
        likelihood = group.likelihood
        return likelihood.joined(free, constants) if likelihood.constants else likelihood.distribution(free)

    def distribution(self, name: str) -> TorchDistribution:
        """The clean distribution of one node, batch shape ``(...)``, ``(..., dim)`` or ``(..., C, H, W)``."""
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
        """A group's likelihood parameters: those its causes set, and those they do not, of every component.

        Returns:
            ``(..., width, size - constants)`` and ``(width, constants)``; of an image ``(..., C, H, W, numbers)``
            and ``(1, constants)``.
        """
        key = group.nodes[0]  # no two groups share a node; hashing a group costs as much as it is wide
        if key not in self._params:
            sources = list(group.parents)
            if group.has_z and self.graph.z is not None:
                sources.append(self.graph.z.name)
            rests = self.m is not None and self.theta is None  # m = 0 would add nothing
            if group.mechanism is not None and group.mechanism.in_merge and self.graph.m is not None and not rests:
                sources.append(self.graph.m.name)
            index = self._places[key]
            flat: Tensor = self._merges[index]((source, self.features(source)) for source in sources)
            if group.image:
                free = decode_images(self._decoders[group.nodes[0]], flat, group.image)
            else:
                free = flat.unflatten(-1, (group.width, -1))
            self._params[key] = free, self._constants[index]
        return self._params[key]


def _apart(params: Tensor, group: Group, dim: int) -> tuple[Tensor, ...]:
    """What belongs to every node in a group whose components stand side by side in a dimension; a scalar's loses it."""
    if all(size is None for size in group.dims):
        return params.unbind(dim)
    parts = params.split(list(group.widths), dim)
    return tuple(p.squeeze(dim) if size is None else p for p, size in zip(parts, group.dims, strict=True))
