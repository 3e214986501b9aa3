"""The causal graph: nodes, edges, latents and the Markov blanket of the target.

:mod:`pyro_cama.graph` says what a graph file holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import networkx as nx

from pyro_cama._files import replacing
from pyro_cama._messages import listed, one_of
from pyro_cama.graph.confounding import apart, with_causes
from pyro_cama.graph.directions import Orient
from pyro_cama.graph.formats import read_graph
from pyro_cama.graph.latents import declared_latents, resolve_latents, taken_together
from pyro_cama.graph.nodes import Blanket, Latent, Node
from pyro_cama.graph.schema import Edge, GraphSpec, NodeSpec, graph_error, validated
from pyro_cama.graph.yaml_text import dump_yaml, parse_yaml, quoted_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class CausalGraph:
    """A validated causal graph with one target.

    Args:
        source: a file, a mapping in the form of the YAML file (see :mod:`pyro_cama.graph`), a networkx graph, or a
            CausalGraph.  A file is .yaml or .yml; .gml, .graphml, .dot or .gv; dagitty's or TETRAD's text in .txt or
            .dagitty; .bif, .net (Hugin), .xmlbif or .xdsl (GeNIe); or one of these with .gz.
        target: replaces the target that the source names.
        data: a table (``pandas.DataFrame``); a node without a type has the one that its column seems to be, as in
            ``pyro-cama init``.
        orient: which way edges point that the source gives no direction, such as ``["a -> b"]``.
        latents: replaces those that the source names.

    In a networkx graph, GML, GraphML and DOT the keys of a node are its attributes; ``target`` and ``latents`` are
    attributes of the graph, or ``target`` is true at the node.  ``levels`` and ``shape`` may be text,
    ``benign,malignant`` or a YAML list, and ``latents`` YAML text.  Other attributes, such as labels, positions and
    colours, are ignored, but for what seems a misspelt key.  A node is called by its id; or by its label (``label``,
    ``name``, ``shared name``, yEd's own) where labels are the table's columns and ids are not, or where the target is
    one of the labels and no id.  Edges have the arrows that are drawn (DOT's dir, arrowhead and arrowtail, yEd's
    arrows), and each has to be an arrow from cause to effect, or ``orient`` has to say which way it goes.

    Attributes:
        nodes: every :class:`Node` by name, as declared.
        edges: (cause, effect), in the order in which the nodes are declared.
        target: the name of the node to predict.
        z: the latent style, or None.
        m: the latent manipulation, or None; of a graph with several, all of them taken together.
        manipulations: each of them, in the order written.
        blanket: the target's :class:`Blanket`.
        order: the target and its blanket in topological order, ties in the order of declaration.
        source: where the graph comes from, for messages; no part of equality.

    Raises:
        GraphError: the graph is at fault; the message names the file, the place, what was found and expected.

    >>> graph = CausalGraph({
    ...     "target": "sick",
    ...     "nodes": {"age": "continuous", "sick": "binary", "fever": "continuous"},
    ...     "edges": ["age -> sick -> fever"],
    ... })
    >>> graph
    <CausalGraph: target 'sick'; parents 'age'; children 'fever'; coparents none; latents 'z', 'm'>
    >>> graph.factorisation()
    'p(age) p(z) p(m) p(sick | age) p(fever | sick, z, m)'
    """

    nodes: dict[str, Node]
    edges: tuple[Edge, ...]
    target: str
    z: Latent | None
    m: Latent | None
    manipulations: tuple[Latent, ...]
    blanket: Blanket
    order: tuple[str, ...]
    source: str

    def __init__(
        self,
        source: str | os.PathLike[str] | Mapping[str, Any] | nx.Graph[Any] | CausalGraph,
        *,
        target: str | None = None,
        data: pd.DataFrame | Mapping[str, Any] | None = None,
        orient: Orient = (),
        latents: Mapping[str, Any] | None = None,
    ) -> None:
        given: Any = source.to_dict() if isinstance(source, CausalGraph) else source
        raw, name = read_graph(given, target=target, data=data, orient=orient, latents=latents)
        name = source.source if isinstance(source, CausalGraph) else name
        self._build(validated(raw, name), name)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        target: str | None = None,
        *,
        data: pd.DataFrame | Mapping[str, Any] | None = None,
        orient: Orient = (),
        latents: Mapping[str, Any] | None = None,
    ) -> Self:
        """Reads a graph from a file, as ``CausalGraph(path, ...)`` does, and from nothing else.

        Raises:
            GraphError: the graph is at fault.
        """
        return cls(Path(path), target=target, data=data, orient=orient, latents=latents)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Reads a graph from YAML text.

        Raises:
            GraphError: the graph is at fault.

        >>> CausalGraph.from_yaml('''
        ... target: sick
        ... nodes: {sick: binary, pulse: count, fever: continuous}
        ... edges: [sick -> pulse, sick -> fever]
        ... latents: {z: null}
        ... ''').blanket.children
        ('pulse', 'fever')
        """
        graph = cls.__new__(cls)
        graph._build(validated(parse_yaml(text, "<yaml>"), "<yaml>"), "<yaml>")
        return graph

    @classmethod
    def from_bif(cls, path: str | os.PathLike[str], target: str, *, latents: Mapping[str, Any] | None = None) -> Self:
        """Reads a graph from a BIF file, whatever its suffix; see ``CausalGraph``.

        Args:
            path: the file, plain or gzipped; rows of its network come from :func:`pyro_cama.bayes_nets.sample_bif`.
            target: the variable to predict, one with effects.
            latents: as in a graph file; left out, z and m cause every child.

        Raises:
            GraphError: no such file, no BIF, no such variable, or a target that causes nothing.
        """
        raw, name = read_graph(path, target=target, latents=latents, suffix=".bif")
        graph = cls.__new__(cls)
        graph._build(validated(raw, name), name)
        return graph

    def _build(self, spec: GraphSpec, source: str) -> None:
        self.source = source
        self.nodes = {name: _node(name, node) for name, node in spec.nodes.items()}
        spec, behind = apart(spec)
        self.edges = _edges(spec, source)
        graph = nx.DiGraph(self.edges)
        graph.add_nodes_from(self.nodes)
        if not nx.is_directed_acyclic_graph(graph):
            path = [cause for cause, _ in nx.find_cycle(graph)]
            path.append(path[0])
            cycle = " -> ".join(path)
            raise graph_error(source, f"edges: found the cycle {cycle}; expected none: remove one of its edges")
        self.target = _target(spec, graph, source)
        place = {name: i for i, name in enumerate(self.nodes)}
        ordered = list(nx.lexicographical_topological_sort(graph, key=place.__getitem__))

        def by_order(names: Iterable[str]) -> tuple[str, ...]:
            chosen = set(names)
            return tuple(name for name in ordered if name in chosen)

        children = set(graph.successors(self.target))
        causes = {cause for child in children for cause in graph.predecessors(child)}
        self.blanket = Blanket(
            parents=by_order(graph.predecessors(self.target)),
            children=by_order(children),
            coparents=by_order(causes - children - {self.target}),
        )
        self.order = by_order(causes | children | set(graph.predecessors(self.target)))
        self.z, manipulations = resolve_latents(spec.latents, self.nodes, self.target, self.blanket, source)
        self.manipulations = with_causes(manipulations, behind, self.z, self.target, self.nodes, source)
        self.m = taken_together(self.manipulations)

    def parents_of(self, name: str) -> tuple[str, ...]:
        """Returns the observed causes of a node within :attr:`order`, in its order.

        Raises:
            GraphError: there is no such node.
        """
        if name not in self.nodes:
            raise graph_error(self.source, f"found {name!r}, no node; {one_of(name, self.nodes)}")
        edges = set(self.edges)
        return tuple(cause for cause in self.order if (cause, name) in edges)

    @property
    def latents(self) -> tuple[Latent, ...]:
        """The style and the manipulations."""
        return (*(() if self.z is None else (self.z,)), *self.manipulations)

    @property
    def site_column(self) -> str | None:
        """The column whose every value has an m of its own; None where no manipulation has such a scope."""
        return next((latent.site_column for latent in self.manipulations if latent.site_column is not None), None)

    def require_m(self) -> Latent:
        """Returns the manipulation :attr:`m` of a graph that has to have one.

        Raises:
            GraphError: it has none (``m: null``).
        """
        if self.m is None:
            raise graph_error(
                self.source,
                "found no manipulation, m is null; expected one: leave 'm: null' out, or declare a latent with "
                "manipulation: true",
            )
        return self.m

    def factorisation(self) -> str:
        """Returns the joint density of :attr:`order` and the latents as text: causes, latents, effects."""
        latents = self.latents
        first: list[str] = []
        then: list[str] = []
        for name in self.order:
            given = sorted(self.parents_of(name), key=lambda cause: cause != self.target)
            given += [latent.name for latent in latents if name in latent.children]
            factor = f"p({name} | {', '.join(given)})" if given else f"p({name})"
            (then if given or name == self.target else first).append(factor)
            if name == self.target:
                then += [f"p({latent.name} | {name})" for latent in latents if latent.goes_with_class]
        alone = [f"p({latent.name})" for latent in latents if not latent.goes_with_class]
        return " ".join([*first, *alone, *then])

    def to_dict(self) -> dict[str, Any]:
        """Returns the graph in the form of the YAML file, nothing left to defaults."""
        nodes = {}
        for name, node in self.nodes.items():
            keys = {key: getattr(node, key) for key in ("type", "dim", "levels", "shape", "channels", "likelihood")}
            keys["size"] = None if node.size == "small" else node.size
            keys["scale"] = None if node.scale == "auto" else node.scale
            nodes[name] = {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in keys.items()
                if value is not None
            }
        edges = [list(edge) for edge in self.edges]
        return {
            "target": self.target,
            "nodes": nodes,
            "edges": edges,
            "latents": declared_latents(self.z, self.manipulations, self.target),
        }

    def to_yaml(self, path: str | os.PathLike[str] | None = None) -> str:
        """Returns the graph as YAML text, written to ``path`` too if given, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        text = dump_yaml(self.to_dict())
        if path is not None:
            with replacing(Path(path)) as part:
                part.write_text(text, encoding="utf-8", newline="\n")
        return text

    def to_networkx(self) -> nx.DiGraph[str]:
        """Returns a networkx graph: attributes of nodes are their keys, ``target`` and ``latents`` the graph's own.

        Lists and latents are YAML text, and the target's node has both keys too: what networkx writes of it as GML,
        GraphML or DOT, which has no attributes of graphs there, reads as this graph.
        """
        raw = self.to_dict()
        of_graph = {"target": raw["target"], "latents": quoted_text(raw["latents"])}
        graph: nx.DiGraph[str] = nx.DiGraph(**of_graph)
        for name, keys in raw["nodes"].items():
            texts = {key: quoted_text(value) if isinstance(value, list) else value for key, value in keys.items()}
            graph.add_node(name, **texts)
        graph.add_edges_from(self.edges)
        graph.nodes[self.target].update(target="true", latents=of_graph["latents"])
        return graph

    def _key(self) -> tuple[object, ...]:
        return tuple(self.nodes.values()), self.edges, self.target, self.z, self.m

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, CausalGraph) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        roles = {
            "parents": self.blanket.parents,
            "children": self.blanket.children,
            "coparents": self.blanket.coparents,
            "latents": tuple(latent.name for latent in self.latents),
        }
        text = "; ".join(f"{role} {listed(names) or 'none'}" for role, names in roles.items())
        return f"<CausalGraph: target {self.target!r}; {text}>"

    def _repr_html_(self) -> str:
        from pyro_cama.graph.notebook import graph_html

        return graph_html(self)

    def plot(self, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None) -> Axes:
        """Draws the graph, see :func:`pyro_cama.graph.draw_graph`; a notebook shows it.

        Args:
            path: where to write the picture, if anywhere; the suffix says the format (.png, .svg, .pdf).
            ax: matplotlib axes to draw on; left out, new ones.
        """
        from pyro_cama.graph.drawing import draw_graph

        return draw_graph(self, path, ax=ax)


def _node(name: str, spec: NodeSpec) -> Node:
    levels = [0, 1] if spec.type == "binary" and spec.levels is None else spec.levels
    return Node(
        name=name,
        type=spec.type,
        dim=spec.dim,
        levels=None if levels is None else tuple(levels),
        shape=None if spec.shape is None else tuple(spec.shape),
        likelihood=spec.likelihood,
        channels=spec.channels,
        size=spec.size or "small",
        scale=spec.scale or "auto",
    )


def _edges(spec: GraphSpec, source: str) -> tuple[Edge, ...]:
    """The edges in the order of the nodes, which is the same whatever form they were given in."""
    faults = []
    first: dict[Edge, int] = {}
    for number, chain in enumerate(spec.edges, 1):
        for edge in chain:
            where = f"edge {number} ({' -> '.join(edge)}): "
            unknown = [name for name in dict.fromkeys(edge) if name not in spec.nodes]
            for name in unknown:
                latent = name == edge[0] and name in {"z", "m", *spec.latents}
                hint = f"a latent; expected its effects as its children, {{{name}: {{children: [{edge[1]}]}}}}"
                faults.append(f"{where}found {name!r}, {hint if latent else f'no node; {one_of(name, spec.nodes)}'}")
            if edge[0] == edge[1] and not unknown:
                faults.append(f"{where}found a node that causes itself; expected two different nodes")
            if edge in first:
                faults.append(f"{where}found again, as in edge {first[edge]}; expected each edge once")
            first.setdefault(edge, number)
    if faults:
        raise graph_error(source, faults)
    place = {name: i for i, name in enumerate(spec.nodes)}
    return tuple(sorted(first, key=lambda edge: (place[edge[0]], place[edge[1]])))


def _target(spec: GraphSpec, graph: nx.DiGraph[str], source: str) -> str:
    """The target, checked."""
    target = spec.target
    if target not in spec.nodes:
        raise graph_error(source, f"target: found {target!r}, no node; {one_of(target, spec.nodes)}")
    kind = spec.nodes[target].type
    if kind not in ("categorical", "binary"):
        raise graph_error(
            source,
            f"target {target!r}: found type {kind}; expected categorical or binary, a class to predict",
        )
    if not graph.out_degree(target):
        parents = listed(graph.predecessors(target))
        raise graph_error(
            source,
            f"target {target!r}: found no children{f', only the parents {parents}' if parents else ''}; "
            "expected a node that it causes. Deep CAMA cannot help here: nothing is caused by the target, so "
            "nothing measured can be un-manipulated. Draw the edges from cause to effect, "
            f"'{target} -> measurement'; if it has no effects, fit a discriminative model on its parents",
        )
    return target
