"""The networks of the generative model that a graph asks for: features, merges, decoders (the paper's Figure 4).

The order of construction is the order of random draws, on which the weights that a seed gives depend.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.model.class_manipulation import ClassManipulation
from pyro_cama.model.groups import Group, MovedGroup
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.networks.features import FeatureNetworks, Merge, NamedModules, NetworkFactory
from pyro_cama.networks.image_layers import GeneratedDecoder, initialise_weights
from pyro_cama.networks.images import (
    DecoderFactory,
    EncoderFactory,
    decoder_inputs,
    decoder_of,
    encoder_of,
)
from pyro_cama.networks.inputs import NodeInputs
from pyro_cama.networks.loadings import Loadings


def build_networks(
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
) -> nn.ModuleDict:
    """Returns all networks of a model in one plain module, under the names that its state dict has.

    Args:
        graph, groups: whose causes and effects these serve.
        inputs, manipulation: shared with the guide, and part of what is returned.
        hidden, layers: units of a layer, and hidden layers.
        networks, encoders, decoders: what a user gave in the place of generated networks, by node.

    Returns:
        ``features``, ``merges`` (one a group, in their order), ``inputs``, ``constants`` (the likelihood parameters
        that no cause sets, one a group), ``decoders`` of images, ``loadings`` of a linear style, ``manipulation``
        where there is one, and ``class_manipulation`` where it goes with the class.
    """
    features = _features(graph, groups, inputs, hidden, layers, networks, encoders)
    merges: list[Merge] = []
    constants: list[nn.Parameter] = []
    drawn: dict[str, nn.Module] = {}
    linear: dict[str, nn.Module] = {}
    for group in groups:
        widths = _widths(graph, group, features, manipulation)
        if group.image:
            decoder, constant = _decoder(graph, group, decoders)
            drawn[group.nodes[0]] = decoder
            merge = Merge(widths, hidden, decoder_inputs(decoder), 0)
        else:
            merge, constant = _merge(graph, group, widths, hidden, layers)
        if group.linear_z:
            linear[group.nodes[0]], constant = _loadings(graph, group, merge, constant)
        merges.append(merge)
        constants.append(constant)
    if drawn:
        given = {*(networks or {}), *(encoders or {})}  # these start as their makers left them
        own = [features.networks[source] for source in features.networks if source not in given]
        initialise_weights(nn.ModuleList([*merges, *own]))
    found = nn.ModuleDict({"features": features, "merges": nn.ModuleList(merges), "inputs": inputs})
    found["constants"] = nn.ParameterList(constants)
    found["decoders"] = NamedModules(drawn)
    found["loadings"] = NamedModules(linear)
    if manipulation is not None:
        found["manipulation"] = manipulation
    if graph.m is not None and graph.m.goes_with_class:
        found["class_manipulation"] = ClassManipulation(graph.nodes[graph.target].classes, graph.m.dim)
    return found


def _features(
    graph: CausalGraph,
    groups: tuple[Group, ...],
    inputs: NodeInputs,
    hidden: int,
    layers: int,
    networks: Mapping[str, NetworkFactory] | None,
    encoders: Mapping[str, EncoderFactory] | None,
) -> FeatureNetworks:
    """Returns NN_v for every cause v, z among them."""
    sources = {cause: inputs.width(cause) for group in groups for cause in group.merged}
    nodes = [graph.nodes[name] for name in sources]
    if graph.z is not None and any(group.has_z and not group.linear_z for group in groups):
        sources[graph.z.name] = graph.z.dim
    numbers = [node.name for node in nodes if node.is_number]
    images = {
        node.name: encoder_of(node, hidden, encoders)
        for node in nodes
        if node.is_image and node.name not in (networks or {})
    }
    return FeatureNetworks(sources, hidden, layers, numbers, networks, images)


def _widths(
    graph: CausalGraph, group: Group, features: FeatureNetworks, manipulation: Manipulation | None
) -> dict[str, int]:
    """Returns how many features each cause brings into a group's merge."""
    widths = {cause: features.widths[cause] for cause in group.merged}
    if group.has_z and not group.linear_z:
        assert graph.z is not None
        widths[graph.z.name] = features.widths[graph.z.name]
    if isinstance(group, MovedGroup) and group.mechanism.in_merge:
        assert graph.m is not None
        assert manipulation is not None
        widths[graph.m.name] = manipulation.hidden
    return widths


def _decoder(
    graph: CausalGraph, group: Group, decoders: Mapping[str, DecoderFactory] | None
) -> tuple[nn.Module, nn.Parameter]:
    """Returns an image's decoder and its constants; a generated decoder starts where the likelihood does."""
    free = group.size - group.likelihood.constants
    decoder = decoder_of(graph.nodes[group.nodes[0]], free, decoders)
    start = start_of(graph, group, {})
    if isinstance(decoder, GeneratedDecoder):
        decoder.set_bias(start[0, :free])
    return decoder, nn.Parameter(start[:, free:].clone())


def _merge(
    graph: CausalGraph, group: Group, widths: Mapping[str, int], hidden: int, layers: int
) -> tuple[Merge, nn.Parameter]:
    """Returns the merge of a group that is no image and its constants, both where the likelihood starts."""
    free = group.size - group.likelihood.constants
    merge = Merge(widths, hidden, group.width * free, min(layers, 1))
    start = start_of(graph, group, {})
    with torch.no_grad():
        merge.last_bias.copy_(start[:, :free].flatten())
    return merge, nn.Parameter(start[:, free:].clone())


def _loadings(graph: CausalGraph, group: Group, merge: Merge, constant: nn.Parameter) -> tuple[Loadings, nn.Parameter]:
    """Returns what a linear style adds to a group, and the group's constants; the merge then starts at nothing."""
    assert graph.z is not None
    classes, shared = graph.nodes[graph.target].classes, graph.z.loadings == "shared"
    if merge.output is not None:
        nn.init.zeros_(merge.output.weight)
    own = constant.data if shared else constant.data.expand(classes, *constant.shape).clone()
    return Loadings(classes, group.width, graph.z.dim, shared), nn.Parameter(own)


def start_of(graph: CausalGraph, group: Group, statistics: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """Returns where training starts: a group's likelihood parameters, ``(width, size)``, of an image ``(1, size)``.

    Args:
        statistics: of the training rows, by node; empty before there are any.
    """
    widths = (1,) if group.image else group.widths
    starts = (group.likelihood.start(graph.nodes[name], statistics.get(name, {})) for name in group.nodes)
    return torch.cat([start.expand(width, -1) for start, width in zip(starts, widths, strict=True)])
