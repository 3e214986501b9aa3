"""Simulated rows: deterministic, exact under interventions, with the edges, moments and independences of the graph."""

import itertools
import re
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyro_cama import CausalGraph, GraphError, Recode, Shift, StructuralModel, simulate
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.graph.nodes import Node
from tests.helpers.paths import GRAPHS
from tests.helpers.random_graphs import specs

MEASUREMENT = GRAPHS / "measurement.yaml"
KINDS: dict[str, Any] = {
    "target": "y",
    "nodes": {
        "a": "continuous",
        "y": {"type": "categorical", "levels": ["p", "q", "r"]},
        "x": "continuous",
        "v": {"type": "continuous", "dim": 2},
        "n": "count",
        "b": "binary",
        "k": {"type": "categorical", "levels": [1, 2, 3]},
        "c": "continuous",
        "outside": "continuous",
    },
    "edges": ["a -> y", "y -> x", "y -> v", "y -> n -> outside", "y -> b", "y -> k", "x -> v", "x -> n", "c -> x"],
    "latents": {"m": {"children": ["x", "k"], "affects": {"x": "measurement"}}},
}


@pytest.fixture(scope="module")
def model() -> StructuralModel:
    return StructuralModel(KINDS)


def values(frame: pd.DataFrame, name: str) -> NDArray[Any]:
    """A column as an array, (n,) or (n, dim)."""
    return np.stack(frame[name].tolist())


def changed(one: pd.DataFrame, other: pd.DataFrame) -> set[str]:
    """The columns that differ in any bit."""
    assert list(one) == list(other)
    return {name for name in one if not np.array_equal(values(one, name), values(other, name))}


def descendants(graph: CausalGraph, name: str) -> set[str]:
    drawn: nx.DiGraph[str] = nx.DiGraph(graph.edges)
    drawn.add_nodes_from(graph.nodes)
    return set(nx.descendants(drawn, name))


def fixed(node: Node) -> Any:
    """A value that every node of this kind can be set to."""
    return node.levels[-1] if node.levels else 2 if node.type == "count" else 1.5


def altered(node: Node, affects: Any = None) -> Shift | Recode:
    """A change of every row."""
    if node.levels:
        return Recode(dict(zip(node.levels, (*node.levels[1:], node.levels[0]), strict=True)), affects)
    return Shift(3 if node.type == "count" else 1.25, 1.5, affects)


def test_same_seed_same_rows() -> None:
    model = StructuralModel(KINDS, seed=3)
    rows = model.sample(200, seed=3)
    pd.testing.assert_frame_equal(rows, StructuralModel(CausalGraph(KINDS), seed=3).sample(200, seed=3))
    pd.testing.assert_frame_equal(rows, simulate(KINDS, 200, seed=3))
    assert changed(rows, model.sample(200, seed=4)) == set(rows)
    # other equations, the same people: a and c have no causes and are N(0, 1) under any
    assert changed(rows, StructuralModel(KINDS, seed=4).sample(200, seed=3)) == set(rows) - {"a", "c"}


@settings(max_examples=30)
@given(specs(max_nodes=8, likelihoods=False), st.data())
def test_interventions_are_exact(spec: dict[str, Any], data: st.DataObject) -> None:
    graph = CausalGraph(spec)
    model = StructuralModel(graph, seed=1)
    name = data.draw(st.sampled_from(model.order))
    node, below = graph.nodes[name], descendants(graph, name)
    clean = model.sample(300, seed=2)

    hard = model.sample(300, seed=2, do={name: fixed(node)})
    assert changed(clean, hard) <= {name} | below
    assert (values(hard, name) == fixed(node)).all()

    assert changed(clean, model.sample(300, seed=2, do={name: altered(node, "measurement")})) == {name}
    moved = model.sample(300, seed=2, do={name: altered(node, "quantity")})
    assert name in changed(clean, moved) <= {name} | below
    m = graph.m
    says = m.affects.get(name, "quantity") if m else "quantity"
    by_default = model.sample(300, seed=2, do={name: altered(node)})
    pd.testing.assert_frame_equal(by_default, model.sample(300, seed=2, do={name: altered(node, says)}))


@settings(max_examples=20)
@given(specs(max_nodes=6, likelihoods=False))
def test_every_edge_is_real(spec: dict[str, Any]) -> None:
    """A cause changes each of its effects even where all paths through other nodes are cut."""
    graph = CausalGraph(spec)
    model = StructuralModel(graph, seed=0)
    for cause, effect in graph.edges:
        between = {a for a, b in graph.edges if b == effect} & descendants(graph, cause)
        held: dict[str, Any] = {name: fixed(graph.nodes[name]) for name in between}
        moved = held | {cause: altered(graph.nodes[cause], "quantity")}
        assert effect in changed(model.sample(1000, seed=5, do=held), model.sample(1000, seed=5, do=moved))


@settings(max_examples=20)
@given(specs(max_nodes=8, likelihoods=False))
def test_moments_and_shares(spec: dict[str, Any]) -> None:
    graph = CausalGraph(spec)
    model = StructuralModel(graph, seed=0)
    rows = model.sample(8000, seed=1)
    assert list(rows) == list(model.order)
    assert {*rows} == {*graph.nodes}
    place = {name: i for i, name in enumerate(model.order)}
    assert all(place[cause] < place[effect] for cause, effect in graph.edges)
    for name, node in graph.nodes.items():
        if node.levels:
            shares = rows[name].value_counts(normalize=True)
            assert set(shares.index) == set(node.levels)
            assert shares.min() > 0.5 / len(node.levels)
            continue
        found = values(rows, name)
        assert found.shape == ((8000,) if node.dim is None else (8000, node.dim))
        if node.type == "count":
            assert found.dtype == np.int64
            assert found.min() >= 0
            assert (found.mean(0) > 2).all()
            assert (found.mean(0) < 12).all()
        else:
            assert (abs(found.mean(0)) < 0.1).all()
            assert (abs(found.std(0) - 1) < 0.1).all()


def test_measurement_shifts_by_exactly_the_offset() -> None:
    clean = simulate(KINDS, 100)
    off = simulate(KINDS, 100, do={"x": Shift(2.0, gain=3.0)})  # the graph says measurement
    assert changed(clean, off) == {"x"}
    np.testing.assert_array_equal(off["x"], 3.0 * clean["x"] + 2.0)
    on = simulate(KINDS, 100, do={"x": Shift(2.0, affects="quantity")})
    assert changed(clean, on) == {"x", "v", "n", "outside"}


def test_a_hard_intervention_cuts_the_node_from_its_causes() -> None:
    one, other = (simulate(KINDS, 500, do={"y": "q", "a": value}) for value in (-2.0, 2.0))
    assert changed(one, other) == {"a"}


def test_counts_are_rounded_and_not_below_zero() -> None:
    clean = simulate(KINDS, 300)["n"]
    off = simulate(KINDS, 300, do={"n": Shift(-4, gain=1.3)})["n"]
    assert off.dtype == np.int64
    np.testing.assert_array_equal(off, np.maximum(np.rint(1.3 * clean - 4), 0))
    assert (off == 0).any()


def test_vectors_take_a_number_or_one_a_component(model: StructuralModel) -> None:
    clean = values(model.sample(50), "v")
    for offset in (1.0, [1.0, -2.0], np.array([1.0, -2.0])):
        off = model.sample(50, do={"v": Shift(offset)})
        np.testing.assert_array_equal(values(off, "v"), clean + np.asarray(offset))
        assert (values(model.sample(50, do={"v": offset}), "v") == np.asarray(offset)).all()


def test_recode_at_random_keeps_to_its_probabilities() -> None:
    clean = simulate(KINDS, 20_000)["k"]
    off = simulate(KINDS, 20_000, do={"k": Recode({1: {1: 0.7, 3: 0.3}, 2: 1})})["k"]
    found = pd.crosstab(clean, off, normalize="index").to_numpy()
    np.testing.assert_allclose(found, [[0.7, 0.3], [1, 0], [0, 1]], atol=0.02)


def test_a_coparent_is_independent_of_the_target_and_not_given_their_child() -> None:
    nodes = {"c": "continuous", "y": "binary", "x": "continuous"}
    graph = {"target": "y", "nodes": nodes, "edges": ["y -> x", "c -> x"]}
    dependent = 0
    for seed in range(5):
        rows = simulate(graph, 20_000, seed=seed)
        assert abs(np.corrcoef(rows["c"], rows["y"])[0, 1]) < 4 / np.sqrt(20_000)
        fifths = [np.corrcoef(part["c"], part["y"])[0, 1] for _, part in rows.groupby(pd.qcut(rows["x"], 5))]
        dependent += max(map(abs, fifths)) > 0.1
    assert dependent >= 4


def test_levels_keep_their_type_and_the_encoder_reads_every_column() -> None:
    rows = simulate(KINDS, 100)
    assert rows["k"].dtype == np.int64
    assert set(rows["b"]) == {0, 1}
    batch = TableEncoder(CausalGraph(KINDS)).fit(rows).encode(rows)
    assert batch.rows == 100
    assert all(mask.all() for mask in batch.observed.values())


def test_the_measurement_graph_has_the_shape_of_figure_5() -> None:
    graph = CausalGraph(MEASUREMENT)
    blanket = graph.blanket
    assert (len(blanket.parents), len(blanket.children), len(blanket.coparents)) == (5, 10, 5)
    for child in blanket.children:
        assert 1 <= len([name for name in graph.parents_of(child) if name in blanket.coparents]) <= 3
    rows = simulate(graph, 2000)
    assert rows["y"].nunique() == 5
    classes = [part[list(blanket.children)].mean() for _, part in rows.groupby("y")]
    assert min((one - other).abs().max() for one, other in itertools.combinations(classes, 2)) > 0.5


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ({"X": 1.0}, "do: 'X' expected one of .*did you mean 'x'.*found no such node"),
        ({"z": 1.0}, "do: 'z' expected to be a node, found a latent"),
        ({"m": 1.0}, "do: 'm' expected to be a node, found a latent"),
        ({"y": Shift(1.0)}, r"do: 'y' of type categorical expected a level or Recode, found Shift\("),
        ({"x": Recode({})}, r"do: 'x' of type continuous expected a number or Shift, found Recode\("),
        ({"y": "s"}, "do: 'y' of type categorical expected one of the levels 'p', 'q', 'r', found 's'"),
        ({"y": ["p"]}, "expected one of the levels"),
        ({"y": Recode({"s": "p"})}, "expected one of the levels 'p', 'q', 'r', found 's'"),
        ({"y": Recode({"p": "s"})}, "expected one of the levels 'p', 'q', 'r', found 's'"),
        ({"y": Recode({"p": {"p": 0.5, "q": 0.4}})}, "'p': expected probabilities that sum to 1, found 0.9"),
        ({"y": Recode({"p": {"p": 1.5, "q": -0.5}})}, "'p': expected probabilities from 0 to 1, found 1.5"),
        ({"y": Recode({"p": {"p": float("nan")}})}, "expected probabilities from 0 to 1, found nan"),
        ({"y": Recode({"p": ["q"]})}, "expected one of the levels"),
        ({"x": float("nan")}, "do: 'x' of type continuous expected a finite number, found nan"),
        ({"x": "high"}, "expected a finite number, found 'high'"),
        ({"x": True}, "expected a finite number, found True"),
        ({"x": None}, "expected a finite number, found None"),
        ({"x": [1.0, 2.0]}, r"expected a finite number, found \[1.0, 2.0\]"),
        ({"v": [1.0, 2.0, 3.0]}, "expected a finite number, or 2 of them, found"),
        ({"v": Shift([1.0])}, "expected a finite number, or 2 of them, found"),
        ({"n": 1.5}, "do: 'n' of type count expected a whole number of at least 0, found 1.5"),
        ({"n": -1}, "expected a whole number of at least 0, found -1"),
        ({"x": Shift(gain=9e15)}, "do: 'x' expected values of at most 9.*e.15, found larger ones"),
        ([("x", 1.0)], "do: expected a mapping"),
    ],
)
def test_interventions_that_do_not_fit(model: StructuralModel, do: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.sample(10, do=do)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(KINDS, 0), "sample(n=0): expected a whole number of at least 1"),
        (lambda: simulate(KINDS, 2.5), "sample(n=2.5): expected a whole number of at least 1"),
        (lambda: simulate(KINDS, 5, seed=-1), "StructuralModel(seed=-1): expected a whole number of at least 0"),
        (lambda: StructuralModel(KINDS).sample(5, seed="0"), "sample(seed='0'): expected a whole number"),
        (lambda: Shift(float("inf")), "Shift(offset=inf): expected a finite number"),
        (lambda: Shift(gain="2"), "Shift(gain='2'): expected a finite number"),
        (lambda: Shift(affects="both"), "Shift(affects='both'): expected 'quantity', 'measurement' or None"),
        (lambda: Recode("p"), "Recode(to='p'): expected a mapping"),
        (lambda: Recode({}, affects="both"), "Recode(affects='both'): expected"),
    ],
)
def test_arguments_out_of_range(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_images_are_refused() -> None:
    nodes = {"y": "binary", "scan": {"type": "image", "shape": [1, 4, 4]}}
    with pytest.raises(GraphError, match="'scan'; expected none: simulate serves tables only"):
        StructuralModel({"target": "y", "nodes": nodes, "edges": ["y -> scan"]})
