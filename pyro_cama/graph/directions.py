"""Edges as tools draw them, with a mark at either end, and which way each points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pyro_cama._messages import listed, one_of
from pyro_cama.graph.schema import Edge, graph_error, parse_edge

Mark = Literal["none", "arrow", "circle"]
Orient = str | Iterable[str | Sequence[str]]
_LEFT = {"none": "-", "arrow": "<", "circle": "o"}
_RIGHT = {"none": "-", "arrow": ">", "circle": "o"}


class DrawnEdge(NamedTuple):
    """An edge between two nodes and the mark at either end; by default an arrow from the first to the second."""

    first: str
    second: str
    at_first: Mark = "none"
    at_second: Mark = "arrow"

    def __str__(self) -> str:
        return f"{self.first} {_LEFT[self.at_first]}-{_RIGHT[self.at_second]} {self.second}"


def reversed_edge(edge: DrawnEdge) -> DrawnEdge:
    """Returns the same edge, told from its other end."""
    return DrawnEdge(edge.second, edge.first, edge.at_second, edge.at_first)


def directed(edges: Iterable[DrawnEdge], orient: Orient, nodes: Iterable[str], source: str) -> list[list[str]]:
    """Returns every edge as [cause, effect].

    Args:
        edges: as drawn; two of them in opposite directions are one without a direction, as graphs of R have it.
        orient: what the edges without a direction shall be, ``"a -> b"`` or ``["a", "b"]``.
        nodes: the names that ``orient`` may use.
        source: where the graph comes from, for messages.

    Raises:
        GraphError: edges are left without a direction, or ``orient`` does not fit the edges.
    """
    drawn = _joined([reversed_edge(edge) if _is_back(edge) else edge for edge in edges])
    known = list(nodes)
    faults = []
    for cause, effect in _orientations(orient, source):
        unknown = [name for name in dict.fromkeys((cause, effect)) if name not in known]
        places = [i for i, edge in enumerate(drawn) if {edge.first, edge.second} == {cause, effect}]
        if unknown:
            faults += [
                f"orient {cause} -> {effect}: found {name!r}, no node; {one_of(name, known)}" for name in unknown
            ]
        elif not places:
            faults.append(
                f"orient {cause} -> {effect}: found no edge between the two; expected one to give a direction to"
            )
        elif not all(_allows(drawn[i], cause) for i in places):
            faults.append(
                f"orient {cause} -> {effect}: found {drawn[places[0]]}; expected an edge that allows it: edit the file"
            )
        else:
            for i in places:
                drawn[i] = DrawnEdge(cause, effect)
    open_ones = [edge for edge in drawn if not _is_arrow(edge)]
    if open_ones:
        a, b = open_ones[0].first, open_ones[0].second
        hidden = (
            ". Two arrowheads stand for a hidden common cause, which z is where the target causes both"
            if any(edge.at_first == edge.at_second == "arrow" for edge in open_ones)
            else ""
        )
        faults.append(
            f"edges: found no direction in {listed(map(str, open_ones))}; expected each from cause to effect: edit the "
            f"file, or say which way, as in CausalGraph(..., orient=['{a} -> {b}']) or pyro-cama init TABLE --graph "
            f"FILE --orient '{a} -> {b}'{hidden}"
        )
    if faults:
        raise graph_error(source, faults)
    return [[edge.first, edge.second] for edge in drawn]


def _joined(edges: list[DrawnEdge]) -> list[DrawnEdge]:
    """The edges with each pair of arrows in opposite directions as one edge without a direction."""
    arrows = {(edge.first, edge.second) for edge in edges if _is_arrow(edge) and edge.first != edge.second}
    both = {frozenset(pair) for pair in arrows if pair[::-1] in arrows}
    found: list[DrawnEdge] = []
    seen = set()
    for edge in edges:
        pair = frozenset((edge.first, edge.second))
        if pair in both and _is_arrow(edge):
            if pair not in seen:
                found.append(DrawnEdge(edge.first, edge.second, "none", "none"))
            seen.add(pair)
        else:
            found.append(edge)
    return found


def _orientations(orient: Orient, source: str) -> list[Edge]:
    given = [orient] if isinstance(orient, str) else list(orient)
    pairs: list[Edge] = []
    for entry in given:
        try:
            pairs += parse_edge(list(entry) if isinstance(entry, tuple) else entry)
        except ValueError as error:
            raise graph_error(source, f"orient: {error}") from None
    for cause, effect in pairs:
        if (effect, cause) in pairs:
            raise graph_error(
                source, f"orient: found {cause} -> {effect} and {effect} -> {cause}; expected one of them"
            )
    return pairs


def _is_arrow(edge: DrawnEdge) -> bool:
    return edge.at_first == "none" and edge.at_second == "arrow"


def _is_back(edge: DrawnEdge) -> bool:
    return edge.at_first == "arrow" and edge.at_second == "none"


def _allows(edge: DrawnEdge, cause: str) -> bool:
    """Whether an edge may be an arrow from ``cause``: an arrowhead there forbids it, unless both ends have one."""
    at_cause = edge.at_first if edge.first == cause else edge.at_second
    return at_cause != "arrow" or edge.at_first == edge.at_second
