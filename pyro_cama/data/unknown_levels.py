"""Levels that no graph names, in rows to be read: an error, or missing entries that a warning counts.

The rows of one call may come in parts, and be read more than once; what was found is said once, when all is done.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import numpy as np
import pandas as pd

from pyro_cama._arguments import expect
from pyro_cama._messages import caller_level, listed
from pyro_cama.data.row_numbers import Column, Mask, plain_scalar, row_number

Unknown = Literal["error", "missing"]
_found: ContextVar[dict[str, dict[int, object]] | None] = ContextVar("pyro_cama_unknown_levels", default=None)


def expect_unknown(where: str, unknown: object) -> None:
    """Refuses what is no :data:`Unknown`.

    Raises:
        ValueError: another word.
    """
    expect(where, "unknown", unknown, unknown in ("error", "missing"), "'error' or 'missing'")


@contextmanager
def reading_unknown(unknown: Unknown, where: str) -> Iterator[None]:
    """Says what an unknown level is to :meth:`TableEncoder.encode` inside; warns of those read as missing at the end.

    Args:
        unknown: "error", or "missing", which a label is not: of the target an unknown one stays an error.
        where: what the warning calls the reader, such as "predict".

    Raises:
        ValueError: another word.
    """
    expect_unknown(where, unknown)
    if unknown == "error" or _found.get() is not None:  # whoever asked first says what was found
        yield
        return
    found: dict[str, dict[int, object]] = {}
    token = _found.set(found)
    try:
        yield
    finally:
        _found.reset(token)
    if found:
        text = "; ".join(_text(name, rows) for name, rows in found.items())
        warnings.warn(
            f"{where}: found levels that the graph does not name, which are read as missing: {text}. Correct them, or "
            "add the levels to the graph and fit again",
            UserWarning,
            stacklevel=caller_level(),
        )


def takes_unknown() -> bool:
    """Returns whether an unknown level is read as missing."""
    return _found.get() is not None


def note_unknown(name: str, column: Column, present: Mask) -> None:
    """Notes the entries of a column that were read as missing though there is something."""
    found = _found.get()
    if found is None or present.all():
        return
    for row in np.flatnonzero(~present & ~np.asarray(pd.isna(column))).tolist():
        value = column.iloc[row] if isinstance(column, pd.Series) else column[row]
        found.setdefault(name, {})[row_number(row)] = plain_scalar(value)


def _text(name: str, rows: dict[int, object]) -> str:
    levels = listed(dict.fromkeys(rows.values()))
    count = f"{len(rows)} entr{'y' if len(rows) == 1 else 'ies'}"
    return f"column {name!r}: {levels}, {count}, {'the first ' if len(rows) > 1 else ''}in row {min(rows)}"
