"""What a graph is read from: types from a table, directions, names, and our own graphs through other formats."""

import gzip
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from tests.graph.test_causal_graph import graph_specs

TABLE = pd.DataFrame(
    {"y": ["no", "yes"] * 4, "x": np.arange(8) ** 2 / 7, "n": [0, 12, 7, 1, 3, 9, 4, 0], "k": ["a"] * 8}
)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# Types from a table.


def test_types_come_from_the_table(tmp_path: Path) -> None:
    path = written(tmp_path, "g.dot", "digraph { y -> x; y -> n; n [type=continuous] }")
    graph = CausalGraph.from_file(path, "y", data=TABLE)
    assert {name: node.type for name, node in graph.nodes.items()} == {
        "y": "binary",
        "x": "continuous",
        "n": "continuous",
    }
    assert graph.nodes["y"].levels == ("no", "yes")
    of_networkx = CausalGraph(nx.DiGraph([("y", "x"), ("y", "n")]), target="y", data=TABLE)
    assert of_networkx.nodes["n"].type == "count"
    yaml = written(tmp_path, "g.yaml", "{target: y, nodes: {y: , x: {dim: 2}, n: count}, edges: [y -> x, y -> n]}")
    assert CausalGraph(yaml, data=dict(TABLE)).nodes["x"].dim == 2


@pytest.mark.parametrize("data", ["t.csv", 3, {"y": [0, 1], "x": [1]}])
def test_data_that_are_no_table_are_refused(data: Any) -> None:
    with pytest.raises(GraphError, match=r"<networkx graph>: data: .* expected a pandas\.DataFrame"):
        CausalGraph(nx.DiGraph([("y", "x")]), target="y", data=data)


def test_levels_of_the_file_stay(tmp_path: Path) -> None:
    path = written(tmp_path, "g.dot", 'digraph { y -> x; y [levels="yes,no"] }')
    assert CausalGraph(path, target="y", data=TABLE).nodes["y"].levels == ("yes", "no")


def test_nodes_without_a_type_to_be_had_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "g.dot", "digraph { y -> x; U -> x; k -> x }")
    with pytest.raises(GraphError) as caught:
        CausalGraph(path, target="y", data=TABLE)
    assert "node 'U': found no column of the table; expected one of 'y', 'x', 'n', 'k'" in str(caught.value)
    assert "node 'k': found one value, 'a' in its column" in str(caught.value)
    with pytest.raises(GraphError, match=r"found no types of nodes; expected .* CausalGraph\(\.\.\., data=table\)"):
        CausalGraph(path, target="y")


# Names: ids, or labels where these are what the table or the target says.

LABELLED = 'digraph { 0 [label="y"]; 1 [label="x"]; 0 -> 1 }'


def test_labels_are_names_where_the_table_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "g.dot", LABELLED)
    assert CausalGraph(path, target="y", data=TABLE).edges == (("y", "x"),)
    numbered = TABLE.rename(columns={"y": "0", "x": "1"})
    assert CausalGraph(path, target="0", data=numbered).edges == (("0", "1"),)
    prose = written(tmp_path, "p.dot", 'digraph { y [label="Diagnosis"]; x [label="Radius [mm]"]; y -> x }')
    assert CausalGraph(prose, target="y", data=TABLE).edges == (("y", "x"),)


def test_labels_are_names_where_the_target_is_one(tmp_path: Path) -> None:
    typed = "digraph { a [label=y, type=binary]; b [label=x, type=count]; a -> b }"
    path = written(tmp_path, "g.dot", typed)
    assert CausalGraph(path, target="y").edges == (("y", "x"),)
    assert CausalGraph(path, target="a").edges == (("a", "b"),)
    with pytest.raises(GraphError, match="target: found 'z', no node; expected one of 'a', 'b'"):
        CausalGraph(path, target="z")


def test_two_nodes_of_one_label_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "g.dot", 'digraph { 0 [label="y"]; 1 [label="x"]; 2 [label="x"]; 0 -> 1; 0 -> 2 }')
    with pytest.raises(GraphError, match="nodes '1', '2': found the same label 'x'; expected a name for each"):
        CausalGraph(path, target="y", data=TABLE)


def test_the_target_may_be_marked_at_its_node(tmp_path: Path) -> None:
    nodes = 'y [type=binary, target=true, latents="{z: null}"]; x [type=count]; y -> x'
    graph = CausalGraph(written(tmp_path, "g.dot", f"digraph {{ {nodes} }}"))
    assert (graph.target, graph.z) == ("y", None)
    two = f"digraph {{ {nodes}; x [target=yes] }}"
    with pytest.raises(GraphError, match="target: found 'y', 'x', nodes with target: true; expected one"):
        CausalGraph(written(tmp_path, "two.dot", two))


def test_a_target_that_is_no_text_is_refused(tmp_path: Path) -> None:
    nodes = 'node [ id 0 label "y" type "binary" ] node [ id 1 label "x" type "count" ] edge [ source 0 target 1 ]'
    path = written(tmp_path, "g.gml", f'graph [ directed 1 target "y" target "x" {nodes} ]')
    with pytest.raises(GraphError, match=r"target: found \['y', 'x'\]; expected the name of"):
        CausalGraph(path)


# Directions.


@pytest.mark.parametrize(
    ("edges", "orient", "said"),
    [
        ("y -- x", ["y -> z"], "orient y -> z: found 'z', no node"),
        ("y -- x; n", ["y -> n"], "orient y -> n: found no edge between the two"),
        ("y -> x", ["x -> y"], r"orient x -> y: found y --> x; expected an edge that allows it"),
        ("y -- x", ["y -> x", "x -> y"], "found y -> x and x -> y; expected one of them"),
        ("y -- x", ["y x"], "orient: found 'y x'; expected 'a -> b'"),
        ("y -- x", [3], "orient: found 3; expected"),
        ("y -- x; x -- n; n -- y", ["y -> x -> n -> y"], "found the cycle y -> x -> n -> y"),
        ("y -> x; x -> y", [], "found no direction in 'y --- x'"),
    ],
)
def test_faults_of_orient(edges: str, orient: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=said):
        CausalGraph(written(tmp_path, "g.dot", f"digraph {{ {edges} }}"), target="y", data=TABLE, orient=orient)


def test_orient_takes_the_forms_of_edges(tmp_path: Path) -> None:
    path = written(tmp_path, "g.dot", "digraph { y -- x; x -> n; n -> x; y -> n }")
    for orient in (["y -> x -> n"], [("y", "x"), ["x", "n"]], ["y -> x", "x -> n", "y -> n"]):
        graph = CausalGraph(path, target="y", data=TABLE, orient=orient)
        assert graph.edges == (("y", "x"), ("y", "n"), ("x", "n"))
    both = written(tmp_path, "both.dot", "digraph { y -> x; y -> n; x -> n [dir=both] }")
    assert ("n", "x") in CausalGraph(both, target="y", data=TABLE, orient="n -> x").edges
    with pytest.raises(GraphError, match=r"no direction in 'x <-> n'.* hidden common cause"):
        CausalGraph(both, target="y", data=TABLE)


def test_orient_is_for_edges_without_a_direction() -> None:
    with pytest.raises(
        GraphError, match=r"<dict>: orient: found \['y -> x'\], but edges of this form have their direction"
    ):
        CausalGraph({"target": "y", "nodes": {"y": "binary", "x": "count"}, "edges": ["y -> x"]}, orient=["y -> x"])


def test_an_adjacency_matrix_is_read_from_row_to_column() -> None:
    """As networkx has it; lingam's and causal-learn's matrices hold effects in rows: these are to be transposed."""
    matrix = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0]])
    graph = nx.relabel_nodes(nx.DiGraph(matrix), dict(enumerate(["y", "x", "n"])))
    assert CausalGraph(graph, target="y", data=TABLE).edges == (("y", "x"), ("y", "n"))
    undirected = nx.relabel_nodes(nx.DiGraph(matrix + matrix.T), dict(enumerate(["y", "x", "n"])))
    with pytest.raises(GraphError, match="no direction in 'y --- x', 'y --- n'"):
        CausalGraph(undirected, target="y", data=TABLE)


# Our own graphs, through what networkx writes.


@settings(max_examples=60, deadline=None)
@given(raw=graph_specs(), suffix=st.sampled_from(["gml", "graphml", "dot"]))
def test_to_networkx_survives_other_formats(
    tmp_path_factory: pytest.TempPathFactory, raw: dict[str, Any], suffix: str
) -> None:
    """Whatever its levels and latents are; names are such as these writers leave whole."""
    plain = {name: f"x{place}" for place, name in enumerate(raw["nodes"])}
    raw = {
        "target": plain[raw["target"]],
        "nodes": {plain[name]: {**keys, "likelihood": None} for name, keys in raw["nodes"].items()},
        "edges": [[plain[cause], plain[effect]] for cause, effect in raw["edges"]],
        "latents": {"z": None, "m": {"dim": 2}},
    }
    graph = CausalGraph(raw)
    path = tmp_path_factory.mktemp("written") / f"g.{suffix}"
    writer = nx.nx_pydot.write_dot if suffix == "dot" else getattr(nx, f"write_{suffix}")
    writer(graph.to_networkx(), path)
    assert repr(CausalGraph(path).to_dict()) == repr(graph.to_dict())


@pytest.mark.parametrize("suffix", ["gml", "graphml", "dot"])
def test_names_survive_other_formats(suffix: str, tmp_path: Path) -> None:
    names = [
        "white cells",
        'a "quoted" one',
        "é",
        "日本",
        "x.1",
        "1e3",
        "-3",
        "a -> b",
        "a;b",
        "{x}",
        "[y]",
        "# c",
        "a&amp;b",
    ]
    raw = {
        "target": "y",
        "nodes": {"y": "binary", **dict.fromkeys(names, "count")},
        "edges": [["y", name] for name in names],
    }
    graph = CausalGraph(raw)
    path = tmp_path / f"g.{suffix}"
    writer = nx.nx_pydot.write_dot if suffix == "dot" else getattr(nx, f"write_{suffix}")
    writer(graph.to_networkx(), path)
    assert CausalGraph(path) == graph


def test_files_may_be_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "g.dot.gz"
    path.write_bytes(gzip.compress(b"digraph { target=y; y [type=binary]; x [type=count]; y -> x }"))
    assert CausalGraph(path).edges == (("y", "x"),)


def test_from_file_reads_files_only() -> None:
    with pytest.raises(TypeError):
        CausalGraph.from_file({"target": "y"})  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="cannot be read"):
        CausalGraph.from_file("none.dot", "y")


def test_ids_and_labels_that_could_both_be_meant_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "g.dot", 'digraph { y [label="x"]; x [label="y"]; y -> x }')
    for data in (TABLE, None):
        with pytest.raises(GraphError, match="a node: found id 'y' and label 'x', and both could be meant"):
            CausalGraph(path, target="y", data=data)
    numbered = written(tmp_path, "n.dot", 'digraph { 0 [label="y"]; 1 [label="x"]; 0 -> 1 }')
    with pytest.raises(GraphError, match="found no types of nodes"):
        CausalGraph(numbered, target="y")
    with pytest.raises(GraphError, match="node 'y': found no column"):
        CausalGraph(numbered, target="y", data=TABLE.rename(columns={"y": "a", "x": "b"}))
