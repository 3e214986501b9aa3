"""GML, as networkx, igraph, yEd, Gephi and dowhy write it: keys with numbers, texts or lists of further keys.

Source: Himsolt, GML: a portable graph file format, 1997.
"""

from __future__ import annotations

import html
import re
from typing import Any

from pyro_cama._messages import listed, shown
from pyro_cama.graph.directions import DrawnEdge, Mark
from pyro_cama.graph.drawn import Drawn
from pyro_cama.graph.schema import graph_error

_TOKEN = re.compile(
    r"""(?P<space>\s+|^\s*\#[^\n]*) | "(?P<text>[^"]*)" | (?P<number>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?![\w.]))
    | (?P<mark>[\[\]]) | (?P<key>[^\s\[\]"]+)""",
    re.X | re.M,
)
_ENTITY = re.compile(r"&(#\d+|#[xX][0-9a-fA-F]+|\w+);")
_NO_NUMBERS = ("NAN", "INF", "+INF", "-INF")
_ENDS = ("id", "source", "target")  # Gephi writes names there as they are, without quotes
_DEPTH = 100
Keys = list[tuple[str, Any]]


def read_gml(text: str, source: str) -> Drawn:
    """Reads the one graph of a GML text.

    Raises:
        GraphError: the text is no GML, or holds no graph or several.
    """
    top = _keys(text, source)
    graphs = [value for key, value in top if key == "graph" and isinstance(value, list)]
    if len(graphs) != 1:
        raise graph_error(source, f"is no valid gml file: found {len(graphs)} graphs; expected one, graph [ ... ]")
    by_yed = any(key.casefold() == "creator" and "yfiles" in str(value).casefold() for key, value in top)
    drawn = Drawn()
    groups = set()
    nodes = [_plain(value) for key, value in graphs[0] if key == "node" and isinstance(value, list)]
    edges = [_plain(value) for key, value in graphs[0] if key == "edge" and isinstance(value, list)]
    drawn.attributes = _plain([(key, value) for key, value in graphs[0] if key not in ("node", "edge", "id", "label")])
    for keys in nodes:
        if not isinstance(keys.get("id"), str | int):
            found = shown(keys.get("id"))
            raise graph_error(
                source, f"is no valid gml file: found a node with id {found}; expected one number or text"
            )
        node = str(keys.pop("id"))
        if node in drawn.nodes or node in groups:
            raise graph_error(source, f"is no valid gml file: found two nodes of id {node}; expected each once")
        if keys.get("isGroup") == 1:  # of yEd; nodes name it as their gid
            groups.add(node)
            continue
        shown_text = keys.get("LabelGraphics")
        if isinstance(shown_text, dict):
            keys.setdefault("label", shown_text.get("text"))
        drawn.nodes[node] = keys
    for keys in edges:
        first, second = ends = [str(keys.get(end, "")) for end in ("source", "target")]
        if not drawn.nodes.keys() >= {first, second}:
            expected = "ids of nodes" + (", not of a group" if groups & {first, second} else "")
            raise graph_error(
                source, f"is no valid gml file: found an edge with the ends {listed(ends)}; expected {expected}"
            )
        points = (
            str(keys.get("directed", drawn.attributes.get("directed"))) == "1"
        )  # of the edge in Gephi's mixed graphs
        drawn.edges.append(DrawnEdge(first, second, *_marks(keys.get("graphics"), points, by_yed, source)))
    return drawn


def _marks(graphics: Any, is_directed: bool, by_yed: bool, source: str) -> tuple[Mark, Mark]:
    """The marks at both ends: yEd's graphs are always directed, and what is drawn is an edge's own arrows."""
    drawn = graphics if isinstance(graphics, dict) else {}
    if "arrow" in drawn:
        where = drawn["arrow"]
        if where not in ("none", "first", "last", "both"):
            raise graph_error(source, f"found an edge with arrow {shown(where)}; expected none, first, last or both")
        return ("arrow" if where in ("first", "both") else "none"), ("arrow" if where in ("last", "both") else "none")
    if by_yed:
        return arrow_mark(drawn.get("sourceArrow", "none"), source), arrow_mark(
            drawn.get("targetArrow", "none"), source
        )
    return "none", "arrow" if is_directed else "none"


def arrow_mark(name: object, source: str) -> Mark:
    """Returns the mark that one of yEd's arrows is.

    Raises:
        GraphError: it is one that says neither cause nor effect.
    """
    arrows = ("standard", "delta", "white_delta", "plain", "short", "diamond", "white_diamond", "concave", "convex")
    marks: dict[object, Mark] = {"none": "none", "circle": "circle", "transparent_circle": "circle"}
    marks |= dict.fromkeys(arrows, "arrow")
    if not isinstance(name, str) or name not in marks:
        raise graph_error(source, f"found an edge that ends in {shown(name)}; expected none, standard or circle")
    return marks[name]


def _keys(text: str, source: str) -> Keys:
    """The keys and values of a text, lists of them nested; a key may stand more than once."""
    top: Keys = []
    stack = [top]
    key = ""
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _fault(text, place, source, "expected a key, a number, a text in quotes or a bracket")
        if match["space"] is None and match["mark"] == "]":
            if key or len(stack) == 1:
                raise _fault(
                    text, place, source, f"expected {f'a value of {key}' if key else 'no more than were opened'}"
                )
            stack.pop()
        elif match["space"] is None and not key:
            if match["key"] is None:
                raise _fault(text, place, source, "expected a key")
            key = match["key"]
        elif match["mark"]:
            if len(stack) > _DEPTH:
                raise graph_error(source, "is no valid gml file: is nested too deeply")
            inner: Keys = []
            stack[-1].append((key, inner))
            stack.append(inner)
            key = ""
        elif match["space"] is None:
            if match["key"] is not None and key not in _ENDS and match["key"] not in _NO_NUMBERS:
                raise _fault(
                    text, place, source, f"expected a number, a text in quotes or a list as the value of {key}"
                )
            stack[-1].append((key, _value(match)))
            key = ""
        place = match.end()
    if key or len(stack) > 1:
        raise graph_error(source, "is no valid gml file: found its end; expected ']' before")
    return top


def _fault(text: str, place: int, source: str, expected: str) -> Exception:
    line = text.count("\n", 0, place) + 1
    return graph_error(
        source, f"is no valid gml file: line {line}: found {shown(text[place : place + 20])}; {expected}"
    )


def _value(match: re.Match[str]) -> Any:
    if match["text"] is not None:
        return _ENTITY.sub(lambda entity: html.unescape(entity[0]), match["text"])
    number = match[0]
    whole = number.removeprefix("-").removeprefix("+").isdigit() and len(number) < 19
    return int(number) if whole else number if match["number"] is None else float(number)


def _plain(keys: Keys) -> dict[str, Any]:
    """The keys as a mapping, one that stands more than once with a list; networkx writes lists that way."""
    found: dict[str, list[Any]] = {}
    for key, value in keys:
        found.setdefault(key, []).append(_plain(value) if isinstance(value, list) else value)
    lists = {key: [value for value in values if value != "_networkx_list_start"] for key, values in found.items()}
    return {key: values[0] if len(found[key]) == 1 and values else values for key, values in lists.items()}
