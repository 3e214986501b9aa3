"""Tables of every kind: data sets, series, mappings; and what is none."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.open_stream import open_stream
from pyro_cama.errors import DataError
from tests.helpers.tables import ALL_TYPES, Rows, SizedRows, Stream, all_types_table, assert_same, graph_of, labels


@pytest.mark.parametrize("kind", [Rows, SizedRows, Stream])
def test_datasets(kind: Any) -> None:
    graph = graph_of(**ALL_TYPES)
    table = all_types_table()
    rows = kind([{name: column[i] for name, column in table.items()} for i in range(6)])
    tensors = kind([{"y": row["y"], "b": row["b"]} | {k: torch.tensor(row[k]) for k in "xvnwci"} for row in rows.rows])
    expected = TableEncoder(graph).fit(table).encode(table)
    for dataset in (rows, tensors):
        assert_same(TableEncoder(graph).fit(dataset).encode(dataset), expected)


def test_a_dataset_with_missing_entries() -> None:
    rows = SizedRows([{"y": "a", "x": 1.0}, {"y": None, "x": torch.tensor(2.0)}, {"y": "b", "x": None}])
    batch = TableEncoder(graph_of(x="continuous")).fit(rows).encode(rows)
    assert batch.observed["x"].tolist() == [True, True, False]
    assert batch.observed["y"].tolist() == [True, False, True]


def test_series_are_read_by_position() -> None:
    table = {"y": pd.Series(["a", "b"], index=[5, 6]), "x": pd.Series([1.0, 3.0], index=[6, 5])}
    assert TableEncoder(graph_of(x="continuous")).fit(table).encode(table).values["x"].tolist() == [-1, 1]


@pytest.mark.usefixtures("double")
def test_the_callers_data_are_neither_changed_nor_shared() -> None:
    table = all_types_table()
    for name in ("x", "v", "i"):
        table[name][1] = np.nan
    table["n"] = table["n"].astype(float)
    before = copy.deepcopy(table)
    graph = graph_of(**ALL_TYPES)
    encoder = TableEncoder(graph).fit(table)
    for array in table.values():
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    batch = encoder.encode(table)
    for value in batch.values.values():
        value.zero_()
    for name, column in before.items():
        np.testing.assert_array_equal(table[name], column)
    values = torch.ones(3, 1, 2, 2)
    for name, value in (("i", values), ("n", values[:, 0, 0, 0])):
        encoder.decode(name, value)[:] = 0
    assert values.min() == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"y": ["a"], "x": [1, 2, 3]}, "found 1 rows in 'y', 3 in 'x'; expected one entry a row in each"),
        ({"y": [], "x": []}, "the table is empty; expected at least one row"),
        (pd.DataFrame({"y": [], "x": []}), "the table is empty"),
        (pd.DataFrame(), "the table is empty"),
        (SizedRows([]), "the table is empty"),
        (Stream([]), "the table is empty"),
        ({}, "column 'y': found none; expected one: add the column, with the labels that are known"),
        (
            {"0": [1], "0.5": [2]},
            "column 'y': found none; expected one: names are '0', '0.5'; of a file the first line",
        ),
        (
            pd.DataFrame({"y": ["a", "b"], "X ": [1, 2]}),
            "column 'x': found none, but 'X '; expected one: rename",
        ),
        (
            pd.DataFrame([["a", 1, 2], ["b", 1, 2]], columns=["y", "x", "x"]),
            "column 'x': found more than one; expected one: drop or rename the others",
        ),
        ({"y": ["a", "b"], "x": "12"}, "column 'x': found a str; expected an array, list, tensor or Series"),
        ({"y": ["a", "b"], "x": {1, 2}}, "column 'x': found a set"),
        ({"y": ["a", "b"], "x": 3}, "column 'x': found a int"),
        (
            {"y": ["a", "b"], "x": torch.tensor(3.0)},
            "column 'x': found a single value; expected one entry a row",
        ),
        (
            [{"y": "a", "x": 1}],
            "found a list as table; expected a pandas DataFrame, a polars or pyarrow table, a mapping of column name",
        ),
        (None, "found a NoneType as table"),
        (
            SizedRows([("a", 1)]),
            "found a tuple as row 0 (counted from 0) of the dataset; expected a mapping of column",
        ),
        (SizedRows([{"y": "a", "x": 1}, {"y": "b"}]), "column 'x': found no entry in row 1 (counted from 0)"),
        (SizedRows([{"y": "a"}, {"y": "b"}]), "column 'x': found none"),
    ],
)
def test_a_table_that_is_none(table: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        TableEncoder(graph_of(x="continuous")).fit(table)
    assert message in str(caught.value)


def test_columns_named_samples_and_classes_are_columns() -> None:
    graph = graph_of(samples="continuous", classes="count", transforms="continuous")
    table = {"y": labels(4), "samples": [1.0, 2.0, 3.0, 4.0], "classes": [1, 2, 3, 4], "transforms": [0.0, 1, 2, 3]}

    rows: Any = SizedRows([{name: column[i] for name, column in table.items()} for i in range(4)])
    rows.samples, rows.classes = ("a", "b"), 2
    for data in (pd.DataFrame(table), table, rows):
        assert open_stream(data, graph) is None
        assert TableEncoder(graph).fit(data).encode(data).values["classes"].tolist() == [1, 2, 3, 4]
