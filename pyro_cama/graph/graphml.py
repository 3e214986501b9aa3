"""GraphML, as networkx, igraph, yEd, Gephi and Cytoscape write it.

Source: http://graphml.graphdrawing.org/specification.html; yEd's labels and arrows stand in elements of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from pyro_cama._messages import shown
from pyro_cama.graph.directions import DrawnEdge
from pyro_cama.graph.drawn import Drawn
from pyro_cama.graph.gml import arrow_mark
from pyro_cama.graph.schema import graph_error

_WHOLE = ("int", "long", "integer")


def read_xml(raw: bytes, root: str, source: str, kind: str) -> Element:
    """Returns the root element of an XML file, whatever its encoding.

    Raises:
        GraphError: it is no XML, or its root is another element.
    """
    try:
        element = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # encodings that expat does not know
        raise graph_error(source, f"is no valid {kind} file: {error}") from error
    if tag(element) != root:
        raise graph_error(source, f"is no valid {kind} file: found the element <{tag(element)}>; expected <{root}>")
    return element


def tag(element: Element) -> str:
    """Returns the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def inside(element: Element, *names: str) -> Iterator[Element]:
    """Yields the children of these names."""
    return (child for child in element if tag(child) in names)


def read_graphml(raw: bytes, source: str) -> Drawn:
    """Reads the one graph of a GraphML file; nodes inside of groups are nodes, groups are none.

    Raises:
        GraphError: the file is no GraphML, holds no graph or several, hyperedges, or values unfit for their type.
    """
    root = read_xml(raw, "graphml", source, "graphml")
    if any(word in str(part.tag) for part in root.iter() for word in ("yfiles-common/3.0", "yfiles-for-html")):
        raise graph_error(
            source, "found a file of yEd Live, whose arrows say nothing here; expected yEd's, or another format"
        )
    graphs = list(inside(root, "graph"))
    if len(graphs) != 1:
        raise graph_error(source, f"is no valid graphml file: found {len(graphs)} graphs; expected one")
    return _Reader(root, source).graph(graphs[0])


class _Reader:
    def __init__(self, root: Element, source: str) -> None:
        self.source = source
        self.keys: dict[str | None, tuple[str, str]] = {}
        self.defaults: dict[str, Any] = {}
        for key in inside(root, "key"):
            name = key.get("attr.name") or key.get("yfiles.type") or key.get("id") or ""
            kind = key.get("attr.type") or "string"
            self.keys[key.get("id")] = (name, kind)
            for default in inside(key, "default"):
                if key.get("for") in ("node", "all"):
                    self.defaults[name] = self.value(default.text or "", name, kind)
        self.drawn = Drawn()

    def graph(self, graph: Element) -> Drawn:
        self.drawn.attributes = self.data(graph)
        groups: set[str] = set()
        waiting = [graph]
        parts = []
        while waiting:
            part = waiting.pop()
            parts.append(part)
            for node in inside(part, "node"):
                name = node.get("id")
                if name is None or name in self.drawn.nodes:
                    raise graph_error(self.source, f"found a node with id {shown(name)}; expected an id for each, once")
                within = list(inside(node, "graph"))
                waiting += within
                if within:
                    groups.add(name)
                else:
                    self.drawn.nodes[name] = {**self.defaults, **self.data(node)}
            if next(inside(part, "hyperedge"), None) is not None:
                raise graph_error(self.source, "found a hyperedge; expected edges between two nodes")
        for part in parts:
            directed = part.get("edgedefault", graph.get("edgedefault")) == "directed"
            self.drawn.edges += [self.edge(edge, directed, groups) for edge in inside(part, "edge")]
        return self.drawn

    def edge(self, edge: Element, directed: bool, groups: set[str]) -> DrawnEdge:
        first, second = edge.get("source"), edge.get("target")
        for end in (first, second):
            if end is None or end not in self.drawn.nodes:
                what = "a group" if end in groups else "no node"
                raise graph_error(
                    self.source, f"found an edge with the end {shown(end)}, {what}; expected the id of a node"
                )
        assert first is not None
        assert second is not None
        arrows = next((part for part in edge.iter() if tag(part) == "Arrows"), None)
        if arrows is not None:  # yEd's graphs are always directed, and what is drawn is an edge's own arrows
            marks = [arrow_mark(arrows.get(end, "none"), self.source) for end in ("source", "target")]
            return DrawnEdge(first, second, *marks)
        points = {"true": True, "false": False}.get(str(edge.get("directed")).casefold(), directed)
        return DrawnEdge(first, second, "none", "arrow" if points else "none")

    def data(self, element: Element) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for data in inside(element, "data"):
            name, kind = self.keys.get(data.get("key"), (data.get("key") or "", "string"))
            if len(data):
                label = next((part for part in data.iter() if tag(part) == "NodeLabel"), None)
                if label is not None and (text := (label.text or "").strip()):
                    found["label"] = text
            elif name not in found:
                found[name] = self.value(data.text or "", name, kind)
            else:
                raise graph_error(self.source, f"found {name!r} twice at one element; expected it once")
        return found

    def value(self, text: str, name: str, kind: str) -> Any:
        bare = text.strip()
        try:
            if kind in _WHOLE and bare:
                return int(bare)
            return float(bare) if kind in ("float", "double") and bare else text
        except ValueError:
            raise graph_error(
                self.source, f"{name}: found {shown(text)}; expected a number, by the type of its key"
            ) from None
