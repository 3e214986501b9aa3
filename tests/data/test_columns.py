"""Columns of every kind: numbers, levels, texts, vectors, images; and those that do not fit."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.open_stream import open_stream
from pyro_cama.errors import DataError
from tests.helpers.tables import encoded, fitting, graph_of

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


@pytest.mark.parametrize(
    ("levels", "column", "codes"),
    [
        ([1.0, 2.5], ["1.0", "1", "2.5", "2.50", "1e0"], [0, 0, 1, 1, 0]),
        (["1", "1.0"], ["1.0", "1", "1", "1.0", "1"], [1, 0, 0, 1, 0]),  # both in the graph: distinct
        (
            ["1", "2"],
            ["1.0", "2", "1", "2.0", "1"],
            [0, 1, 0, 1, 0],
        ),  # whole numbers, one missing beside them
        (["1.0", "2.0"], [1, 2.0, "1", "2.0", 1.0], [0, 1, 0, 1, 0]),
        ([False, True], ["false", "TRUE", "True", True, "False"], [0, 1, 1, 1, 0]),
    ],
)
def test_levels_by_how_they_may_be_written(levels: list[Any], column: list[Any], codes: list[int]) -> None:
    node = {"type": "binary" if False in levels else "categorical", "levels": levels}
    assert encoded(column, node)[1].values["x"].tolist() == codes


@pytest.mark.parametrize(("levels", "wrong"), [(["1", "2"], "01"), (["01", "2"], "1"), (["1000", "2"], "1e3")])
def test_names_made_of_digits_are_no_numbers(levels: list[Any], wrong: str) -> None:
    with pytest.raises(DataError, match=f"found unknown levels in row 0 .'{wrong}'"):
        encoded([wrong, "2"], {"type": "categorical", "levels": levels})


@pytest.mark.parametrize("levels", [[0, 1], ["0", "1"], [0.0, 1.0]])
@pytest.mark.parametrize("column", [[0, 1], [0.0, 1.0], ["0", "1"], np.array([0, 1], dtype=np.float32), ["0", 1]])
def test_levels_match_by_text(levels: list[Any], column: Any) -> None:
    assert encoded(column, {"type": "categorical", "levels": levels})[1].values["x"].tolist() == [0, 1]


def test_a_float32_level_is_the_decimal_it_shows() -> None:
    assert encoded(np.array([0.1, 0.2], dtype=np.float32), {"type": "categorical", "levels": [0.2, 0.1]})[1].values[
        "x"
    ].tolist() == [1, 0]


NARROW = {
    "array": np.array([0.1, 0.2], dtype=np.float32),
    "Series": pd.Series([0.1, 0.2], dtype=np.float32),
    "half": pd.Series([0.1, 0.2], dtype=np.float16),
    "Float32": pd.Series([0.1, 0.2], dtype="Float32"),
    "category": pd.Series([0.1, 0.2], dtype=np.float32).astype("category"),
    "sparse": pd.Series(pd.arrays.SparseArray([0.1, 0.2], dtype=np.float32)),
    "other byte order": pd.Series(np.array([0.1, 0.2], dtype=">f4")),
    "array of the other byte order": np.array([0.1, 0.2], dtype=">f4"),
    "tensor": torch.tensor([0.1, 0.2]),
    "list": [np.float32(0.1), np.float32(0.2)],
    "text": ["0.1", "0.2"],
    "wide": [0.1, 0.2],
}


@pytest.mark.parametrize("column", NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("frame", [False, True])
def test_levels_and_sites_are_the_same_in_every_container(column: Any, frame: bool) -> None:
    if frame and isinstance(column, torch.Tensor):
        column = column.numpy()
    table: Any = {"y": ["a", "b"], "x": column, "site": column}
    table = pd.DataFrame(table) if frame else table
    graph = graph_of("site", x={"type": "categorical", "levels": [0.2, 0.1]})
    encoder = TableEncoder(graph).fit(table)
    assert encoder.encode(table).values["x"].tolist() == [1, 0]
    assert [str(site) for site in encoder.sites] == ["0.1", "0.2"]
    plain = encoder.encode({"x": [0.2, 0.1], "site": [0.2, 0.1]})
    assert plain.site is not None
    assert plain.site.tolist() == [1, 0]


def test_levels_and_sites_of_arrow_and_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    graph = graph_of("site", x={"type": "categorical", "levels": [0.2, 0.1]})
    narrow = pd.Series([0.1, 0.2], dtype=np.float32)
    frame = pd.DataFrame({"y": ["a", "b"], "x": narrow, "site": narrow})
    frame.to_parquet(tmp_path / "t.parquet")
    stream = open_stream(tmp_path / "t.parquet", graph)
    assert stream is not None
    arrow = frame.astype({name: pd.ArrowDtype(pa.float32()) for name in ("x", "site")})
    for table in (arrow, next(iter(stream.parts(["y", "x", "site"])))[1]):
        encoder = TableEncoder(graph).fit(table)
        assert encoder.sites == (0.1, 0.2)
        assert encoder.encode(table).values["x"].tolist() == [1, 0]


@pytest.mark.parametrize("order", ["<i4", ">i4", ">i8", ">u2", ">f8"])
@pytest.mark.parametrize("series", [False, True])
def test_levels_of_either_byte_order(order: str, series: bool) -> None:
    column: Any = np.array([3, 1, 2], dtype=order)
    column = pd.Series(column) if series else column
    assert encoded(column, {"type": "categorical", "levels": [1, 2, 3]})[1].values["x"].tolist() == [2, 0, 1]


def test_booleans_for_texts_and_texts_for_booleans_come_with_a_hint() -> None:
    with pytest.raises(DataError, match=r"expected one of 'no', 'yes'.*column\.map\(\{True: \.\.\., False: \.\.\.\}\)"):
        encoded([True, False], {"type": "binary", "levels": ["no", "yes"]})
    with pytest.raises(DataError, match=r"expected one of 'False', 'True'.*YAML reads unquoted no as a boolean: quote"):
        encoded(["no", "yes"], {"type": "binary", "levels": [False, True]})


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
    pixels = np.array([[[[0, 1]]], [[[1, 1]]]], dtype=dtype) * (51 if dtype is np.uint8 else 1)
    expected = pixels / 255 if dtype is np.uint8 else pixels.astype(float)
    for column in (pixels, torch.from_numpy(pixels), [*pixels], pd.Series([*pixels])):
        encoder, batch = encoded(column, {"type": "image", "shape": [1, 1, 2]})
        np.testing.assert_allclose(batch.values["x"], expected, rtol=1e-6)
        assert batch.values["x"].dtype == torch.float32
        np.testing.assert_allclose(encoder.decode("x", batch.values["x"]), expected, rtol=1e-6)


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
        ("continuous", ["0,5", "1,5"], "is missing; is that a decimal comma? write '0.5'"),
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


def test_values_beyond_the_dtype_are_not_infinite_in_secret() -> None:
    encoder, _ = encoded([0.0, 1e-30])
    with pytest.raises(
        DataError, match=r"column 'x': found values too far from the training rows for torch.float32 in row 1"
    ):
        encoder.encode({"x": [0.0, 1e30]})
    encoder, _ = encoded([0.0, 1e-310])
    with pytest.raises(DataError, match="too far"):
        encoder.encode({"x": [1.0]})
