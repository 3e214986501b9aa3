"""What columns seem to be."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_cama.graph.column_types import guess


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


def test_missing_marks_are_said() -> None:
    assert guess(texts([0.5, "?", 2.25, "-", "NA", 7])).why == "0.5 to 7, 3 of 6 missing ('?', '-' among them)"


def test_a_column_of_arrays_has_no_type() -> None:
    found = guess(pd.Series([np.array([1.0, 2.0]), None, np.array([3.0, 4.0])], dtype=object))
    assert found.keys is None
    assert found.why.startswith("entries such as array(")
