"""init: the graph that comes of a table, and of a table and another tool's graph."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cama import CausalGraph, DataError
from pyro_cama.cli.first_graph import first_graph
from pyro_cama.graph.column_types import guess
from tests.helpers.command_line import done, refused, run


def texts(values: Any) -> "pd.Series[Any]":
    return pd.Series([str(v) for v in values])


def test_from_a_table_to_a_model(made: Path, tmp_path: Path) -> None:
    table = pd.read_csv(made / "t.csv").assign(
        patient=[f"P{i:03}" for i in range(60)], z=np.arange(60) / 7, m=np.arange(60) % 2
    )
    table["a: # 'b'"] = np.arange(60) ** 0.5
    table["p -> q"] = np.arange(60)[::-1].reshape(2, 30).T.ravel() ** 2
    table.to_csv(tmp_path / "t.csv", index=True)  # pandas' index comes as a column without a name
    result = run("init", tmp_path / "t.csv", "--target", "y", "-o", tmp_path / "g.yaml")
    assert result.exit_code == 0
    assert result.stderr == (
        "Note: left out 'patient': 60 different texts, such as 'P000': an identifier, or prose\n"
        "Note: left out '': a column without a name\n"
    )
    graph = CausalGraph(tmp_path / "g.yaml")
    types = {name: node.type for name, node in graph.nodes.items()}
    assert types == {
        "y": "binary", "x": "continuous", "n": "count", "k": "binary", "v[0]": "continuous", "v[1]": "continuous",
        "z": "continuous", "m": "binary", "a: # 'b'": "continuous", "p -> q": "continuous",
    }  # fmt: skip
    assert set(graph.blanket.children) == types.keys() - {"y"}
    assert "60 rows" in (tmp_path / "g.yaml").read_text()
    assert done("init", tmp_path / "t.csv", "--target", "y") == (tmp_path / "g.yaml").read_text()
    assert "children    n, k, x, v[0], v[1], z, m, " in done("check", tmp_path / "g.yaml")


def test_row_numbers_and_doubled_columns_are_left_out_with_a_word() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"y": texts(rng.integers(0, 2, 30)), "x": texts(rng.normal(size=30).round(3))})
    named = rows.assign(**{
        "": texts(range(30)), "rownames": texts(rng.permutation(30)), "ID": [f"P{i}" for i in rng.permutation(30)],
        "Unnamed: 3": "", "id": texts(rng.integers(0, 9, 30)), "k": "a", "l": "b",
    }).rename(columns={"l": "k"})  # fmt: skip
    text, left_out = first_graph(named, "y", "t.csv")
    assert [*CausalGraph.from_yaml(text).nodes] == ["y", "x", "id"], "ids that repeat may be of a site"
    by_name = "an identifier or row number, by its name: every value is another"
    assert left_out == {
        "": "a column without a name", "rownames": by_name, "ID": by_name, "k": "a name that more than one column has",
        "Unnamed: 3": "a column without a name, when it was written",
    }  # fmt: skip
    with pytest.raises(DataError, match="found column 'k' more than once"):
        first_graph(named, "k", "t.csv")


@settings(max_examples=60)
@given(st.data())
def test_any_table_gives_a_graph_or_says_why_not(data: st.DataObject) -> None:
    entry = st.one_of(st.sampled_from(["", "0", "1", "a", "b", "NA", "1.5", "01", "True"]), st.text(max_size=4))
    names = data.draw(st.lists(st.text(max_size=6), min_size=1, max_size=5, unique=True))
    rows = data.draw(st.integers(1, 8))
    table = pd.DataFrame({name: data.draw(st.lists(entry, min_size=rows, max_size=rows)) for name in names})
    target = data.draw(st.sampled_from(names))
    hopeless = guess(table[target], discrete=True).keys is None or target == ""
    if hopeless or not any(name and guess(table[name]).keys for name in names if name != target):
        with pytest.raises(DataError, match=r"^t\.csv: "):
            first_graph(table, target, "t.csv")
        return
    text, left_out = first_graph(table, target, "t.csv")
    graph = CausalGraph.from_yaml(text)
    assert graph.target == target
    assert set(graph.nodes) | set(left_out) == set(names)
    assert set(graph.nodes) == {target, *graph.blanket.children}


def drawn(made: Path, folder: Path, text: str) -> tuple[Any, ...]:
    """The arguments of init for the graph ``text`` of the table with columns y, x, n, k."""
    (folder / "g.dot").write_text(text)
    return ("init", made / "t.csv", "--target", "y", "--graph", folder / "g.dot")


def test_another_tools_graph_takes_types_from_the_table(made: Path, tmp_path: Path) -> None:
    nodes = '0 [label="y", pos="1,2"]; 1 [label="x"]; 2 [label="n", type=continuous]'
    call = drawn(made, tmp_path, f"digraph {{ {nodes}; 0 -> {{1 2}}; 1 -> 2 [dir=none] }}")
    result = run(*call, "--orient", "x -> n", "-o", tmp_path / "g.yaml")
    assert result.exit_code == 0
    assert f"Note: left out 'k': no node of {tmp_path / 'g.dot'}\n" in result.stderr
    graph = CausalGraph(tmp_path / "g.yaml")
    assert graph.edges == (("y", "x"), ("y", "n"), ("x", "n"))
    assert {name: node.type for name, node in graph.nodes.items()} == {
        "y": "binary",
        "x": "continuous",
        "n": "continuous",
    }
    assert graph.m is not None
    assert graph.m.scope == "dataset"
    lines = (tmp_path / "g.yaml").read_text().splitlines()
    assert lines[0].startswith(f"# The graph of {tmp_path / 'g.dot'}; types are guesses by {made / 't.csv'}, 60 rows")
    assert any(line.startswith("  n: {type: continuous}") and line.endswith("g.dot") for line in lines)
    assert "children    x, n" in done("check", tmp_path / "g.yaml")
    refused(*call, says="no direction in 'x --- n'")


def test_latents_of_another_tools_graph_stay(made: Path, tmp_path: Path) -> None:
    call = drawn(made, tmp_path, 'digraph { latents="{z: null, m: {scope: row}}"; y -> x }')
    graph = CausalGraph.from_yaml(done(*call))
    assert graph.z is None
    assert graph.m is not None
    assert graph.m.scope == "row"


def test_orient_without_a_graph_is_called_wrongly(made: Path) -> None:
    assert run("init", made / "t.csv", "--target", "y", "--orient", "y -> x").exit_code == 2
