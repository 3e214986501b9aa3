"""Texts that stand among the numbers of a file: words and marks for a missing one, and decimal commas."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Mask: TypeAlias = NDArray[np.bool_]
# what a numeric column may say where nothing was measured; to a column of levels these may be levels
NO_NUMBER = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>")
MARKS = ("?", "-", "--", "*", ".")  # may be slips too, so that they are told of
_COMMA = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")


def is_text(column: pd.Series[Any]) -> bool:
    """Returns whether a column may hold texts."""
    return bool(pd.api.types.is_string_dtype(column.dtype) or column.dtype == object)


def missing_numbers(column: pd.Series[Any]) -> tuple[Mask, Mask]:
    """Returns the rows of a column of texts that say a number is missing, and those of them that hold a mark."""
    bare = column.map(lambda entry: entry.strip() if isinstance(entry, str) else None)
    marks = np.asarray(bare.isin(MARKS))
    return np.asarray(bare.isin(NO_NUMBER)) | marks, marks


def numbers_of(column: pd.Series[Any]) -> tuple[pd.Series[Any], Mask]:
    """Returns a column of texts as numbers, and the rows in which a mark was taken for a missing one.

    One odd entry makes texts of all: what is no number stays as it is, so that a message can point at it.

    >>> column, marks = numbers_of(pd.Series(["1.5", "?", "NA", "two"]))
    >>> column.tolist(), marks.tolist()
    ([1.5, nan, nan, 'two'], [False, True, False, False])
    """
    if not is_text(column):
        return column, np.zeros(len(column), dtype=np.bool_)
    numbers = pd.to_numeric(column, errors="coerce")
    odd = np.asarray(numbers.isna() & column.notna())
    if not odd.any():
        return numbers, odd
    missing, marks = missing_numbers(column)
    odd = odd & ~missing
    return numbers.astype(object).where(~odd, column.astype(object)) if odd.any() else numbers, marks


def comma_hint(entry: Any) -> str:
    """Returns what to do about a number's commas, nothing where there are none.

    >>> comma_hint("0,5"), comma_hint("1,234,567")
    ("; is that a decimal comma? write '0.5'", "; write '1234567'")
    """
    bare = entry.strip() if isinstance(entry, str) else ""
    if _COMMA.fullmatch(bare):
        return f"; is that a decimal comma? write '{bare.replace(',', '.')}'"
    return f"; write '{bare.replace(',', '')}'" if _THOUSANDS.fullmatch(bare) else ""
