"""Tables to tensors and back: values, missing entries, sites, kinds of columns, errors, state."""

import copy
import json
import logging
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset

from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.tables import Table
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from tests.helpers.patches import no_entry_by_entry

NAMES = ["x", "type", "keys", "a.b", "with space", "class", "ünïcode", "__init__", "1"]


def graph_of(scope: str = "row", **nodes: Any) -> CausalGraph:
    """The target y, "a" or "b" unless given, as the cause of all other nodes."""
    nodes = {"y": {"type": "categorical", "levels": ["a", "b"]}} | nodes
    return CausalGraph(
        {
            "target": "y",
            "nodes": nodes,
            "edges": [["y", name] for name in nodes if name not in ("y", "site")],
            "latents": {"m": {"scope": scope}},
        }
    )


def labels(rows: int) -> list[str]:
    return ["ab"[i % 2] for i in range(rows)]


def encoded(column: Any, node: Any = "continuous") -> tuple[TableEncoder, Batch]:
    """The column ``x`` as training table and as new rows."""
    table = {"y": labels(len(column)), "x": column}
    encoder = TableEncoder(graph_of(x=node)).fit(table)
    return encoder, encoder.encode(table)


ALL_TYPES: dict[str, Any] = {
    "x": "continuous",
    "v": {"type": "continuous", "dim": 2},
    "n": "count",
    "w": {"type": "count", "dim": 3},
    "b": {"type": "binary", "levels": ["no", "yes"]},
    "c": {"type": "categorical", "levels": [1, 2, 3]},
    "i": {"type": "image", "shape": [1, 2, 2]},
}


def all_types_table(rows: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "y": labels(rows),
        "x": rng.normal(5, 3, rows),
        "v": rng.normal([1, -2], [3, 4], (rows, 2)),
        "n": rng.poisson(4, rows),
        "w": rng.poisson(4, (rows, 3)),
        "b": rng.choice(["no", "yes"], rows),
        "c": rng.choice([1, 2, 3], rows),
        "i": rng.random((rows, 1, 2, 2)),
    }


# Values


def test_every_type_is_encoded_as_promised() -> None:
    table = all_types_table()
    batch = TableEncoder(graph_of(**ALL_TYPES)).fit(table).encode(table)
    kinds = {name: (value.dtype, tuple(value.shape)) for name, value in batch.values.items()}
    assert kinds == {
        "y": (torch.int64, (6,)),
        "x": (torch.float32, (6,)),
        "v": (torch.float32, (6, 2)),
        "n": (torch.float32, (6,)),
        "w": (torch.float32, (6, 3)),
        "b": (torch.float32, (6,)),
        "c": (torch.int64, (6,)),
        "i": (torch.float32, (6, 1, 2, 2)),
    }
    assert batch.rows == 6
    assert batch.observed == {}
    assert batch.site is None
    assert batch.values["y"].tolist() == [0, 1, 0, 1, 0, 1]
    assert batch.values["n"].tolist() == table["n"].tolist()
    assert batch.values["b"].tolist() == [float(level == "yes") for level in table["b"]]
    assert batch.values["c"].tolist() == [level - 1 for level in table["c"]]
    for name in ("x", "v"):
        expected = (table[name] - table[name].mean(0)) / table[name].std(0)
        np.testing.assert_allclose(batch.values[name].numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(batch.values["i"].numpy(), table["i"].astype(np.float32))


def test_statistics_are_those_of_the_training_rows() -> None:
    table = all_types_table()
    statistics = TableEncoder(graph_of(**ALL_TYPES)).fit(table).statistics
    pixels = table["i"].astype(np.float32).astype(float)
    expected = {
        "y": {"frequencies": [0.5, 0.5]},
        "x": {"mean": table["x"].mean(), "sd": table["x"].std()},
        "v": {"mean": table["v"].mean(0), "sd": table["v"].std(0)},
        "n": {
            "mean": table["n"].mean(),
            "log_mean": np.log1p(table["n"]).mean(),
            "log_sd": np.log1p(table["n"]).std(),
        },
        "w": {
            "mean": table["w"].mean(0),
            "log_mean": np.log1p(table["w"]).mean(0),
            "log_sd": np.log1p(table["w"]).std(0),
        },
        "b": {"frequencies": [np.mean(table["b"] == level) for level in ("no", "yes")]},
        "c": {"frequencies": [np.mean(table["c"] == level) for level in (1, 2, 3)]},
        "i": {"mean": pixels.mean(), "sd": pixels.std()},
    }
    assert {name: set(entries) for name, entries in statistics.items()} == {
        name: set(entries) for name, entries in expected.items()
    }
    for name, entries in expected.items():
        for key, value in entries.items():
            assert statistics[name][key].dtype == torch.float64
            assert statistics[name][key].shape == np.shape(value)
            np.testing.assert_allclose(statistics[name][key].numpy(), value, rtol=1e-12)


def test_moments_of_many_images_are_those_of_all_their_pixels() -> None:
    """They are gathered a thousand images at a time."""
    images = np.linspace(0, 1, 2500)[:, None, None, None] ** 2 * np.ones((1, 2, 2))
    graph = graph_of(y={"type": "binary"}, i={"type": "image", "shape": [1, 2, 2]})
    found = TableEncoder(graph).fit({"y": np.arange(2500) % 2, "i": images}).statistics["i"]
    assert found["mean"].item() == pytest.approx(images.mean(), rel=1e-6)
    assert found["sd"].item() == pytest.approx(images.std(), rel=1e-6)


def test_new_rows_are_encoded_with_the_training_rows_statistics() -> None:
    encoder, _ = encoded([0.0, 2.0])
    assert encoder.encode({"x": [3.0]}).values["x"].tolist() == [2.0]


@pytest.mark.parametrize("constant", [0.1, 0.0, -7.0, 1e300, 1e-310])
def test_a_constant_column_has_deviation_one(constant: float) -> None:
    encoder, batch = encoded([constant] * 7)
    assert encoder.statistics["x"]["sd"] == 1
    assert batch.values["x"].tolist() == [0.0] * 7


def test_a_column_constant_but_for_rounding_has_deviation_one() -> None:
    encoder, batch = encoded([0.3, 0.1 + 0.2])
    assert encoder.statistics["x"]["sd"] == 1
    assert batch.values["x"].abs().max() < 1e-12


def test_one_constant_component_leaves_the_others_alone() -> None:
    encoder, _ = encoded(np.array([[1.0, 5.0], [3.0, 5.0]]), {"type": "continuous", "dim": 2})
    assert encoder.statistics["x"]["sd"].tolist() == [1, 1]
    assert encoder.statistics["x"]["mean"].tolist() == [2, 5]


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_huge_and_tiny_units_do_not_overflow(scale: float) -> None:
    _, batch = encoded(np.array([-1.0, 0.0, 1.0]) * scale)
    np.testing.assert_allclose(batch.values["x"], np.array([-1, 0, 1]) * np.sqrt(1.5), rtol=1e-6)


def test_the_default_dtype_decides(double: None) -> None:
    table = all_types_table()
    batch = TableEncoder(graph_of(**ALL_TYPES)).fit(table).encode(table)
    assert {value.dtype for value in batch.values.values()} == {torch.float64, torch.int64}
    np.testing.assert_array_equal(batch.values["i"].numpy(), table["i"])


@pytest.mark.parametrize("kind", [pd.DataFrame, dict])
def test_any_column_name_works(kind: Any) -> None:
    graph = graph_of(**dict.fromkeys(NAMES, "continuous"))
    table = kind({"y": ["a", "b"]} | {name: [float(i), i + 2.0] for i, name in enumerate(NAMES)})
    batch = TableEncoder(graph).fit(table).encode(table)
    for name in NAMES:
        assert batch.values[name].tolist() == [-1, 1]


def test_column_names_need_not_be_text() -> None:
    graph = graph_of(**{"0": "continuous"})
    table = pd.DataFrame({"y": ["a", "b"], 0: [1.0, 3.0]})
    assert TableEncoder(graph).fit(table).encode(table).values["0"].tolist() == [-1, 1]


def test_only_the_target_and_its_blanket_are_read() -> None:
    graph = CausalGraph(
        {
            "target": "y",
            "nodes": {"far": "continuous", "p": "continuous", "y": "binary", "x": "continuous"},
            "edges": ["far -> p -> y -> x"],
        }
    )
    table = {"y": [0, 1], "p": [1.0, 2.0], "x": [1.0, 2.0], "far": ["no", "number"]}
    assert set(TableEncoder(graph).fit(table).encode(table).values) == {"p", "y", "x"}


@pytest.mark.usefixtures("double")
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 6), "rows")
    reals = st.floats(-1e6, 1e6)

    def column(entry: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(entry, min_size=rows, max_size=rows))

    scalars = st.text(max_size=3) | st.integers(-9, 9) | st.floats(-9, 9)
    levels = data.draw(st.lists(scalars, min_size=2, max_size=4, unique_by=lambda level: (str(level), level)))
    levels = list({str(level): level for level in levels}.values())
    if len(levels) < 2 or len(set(levels)) < len(levels):
        levels = ["a", 1]
    graph = graph_of(**ALL_TYPES | {"c": {"type": "categorical", "levels": levels}})
    table = {
        "y": [*"ab", *column(st.sampled_from("ab"))][:rows],
        "x": column(reals),
        "v": column(st.tuples(reals, reals)),
        "n": column(st.integers(0, 10**6)),
        "w": column(st.lists(st.integers(0, 9), min_size=3, max_size=3)),
        "b": column(st.sampled_from(["no", "yes"])),
        "c": column(st.sampled_from(levels)),
        "i": np.array(column(st.lists(st.floats(0, 1), min_size=4, max_size=4))).reshape(rows, 1, 2, 2),
    }
    original = copy.deepcopy(table)
    encoder = TableEncoder(graph).fit(table)
    batch = encoder.encode(table, target="require")
    for name in graph.order:
        back = encoder.decode(name, batch.values[name])
        if name in ("x", "v"):
            np.testing.assert_allclose(back, np.array(table[name]), rtol=1e-9, atol=1e-9)
        elif name == "c":
            assert back.tolist() == table["c"]
        else:
            np.testing.assert_array_equal(back, np.array(table[name]))
    restored = TableEncoder.from_state(graph, json.loads(json.dumps(encoder.state())))
    assert_same(restored.encode(table), batch)
    for name, value in original.items():
        np.testing.assert_array_equal(np.asarray(table[name], dtype=object), np.asarray(value, dtype=object))


def assert_same(one: Batch, two: Batch) -> None:
    assert one.rows == two.rows
    assert one.values.keys() == two.values.keys()
    assert one.observed.keys() == two.observed.keys()
    for name in one.values:
        assert torch.equal(one.values[name], two.values[name])
    for name in one.observed:
        assert torch.equal(one.observed[name], two.observed[name])
    assert (one.site is None) == (two.site is None)
    assert one.site is None or two.site is None or torch.equal(one.site, two.site)


# Kinds of columns and of tables

NUMBERS = {
    "list": [1, 2, 3],
    "tuple": (1.0, 2.0, 3.0),
    "range": range(1, 4),
    "mixed numbers": [1, 2.0, np.int8(3)],
    "exact numbers": [Decimal(1), Decimal(2), Decimal(3)],
    "fractions": [Fraction(1), 2, np.float32(3)],
    "tensors": [torch.tensor(1), torch.tensor(2), torch.tensor(3)],
    "tensor": torch.tensor([1.0, 2.0, 3.0]),
    "tensor of integers": torch.tensor([1, 2, 3], dtype=torch.int8),
    "bfloat16": torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
    "tensor with gradients": torch.tensor([1.0, 2.0, 3.0], requires_grad=True),
    "half": np.array([1, 2, 3], dtype=np.float16),
    "unsigned": np.array([1, 2, 3], dtype=np.uint64),
    "other byte order": np.array([1, 2, 3], dtype=">f8"),
    "backwards": np.array([3.0, 2.0, 1.0])[::-1],
    "objects": np.array([1, 2.0, Decimal(3)], dtype=object),
    "Series": pd.Series([1, 2, 3], index=[7, 7, 0]),
    "Index": pd.Index([1, 2, 3]),
    "Int64": pd.Series([1, 2, 3], dtype="Int64"),
    "Float32": pd.array([1, 2, 3], dtype="Float32"),
    "category": pd.Series([1, 2, 3], dtype="category"),
    "sparse": pd.Series(pd.arrays.SparseArray([1.0, 2.0, 3.0])),
}


@pytest.mark.parametrize("column", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("node", ["continuous", "count"])
def test_numbers_of_any_kind(column: Any, node: str) -> None:
    _, batch = encoded(column, node)
    expected = [1, 2, 3] if node == "count" else np.array([-1, 0, 1]) * np.sqrt(1.5)
    np.testing.assert_allclose(batch.values["x"], expected, rtol=1e-6)
    assert batch.observed == {}


@pytest.mark.parametrize("column", NUMBERS.values(), ids=NUMBERS)
def test_levels_of_any_number_kind(column: Any) -> None:
    _, batch = encoded(column, {"type": "categorical", "levels": [3, 2, 1]})
    assert batch.values["x"].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    "column",
    [
        [True, False, True],
        np.array([True, False, True]),
        torch.tensor([True, False, True]),
        pd.Series([True, False, True]),
        pd.Series([True, False, True], dtype="boolean"),
        np.array([True, False, True], dtype=object),
    ],
)
def test_booleans(column: Any) -> None:
    assert encoded(column, "binary")[1].values["x"].tolist() == [1, 0, 1]
    assert encoded(column, {"type": "binary", "levels": [False, True]})[1].values["x"].tolist() == [1, 0, 1]
    assert encoded(column, "count")[1].values["x"].tolist() == [1, 0, 1]
    assert encoded(column)[0].statistics["x"]["mean"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "column",
    [
        ["u", None, "v"],
        ["u", np.nan, np.str_("v")],
        np.array(["u", None, "v"], dtype=object),
        pd.Series(["u", None, "v"]),
        pd.Series(["u", pd.NA, "v"], dtype="string"),
        pd.Series(["u", None, "v"], dtype="category"),
        pd.Categorical(["u", None, "v"], categories=["v", "never", "u"]),
        np.ma.array(["u", "?", "v"], mask=[False, True, False]),
    ],
)
def test_texts_of_any_kind(column: Any) -> None:
    encoder, batch = encoded(column, {"type": "categorical", "levels": ["v", "u"]})
    assert batch.values["x"][[0, 2]].tolist() == [1, 0]
    assert batch.observed["x"].tolist() == [True, False, True]
    assert encoder.statistics["x"]["frequencies"].tolist() == [0.5, 0.5]


def test_a_numpy_array_of_texts() -> None:
    assert encoded(np.array(["u", "v"]), {"type": "binary", "levels": ["v", "u"]})[1].values["x"].tolist() == [1, 0]


@pytest.mark.parametrize("levels", [[0, 1], ["0", "1"], [0.0, 1.0]])
@pytest.mark.parametrize("column", [[0, 1], [0.0, 1.0], ["0", "1"], np.array([0, 1], dtype=np.float32), ["0", 1]])
def test_levels_match_by_text(levels: list[Any], column: Any) -> None:
    assert encoded(column, {"type": "categorical", "levels": levels})[1].values["x"].tolist() == [0, 1]


def test_a_float32_level_is_the_decimal_it_shows() -> None:
    assert encoded(np.array([0.1, 0.2], dtype=np.float32), {"type": "categorical", "levels": [0.2, 0.1]})[1].values[
        "x"
    ].tolist() == [1, 0]


def test_a_number_and_its_text_may_be_two_levels() -> None:
    node = {"type": "categorical", "levels": [1, "1", "u"]}
    assert encoded([1, "1", 1.0, "u"], node)[1].values["x"].tolist() == [0, 1, 0, 2]


VECTORS = {
    "array": np.array([[1, 2], [3, 4]]),
    "tensor": torch.tensor([[1, 2], [3, 4]]),
    "lists": [[1, 2], [3, 4]],
    "arrays": [np.array([1, 2]), np.array([3.0, 4.0])],
    "tensors": [torch.tensor([1, 2]), torch.tensor([3, 4])],
    "tensors and tuples": [torch.tensor([1, 2]), (3, 4)],
    "lists of tensors": [[torch.tensor(1), torch.tensor(2)], [3, 4]],
    "Series of lists": pd.Series([[1, 2], [3, 4]]),
    "Series of arrays": pd.Series([np.array([1, 2]), np.array([3, 4])]),
    "DataFrame": pd.DataFrame({"p": [1, 3], "q": [2, 4]}),
    "objects": np.array([[1, 2.0], [Decimal(3), 4]], dtype=object),
}


@pytest.mark.parametrize("column", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("node", ["continuous", "count"])
def test_vectors_of_any_kind(column: Any, node: str) -> None:
    encoder, batch = encoded(column, {"type": node, "dim": 2})
    assert encoder.decode("x", batch.values["x"]).tolist() == [[1, 2], [3, 4]]
    assert batch.observed == {}


def test_vectors_in_a_dataframe() -> None:
    table = pd.DataFrame({"y": ["a", "b"], "x": [[1, 2], np.array([3, 4])]})
    encoder = TableEncoder(graph_of(x={"type": "continuous", "dim": 2})).fit(table)
    assert encoder.decode("x", encoder.encode(table).values["x"]).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("column", [[1.0, None], np.array([[1.0], [np.nan]]), [[1.0], None], pd.Series([1, None])])
def test_a_vector_of_one_may_come_flat(column: Any) -> None:
    encoder, batch = encoded(column, {"type": "continuous", "dim": 1})
    assert batch.values["x"].shape == (2, 1)
    assert batch.observed["x"].tolist() == [True, False]
    assert encoder.statistics["x"]["mean"].tolist() == [1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64, bool])
def test_images(dtype: Any) -> None:
    pixels = np.array([[[[0, 1]]], [[[1, 1]]]], dtype=dtype)
    expected = pixels / 255 if dtype is np.uint8 else pixels.astype(float)
    for column in (pixels, torch.from_numpy(pixels), [*pixels], pd.Series([*pixels])):
        encoder, batch = encoded(column, {"type": "image", "shape": [1, 1, 2]})
        np.testing.assert_allclose(batch.values["x"], expected, rtol=1e-6)
        assert batch.values["x"].dtype == torch.float32
        np.testing.assert_allclose(encoder.decode("x", batch.values["x"]), expected, rtol=1e-6)


class Rows(Dataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class SizedRows(Rows):
    def __len__(self) -> int:
        return len(self.rows)


class Stream(IterableDataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


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


# Missing entries


def test_missing_entries_are_filled_in_and_marked() -> None:
    table = all_types_table(5) | {
        "x": [1.0, None, 3.0, 1.0, 3.0],
        "v": [[1.0, 2.0], [np.nan, 7.0], None, [3.0, 6.0], [3.0, 6.0]],
        "n": [1, 4, 4, pd.NA, 4],
        "w": [None, [1, 2, 3], [3, 4, 5], [3, 4, 5], [1, np.nan, 1]],
        "b": ["yes", "yes", "no", np.nan, "yes"],
        "c": [3, None, 3, 1, 2],
    }
    table["i"] = table["i"] * 0 + 0.25
    table["i"][0, 0, 0, 0] = np.nan
    table["y"] = ["a", "b", "b", None, "a"]
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(table)
    batch = encoder.encode(table)
    assert {name: mask.tolist() for name, mask in batch.observed.items()} == {
        "x": [True, False, True, True, True],
        "v": [True, False, False, True, True],
        "n": [True, True, True, False, True],
        "w": [False, True, True, True, False],
        "b": [True, True, True, False, True],
        "c": [True, False, True, True, True],
        "i": [False, True, True, True, True],
        "y": [True, True, True, False, True],
    }
    filled = {name: value[~batch.observed[name]].tolist() for name, value in batch.values.items()}
    assert filled == {
        "x": [0],
        "v": [[0, 0], [0, 0]],
        "n": [3],
        "w": [[2, 3, 4], [2, 3, 4]],
        "b": [1],
        "c": [2],
        "i": [[[[0.25, 0.25], [0.25, 0.25]]]],
        "y": [0],
    }
    assert encoder.statistics["x"]["mean"] == 2
    assert encoder.statistics["c"]["frequencies"].tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, Decimal("NaN")])
def test_a_new_column_may_be_missing_as_a_whole(nothing: Any) -> None:
    table = all_types_table(2) | {"b": ["no", "yes"], "c": [1, 2]}
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(table)
    batch = encoder.encode({name: [nothing] * 2 for name in table})
    assert {name: mask.tolist() for name, mask in batch.observed.items()} == {name: [False, False] for name in table}
    frame = pd.DataFrame({name: [nothing] * 2 for name in table})
    assert encoder.encode(frame).observed.keys() == table.keys()
    assert all(value.isfinite().all() for value in batch.values.values())


def test_a_column_without_entries_cannot_be_learnt_from() -> None:
    with pytest.raises(DataError, match=r"column 'x': found no entry in 2 rows; expected some to learn from"):
        encoded([None, np.nan])
    with pytest.raises(DataError, match="column 'x': found no entry in 2 rows"):
        encoded([[1, None], None], {"type": "continuous", "dim": 2})


# The target


def test_what_becomes_of_the_target() -> None:
    encoder = TableEncoder(graph_of(x="continuous")).fit({"y": ["a", "b"], "x": [1, 3]})
    assert encoder.encode({"x": [1]}).values.keys() == {"x"}
    assert encoder.encode({"x": [1], "y": [None]}).observed["y"].tolist() == [False]
    assert encoder.encode({"x": [1], "y": ["?"]}, target="ignore").values.keys() == {"x"}
    assert encoder.encode({"x": [1], "y": ["b"] * 3}, target="ignore").rows == 1
    assert encoder.encode({"x": [1], "y": ["b"]}, target="require").values["y"].tolist() == [1]
    with pytest.raises(DataError, match=r"target column 'y': found none, but 'Y'; expected one: rename it, or add"):
        encoder.encode({"x": [1], "Y": ["b"]}, target="require")
    with pytest.raises(DataError, match=r"target column 'y': found no label in rows 0, 2 \(counted from 0\)"):
        encoder.encode({"x": [1, 2, 3], "y": [None, "b", None]}, target="require")
    with pytest.raises(DataError, match="unknown levels in row 0"):
        encoder.encode({"x": [1], "y": ["?"]})
    with pytest.raises(DataError, match=r"found target='required'; .*did you mean 'require'"):
        encoder.encode({"x": [1]}, target="required")  # type: ignore[arg-type]


def test_training_needs_labels_of_two_classes() -> None:
    encoder = TableEncoder(graph_of(x="continuous"))
    with pytest.raises(DataError, match=r"target column 'y': found none; expected one: add the column"):
        encoder.fit({"x": [1, 2]})
    with pytest.raises(DataError, match=r"target column 'y': found one class, 'b'; expected rows of at least two"):
        encoder.fit({"x": [1, 2, 3], "y": ["b", "b", None]})
    assert not encoder.fitted
    assert encoder.fit({"x": [1, 2, 3], "y": ["b", "a", None]}).fitted


@pytest.mark.parametrize(
    ("levels", "kind"),
    [
        (["a", "bcd"], "U"),
        ([0, 1], "i"),
        ([False, True], "b"),
        ([0.5, 1.5], "f"),
        (["a", 1], "O"),
        ([1, 2.5], "O"),
    ],
)
def test_labels_are_the_graphs(levels: list[Any], kind: str) -> None:
    graph = graph_of(y={"type": "binary", "levels": levels}, x="continuous")
    encoder = TableEncoder(graph)
    for codes in (torch.tensor([[1, 0]]), torch.tensor([[1.0, 0.0]]), np.array([[1, 0]])):
        found = encoder.labels(codes)
        assert found.dtype.kind == kind
        assert found.tolist() == [[levels[1], levels[0]]]
    assert encoder.labels(torch.tensor([], dtype=torch.long)).shape == (0,)


def test_labels_that_numpy_would_alter_stay_as_they_are() -> None:
    graph = graph_of(y={"type": "binary", "levels": ["a\0", "b"]}, x="continuous")
    assert TableEncoder(graph).labels(np.array([0])).tolist() == ["a\0"]


# Sites


def test_sites() -> None:
    graph = graph_of(scope="clinic", x="continuous")
    table = {"y": labels(5), "x": range(5), "clinic": ["S", "N", None, "S", "E"]}
    encoder = TableEncoder(graph).fit(table)
    assert encoder.sites == ("E", "N", "S")
    site = encoder.encode(table).site
    assert site is not None
    assert site.dtype == torch.int64
    assert site.tolist() == [2, 1, -1, 2, 0]
    new = {"x": [1, 2, 3, 4], "clinic": ["W", "S", "A", np.nan]}
    wider = encoder.with_sites(new)
    assert encoder.sites == ("E", "N", "S")
    assert wider.sites == ("E", "N", "S", "A", "W")
    assert [site_list(e.encode(new)) for e in (encoder, wider)] == [[-1, 2, -1, -1], [4, 2, 3, -1]]
    assert_same(encoder.encode(new, new_sites=True), wider.encode(new))
    assert_same(wider.encode(table), encoder.encode(table))
    assert wider.with_sites(new).sites == wider.sites


def site_list(batch: Batch) -> list[int]:
    assert batch.site is not None
    return [int(site) for site in batch.site]


def test_sites_are_told_apart_by_their_text() -> None:
    graph = graph_of(scope="clinic", x="continuous")
    encoder = TableEncoder(graph).fit({"y": labels(4), "x": range(4), "clinic": [10.0, 9.0, np.nan, 10.0]})
    assert encoder.sites == (10, 9)
    assert json.dumps(encoder.sites) == "[10, 9]"
    for clinics in (
        [9, 10],
        ["9", "10"],
        np.array([9, 10], dtype=np.uint8),
        pd.Series([9, 10], dtype="category"),
    ):
        assert site_list(encoder.encode({"x": [0, 1], "clinic": clinics})) == [1, 0]
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [0, 1], "clinic": np.array([0.1, 2], dtype=np.float32)})
    assert encoder.sites == (0.1, 2)
    restored = TableEncoder.from_state(graph, json.loads(json.dumps(encoder.state())))
    assert site_list(restored.encode({"x": [0, 1], "clinic": np.array([2, 0.1], dtype=np.float32)})) == [1, 0]


def test_a_scope_column_that_is_a_node_may_hold_new_sites() -> None:
    graph = CausalGraph(
        {
            "target": "y",
            "nodes": {
                "clinic": {"type": "categorical", "levels": ["N", "S"]},
                "y": {"type": "categorical", "levels": ["a", "b"]},
                "x": "continuous",
            },
            "edges": ["clinic -> y -> x"],
            "latents": {"m": {"scope": "clinic"}},
        }
    )
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [0, 1], "clinic": ["S", "N"]})
    batch = encoder.encode({"x": [0, 1], "clinic": ["W", "S"]})
    assert batch.observed["clinic"].tolist() == [False, True]
    assert site_list(batch) == [-1, 1]
    with pytest.raises(DataError, match=r"column 'clinic': found unknown levels in row 1 \('W'\)"):
        encoder.fit({"y": ["a", "b"], "x": [0, 1], "clinic": ["S", "W"]})


def test_a_scope_column_has_to_be_there() -> None:
    graph = graph_of(scope="clinic", x="continuous")
    table = {"y": ["a", "b"], "x": [0, 1], "clinic": ["S", "N"]}
    encoder = TableEncoder(graph)
    missing = "scope column 'clinic': found none, but 'clinics'; expected one: rename it, or add the column"
    for call in (encoder.fit, encoder.fit(table).encode, encoder.with_sites):
        with pytest.raises(DataError, match=re.escape(missing)):
            call({"y": ["a", "b"], "x": [0, 1], "clinics": ["S", "N"]})
    with pytest.raises(DataError, match="column 'clinic': found no entry in 2 rows"):
        encoder.fit(table | {"clinic": [None, None]})
    with pytest.raises(
        DataError, match=r"scope column 'clinic': found no text, finite number or boolean in row 1 \(inf\)"
    ):
        encoder.encode(table | {"clinic": [1.0, np.inf]})
    with pytest.raises(DataError, match="scope column 'clinic': found no text, finite number or boolean in rows 0"):
        encoder.encode(table | {"clinic": pd.to_datetime(["2020-01-01", "2020-01-01"])})
    with pytest.raises(DataError, match=r"scope column 'clinic': found entries of shape \(2\); expected one site"):
        encoder.encode(table | {"clinic": np.ones((2, 2))})


def test_without_a_scope_column_there_are_no_sites() -> None:
    encoder, batch = encoded([1, 2])
    assert encoder.sites == ()
    assert batch.site is None
    assert encoder.with_sites({"x": [1]}).sites == ()


# Errors


@pytest.mark.parametrize(
    ("node", "column", "message"),
    [
        (
            "continuous",
            [1, "?", 2.0, "n/a", "?", "?", "?", "?"],
            "column 'x': found no number in rows 1 ('?'), 3 ('n/a'), 4 ('?'), 5 ('?'), 6 ('?') and "
            "1 more (counted "
            "from 0); convert the column (pandas.to_numeric reads text), with NaN where an entry is missing",
        ),
        ("continuous", pd.Series(["1", "2"], dtype="string"), "found no number in rows 0 ('1'), 1 ('2')"),
        ("continuous", np.array(["1", "2"]), "found no number in rows 0 ('1'), 1 ('2')"),
        ("continuous", pd.to_datetime(["2020-01-01"] * 2), "found no number in rows 0 (Timestamp("),
        ("continuous", np.array([1, 2], dtype="m8[ns]"), "found no number in rows 0 (Timedelta("),
        ("continuous", np.array([1j, 2]), "found no number in rows 0 (1j), 1 ((2+0j))"),
        ("continuous", [10**400, 1], "found no number in row 0 (1000"),
        ("continuous", [object, 1], "found no number in row 0 (<class 'object'>)"),
        (
            "continuous",
            [1.0, np.inf, None, -np.inf],
            "column 'x': found infinite values in rows 1 (inf), 3 (-inf) (counted from 0); correct "
            "them, or set to "
            "NaN what is missing",
        ),
        ("count", [1, float("inf")], "column 'x': found infinite values in row 1 (inf)"),
        (
            "count",
            [1, -1, 0.5, None],
            "column 'x': found negative or fractional values in rows 1 (-1.0), 2 (0.5) (counted "
            "from 0); expected "
            "counts 0, 1, 2, ...: correct them, or make the node continuous",
        ),
        ("count", ["many", 1], "column 'x': found no number in row 0 ('many')"),
        (
            {"type": "count", "dim": 2},
            [[1, 2], [3, -4]],
            "found negative or fractional values in row 1 ([3.0, -4.0])",
        ),
        ({"type": "count", "dim": 2}, [[1, 2], [3, "?"]], "found no number in row 1 ('?')"),
        (
            {"type": "continuous", "dim": 2},
            [None, [3, np.inf]],
            "found infinite values in row 1 ([3.0, inf])",
        ),
        ({"type": "continuous", "dim": 2}, [None, ["?", 1]], "found no number in row 1 ('?')"),
        (
            {"type": "categorical", "levels": ["no", "yes"]},
            ["yes", "Yes", "no", None, "jes"],
            "column 'x': found unknown levels in rows 1 ('Yes'), 4 ('jes') (counted from 0); "
            "expected one of 'no', "
            "'yes'; did you mean 'yes'?; correct them, or add the level to the graph",
        ),
        (
            "binary",
            [0, 1, 2],
            "column 'x': found unknown levels in row 2 (2) (counted from 0); expected one of '0', '1'",
        ),
        ("binary", [0, 0.5], "found unknown levels in row 1 (0.5)"),
        (
            "binary",
            [[0], [1]],
            "column 'x': unhashable type: 'list'; expected one text, number or boolean a row",
        ),
        (
            "binary",
            np.ones((2, 1)),
            "found entries of shape (1); expected one value a row: reshape the column",
        ),
        (
            "continuous",
            np.ones((2, 3)),
            "column 'x': found entries of shape (3); expected one value a row: reshape the column, "
            "or correct 'dim' "
            "in the graph",
        ),
        ("continuous", [1, [2, 3]], "column 'x': found entries of shape (2) in row 1 (counted from 0)"),
        ("continuous", [[2, 3], [2, 3]], "column 'x': found entries of shape (2) in row 0 (counted from 0)"),
        ({"type": "continuous", "dim": 2}, np.ones((2, 3)), "found entries of shape (3); expected shape (2)"),
        (
            {"type": "continuous", "dim": 2},
            [[1, 2], [1, 2, 3]],
            "entries of shape (3) in row 1 (counted from 0)",
        ),
        ({"type": "continuous", "dim": 2}, [[1, 2], [[1], [2, 3]]], "found no number in row 1 ([1])"),
        (
            {"type": "continuous", "dim": 2},
            [[1, 2], 3.0],
            "found 3.0 in row 1 (counted from 0); expected an array of shape (2): reshape the column, or",
        ),
        ({"type": "continuous", "dim": 2}, [1.0, 2.0], "found 1.0 in row 0"),
        ({"type": "continuous", "dim": 2}, ["ab", "cd"], "found 'ab' in row 0"),
        (
            {"type": "image", "shape": [1, 2, 2]},
            [None, object()],
            "found a value of type object in row 1 (counted from 0); expected an array of shape (1, 2, 2): give arrays",
        ),
        (
            {"type": "image", "shape": [1, 1, 1]},
            [None, np.full((1, 1, 1), 255, np.uint8), np.full((1, 1, 1), 0.5)],
            "found uint8 in row 1, float64 in row 2 (counted from 0); expected one of them in all rows",
        ),
        (
            {"type": "image", "shape": [1, 1, 1]},
            [np.full((1, 1, 1), 0.5, np.float32), np.zeros((1, 1, 1), np.uint8)],
            "found uint8 in row 1, float32 in row 0",
        ),
        (
            {"type": "image", "shape": [1, 2, 2]},
            np.ones((2, 2, 2)),
            "column 'x': found entries of shape (2, 2); expected shape (1, 2, 2): reshape the "
            "column, or correct 'shape' "
            "in the graph",
        ),
        (
            {"type": "image", "shape": [1, 1, 2]},
            np.array([[[[0, 1.0]]], [[[-1, 255]]], [[[np.nan, 2]]]]),
            "column 'x': found intensities from -1 to 255 in rows 1, 2 (counted from 0); expected 0 "
            "to 1: rescale them, "
            "or give uint8",
        ),
        (
            {"type": "image", "shape": [1, 1, 1]},
            np.full((2, 1, 1, 1), np.inf),
            "found infinite values in rows 0",
        ),
        (
            {"type": "image", "shape": [1, 1, 1]},
            np.full((2, 1, 1, 1), "?"),
            "found no number in rows 0 ('?')",
        ),
    ],
)
def test_a_column_that_does_not_fit(node: Any, column: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        encoded(column, node)
    assert message in str(caught.value)
    assert str(caught.value).startswith("column 'x': ")
    good = {"y": ["a", "b"], "x": fitting(node)}
    encoder = TableEncoder(graph_of(x=node)).fit(good)
    with pytest.raises(DataError) as caught:
        encoder.encode({"x": column})
    assert message in str(caught.value)


def fitting(node: Any) -> Any:
    """Two entries that fit."""
    spec = {"type": node} if isinstance(node, str) else node
    if spec["type"] in ("binary", "categorical"):
        return spec.get("levels", [0, 1])
    return np.zeros((2, *spec.get("shape", [spec["dim"]] if "dim" in spec else [])))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"y": ["a"], "x": [1, 2, 3]}, "found 1 rows in 'y', 3 in 'x'; expected one entry a row in each"),
        ({"y": [], "x": []}, "the table is empty; expected at least one row"),
        (pd.DataFrame({"y": [], "x": []}), "the table is empty"),
        (pd.DataFrame(), "the table is empty"),
        (SizedRows([]), "the table is empty"),
        (Stream([]), "the table is empty"),
        ({}, "column 'y': found none; expected one: add the column, with NaN where nothing is known"),
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
            "found a list as table; expected a pandas DataFrame, a mapping of column name to array",
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


def test_a_missing_column_names_the_nearest_that_is_no_node() -> None:
    graph = graph_of(radius="continuous", radius_2="continuous")
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "radius": [1, 2], "radius_2": [1, 2]})
    with pytest.raises(DataError, match=r"^column 'radius': found none, but 'Radius_mm'; expected one: rename it, or"):
        encoder.encode({"radius_2": [1], "Radius_mm": [1]})
    with pytest.raises(DataError, match=r"^column 'radius': found none; expected one: add the column"):
        encoder.encode({"radius_2": [1]})


def test_values_beyond_the_dtype_are_not_infinite_in_secret() -> None:
    encoder, _ = encoded([0.0, 1e-30])
    with pytest.raises(
        DataError, match=r"column 'x': found values too far from the training rows for torch.float32 in row 1"
    ):
        encoder.encode({"x": [0.0, 1e30]})
    encoder, _ = encoded([0.0, 1e-310])
    with pytest.raises(DataError, match="too far"):
        encoder.encode({"x": [1.0]})


def test_an_encoder_that_is_not_fitted_says_so() -> None:
    encoder = TableEncoder(graph_of(x="continuous"))
    assert not encoder.fitted
    for call in (encoder.encode, encoder.with_sites):
        with pytest.raises(RuntimeError, match="call fit first"):
            call({"x": [1]})
    with pytest.raises(RuntimeError, match="call fit first"):
        encoder.encode_value("x", 1)
    with pytest.raises(RuntimeError, match="call fit first"):
        encoder.decode("x", torch.zeros(1))


def test_a_fit_that_fails_changes_nothing() -> None:
    encoder, batch = encoded([1.0, 3.0])
    with pytest.raises(DataError):
        encoder.fit({"y": ["a", "b"], "x": [5.0, np.inf]})
    assert_same(encoder.encode({"y": ["a", "b"], "x": [1.0, 3.0]}), batch)


def test_columns_that_are_no_nodes_are_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    table = pd.DataFrame({"y": ["a", "b"], "x": [1, 2], "id": [1, 2], "clinic": [1, 2]})
    encoder = TableEncoder(graph_of(scope="clinic", x="continuous"))
    with caplog.at_level(logging.WARNING, logger="pyro_cama"):
        encoder.fit(table)
        encoder.encode(table)
        encoder.with_sites(table).encode(table.assign(more=1))
    assert [record.getMessage() for record in caplog.records] == [
        "columns that are no nodes of the graph are ignored: 'id'"
    ]
    assert caplog.records[0].name == "pyro_cama"


def test_nothing_is_noted_without_cause(caplog: pytest.LogCaptureFixture) -> None:
    encoded([1, 2])
    assert not caplog.records


# Back to raw units


def test_decode_takes_any_leading_shape() -> None:
    table = all_types_table()
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(table)
    batch = encoder.encode(table)
    for name, value in batch.values.items():
        twice = torch.stack([value, value]).unsqueeze(1).requires_grad_(value.is_floating_point())
        found, expected = encoder.decode(name, twice), np.asarray(table[name])
        assert found.shape == (2, 1, *value.shape)
        if expected.dtype.kind == "U":
            assert found[1, 0].tolist() == expected.tolist()
        else:
            np.testing.assert_allclose(found[1, 0], expected, rtol=1e-5)
        assert encoder.decode(name, value[0]).shape == value.shape[1:]


def test_decode_says_what_is_wrong() -> None:
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(all_types_table())
    with pytest.raises(DataError, match=r"found 'X'; expected one of .*; did you mean 'x'\?"):
        encoder.decode("X", torch.zeros(1))
    with pytest.raises(DataError, match=r"node 'v': found shape \(2, 3\); expected \(\.\.\., 2\)"):
        encoder.decode("v", torch.zeros(2, 3))
    with pytest.raises(DataError, match=r"node 'i': found shape \(2, 2\); expected \(\.\.\., 1, 2, 2\)"):
        encoder.decode("i", torch.zeros(2, 2))
    with pytest.raises(DataError, match="node 'c': found codes -1 to 3; expected 0 to 2"):
        encoder.decode("c", torch.tensor([3, -1]))
    with pytest.raises(DataError, match="node 'y': found codes 0 to 2; expected 0 to 1"):
        encoder.labels(torch.tensor([0, 2]))


def test_single_values_are_encoded_as_rows_are() -> None:
    table = all_types_table() | {"b": ["no", "yes"] * 3}
    encoder = TableEncoder(graph_of(**ALL_TYPES)).fit(table)
    batch = encoder.encode(table)
    for name, column in table.items():
        value = encoder.encode_value(name, column[1])
        assert value.dtype == batch.values[name].dtype
        assert torch.equal(value, batch.values[name][1])
    assert encoder.encode_value("v", [1, 2]).shape == (2,)
    assert encoder.encode_value("x", torch.tensor(1.0)).shape == ()
    with pytest.raises(DataError, match=r"found 'X'; expected one of .*; did you mean 'x'\?"):
        encoder.encode_value("X", 1.0)
    with pytest.raises(DataError, match=r"node 'x': found the missing value nan; expected a value"):
        encoder.encode_value("x", float("nan"))
    with pytest.raises(DataError, match="column 'b': found unknown levels in row 0"):
        encoder.encode_value("b", "maybe")
    with pytest.raises(DataError, match=r"column 'v': found 1\.0 in row 0"):
        encoder.encode_value("v", 1.0)


# State


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=5), st.lists(st.text(), min_size=1))
def test_the_state_survives_json_exactly(numbers: list[float], sites: list[str]) -> None:
    graph = graph_of(scope="clinic", x="continuous", b={"type": "binary", "levels": [False, True]})
    rows = len(numbers)
    table = {
        "y": labels(rows),
        "x": numbers,
        "b": [bool(i % 3) for i in range(rows)],
        "clinic": [sites[i % len(sites)] for i in range(rows)],
    }
    encoder = TableEncoder(graph).fit(table)
    restored = TableEncoder.from_state(graph, json.loads(json.dumps(encoder.state(), allow_nan=False)))
    assert restored.fitted
    assert restored.state() == encoder.state()
    assert restored.sites == encoder.sites
    for name, entries in encoder.statistics.items():
        for key, value in entries.items():
            assert restored.statistics[name][key].dtype == torch.float64
            assert torch.equal(restored.statistics[name][key], value)


def test_the_state_of_an_encoder_that_is_not_fitted() -> None:
    graph = graph_of(x="continuous")
    restored = TableEncoder.from_state(graph, json.loads(json.dumps(TableEncoder(graph).state())))
    assert not restored.fitted


def test_a_state_that_is_damaged_or_of_another_graph() -> None:
    graph = graph_of(x={"type": "continuous", "dim": 2})
    encoder = TableEncoder(graph).fit({"y": ["a", "b"], "x": [[1, 2], [3, 4]]})
    state = encoder.state()

    def changed(change: dict[str, Any]) -> dict[str, Any]:
        other = copy.deepcopy(state)
        other["statistics"]["x"] |= change
        return other

    damaged: list[Any] = [
        {},
        [],
        {key: value for key, value in state.items() if key != "sites"},
        state | {"statistics": {"y": state["statistics"]["y"]}},
        changed({"sd": "?"}),
        changed({"sd": None}),
        changed({"sd": [1.0]}),
        changed({"mean": [1.0, float("nan")]}),
    ]
    for other in damaged:
        with pytest.raises(DataError, match="stored"):
            TableEncoder.from_state(graph, other)
    with pytest.raises(DataError, match=r"stored levels of 'y': found \['a', 'b'\]; expected \['b', 'a'\]"):
        TableEncoder.from_state(graph_of(y={"type": "binary", "levels": ["b", "a"]}, x="continuous"), state)


# Batches


def test_select() -> None:
    batch = Batch(
        {"x": torch.arange(4.0)},
        {"x": torch.tensor([True, True, False, True])},
        torch.tensor([0, 1, 0, -1]),
        4,
    )
    for index in (torch.tensor([3, 0]), torch.tensor([3, 0], dtype=torch.int32)):
        part = batch.select(index)
        assert part.rows == 2
        assert part.values["x"].tolist() == [3, 0]
        assert part.observed["x"].tolist() == [True, True]
        assert site_list(part) == [-1, 0]
    part = batch.select(torch.tensor([False, True, True, False]))
    assert part.rows == 2
    assert part.values["x"].tolist() == [1, 2]
    assert batch.select(torch.tensor([], dtype=torch.long)).rows == 0


def test_to() -> None:
    batch = Batch(
        {"x": torch.ones(2), "c": torch.tensor([0, 1])},
        {"x": torch.tensor([True, False])},
        torch.tensor([0, 1]),
        2,
    )
    moved = batch.to("cpu", torch.float64)
    assert moved.values["x"].dtype == torch.float64
    assert moved.values["c"].dtype == torch.int64
    assert moved.observed["x"].dtype == torch.bool
    assert moved.site is not None
    assert moved.site.dtype == torch.int64
    assert_same(batch.to(), batch)
    meta = batch.to("meta")
    assert {value.device.type for value in (*meta.values.values(), *meta.observed.values())} == {"meta"}


def test_without() -> None:
    batch = Batch({"x": torch.ones(2), "y": torch.ones(2)}, {"y": torch.tensor([True, False])}, torch.tensor([0, 1]), 2)
    left = batch.without("y", "never")
    assert left.values.keys() == {"x"}
    assert left.observed == {}
    assert left.rows == 2
    assert left.site is batch.site
    assert batch.values.keys() == {"x", "y"}


def test_concatenate() -> None:
    graph = graph_of(scope="clinic", x="continuous", v={"type": "continuous", "dim": 2})
    table = pd.DataFrame(
        {
            "y": labels(4),
            "x": [1, 2, None, 4],
            "v": [[1, 2], [3, 4], None, [0, 0]],
            "clinic": ["N", "S", "S", None],
        }
    )
    encoder = TableEncoder(graph).fit(table)
    parts = [encoder.encode(table[:2]), encoder.encode(table[2:])]
    assert parts[0].observed == {}
    assert_same(Batch.concatenate(parts), encoder.encode(table))
    assert_same(Batch.concatenate(iter(parts[:1])), parts[0])
    with pytest.raises(DataError, match="no batches"):
        Batch.concatenate([])
    with pytest.raises(DataError, match="found 'y' in some batches only; expected the same nodes in all"):
        Batch.concatenate([parts[0], parts[1].without("y")])
    with pytest.raises(DataError, match="found sites in some batches only"):
        Batch.concatenate([parts[0], Batch(parts[1].values, {}, None, 2)])


# Scale


def test_a_big_table_is_encoded_column_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """No entry of a numeric or text column is touched in Python: what would do so is switched off."""
    no_entry_by_entry(monkeypatch)
    rng = np.random.default_rng(0)
    rows = 20_000
    table: Table = pd.DataFrame(
        {
            "y": rng.choice(["a", "b"], rows),
            "x": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "n": pd.array(rng.poisson(3, rows), dtype="Int64"),
            "c": pd.Series(rng.choice([1, 2, 3], rows), dtype=object),
            "b": pd.Categorical(rng.choice(["no", "yes"], rows)),
        }
    )
    nodes = {name: node for name, node in ALL_TYPES.items() if name in "xncb"}
    assert TableEncoder(graph_of(**nodes)).fit(table).encode(table).rows == rows
