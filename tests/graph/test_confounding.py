"""Manipulations that go with the class, in graph files."""

from __future__ import annotations

from typing import Any

import pytest

from pyro_cama import CausalGraph, GraphError

NODES: dict[str, Any] = {"digit": "binary", "image": {"type": "image", "shape": [2, 16, 16]}}
COLOUR: dict[str, Any] = {"manipulation": True, "dim": 1}


def _graph(*edges: str, **latents: Any) -> CausalGraph:
    raw = {"target": "digit", "nodes": NODES, "edges": ["digit -> image", *edges], "latents": latents}
    return CausalGraph(raw)


def test_target_may_cause_a_manipulation() -> None:
    graph = _graph("digit -> colour", colour=COLOUR)
    assert graph.m is not None
    assert graph.m.parents == ("digit",)
    assert graph.m.goes_with_class
    assert graph.edges == (("digit", "image"),)
    assert graph.factorisation() == "p(z) p(digit) p(colour | digit) p(image | digit, z, colour)"


def test_edge_and_confounder_say_the_same_of_the_model() -> None:
    edge = _graph("digit -> colour", colour=COLOUR)
    confounded = _graph(colour=COLOUR, u={"causes": ["digit", "colour"]})
    assert confounded.m is not None
    assert confounded.m.confounder == "u"
    assert confounded.factorisation() == edge.factorisation()
    assert confounded != edge


def test_edge_into_the_default_manipulation() -> None:
    assert _graph("digit -> m") == _graph(m={"parents": ["digit"]})


@pytest.mark.parametrize(
    "graph",
    [_graph("digit -> colour", colour=COLOUR), _graph(colour=COLOUR, u={"causes": ["colour", "digit"]})],
    ids=["edge", "confounder"],
)
def test_comes_back_from_every_form(graph: CausalGraph, tmp_path: Any) -> None:
    assert CausalGraph(graph.to_dict()) == graph
    assert CausalGraph(graph.to_networkx()) == graph
    graph.to_yaml(tmp_path / "graph.yaml")
    assert CausalGraph(tmp_path / "graph.yaml") == graph
    graph.plot(tmp_path / "graph.svg")
    drawn = (tmp_path / "graph.svg").read_text()
    assert ("confounder, latent" in drawn) == (graph.m is not None and graph.m.confounder is not None)


@pytest.mark.parametrize(
    ("edges", "latents", "told"),
    [
        (("digit -> z",), {}, "edge (digit -> z): found a latent that is no manipulation; expected one of 'm'"),
        (("image -> m",), {}, "edge (image -> m): found 'image'; expected the target 'digit'"),
        ((), {"z": {"parents": ["digit"]}}, "found a latent that is no manipulation"),
        (("digit -> m",), {"m": {"scope": "dataset"}}, "it cannot go with the class of each"),
        (("digit -> m",), {"m": {"scope": "clinic"}}, "expected 'row'"),
        ((), {"u": {"causes": ["digit", "image"]}}, "causes: found 'image'; expected one of 'digit', 'm'"),
        ((), {"u": {"causes": ["digit", "digit"]}}, "found 'digit' alone; expected the target and a manipulation"),
        ((), {"u": {"causes": ["digit"]}}, "expected the target and a manipulation, as in [digit, colour]"),
        ((), {"u": {"causes": ["digit", "m"], "dim": 2}}, "found key 'dim' beside causes"),
        ((), {"image": {"causes": ["digit", "m"]}}, "found a node of the same name; expected another name"),
        ((), {"z": {"causes": ["digit", "m"]}}, "expected another name"),
        ((), {"u": {"causes": ["digit", "m"]}, "m": None}, "causes: found 'm'; expected one of 'digit'"),
        ((), {name: {"causes": ["digit", "m"]} for name in "uv"}, "found 'u', 'v', which cause the same two"),
        (("digit -> m",), {"m": None}, "edge 2 (digit -> m): found 'm', no node"),
        (
            ("digit -> m -> image",),
            {},
            "edge 2 (m -> image): found 'm', a latent; expected its effects as its children",
        ),
    ],
)
def test_what_cannot_be_is_said(edges: tuple[str, ...], latents: dict[str, Any], told: str) -> None:
    with pytest.raises(GraphError) as caught:
        _graph(*edges, **latents)
    assert told in str(caught.value)
