"""The independences that a graph implies (d-separation, Pearl 1988), and the nodes that explain the rejected ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_cama.graph.causal_graph import CausalGraph

Array: TypeAlias = NDArray[np.float64]
Edge: TypeAlias = tuple[str, str]


def _dag(graph: CausalGraph) -> nx.DiGraph[str]:
    """Returns the declared graph, with the style as a node of its own."""
    dag: nx.DiGraph[str] = nx.DiGraph(graph.edges)
    dag.add_nodes_from(graph.nodes)
    if graph.z is not None:
        dag.add_edges_from((graph.z.name, child) for child in graph.z.children)
    return dag


def separable(graph: CausalGraph) -> tuple[list[tuple[str, str, tuple[str, ...]]], tuple[Edge, ...]]:
    """Returns the pairs without an edge, with observed nodes that separate each, and the pairs that none separate."""
    dag = _dag(graph)
    place = {name: i for i, name in enumerate(graph.order)}
    found, untested = [], []
    for i, a in enumerate(graph.order):
        for b in graph.order[i + 1 :]:
            if dag.has_edge(a, b):
                continue
            observed = set(graph.order) - {a, b}
            given = nx.find_minimal_d_separator(dag, a, b, restricted=observed)
            if given is None:
                untested.append((a, b))
            else:
                found.append((a, b, tuple(sorted(given, key=place.__getitem__))))
    return found, tuple(untested)


def find_suspects(graph: CausalGraph, rejected: pd.DataFrame) -> tuple[tuple[str, ...], dict[int, tuple[str, ...]]]:
    """Returns a few nodes that explain all rejected independences, and whom each of these is blamed on.

    A node that depends on the target with nothing given is declared in the wrong role, whatever else is rejected.  Of
    what this does not explain, the node with most rejections goes first.  A suspect explains the rejections that it
    takes part in, and those that follow: once each of its own pairs has a common cause, the graph implies them no more.
    """
    tests = {int(i): (a, b, given) for i, a, b, given in implied_pairs(rejected)}
    strength = dict(zip(rejected.index, rejected["effect"], strict=True))
    target = graph.target
    # given others, the fault may be theirs: a node declared a parent that is a child opens a path between two causes
    suspects = [a if b == target else b for a, b, given in tests.values() if target in (a, b) and not given]
    blamed: dict[int, tuple[str, ...]] = {}

    def settle() -> None:
        repaired = _dag(graph)
        for i, (a, b, _) in tests.items():
            if blame := tuple(name for name in (a, b) if name in suspects):
                blamed[i] = blame
                repaired.add_edges_from((f"{a} and {b}", name) for name in (a, b))
        for i, (a, b, given) in tests.items():
            if i not in blamed and not nx.is_d_separator(repaired, {a}, {b}, set(given)):
                blamed[i] = tuple(suspects)

    settle()
    while left := {i: pair for i, pair in tests.items() if i not in blamed}:
        score: dict[str, tuple[int, float]] = {}
        for i, (a, b, _) in left.items():
            for name in {a, b} - {target}:
                times, total = score.get(name, (0, 0.0))
                score[name] = (times + 1, total + strength[i])
        best = max(score, key=lambda name: (*score[name], name))
        alone = [name for name in next(iter(left.values()))[:2] if name != target]
        suspects += [best] if score[best][0] > 1 else alone  # either end of a pair by itself explains it
        settle()
    return tuple(name for name in graph.order if name in suspects), blamed


def implied_pairs(tests: pd.DataFrame) -> Iterator[tuple[Any, str, str, tuple[str, ...]]]:
    """Yields the number of each tested independence, its two nodes, and the names conditioned on."""
    return zip(tests.index, tests["from"], tests["to"], tests["given"], strict=True)


def by_suspect(suspects: tuple[str, ...], blamed: dict[int, tuple[str, ...]]) -> dict[str, list[int]]:
    """Returns the rejected tests of each suspect; two that share a lone pair are reported once."""
    found: dict[str, list[int]] = {}
    told: set[int] = set()
    for name in suspects:
        tests = [i for i, names in blamed.items() if name in names]
        if set(tests) - told:
            found[name] = tests
            told |= set(tests)
    return found


def holm_adjusted(p: Array) -> Array:
    """Returns p-values adjusted by Holm's step-down method; NaN are no tests."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
