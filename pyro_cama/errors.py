"""The two errors that a user can cause and repair."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class GraphError(ValueError):
    """The causal graph, or what is asked of it, is at fault; the message says where and what to do."""


class DataError(ValueError):
    """The data do not fit the graph or the model; the message names the column, the rows and the remedy."""


@contextmanager
def data_errors_at(place: object) -> Iterator[None]:
    """Puts a place, such as a file's name, before what a :class:`DataError` inside says, unless it stands there.

    >>> with data_errors_at("rows.csv"):
    ...     raise DataError("found no column 'age'")
    Traceback (most recent call last):
    pyro_cama.errors.DataError: rows.csv: found no column 'age'
    """
    try:
        yield
    except DataError as error:
        if str(error).startswith(f"{place}: "):
            raise
        raise DataError(f"{place}: {error}") from error
