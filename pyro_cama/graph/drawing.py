"""A picture of a causal graph: roles by column, colour and shape.

Columns from left to right: what causes the target, the target, what it causes, and what causes these beside it, the
latents among them. Those columns, the order within them and the bends of long edges are a layered layout (Sugiyama,
Tagawa and Toda, "Methods for visual understanding of hierarchical system structures", IEEE Transactions on Systems,
Man and Cybernetics 11, 1981): an edge over several columns gets a place of its own in each, and sweeps put every node
at the mean place of its neighbours, so that few edges cross and none runs through a node.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import networkx as nx

from pyro_cama._files import save_figure
from pyro_cama._html import figure_of, new_figure
from pyro_cama.graph.nodes import Blanket, Latent, Node

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch
    from matplotlib.path import Path

Point = tuple[float, float]
# inches; a unit of the axes is an inch
_SIZE = 9.0  # of the letters, in points
_HEIGHT, _GAP, _BEND = 0.30, 0.16, 0.10  # of a node, between nodes, of a long edge's place
_PAD, _MARGIN, _LEGEND = 0.16, 0.25, 0.55
_LONGEST = 36  # letters of a label
_ROUNDER = 1.15  # an ellipse of a node's height would look smaller than the others
_INK = "#30343b"
_STYLE: dict[str, tuple[str, str, str]] = {  # role: shape, filling, border; told apart without colours too
    "target": ("round", "#2f3a4f", "#2f3a4f"),
    "parent": ("square", "#d6e4f5", "#3b6fb0"),
    "child": ("pill", "#d9eedd", "#2f8a57"),
    "co-parent": ("hexagon", "#fbe6c8", "#c27c1a"),
    "parent, co-parent": ("hexagon", "#d6e4f5", "#3b6fb0"),
    "z": ("ellipse", "#ffffff", "#7a5ea8"),
    "m": ("ellipse", "#ffffff", "#b8403a"),
    "u": ("ellipse", "#ffffff", "#7c8088"),
    "outside the model": ("square", "#f4f4f4", "#b5b8bd"),
}
_MEANING = {"z": "style, latent", "m": "manipulation, latent", "u": "confounder, latent"}


class Drawable(Protocol):
    """What is drawn of a :class:`CausalGraph`."""

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The observed variables by name."""

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Pairs of cause and effect."""

    @property
    def target(self) -> str:
        """The node to predict."""

    @property
    def order(self) -> tuple[str, ...]:
        """The nodes of the model."""

    @property
    def blanket(self) -> Blanket:
        """The target's Markov blanket."""

    @property
    def z(self) -> Latent | None:
        """The style."""

    @property
    def manipulations(self) -> tuple[Latent, ...]:
        """The manipulations."""

    @property
    def latents(self) -> tuple[Latent, ...]:
        """The style and the manipulations."""


@dataclass(frozen=True)
class _Box:
    """A node's place: its middle, its size and the width of its column."""

    x: float
    y: float
    width: float
    height: float
    column: float = 0.0


def draw_graph(
    graph: Drawable, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None, kept: bool | None = None
) -> Axes:
    """Draws a graph: target, parents, children, co-parents and latents told apart by colour and shape.

    Nodes outside the target's Markov blanket are grey. Dashed edges come from the latents.

    Args:
        path: where to write the picture, if anywhere; the suffix says the format (.png, .svg, .pdf).
        ax: matplotlib axes to draw on; left out, those of a new figure that grows with the graph.
        kept: whether pyplot keeps a new figure, so that a notebook shows it; by default unless it is written.

    Raises:
        OSError: the picture cannot be written.
        ValueError: matplotlib knows no such format.

    >>> from pyro_cama import CausalGraph
    >>> graph = CausalGraph({"target": "y", "nodes": {"y": "binary", "x": "count"}, "edges": ["y -> x"]})
    >>> sorted(text.get_text() for text in draw_graph(graph, kept=False).texts)[:3]
    ['child', 'm', 'manipulation, latent']
    """

    roles, boxes, ways, (width, height) = _layout(graph)
    present = [role for role in _STYLE if role in roles.values()]
    legend, legend_width = _legend(present)
    wide, tall = max(width, legend_width) + 2 * _MARGIN, height + _LEGEND + 2 * _MARGIN
    if ax is None:
        figure = new_figure(wide, tall, kept=path is None if kept is None else kept)
        figure.set_layout_engine("none")
        figure.set_facecolor("white")
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0), frameon=False)
    else:
        axis = ax
        axis.set_aspect("equal")
    axis.set_axis_off()
    axis.set_xlim(0, wide)
    axis.set_ylim(0, tall)
    left = (wide - width) / 2
    for edge, way in ways.items():
        _edge(axis, [(x + left, y + _MARGIN) for x, y in way], roles[edge[0]], roles[edge[1]])
    for name, box in boxes.items():
        _node(axis, _label(name), roles[name], _Box(box.x + left, box.y + _MARGIN, box.width, box.height))
    for role, start in zip(present, legend, strict=True):
        x, y = (wide - legend_width) / 2 + start, tall - _MARGIN - 0.1
        _node(axis, "", role, _Box(x + 0.17, y, 0.34, 0.19))
        _text(axis, x + 0.42, y, _MEANING.get(role, role), color=_INK, ha="left", size=_SIZE - 0.5)
    if path is not None:
        save_figure(figure_of(axis), path, dpi=150)
    return axis


def _layout(
    graph: Drawable,
) -> tuple[dict[str, str], dict[str, _Box], dict[tuple[str, str], list[Point]], Point]:
    """Role and place of every node, the points of every edge, and the size of it all."""
    roles = _roles(graph)
    drawn = _drawn(graph)
    columns, chains = _layers(drawn, _ranks(graph, drawn))
    boxes, bends, size = _placed(columns, roles)
    return roles, boxes, _ways(chains, boxes, bends, roles), size


def _roles(graph: Drawable) -> dict[str, str]:
    blanket = graph.blanket
    roles = dict.fromkeys(graph.nodes, "outside the model")
    roles |= dict.fromkeys(blanket.coparents, "co-parent") | dict.fromkeys(blanket.parents, "parent")
    roles |= {name: "parent, co-parent" for name in blanket.parents if name in blanket.coparents}
    roles |= dict.fromkeys(blanket.children, "child") | {graph.target: "target"}
    roles |= {latent.confounder: "u" for latent in graph.manipulations if latent.confounder is not None}
    return roles | {latent.name: "m" if latent.manipulation else "z" for latent in graph.latents}


def _drawn(graph: Drawable) -> nx.DiGraph[str]:
    """Nodes and latents, in an order that the picture keeps where nothing else decides."""
    drawn: nx.DiGraph[str] = nx.DiGraph()
    drawn.add_nodes_from(graph.nodes)
    drawn.add_edges_from(graph.edges)
    for latent in graph.latents:
        drawn.add_edges_from((latent.name, child) for child in latent.children)
        drawn.add_edges_from((parent, latent.name) for parent in latent.parents)
        if latent.confounder is not None:
            drawn.add_edges_from((latent.confounder, effect) for effect in (graph.target, latent.name))
    return drawn


def _ranks(graph: Drawable, drawn: nx.DiGraph[str]) -> dict[str, int]:
    """The column of every node: causes of the target below 0, effects above, and right of these all others."""
    target = graph.target
    effects, causes = nx.descendants(drawn, target), nx.ancestors(drawn, target)
    order = list(nx.topological_sort(drawn))
    ranks = {target: 0}
    for name in order:
        if name in effects:
            ranks[name] = 1 + max(ranks[cause] for cause in drawn.predecessors(name) if cause in {target, *effects})
    for name in reversed(order):
        if name in causes:
            ranks[name] = -1 + min(ranks[effect] for effect in drawn.successors(name) if effect in {target, *causes})
    last = max(ranks[name] for name in graph.order if name in ranks)
    for name in reversed(order):  # the arrows of these go from right to left
        if name not in ranks:
            ranks[name] = 1 + max([last, *(ranks[effect] for effect in drawn.successors(name))])
    return ranks


def _layers(drawn: nx.DiGraph[str], ranks: dict[str, int]) -> tuple[list[list[Any]], dict[tuple[str, str], list[Any]]]:
    """The columns, each an ordered list of nodes and of long edges' places, and every edge's way through them."""
    first = min(ranks.values())
    columns: list[list[Any]] = [[] for _ in range(max(ranks.values()) - first + 1)]
    for name in drawn.nodes:
        columns[ranks[name] - first].append(name)
    chains: dict[tuple[str, str], list[Any]] = {}
    near: dict[Any, list[Any]] = {name: [] for name in drawn.nodes}
    for cause, effect in drawn.edges:
        step = 1 if ranks[cause] < ranks[effect] else -1
        chain: list[Any] = [cause]
        for rank in range(ranks[cause] + step, ranks[effect], step):
            # the long edges of one cause share a place wherever they pass on: a bundle is easier to follow
            place = ("bend", cause, rank, step)
            if place not in near:
                columns[rank - first].append(place)
                near[place] = []
            chain.append(place)
        chain.append(effect)
        chains[cause, effect] = chain
        for one, other in itertools.pairwise(chain):
            near[one].append(other)
            near[other].append(one)
    for sweep in range(12):
        for i in range(len(columns)) if sweep % 2 == 0 else reversed(range(len(columns))):
            place_of = {item: place - len(column) / 2 for column in columns for place, item in enumerate(column)}
            columns[i].sort(key=lambda item: _mean([place_of[other] for other in near[item]], place_of[item]))
    return columns, chains


def _mean(places: list[float], default: float) -> float:
    return sum(places) / len(places) if places else default


def _placed(
    columns: list[list[Any]], roles: dict[str, str]
) -> tuple[dict[str, _Box], dict[Any, tuple[Point, Point]], Point]:
    """Boxes of the nodes, the two ends of every bend, and the size of it all."""
    heights = [sum(_HEIGHT if item in roles else _BEND for item in column) for column in columns]
    gaps = [_GAP * max(0, len(column) - 1) for column in columns]
    height = max(h + g for h, g in zip(heights, gaps, strict=True))
    boxes: dict[str, _Box] = {}
    bends: dict[Any, tuple[Point, Point]] = {}
    x = 0.0
    for i, column in enumerate(columns):
        widths = {item: _width(_label(item), roles[item]) for item in column if item in roles}
        wide = max(widths.values(), default=0.2)
        # short columns spread a little, for the edges' sake
        room = height - heights[i] - gaps[i]
        extra = min(_GAP * 1.5, room / max(1, len(column) - 1)) if len(column) > 1 else 0.0
        y = (height + heights[i] + gaps[i] + extra * (len(column) - 1)) / 2
        for item in column:
            own = _HEIGHT if item in roles else _BEND
            if item in roles:
                boxes[item] = _Box(x + wide / 2, y - own / 2, widths[item], _HEIGHT, wide)
            else:
                bends[item] = ((x, y - own / 2), (x + wide, y - own / 2))
            y -= own + _GAP + extra
        tallest = max(len(column), len(columns[min(i + 1, len(columns) - 1)]))
        x += wide + 0.55 + min(1.1, 0.05 * tallest)  # steep edges need room
    last = 0.55 + min(1.1, 0.05 * len(columns[-1]))
    return boxes, bends, (x - last, height)


def _label(name: str) -> str:
    text = " ".join(name.split()) or repr(name)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _width(label: str, role: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    weight = "bold" if role == "target" else "normal"
    extent, _, _ = text_to_path.get_text_width_height_descent(label, FontProperties(size=_SIZE, weight=weight), False)
    sides = {"hexagon": 0.14, "ellipse": 0.14}.get(_STYLE[role][0], 0.0)
    return max(0.5, float(extent) / 72 + 2 * _PAD + sides)


def _node(axis: Axes, label: str, role: str, box: _Box) -> None:
    axis.add_patch(_patch(role, box))
    if label:
        bold = role == "target"
        ink = "white" if bold else "#686b70" if role == "outside the model" else _INK
        _text(axis, box.x, box.y, label, color=ink, ha="center", weight="bold" if bold else "normal")


def _patch(role: str, box: _Box) -> Patch:
    from matplotlib.patches import Ellipse, FancyBboxPatch, Polygon

    shape, filling, border = _STYLE[role]
    look: dict[str, Any] = {"facecolor": filling, "edgecolor": border, "linewidth": 1.3, "zorder": 3}
    x, y, w, h = box.x - box.width / 2, box.y - box.height / 2, box.width, box.height
    if shape == "ellipse":
        return Ellipse((box.x, box.y), w, h * _ROUNDER, linestyle=(0, (3, 2)), **look)
    if shape == "hexagon":
        tip = h / 3
        corners = [(x, box.y), (x + tip, y), (x + w - tip, y), (x + w, box.y), (x + w - tip, y + h), (x + tip, y + h)]
        return Polygon(corners, closed=True, **look)
    rounding = {"square": "square,pad=0", "pill": f"round,pad=0,rounding_size={h / 2}"}
    return FancyBboxPatch((x, y), w, h, boxstyle=rounding.get(shape, f"round,pad=0,rounding_size={h / 5}"), **look)


def _text(axis: Axes, x: float, y: float, text: str, *, size: float = _SIZE, **look: Any) -> None:
    axis.text(x, y, text, size=size, va="center_baseline", zorder=4, parse_math=False, **look)


def _ways(
    chains: dict[tuple[str, str], list[Any]],
    boxes: dict[str, _Box],
    bends: dict[Any, tuple[Point, Point]],
    roles: dict[str, str],
) -> dict[tuple[str, str], list[Point]]:
    """The points of every edge, from border to border, in pairs: level stretches, and a curve from each to the next.

    What leaves a side of a node, what comes from observed causes, from z and from m meet the border at places of their
    own, so that no arrow seems to point both ways.
    """
    ports: dict[tuple[str, int], dict[str, list[float]]] = {}
    ends = {}
    for (cause, effect), chain in chains.items():
        way = 1 if boxes[cause].x < boxes[effect].x else -1
        inner = [point for place in chain[1:-1] for point in bends[place][::way]]
        first, last = [(boxes[cause].x, boxes[cause].y), *inner][-1], [*inner, (boxes[effect].x, boxes[effect].y)][0]
        kind = roles[cause] if roles[cause] in _MEANING else "in"
        ends[cause, effect] = way, kind, inner
        ports.setdefault((cause, way), {}).setdefault("out", []).append(last[1])
        ports.setdefault((effect, -way), {}).setdefault(kind, []).append(first[1])
    height: dict[tuple[str, int, str], float] = {}
    for (name, side), kinds in ports.items():
        ordered = sorted(kinds, key=lambda kind: _mean(kinds[kind], 0.0))
        for i, kind in enumerate(ordered):
            height[name, side, kind] = (i - (len(ordered) - 1) / 2) * 0.24 * _HEIGHT
    ways = {}
    for (cause, effect), (way, kind, inner) in ends.items():
        start = _border(boxes[cause], roles[cause], way, height[cause, way, "out"])
        end = _border(boxes[effect], roles[effect], -way, height[effect, -way, kind])
        leave = boxes[cause].x + way * boxes[cause].column / 2, start[1]
        reach = boxes[effect].x - way * boxes[effect].column / 2, end[1]
        ways[cause, effect] = [start, leave, *inner, reach, end]
    return ways


def _border(box: _Box, role: str, side: int, up: float) -> Point:
    """The point of a node's left (-1) or right (1) border that lies ``up`` above its middle."""
    shape, half = _STYLE[role][0], box.height / 2
    inset = 0.0
    if shape == "pill":
        inset = half - (half**2 - up**2) ** 0.5
    elif shape == "hexagon":
        inset = box.height / 3 * abs(up) / half
    elif shape == "ellipse":
        inset = box.width / 2 * (1 - (1 - (up / (half * _ROUNDER)) ** 2) ** 0.5)
    return box.x + side * (box.width / 2 - inset), box.y + up


def _edge(axis: Axes, stops: list[Point], cause: str, effect: str) -> None:
    """An arrow; ``cause`` and ``effect`` are roles."""
    from matplotlib.patches import FancyArrowPatch

    hidden, outside = cause in _MEANING, "outside the model" in (cause, effect)
    axis.add_patch(
        FancyArrowPatch(
            path=_curve(stops),
            arrowstyle="-|>,head_length=4.5,head_width=2.0",
            color="#b5b8bd" if outside else _STYLE[cause][2],
            linewidth=0.7 if hidden else 1.0,
            linestyle=(0, (4, 2.5)) if hidden else "-",
            alpha=0.8 if hidden else 1.0,
            capstyle="butt",
            joinstyle="miter",
            zorder=1 if hidden else 2,
        )
    )


def _curve(stops: list[Point]) -> Path:
    """Smooth between columns, level within them."""
    from matplotlib.path import Path

    points, codes = [stops[0]], [Path.MOVETO]
    for number, ((x0, y0), (x1, y1)) in enumerate(itertools.pairwise(stops)):
        if number % 2 == 0:
            if abs(x1 - x0) > 0.01:  # an arrow's head needs a direction
                points.append((x1, y1))
                codes.append(Path.LINETO)
        else:
            middle = (x0 + x1) / 2
            points += [(middle, y0), (middle, y1), (x1, y1)]
            codes += [Path.CURVE4] * 3
    return Path(points, codes)


def _legend(present: list[str]) -> tuple[list[float], float]:
    """Where every entry of the legend starts, and how wide all are, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    starts, x = [], 0.0
    for role in present:
        starts.append(x)
        text = _MEANING.get(role, role)
        extent, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=_SIZE - 0.5), False)
        x += 0.42 + float(extent) / 72 + 0.3
    return starts, x - 0.3
