"""The generative model, eq. 9 of the paper, along the graph's own edges.

    p(x, y, z, m, a, c) = p(z) p(m) prod_v p(v | pa(v))   over the target y and its Markov blanket,
    p(x_i | pa(x_i), z, m) = T_m applied to p(x~_i | pa(x_i), z)

Call signature, of model and guide alike::

    model(data=None, *, rows=None, samples=None, classes=False) -> dict of values

``data`` is a :class:`pyro_cama.data.batch.Batch` or a mapping of node name to encoded tensor; nodes it lacks are
sampled, and ``model()`` is a draw of one row from the prior.  Plates: ``samples`` at dim -3 (with ``samples=K``),
``classes`` at -2 (with ``classes=True``: the target takes every class), ``rows`` at -1.  z stands in all of them; m
never in ``classes``: scope ``row`` puts it in ``rows``, scope ``dataset`` in ``samples`` alone, a scope column in a
plate of ``sites`` at -1.  Several manipulations are a site each, by their names.  An m that goes with the class stands
in ``classes`` too, after the target: p(m | y), or p(m) under
:func:`pyro_cama.handlers.interventions.cut_from_class`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_cama.data.batch import Batch
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Latent
from pyro_cama.handlers.common_noise import draw_site
from pyro_cama.model.build_networks import build_networks, start_of
from pyro_cama.model.causes import Causes
from pyro_cama.model.class_manipulation import ClassManipulation
from pyro_cama.model.groups import Group
from pyro_cama.model.linear_style import style_log_prob
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.model.plates import EncodedRows, Plates, as_batch, class_values, joined
from pyro_cama.networks.features import Merge, NamedModules, NetworkFactory, network_of
from pyro_cama.networks.image_layers import filled, known_pixels
from pyro_cama.networks.images import DecoderFactory, EncoderFactory
from pyro_cama.networks.inputs import NodeInputs
from pyro_cama.networks.loadings import Loadings


class CAMAModel(PyroModule):
    """p(x, y, z, m, a, c), generated from a graph.

    Override :meth:`node_dist`, :meth:`z_dist` or :meth:`m_dist` to change a factor, and pass the class to
    ``build(graph, model=MyModel)``; the sites, their names and their plates stay as they are.

    Attributes:
        graph: the causal graph.
        groups: its nodes as they are computed.
        group_of: the group of every node.
        places: the place among ``groups`` of the group that begins with a node.
        sites: values of a scope column; 1 in the other scopes.
        always_fill: draw missing entries without looking whether there are any.  A traced program needs that, since it
            cannot branch on values; False draws none where all are known.

    Example::

        >>> import pyro_cama
        >>> class WildStyle(CAMAModel):
        ...     def z_dist(self):  # heavier tails than the normal's
        ...         return dist.StudentT(3.0, torch.zeros(self.graph.z.dim), 1.0).to_event(1)
        >>> graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
        >>> pair = pyro_cama.build(graph, model=WildStyle, device="cpu")
        >>> {name: tuple(value.shape) for name, value in pair.model(rows=5).items()}
        {'y': (5,), 'x': (5,)}
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
        parents = {name: graph.parents_of(name) for name in graph.order}
        self._effects = {name: tuple(n for n in graph.order if name in parents[n]) for name in graph.order}
        # one plain module for all networks: PyroModule registers a child's parameters at every access
        self.networks = build_networks(
            graph, groups, inputs, manipulation,
            hidden=hidden, layers=layers, networks=networks, encoders=encoders, decoders=decoders,
        )  # fmt: skip
        self.always_fill = False

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
        return network_of(self._networks, "manipulation", Manipulation)

    @property
    def _class_manipulation(self) -> ClassManipulation:
        return network_of(self._networks, "class_manipulation", ClassManipulation)

    @property
    def inputs(self) -> NodeInputs:
        """Encoded values as the networks read them."""
        return network_of(self._networks, "inputs", NodeInputs)

    @torch.no_grad()
    def start_at(self, statistics: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Sets the likelihoods' numbers to where training starts, by the statistics of its rows; images stay."""
        constants = network_of(self._networks, "constants", nn.ParameterList)
        for group, merge, constant in zip(self.groups, self._merges, constants, strict=True):
            if not group.image:
                start = start_of(self.graph, group, statistics)
                free = group.size - group.likelihood.constants
                merge.last_bias.copy_(start[:, :free].flatten())
                constant.copy_(start[:, free:])

    @property
    def numbers_per_row(self) -> int:
        """Numbers of one row in a tensor of every component under every class."""
        return self.classes * sum(group.width for group in self.groups)

    @property
    def sum_numbers_per_row(self) -> int:
        """Numbers of one row where no tensor has rows, columns and classes."""
        return sum(group.width for group in self.groups) + 8 * (
            self.classes + (self.graph.z.dim if self.graph.z else 0)
        )

    def loadings(self, group: Group) -> Loadings:
        """Returns what a linear style adds to a group on which it acts linearly."""
        found = network_of(self._networks, "loadings", NamedModules)[group.nodes[0]]
        assert isinstance(found, Loadings)
        return found

    def constants(self, group: Group) -> nn.Parameter:
        """Returns the likelihood parameters of a group that no cause sets, ``(width, constants)``; under a linear
        style with loadings of every class ``(classes, width, constants)``.
        """
        found = network_of(self._networks, "constants", nn.ParameterList)[self.places[group.nodes[0]]]
        assert isinstance(found, nn.Parameter)
        return found

    @property
    def _networks(self) -> nn.ModuleDict:
        """Past PyroModule's attribute access, which costs a pass over all parameters."""
        return cast(nn.ModuleDict, self._modules["networks"])

    @property
    def _merges(self) -> Sequence[Merge]:
        return cast(Sequence[Merge], self._networks["merges"])

    def forward(
        self,
        data: EncodedRows | None = None,
        *,
        rows: int | None = None,
        samples: int | None = None,
        classes: bool = False,
    ) -> dict[str, Tensor]:
        """Draws or scores a site per node, in topological order; signature and plates are in the module's docstring."""
        if not pyro.settings.get("module_local_params"):
            self.networks  # noqa: B018 - the one access by which Pyro's store learns of the parameters
        batch = as_batch(data, rows)
        plates = Plates(self.graph, batch.rows, samples, classes, self.sites)
        causes = Causes(self, batch, samples=samples)
        with plates.samples:
            if self.graph.m is not None and not self.graph.m.goes_with_class:
                drawn: dict[str, Tensor] = {}
                for latent in self.graph.manipulations:
                    with plates.of(latent):
                        drawn[latent.name] = pyro.sample(latent.name, self.prior(latent))
                causes.set_m(joined(self.graph.m, drawn, batch.site))
            with plates.classes, plates.rows:
                if self.graph.z is not None:
                    causes.z = pyro.sample(self.graph.z.name, self.z_dist())
                for name in self.graph.order:
                    causes.values[name] = self._node(name, causes, batch, classes)
                    if name == self.graph.target and self.graph.m is not None and self.graph.m.goes_with_class:
                        causes.set_m(pyro.sample(self.graph.m.name, self.m_given(causes.values[name])))
        return causes.values

    def m_dist(self, latent: Latent | None = None) -> TorchDistribution:
        """Returns p(m), event ``(dim,)``: standard normal; of an m that goes with the class that of the training rows,
        sum_y p(y) p(m | y).

        Args:
            latent: which of the graph's manipulations, where it has several.
        """
        latent = latent or self.graph.require_m()
        if latent.goes_with_class:
            proportions = self.inputs.frequencies(self.graph.target)
            assert proportions is not None
            return self._class_manipulation.marginal(proportions)
        return dist.Normal(*self._standard).expand([latent.dim]).to_event(1)

    def prior(self, latent: Latent) -> TorchDistribution:
        """Returns :meth:`m_dist` of a manipulation; of a graph's only one as a model may have overridden it."""
        return self.m_dist(latent) if len(self.graph.manipulations) > 1 else self.m_dist()

    def m_given(self, y: Tensor) -> TorchDistribution:
        """Returns p(m | y) of an m that goes with the class, batch shape that of y, event ``(dim,)``."""
        return self._class_manipulation.given(y)

    def z_dist(self) -> TorchDistribution:
        """Returns p(z): standard normal, event ``(dim,)``."""
        assert self.graph.z is not None
        return dist.Normal(*self._standard).expand([self.graph.z.dim]).to_event(1)

    def node_dist(self, name: str, causes: Causes) -> TorchDistribution:
        """Returns p(v | pa(v), z, m) of one node, m's mechanism applied.

        Args:
            causes: the values sampled so far (``causes.values[parent]``), ``causes.z``, ``causes.m``.
        """
        group = self.group_of[name]
        d = causes.measured(causes.distribution(name), group, group.component(name))
        if name in causes.unknown:
            d = _where_known(d, causes.recorded[name])
        event_dim = len(self.graph.nodes[name].event_shape)
        return d.to_event(event_dim) if event_dim else d

    def _node(self, name: str, causes: Causes, batch: Batch, classes: bool) -> Tensor:
        d = self.node_dist(name, causes)
        if name == self.graph.target and classes:
            value: Tensor = pyro.sample(name, d, obs=class_values(self.graph, causes.like))
            return value
        value, known = batch.values.get(name), batch.observed.get(name)  # type: ignore[assignment]
        if known is not None:
            value, d = self.fill_missing(name, value, d, known, causes.lead), d.mask(known)
        if name in batch.unknown:
            assert value is not None
            pyro.sample(name, d, obs=filled(value))
            return value
        sampled: Tensor = pyro.sample(name, d, obs=value)
        return sampled

    def fill_missing(
        self, name: str, value: Tensor, d: TorchDistribution, known: Tensor, lead: tuple[int, ...]
    ) -> Tensor:
        """Draws a node's missing entries from its own factor, which thereby cancels: p(v | pa(v)) is the proposal.

        A node without effects keeps its placeholders, which nothing reads.

        Args:
            name: of the node.
            value: its entries, ``(rows, ...)``, placeholders where they are missing.
            d: p(v | pa(v)) of every row.
            known: which entries are there, bool ``(rows,)``.
            lead: shape of the draws of the latents, in front of the rows; every one of them has its own.

        Returns:
            ``(rows, ...)`` where nothing is drawn, else ``(*lead, rows, ...)``.
        """
        if not self.effects(name):
            return value
        if not self.always_fill and bool(known.all()):  # no draw for nothing: it would move the draws after it
            return value
        shape = torch.broadcast_shapes(d.batch_shape, (*lead, known.shape[0]))
        mask = known.reshape(*known.shape, *[1] * d.event_dim)
        return torch.where(mask, value, draw_site(d.expand(shape), name).to(value.dtype))

    def effects(self, name: str) -> tuple[str, ...]:
        """Returns the nodes of the blanket that a node causes."""
        return self._effects[name]

    @property
    def _standard(self) -> tuple[Tensor, Tensor]:
        like = self.like
        return like.new_zeros(()), like.new_ones(())

    @property
    def like(self) -> Tensor:
        """A tensor of the model's dtype and device."""
        return self._merges[0].bias

    def log_prob(
        self, batch: Batch, z: Tensor | None, m: Tensor | None, *, samples: int, classes: bool, power: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Returns log p(x, y | z, m, a, c) and log p(a, c) of every row, groups scored whole and nothing traced.

        The same values and gradients as the sites of :meth:`forward`, on any graph.

        Args:
            z: None sums a linear style out, where :func:`pyro_cama.model.linear_style.sums_out` says that it can be.
            power: of the children's densities, :func:`pyro_cama.inference.log_weights.log_weights`.

        Returns:
            ``(likelihood, context)``: target and children; parents and co-parents.  Both broadcast to
            ``(samples, classes, rows)``.
        """
        causes = self.causes(batch, z, m, samples=samples, classes=classes)
        return self.log_prob_given(causes, batch, classes=classes, power=power)

    def log_prob_given(
        self, causes: Causes, batch: Batch, *, classes: bool, power: float = 1.0, style: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Returns :meth:`log_prob` of rows whose causes are at hand; without the children of a style that is summed
        out where ``style`` is False.
        """
        likelihood = context = torch.zeros((), dtype=self.like.dtype, device=self.like.device)
        inside = {self.graph.target, *self.graph.blanket.children}
        for group in self.groups:
            if not all(name in causes.values for name in group.nodes):
                missing = [name for name in group.nodes if name not in causes.values]
                raise KeyError(f"log_prob needs a value for every node; missing: {missing}")
            if group.linear_z and causes.z is None:
                continue
            score = self.group_log_prob(group, causes, batch, classes)
            if power != 1 and group.nodes[0] in self.graph.blanket.children:
                score = power * score
            if group.nodes[0] in inside:  # a group is of one side: what y causes has y among its causes, y stands alone
                likelihood = likelihood + score
            else:
                context = context + score
        if style and causes.z is None and any(group.linear_z for group in self.groups):
            likelihood = likelihood + power * style_log_prob(causes, self.groups, batch)
        return likelihood, context

    def causes(self, batch: Batch, z: Tensor | None, m: Tensor | None, *, samples: int, classes: bool) -> Causes:
        """Returns what every factor is conditioned on: values, z and m, missing causes drawn from their own factors."""
        causes = Causes(self, batch, z, samples)
        if m is not None:
            causes.set_m(m)
        causes.values.update(batch.values)
        if classes:
            causes.values[self.graph.target] = class_values(self.graph, self.like)
        for name in self.graph.order:
            known = batch.observed.get(name)
            if known is not None and self.effects(name) and not (classes and name == self.graph.target):
                causes.values[name] = self.fill_missing(
                    name, causes.values[name], self.node_dist(name, causes), known, causes.lead
                )
        return causes

    def group_log_prob(self, group: Group, causes: Causes, batch: Batch, classes: bool) -> Tensor:
        """Returns log p of a group's nodes given their causes, summed over the nodes, missing entries left out."""
        d = causes.measured(causes.distributions(group), group)
        value = group.stack(causes.values)
        if group.nodes[0] in batch.unknown:
            d, value = _where_known(d, value), filled(value)
        log_prob = d.log_prob(value)
        known = batch.observed
        if classes and group.nodes == (self.graph.target,):
            known = {}
        mask = group.stack_masks(known, batch.rows)
        if mask is not None:
            log_prob = torch.where(mask, log_prob, torch.zeros_like(log_prob))
        return log_prob.sum(tuple(range(-group.event_dim, 0)))


def _where_known(d: TorchDistribution, images: Tensor) -> TorchDistribution:
    """An image's distribution, unknown pixels left out.

    The mask is as large as what it masks: Pyro compares the two shapes, and an export would find a condition on the
    number of rows there.
    """
    known = known_pixels(images)
    masked: TorchDistribution = d.mask(known.expand(torch.broadcast_shapes(known.shape, d.batch_shape)))
    return masked
