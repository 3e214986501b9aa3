"""Rows from a random nonlinear structural causal model over any causal graph, with exact interventions.

The paper's experiments on measurements (section 4.2) need such data and do not publish their equations; these are our
own, drawn at random from a seed. Every observed node of the graph is simulated, inside the target's Markov blanket or
not. The style z ~ N(0, I) is drawn and hidden; the manipulation m is at rest, as interventions take its place.

Embeddings. A cause enters as e: a continuous one as it is (mean 0 and sd 1 by construction), a count as log(1 + x)
standardised, both by component; a discrete one as the corners of a regular simplex, one a level; z as it is.

Signal. With its causes a node has a smooth random function, for a vector one a component, for K levels K - 1::

    f = S( sqrt(1 - r) S(sum_j w_j g_j) + sqrt(r) S(h) ),  r = 1/5

    g_j = S(a u + b tanh(c u + d)),  u = S(p . e_j)        one cause by itself
    h   = sum_k v_k tanh(B_k . e + b_k),  k = 1..8         all causes together, less what the first term says of it

S standardises to mean 0 and sd 1 on the reference, 10,000 rows drawn without interventions. p is a random direction;
a, -b, c and d are uniform on [0.5, 1], [1, 1.5], [1, 3] and [-1.5, 1.5]: line and bend oppose each other, so that
hardly any g is monotone. A discrete cause has b = 0, and p . e_j is a random order of evenly spaced scores, jittered by
up to a quarter of their gap: no two levels look alike. |w_j| is uniform on [0.5, 1.5], on [1.5, 2] if the cause is the
target, with a random sign; all of z is one cause. h needs two causes: B_k has sd 1.5 / sqrt(causes x length of e_j),
v_k and b_k sd 1.

Nodes, with noise independent of all causes::

    continuous   x = sqrt(1 - n) f + sqrt(n) N(0, 1),  n uniform on [0.2, 0.4]: mean 0, sd 1
    discrete     the level k of the largest s Q_k . f + i_k + Gumbel(0, 1);  s = 1 for the target, else 2
    count        x ~ Poisson(min(500, l exp(f / 2))),  l uniform on [3, 8]

Q is K x (K - 1), random with orthonormal columns that sum to 0, so that no two levels have the same logits. The
intercepts i_k give level k the share 0.6 / K + 0.4 q_k of the reference, q ~ Dirichlet(2, ..., 2). Without causes f = 0
and n = 1: N(0, 1), these shares, Poisson(l).

>>> from pyro_cama.simulation import Shift
>>> graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous", "w": "count"}, "edges": ["y -> x -> w"]}
>>> clean = simulate(graph, 1000, seed=0)
>>> off = simulate(graph, 1000, seed=0, do={"x": Shift(offset=1.0, affects="measurement")})
>>> (off["x"] - clean["x"]).round(9).unique().tolist(), off["w"].equals(clean["w"])
([1.0], True)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import pandas as pd

from pyro_cama._arguments import expect_whole
from pyro_cama._messages import listed, one_of, shown
from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Node
from pyro_cama.simulation.equations import REFERENCE, Array, Equation, Standard
from pyro_cama.simulation.interventions import LARGEST_COUNT, Act, Interventions, act_of

Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | nx.DiGraph[Any] | CausalGraph"
_EQUATIONS, _REFERENCE_ROWS, _ROWS = range(3)  # streams of random numbers


class StructuralModel:
    """A random structural causal model over a graph; the module's head gives its equations.

    Args:
        graph: a CausalGraph, or anything that one is made of.
        seed: draws the equations, 0 or more. The same graph and seed give the same equations.

    Attributes:
        graph: the CausalGraph.
        order: every node, causes before effects.

    Raises:
        GraphError: the graph is at fault, or holds an image.
        ValueError: the seed is no whole number of at least 0.
    """

    graph: CausalGraph
    order: tuple[str, ...]

    def __init__(self, graph: Source, seed: int = 0) -> None:
        expect_whole("StructuralModel", "seed", seed, 0)
        self.graph = graph if isinstance(graph, CausalGraph) else CausalGraph(graph)
        images = [name for name, node in self.graph.nodes.items() if node.is_image]
        if images:
            raise GraphError(
                f"{self.graph.source}: found nodes of type image, {listed(images)}; expected none: simulate serves "
                "tables only"
            )
        drawn: nx.DiGraph[str] = nx.DiGraph(self.graph.edges)
        drawn.add_nodes_from(self.graph.nodes)
        place = {name: i for i, name in enumerate(self.graph.nodes)}
        self.order = tuple(nx.lexicographical_topological_sort(drawn, key=place.__getitem__))
        self._causes = {name: [cause for cause in self.order if drawn.has_edge(cause, name)] for name in self.order}
        if z := self.graph.z:
            for child in z.children:
                self._causes[child].append(z.name)
        self._equations: dict[str, Equation] = {}
        self._log_moments: dict[str, Standard] = {}
        reference = self._style(REFERENCE, _REFERENCE_ROWS, seed)
        for i, name in enumerate(self.order):
            node = self.graph.nodes[name]
            rng = np.random.default_rng([seed, _EQUATIONS, i])
            causes = {cause: reference[cause] for cause in self._causes[name]}
            equation = Equation(node, causes, self._discrete(causes), self.graph.target, rng)
            self._equations[name] = equation
            value = equation(causes, REFERENCE, np.random.default_rng([seed, _REFERENCE_ROWS, i]))
            if node.type == "count":
                self._log_moments[name] = Standard.of(np.log1p(value))
            reference[name] = self._embedded(node, value)

    def sample(self, n: int, seed: int = 0, do: Interventions | None = None) -> pd.DataFrame:
        """Draws rows in raw units.

        The same seed gives the same rows with other interventions: each node's noise is its own, whatever is done to
        others. So two samples of a seed are counterfactual twins, and what is not caused by an intervention is
        bitwise equal in both.

        Args:
            n: number of rows.
            seed: draws the rows, 0 or more.
            do: interventions by node. A number (for a vector node also one a component) or a level sets the node,
                whatever its causes say; :class:`Shift` changes a continuous node or a count, :class:`Recode` a discrete
                one.

        Returns:
            One column a node, in the order of :attr:`order`: floats (continuous), whole numbers (count), levels
            (discrete); a vector node's entries are arrays (dim,). A scope column that is no node is not among them.

        Raises:
            ValueError: ``n`` or ``seed`` is out of range, or an intervention does not fit its node.
        """
        expect_whole("sample", "n", n)
        expect_whole("sample", "seed", seed, 0)
        acts = self._acts({} if do is None else do)
        seen = self._style(n, _ROWS, seed)  # embedded, as effects see it
        frame: dict[str, Any] = {}
        for i, name in enumerate(self.order):
            node, act = self.graph.nodes[name], acts.get(name)
            rng = np.random.default_rng([seed, _ROWS, i])
            value = self._equations[name](seen, n, rng)
            measured = value if act is None else act.change(value, rng)
            seen[name] = self._embedded(node, measured if act is not None and act.moves else value)
            if not max(np.abs(value).max(), np.abs(measured).max()) <= LARGEST_COUNT:
                raise ValueError(f"do: {name!r} expected values of at most {LARGEST_COUNT:g}, found larger ones")
            frame[name] = _column(node, measured)
        return pd.DataFrame(frame)

    def _style(self, n: int, stream: int, seed: int) -> dict[str, Array]:
        """Draws z by name, (n, dim), if there is one."""
        z = self.graph.z
        rng = np.random.default_rng([seed, stream, len(self.graph.nodes)])
        return {} if z is None else {z.name: rng.standard_normal((n, z.dim))}

    def _discrete(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if name in self.graph.nodes and self.graph.nodes[name].levels}

    def _embedded(self, node: Node, value: Array) -> Array:
        """Values as effects see them, (n, length of e)."""
        if node.levels:
            k = len(node.levels)
            corners: Array = (np.eye(k) - 1 / k) * k / np.sqrt(k - 1)
            return corners[value]
        if node.type == "count":
            value = self._log_moments[node.name](np.log1p(value))
        return value.reshape(len(value), -1)

    def _acts(self, do: Interventions) -> dict[str, Act]:
        if not isinstance(do, Mapping):
            raise ValueError(f"do: expected a mapping of node to intervention, found {shown(do)}")
        latents = {latent.name for latent in self.graph.latents}
        acts = {}
        for name, given in do.items():
            if name in latents:
                raise ValueError(
                    f"do: {name!r} expected to be a node, found a latent: z is drawn, and Shift and Recode of the "
                    "children take the place of m"
                )
            if name not in self.graph.nodes:
                raise ValueError(f"do: {name!r} {one_of(name, self.graph.nodes)}, found no such node")
            affects = "quantity" if self.graph.m is None else self.graph.m.affects.get(name, "quantity")
            acts[name] = act_of(self.graph.nodes[name], given, affects)
        return acts

    def __repr__(self) -> str:
        return f"<StructuralModel: {len(self.order)} nodes, target {self.graph.target!r}>"


def simulate(graph: Source, n: int, seed: int = 0, do: Interventions | None = None) -> pd.DataFrame:
    """Draws rows from a random structural causal model: ``StructuralModel(graph, seed).sample(n, seed, do)``.

    Equations and rows both follow from ``seed``, so the rows are the same people with and without ``do``.

    Raises:
        GraphError: the graph is at fault, or holds an image.
        ValueError: ``n`` or ``seed`` is out of range, or an intervention does not fit its node.
    """
    return StructuralModel(graph, seed).sample(n, seed, do)


def _column(node: Node, values: Array) -> Any:
    """Values as a column of raw units."""
    if node.levels:
        alike = len({type(level) for level in node.levels}) == 1
        return pd.Series([node.levels[code] for code in values], dtype=None if alike else object)
    if node.type == "count":
        values = values.astype(np.int64)
    return values if node.dim is None else list(values)
