"""init: types guessed from a table, and the graph that comes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cama import CausalGraph, DataError
from pyro_cama.cli.first_graph import first_graph, guess
from tests.helpers.command_line import done, run


def texts(values: Any) -> "pd.Series[Any]":
    return pd.Series([str(v) for v in values])


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        (texts([0, 1, 1, 0]), {"type": "binary"}),
        (texts(["no", "yes", "", "no"]), {"type": "binary", "levels": ["no", "yes"]}),
        (texts([True, False, True]), {"type": "binary", "levels": [False, True]}),
        (pd.Series([True, False, None]), {"type": "binary", "levels": [False, True]}),
        (texts(["c", "a", "b", "a", "c"]), {"type": "categorical", "levels": ["a", "b", "c"]}),
        (texts([3, 1, 2, 1, 3]), {"type": "categorical", "levels": [1, 2, 3]}),
        (pd.Series([3.0, 1.0, np.nan, 2.0]), {"type": "categorical", "levels": [1, 2, 3]}),
        (texts(["01", "02", "03", "01"]), {"type": "categorical", "levels": ["01", "02", "03"]}),
        (texts([0, 3, 7, 1, 9, 4, 12, 0]), {"type": "count"}),
        (texts([34, 71, 28, 90, 55, 61, 34]), {"type": "continuous"}),
        (texts([-3, 3, 7, 1, 9, 4, 12, 0]), {"type": "continuous"}),
        (texts([1999, 2004, 2001, 2010, 2011, 2003]), {"type": "continuous"}),
        (texts([0.5, "NA", 2.25, 1, 7]), {"type": "continuous"}),
        (texts([1e300, -2e-300, 0.25]), {"type": "continuous"}),
        (texts([0.5, "?", 2.25, "-", 7]), {"type": "continuous"}),
        (texts([0, 1, "?", 1, 0]), {"type": "binary"}),
        (texts(["a", "b", "?", "b"]), {"type": "categorical", "levels": ["?", "a", "b"]}),
        (texts([20, 30, 35, 41, 50, 57]), {"type": "continuous"}),
    ],
)
def test_types_are_guessed(column: "pd.Series[Any]", keys: dict[str, Any]) -> None:
    assert guess(column).keys == keys


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (texts([f"P{i:03}" for i in range(30)]), "30 different texts"),
        (texts(["ann", "bob", "cyd"]), "an identifier"),
        (texts(["a"] * 4), "one value, 'a'"),
        (texts([7, 7]), "one value, 7"),
        (texts([""] * 3), "no entry"),
        (texts(["NA", "nan"]), "no entry"),
        (texts(range(100, 130)), "a running number, 100 to 129"),
        (texts(np.arange(30) ** 2), "a running number, 0 to 841"),
        (texts(range(40, 10, -1)), "a running number, 11 to 40"),
        (texts([1.5, "inf", 2.5]), "infinite"),
        (texts([f"{i},5" for i in range(30)]), "texts such as '0,5'; is that a decimal comma? write '0.5'"),
        (texts([f"{i},200,500" for i in range(1, 30)]), "write '1200500'"),
        (texts([*range(5, 35), "low", "high"]), "numbers, but for 2 texts such as 'high'"),
        (pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"])), "dates"),
        (pd.Series([[1, 2], [3, 4]]), "entries such as [1, 2]"),
    ],
)
def test_what_is_no_node_is_left_out(column: "pd.Series[Any]", why: str) -> None:
    found = guess(column)
    assert found.keys is None
    assert why in found.why


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


def test_missing_marks_are_said() -> None:
    assert guess(texts([0.5, "?", 2.25, "-", "NA", 7])).why == "0.5 to 7, 3 of 6 missing ('?', '-' among them)"


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
