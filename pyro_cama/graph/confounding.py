"""What a manipulation goes with: an edge from the target into it, or a latent that causes both (Figure 2 b and c).

A latent that causes the target and one manipulation and nothing else is summed out: any p(y, m) that it can bring about
is p(y) p(m | y), so both forms give the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pyro_cama._messages import listed, one_of
from pyro_cama.graph.nodes import Latent
from pyro_cama.graph.schema import Edge, GraphSpec, LatentSpec, graph_error


@dataclass(frozen=True)
class LatentCauses:
    """Edges into latents, and latents that cause a node and a latent, as declared.

    Attributes:
        edges: from a node into a latent.
        confounders: by name, those with ``causes``.
    """

    edges: tuple[Edge, ...] = ()
    confounders: Mapping[str, LatentSpec] = field(default_factory=dict)


def apart(spec: GraphSpec) -> tuple[GraphSpec, LatentCauses]:
    """Returns a graph as declared without what causes its latents, and that."""
    confounders = {name: latent for name, latent in spec.latents.items() if latent is not None and latent.causes}
    latents = {name: latent for name, latent in spec.latents.items() if name not in confounders}
    names = {name for name in {"z": None, "m": None} | latents if latents.get(name, True) is not None}
    names = {*names, *confounders} - set(spec.nodes)
    into = [edge for chain in spec.edges for edge in chain if edge[0] in spec.nodes and edge[1] in names]
    into += [(cause, name) for name, latent in latents.items() if latent is not None for cause in latent.parents or ()]
    kept = [[edge for edge in chain if edge not in into] for chain in spec.edges]
    found = LatentCauses(tuple(dict.fromkeys(into)), confounders)
    return spec.model_copy(update={"edges": kept, "latents": latents}), found


def with_causes(
    manipulations: tuple[Latent, ...],
    causes: LatentCauses,
    z: Latent | None,
    target: str,
    nodes: Mapping[str, object],
    source: str,
) -> tuple[Latent, ...]:
    """Returns the manipulations with what causes them.

    Args:
        manipulations, z: as they are resolved.
        causes: see :func:`apart`.
        target, nodes: of the graph.
        source: where the graph comes from, for messages.

    Raises:
        GraphError: an edge into another latent than a manipulation, or from another node than the target; a confounder
            of anything else than these two; a manipulation that many rows share, or that is one of several.
    """
    if not (causes.edges or causes.confounders):
        return manipulations
    names = [m.name for m in manipulations]
    faults = [_edge_fault(edge, names, target) for edge in causes.edges]
    for name, latent in causes.confounders.items():
        faults += _confounder_faults(name, latent, names, target, nodes)
    taken = {latent.name for latent in (z, *manipulations) if latent is not None} & set(causes.confounders)
    faults += [f"latent {name!r}: found causes; expected a name of its own: it is the style" for name in sorted(taken)]
    if len(causes.confounders) > 1:
        both = listed(causes.confounders)
        faults.append(f"latents: found {both}, which cause the same two; expected one, which says all that two could")
    faults += [
        f"latent {m.name!r}: found scope {m.scope!r} beside a cause that it shares with {target!r}; expected "
        f"'row': where many rows share one manipulation, it cannot go with the class of each"
        for m in manipulations[:1]
        if not m.per_row
    ]
    if len(manipulations) > 1:
        faults.append(
            f"latents: found {listed(names)}, and a cause that one of them shares with {target!r}; expected one "
            "manipulation where it goes with the class"
        )
    if faults := [fault for fault in faults if fault]:
        raise graph_error(source, faults)
    parents, confounder = (target,) if causes.edges else (), next(iter(causes.confounders), None)
    return tuple(replace(m, parents=parents, confounder=confounder) for m in manipulations)


def _edge_fault(edge: Edge, names: list[str], target: str) -> str:
    """What is wrong with an edge into a latent; empty if nothing is."""
    cause, effect = edge
    where = f"edge ({cause} -> {effect}): "
    if effect not in names:
        return f"{where}found a latent that is no manipulation; {one_of(effect, names)}"
    if cause != target:
        return f"{where}found {cause!r}; expected the target {target!r}, the only node that may cause a manipulation"
    return ""


def _confounder_faults(
    name: str, latent: LatentSpec, names: list[str], target: str, nodes: Mapping[str, object]
) -> list[str]:
    """What is wrong with a latent that has ``causes``."""
    where, faults = f"latent {name!r}: ", []
    if name in nodes or name in ("z", "m"):
        kind = "a node of the same name" if name in nodes else "causes"
        faults.append(f"{where}found {kind}; expected another name, as in {{u: {{causes: [{target}, ...]}}}}")
    more = sorted(latent.model_fields_set - {"causes"})
    if more:
        faults.append(f"{where}found key {more[0]!r} beside causes; expected causes alone: it is summed out")
    for effect in latent.causes or ():
        if effect != target and effect not in names:
            faults.append(f"{where}causes: found {effect!r}; {one_of(effect, [target, *names])}")
    if not faults and len(set(latent.causes or ())) < 2:
        faults.append(f"{where}causes: found {target!r} alone; expected the target and a manipulation")
    return faults
