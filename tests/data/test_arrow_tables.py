"""Tables of other libraries are read as pandas' are."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import pyro_cama
from pyro_cama import DataError
from pyro_cama.data import TableEncoder
from pyro_cama.sklearn import CAMAClassifier

GRAPH = pyro_cama.CausalGraph(
    {
        "target": "y",
        "nodes": {
            "y": {"type": "categorical", "levels": ["a", "b"]},
            "x": "continuous",
            "n": "count",
            "k": {"type": "binary", "levels": ["no", "yes"]},
            "v": {"type": "continuous", "dim": 2},
            "t": {"type": "binary", "levels": [False, True]},
        },
        "edges": ["y -> x", "y -> n", "y -> k", "y -> v", "y -> t"],
    }
)
COLUMNS: dict[str, Any] = {
    "y": ["a", "b", None, "b"],
    "x": [0.5, None, 2.5, 4.0],
    "n": [3, 0, None, 2],
    "k": ["no", None, "yes", "yes"],
    "v": [[1.0, 2.0], [3.0, 4.0], None, [0.0, 1.0]],
    "t": [True, None, False, True],
    "left": ["no", "node", "of", "it"],
}


class Stream:
    """A table of a third library, which has nothing but Arrow's C stream."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


def tables() -> dict[str, Any]:
    pyarrow = pytest.importorskip("pyarrow")
    arrow = pyarrow.table({name: pyarrow.array(column) for name, column in COLUMNS.items()})
    coded = arrow.set_column(3, "k", arrow["k"].dictionary_encode())
    return {"pyarrow": arrow, "coded": coded, "stream": Stream(arrow), "batch": arrow.combine_chunks().to_batches()[0]}


@pytest.mark.parametrize("kind", ["pyarrow", "coded", "stream", "batch", "polars", "polars categories"])
def test_a_table_is_read_as_the_same_one_of_pandas(kind: str) -> None:
    if kind.startswith("polars"):
        polars = pytest.importorskip("polars")
        table = polars.DataFrame(COLUMNS)
        table = table if kind == "polars" else table.with_columns(polars.col("k").cast(polars.Categorical))
    else:
        table = tables()[kind]
    frame = pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in COLUMNS.items()})
    encoder = TableEncoder(GRAPH).fit(frame)
    expected, found = encoder.encode(frame), encoder.encode(table)
    for name, value in expected.values.items():
        np.testing.assert_array_equal(found.values[name], value, err_msg=name)
        seen = [batch.observed.get(name) for batch in (found, expected)]
        assert (seen[0] is None) == (seen[1] is None)
        if seen[1] is not None:
            np.testing.assert_array_equal(seen[0], seen[1], err_msg=name)


def test_what_has_no_names_is_refused_with_what_to_do() -> None:
    encoder = TableEncoder(GRAPH)
    with pytest.raises(DataError, match=r"found a ndarray as table.*: name its columns, pandas\.DataFrame\(array"):
        encoder.fit(np.zeros((4, 6)))
    with pytest.raises(DataError, match=r"found a csr_matrix as table.*: a column is dense, .*toarray\(\)"):
        encoder.fit(sparse.csr_matrix(np.zeros((4, 6))))
    with pytest.raises(
        DataError, match=r"column 'x': found a csr_array; .*sparse columns are not read, call \.toarray"
    ):
        encoder.fit(COLUMNS | {"x": sparse.csr_array(np.zeros((4, 1)))})
    polars = pytest.importorskip("polars")
    with pytest.raises(DataError, match=r"found a LazyFrame as table.*: call \.collect\(\) first"):
        encoder.fit(polars.LazyFrame(COLUMNS))


@pytest.mark.parametrize("home", ["pyarrow", "polars"])
@pytest.mark.parametrize("with_graph", [False, True])
def test_the_classifier_takes_them_too(home: str, with_graph: bool) -> None:
    library = pytest.importorskip(home)
    table = pyro_cama.datasets.load("wine")[::3]
    X, y = table.drop(columns="cultivar"), table["cultivar"]
    other = library.DataFrame(dict(X)) if home == "polars" else library.Table.from_pandas(X, preserve_index=False)
    graph = pyro_cama.datasets.graph("wine") if with_graph else None
    model = CAMAClassifier(graph=graph, hidden=4, max_epochs=1, device="cpu").fit(other, y)
    assert list(model.feature_names_in_) == list(X.columns)
    np.testing.assert_array_equal(model.predict_proba(other), model.predict_proba(X))


@pytest.mark.parametrize("kind", ["Categorical", "Enum"])
def test_categories_of_polars_are_categories(kind: str) -> None:
    polars = pytest.importorskip("polars")
    levels, x = ["low", "high", "middle"], np.arange(90.0)
    k = [levels[i % 3] if i % 7 else None for i in range(90)]
    dtype = polars.Enum(levels) if kind == "Enum" else polars.Categorical
    X = polars.DataFrame({"x": x, "k": polars.Series(k, dtype=dtype)})
    y = np.arange(90) % 2
    model = CAMAClassifier(hidden=4, max_epochs=1, device="cpu").fit(X, y)
    assert model.cama_.graph.nodes["k"].levels == tuple(levels if kind == "Enum" else sorted(levels))
    categories = levels if kind == "Enum" else sorted(levels)
    same = pd.DataFrame({"x": x, "k": pd.Categorical(k, categories=categories)})
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(same))


def test_two_columns_of_one_name_are_refused() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_arrays([pyarrow.array([1.0]), pyarrow.array([2.0])], names=["x", "x"])
    with pytest.raises(DataError, match="column 'x': found more than one"):
        TableEncoder(GRAPH).fit(table)
