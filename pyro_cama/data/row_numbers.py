"""Which rows a message means: row numbers, those of a part of a table counted in the whole table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyro_cama._messages import shown

Column: TypeAlias = "pd.Series[Any] | NDArray[Any]"
Mask: TypeAlias = NDArray[np.bool_]
Index: TypeAlias = NDArray[np.int64]
_SHOWN = 5  # offending rows in a message
_NUMBERS: ContextVar[Index | None] = ContextVar("_NUMBERS", default=None)


@contextmanager
def numbered(rows: Index) -> Iterator[None]:
    """Makes messages inside call the rows of a table by these numbers: those of a part in the whole table."""
    token = _NUMBERS.set(rows)
    try:
        yield
    finally:
        _NUMBERS.reset(token)


def row_number(row: int) -> int:
    """Returns the number by which messages call a row, see :func:`numbered`."""
    numbers = _NUMBERS.get()
    return row if numbers is None else int(numbers[row])


def plain_scalar(value: Any) -> Any:
    """Returns a numpy scalar as Python's; a float32 0.1 means 0.1."""
    if isinstance(value, np.floating):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value


def rows_text(bad: Mask, values: Column | None = None, rows: Index | None = None) -> str:
    """Returns the first bad rows in words, counted from 0, with their values if given."""
    places = np.flatnonzero(bad)
    text = []
    for place in places[:_SHOWN]:
        number = str(row_number(int(place if rows is None else rows[place])))
        if values is not None:
            value = values.iloc[place] if isinstance(values, pd.Series) else values[place]
            number += f" ({shown(value.tolist() if isinstance(value, np.ndarray) else plain_scalar(value))})"
        text.append(number)
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return f"row{'s' if len(places) > 1 else ''} {', '.join(text)}{more} (counted from 0)"


def sizes_text(shape: Iterable[int]) -> str:
    """Returns the sizes of a shape in words, such as "3, 4"."""
    return ", ".join(str(size) for size in shape)
