"""The text that TETRAD and causal-learn print a graph as: names, then a numbered edge a line."""

from __future__ import annotations

import re

from pyro_cama._messages import shown
from pyro_cama.graph.directions import DrawnEdge, Mark
from pyro_cama.graph.drawn import Drawn
from pyro_cama.graph.schema import graph_error

_EDGE = re.compile(r"\d+\.\s+(.+?)\s+([<o-])-([>o-])\s+(.+?)(?:\s+(?:dd|nl|pd|pl))*\s*(?:;.*|\s\[.*\]:.*)?")
_ENDS: dict[str, Mark] = {"<": "arrow", ">": "arrow", "o": "circle", "-": "none"}


def is_tetrad(text: str) -> bool:
    """Returns whether a text begins as TETRAD's do."""
    return text.lstrip().startswith("Graph Nodes:")


def read_tetrad(text: str, source: str) -> Drawn:
    """Reads ``Graph Nodes:`` and ``Graph Edges:``; attributes of the graph below them say nothing here.

    Raises:
        GraphError: a line of the edges that is none, or an end that is no node.
    """
    drawn = Drawn()
    part = ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("Graph ") and ":" in bare:
            part, _, bare = (piece.strip() for piece in bare.partition(":"))
        if not bare:
            continue
        if part == "Graph Nodes":
            drawn.nodes |= {name.strip(): {} for name in re.split("[;,]", bare) if name.strip()}
        elif part == "Graph Edges":
            found = _EDGE.fullmatch(bare)
            if found is None or found[1] not in drawn.nodes or found[4] not in drawn.nodes:
                raise graph_error(
                    source, f"line {number}: found {shown(bare)}; expected an edge of the nodes, as in '1. a --> b'"
                )
            drawn.edges.append(DrawnEdge(found[1], found[4], _ENDS[found[2]], _ENDS[found[3]]))
    return drawn
