"""The marks at the ends of an edge come through every format that has them; what has no direction is told."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_cama.errors import GraphError
from pyro_cama.graph.directions import DrawnEdge, Mark, directed
from pyro_cama.graph.dot import read_dot
from pyro_cama.graph.gml import read_gml
from pyro_cama.graph.graphml import read_graphml
from pyro_cama.graph.tetrad import read_tetrad

NAMES = "abcde"
MARKS: tuple[Mark, ...] = ("none", "arrow", "circle")
Edges = list[DrawnEdge]


@st.composite
def drawn_edges(draw: st.DrawFn) -> Edges:
    """Some of the edges between five nodes, one between two nodes, with any marks."""
    pairs = draw(st.lists(st.sampled_from([*itertools.combinations(NAMES, 2)]), min_size=1, unique=True))
    ends = st.sampled_from(MARKS)
    return [DrawnEdge(*(pair if draw(st.booleans()) else pair[::-1]), draw(ends), draw(ends)) for pair in pairs]


def dot(edges: Edges) -> Edges:
    shapes = {"none": "none", "arrow": "normal", "circle": "odot"}
    lines = [
        f"{e.first} -> {e.second} [dir=both, arrowtail={shapes[e.at_first]}, arrowhead={shapes[e.at_second]}]"
        for e in edges
    ]
    return read_dot("digraph {\n" + "\n".join(lines) + "\n}", "g").edges


def dagitty(edges: Edges) -> Edges:
    left, right = {"none": "-", "arrow": "<", "circle": "@"}, {"none": "-", "arrow": ">", "circle": "@"}
    short = {
        "<--": "<-",
        "-->": "->",
        "---": "--",
        "<->": "<->",
        "@->": "@->",
        "<-@": "<-@",
        "@-@": "@-@",
        "@--": "@--",
        "--@": "--@",
    }
    lines = [f"{e.first} {short[f'{left[e.at_first]}-{right[e.at_second]}']} {e.second}" for e in edges]
    return read_dot("pag {\n" + "\n".join(lines) + "\n}", "g").edges


def tetrad(edges: Edges) -> Edges:
    lines = [f"{number}. {edge}" for number, edge in enumerate(edges, 1)]
    return read_tetrad("Graph Nodes:\n" + ";".join(NAMES) + "\n\nGraph Edges:\n" + "\n".join(lines), "g").edges


def yed(edges: Edges) -> Edges:
    shapes = {"none": "none", "arrow": "standard", "circle": "circle"}
    nodes = "".join(f'<node id="{name}"/>' for name in NAMES)
    lines = [
        f'<edge source="{e.first}" target="{e.second}"><data key="d"><y:PolyLineEdge>'
        f'<y:Arrows source="{shapes[e.at_first]}" target="{shapes[e.at_second]}"/></y:PolyLineEdge></data></edge>'
        for e in edges
    ]
    head = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:y="http://www.yworks.com/xml/graphml">'
    text = f'{head}<graph edgedefault="directed">{nodes}{"".join(lines)}</graph></graphml>'
    return read_graphml(text.encode(), "g").edges


def yed_gml(edges: Edges) -> Edges:
    shapes = {"none": "none", "arrow": "standard", "circle": "circle"}
    nodes = " ".join(f'node [ id {place} label "{name}" ]' for place, name in enumerate(NAMES))
    lines = [
        f"edge [ source {NAMES.index(e.first)} target {NAMES.index(e.second)} graphics [ "
        f'sourceArrow "{shapes[e.at_first]}" targetArrow "{shapes[e.at_second]}" ] ]'
        for e in edges
    ]
    found = read_gml(f'Creator "yFiles" graph [ directed 1 {nodes} {" ".join(lines)} ]', "g").edges
    return [DrawnEdge(NAMES[int(e.first)], NAMES[int(e.second)], e.at_first, e.at_second) for e in found]


@pytest.mark.parametrize("through", [dot, dagitty, tetrad, yed, yed_gml])
@given(edges=drawn_edges())
def test_marks_come_through(through: Callable[[Edges], Edges], edges: Edges) -> None:
    assert through(edges) == edges


@given(edges=drawn_edges(), data=st.data())
def test_an_edge_is_an_arrow_oriented_or_told(edges: Edges, data: st.DataObject) -> None:
    def arrow(edge: DrawnEdge) -> list[str] | None:
        if {edge.at_first, edge.at_second} != {"none", "arrow"}:
            return None
        return [edge.first, edge.second] if edge.at_second == "arrow" else [edge.second, edge.first]

    open_edges = [edge for edge in edges if arrow(edge) is None]
    if open_edges:
        with pytest.raises(GraphError) as caught:
            directed(edges, (), NAMES, "g")
        assert all(str(edge) in str(caught.value) for edge in open_edges[:8])
    given_ways = []
    for edge in open_edges:
        ends = [edge.first, edge.second]
        allowed = [ends, ends[::-1]]
        if (edge.at_first == "arrow") != (edge.at_second == "arrow"):
            allowed = [ends if edge.at_second == "arrow" else ends[::-1]]
        given_ways.append(data.draw(st.sampled_from(allowed)))
    found = directed(edges, given_ways, NAMES, "g")
    assert found == [arrow(edge) or given_ways[open_edges.index(edge)] for edge in edges]
