"""Graphs as other tools write them, nodes and edges with attributes, to the form of the YAML file.

Of the attributes only those of the format count; labels, positions, colours and the like are the tool's own.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pyro_cama._messages import listed, one_of
from pyro_cama.graph.directions import DrawnEdge, Orient, directed
from pyro_cama.graph.schema import GraphSpec, ImageSize, NodeSpec, graph_error
from pyro_cama.graph.yaml_text import parse_yaml

_OF_NODES = tuple(NodeSpec.model_fields)
_OF_GRAPHS = ("target", "latents")
_LABELS = ("label", "name", "shared name")  # yEd, Gephi and causal-learn; igraph; Cytoscape
_NUMBERED = re.compile(r"(n|v|node|N|V)?[-_]?\d+(::\w+)*")
_TRUE = ("true", "yes", "1")


@dataclass
class Drawn:
    """A graph as drawn: attributes of nodes by the tool's ids, edges between ids, attributes of the graph."""

    nodes: dict[Any, dict[str, Any]] = field(default_factory=dict)
    edges: list[DrawnEdge] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


def form(
    drawn: Drawn, source: str, *, target: str | None = None, columns: Iterable[str] = (), orient: Orient = ()
) -> dict[str, Any]:
    """Returns a drawn graph in the form of the YAML file, not yet validated.

    A node goes by its id, unless only its label is what it could be called by: ids are none of the table's columns, or
    not the target, and labels are.

    Args:
        drawn: the graph.
        source: where it comes from, for messages.
        target: replaces the target that the graph names, among its own attributes or as ``target`` true at a node.
        columns: the table's, where there is one.
        orient: directions of edges that have none.

    Raises:
        GraphError: edges without a direction, two nodes of a name, or keys that seem misspelt.
    """
    faults = _misspelt(drawn)
    marked = [node for node, keys in drawn.nodes.items() if str(keys.get("target", "")).casefold() in _TRUE]
    declared = drawn.attributes.get("target")
    if target is None and declared is None and len(marked) > 1:
        faults.append(f"target: found {listed(marked)}, nodes with target: true; expected one")
    if faults:
        raise graph_error(source, faults)
    names = _names(drawn, target if target is not None else declared, set(columns), source)
    if target is None:
        target = names[marked[0]] if declared is None and marked else declared
    raw: dict[Any, Any] = {} if target is None else {"target": target}
    raw["nodes"] = {
        names[node]: {
            key: _value(key, keys[key], f"{source}: node {names[node]!r}")
            for key in _OF_NODES
            if not _is_layout(key, keys.get(key))
        }
        for node, keys in drawn.nodes.items()
    }
    latents = drawn.attributes.get("latents", drawn.nodes[marked[0]].get("latents") if marked else None)
    if latents is not None:
        raw["latents"] = parse_yaml(latents, f"{source}: latents") if isinstance(latents, str) else latents
    named = [
        DrawnEdge(names.get(edge.first, edge.first), names.get(edge.second, edge.second), edge.at_first, edge.at_second)
        for edge in drawn.edges
    ]
    raw["edges"] = directed(named, orient, raw["nodes"], source)
    return raw


def untyped(raw: Mapping[Any, Any], source: str) -> None:
    """Refuses a drawn graph none of whose nodes has a type, as most tools write them.

    Raises:
        GraphError: what is missing, and where it may come from.
    """
    if any(keys for keys in raw["nodes"].values()):
        return
    faults = (
        [] if "target" in raw else [f"missing key 'target'; expected {GraphSpec.model_fields['target'].description}"]
    )
    where = "a table's columns: pyro-cama init TABLE --graph FILE --target NAME, or CausalGraph(..., data=table)"
    found = "no types of nodes" if raw["nodes"] else "no nodes"
    raise graph_error(
        source, [*faults, f"nodes: found {found}; expected type=continuous or another at each, or {where}"]
    )


def _misspelt(drawn: Drawn) -> list[str]:
    """Keys that are not the format's but for a letter; what is silently left out would be worse."""
    faults = [
        f"found unknown key {key!r}; {one_of(key, _OF_GRAPHS)}"
        for key in drawn.attributes
        if key not in _OF_GRAPHS and _near(key, _OF_GRAPHS)
    ]
    for node, keys in drawn.nodes.items():
        faults += [
            f"node {node!r}: found unknown key {key!r}; {one_of(key, _OF_NODES)}"
            for key in keys
            if key not in _OF_NODES and _near(key, _OF_NODES)
        ]
    return faults


@functools.lru_cache(maxsize=1000)
def _near(key: object, known: tuple[str, ...]) -> bool:
    return isinstance(key, str) and bool(difflib.get_close_matches(key.casefold(), known, n=1, cutoff=0.8))


def _names(drawn: Drawn, target: object, columns: set[str], source: str) -> dict[Any, Any]:
    """The name of every node: its id, or its label where labels are what the table or the target calls them."""
    schemes: dict[str, dict[Any, Any]] = {"id": {node: node for node in drawn.nodes}}
    for key in _LABELS:
        if any(_text(keys.get(key)) for keys in drawn.nodes.values()):
            schemes[key] = {node: _text(keys.get(key)) or node for node, keys in drawn.nodes.items()}
    known = columns or ({target} if isinstance(target, str) else set())
    found = {key: len(known & set(names.values())) for key, names in schemes.items()}
    best = [key for key in schemes if found[key] == max(found.values())]
    if not max(found.values()) and all(_NUMBERED.fullmatch(str(node)) for node in drawn.nodes):
        best = [*best[1:], "id"]  # what only a tool calls its nodes
    key = best[0]
    for other in best[1:] if found[key] else ():
        for one, two in zip(schemes[key].values(), schemes[other].values(), strict=True):
            if one != two and known & {one, two}:
                both = f"{key} {one!r} and {other} {two!r}"
                raise graph_error(source, f"a node: found {both}, and both could be meant; expected one of them")
    chosen = schemes[key]
    for name, times in Counter(chosen.values()).items():
        if times > 1:
            nodes = [node for node in chosen if chosen[node] == name]
            raise graph_error(source, f"nodes {listed(nodes)}: found the same {key} {name!r}; expected a name for each")
    return chosen


def _text(value: object) -> str:
    return (
        value
        if isinstance(value, str)
        else str(value)
        if isinstance(value, int) and not isinstance(value, bool)
        else ""
    )


def _is_layout(key: str, value: object) -> bool:
    """Whether a key of the format is absent, or another's of the same name: Graphviz's shape is an outline, and size is
    of what is drawn.
    """
    if value is None or (isinstance(value, str) and not value):
        return True
    if key == "size":
        return value not in get_args(ImageSize)
    return key == "shape" and isinstance(value, str) and not re.match(r"\s*[\[\d-]", value)


def _value(key: str, value: object, source: str) -> object:
    """dim, levels, shape and channels from the text that GML, GraphML and DOT hold."""
    if not isinstance(value, str) or key not in ("dim", "levels", "shape", "channels"):
        return value
    if value.lstrip().startswith("["):
        return parse_yaml(value, f"{source}, {key}")
    parts = [_number(part.strip()) for part in value.split(",")]
    return parts[0] if key in ("dim", "channels") and len(parts) == 1 else parts


def _number(text: str) -> int | str:
    return int(text) if len(text) < 19 and text.isascii() and text.removeprefix("-").isdigit() else text
