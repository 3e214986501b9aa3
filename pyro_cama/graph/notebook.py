"""What a notebook shows of a causal graph: a picture, and the roles of its nodes."""

from __future__ import annotations

from pyro_cama import _html
from pyro_cama._messages import listed
from pyro_cama.graph.drawing import Drawable, draw_graph

_MOST = 60  # nodes in a picture


def graph_html(graph: Drawable) -> str:
    """Returns a graph as HTML."""
    return _html.card(f"CausalGraph, target {graph.target!r}", graph_picture(graph), _html.table(role_rows(graph)))


def graph_picture(graph: Drawable) -> str:
    """Returns the picture, of a graph that is small enough for one."""
    if len(graph.nodes) > _MOST:
        return ""
    name = f"causal graph of {graph.target}, {len(graph.nodes)} nodes, {len(graph.edges)} edges"
    return _html.picture(_html.figure_of(draw_graph(graph, kept=False)), name, paper=True)


def role_rows(graph: Drawable) -> list[tuple[str, str]]:
    """Returns roles and who has them; latents with what they are."""
    blanket, outside = graph.blanket, [name for name in graph.nodes if name not in graph.order]
    rows = [
        ("target", f"{graph.target}: {listed(map(str, graph.nodes[graph.target].levels or ()))}"),
        ("parents", ", ".join(blanket.parents)),
        ("children", ", ".join(blanket.children)),
        ("co-parents", ", ".join(blanket.coparents)),
        ("not used", ", ".join(outside)),
    ]
    if graph.z is not None:
        rows.append(("style", f"{graph.z.name}, dim {graph.z.dim}, effect {graph.z.effect}"))
    for m in graph.manipulations:
        kinds = ", ".join(sorted(set(m.mechanism.values())))
        rows.append(("manipulation", f"{m.name}, dim {m.dim}, scope {m.scope}, by {kinds}"))
        if m.goes_with_class:
            rows.append(("its cause", m.confounder or graph.target))
    return [(role, who) for role, who in rows if who]
