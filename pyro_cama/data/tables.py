"""Tables of any kind as named columns: DataFrames, Arrow tables, mappings of arrays, Datasets of mappings a row."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from pyro_cama._messages import listed
from pyro_cama.data.row_numbers import Column, row_number
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph


class ArrowTable(Protocol):
    """A table that hands its columns over by Arrow's C stream, as those of polars, pyarrow and DuckDB do."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Returns a capsule of an ArrowArrayStream."""


Table: TypeAlias = pd.DataFrame | ArrowTable | Mapping[str, Any] | Dataset[Any]
"""A pandas or polars DataFrame, a pyarrow Table or whatever else has Arrow's C stream, a mapping of column name to
array, or a torch Dataset that yields such mappings a row."""


@dataclass(frozen=True)
class Columns:
    """A table's wanted columns, the names of all its columns, and its number of rows."""

    columns: dict[str, Column]
    names: list[str]
    rows: int

    def column(self, name: str, graph: CausalGraph) -> Column:
        """Returns the column of this name.

        Raises:
            DataError: there is none; the message names the nearest one that is no node.
        """
        if name in self.columns:
            return self.columns[name]
        role = "target " if name == graph.target else "" if name in graph.nodes else "scope "
        free = {other.casefold(): other for other in self.names if other not in graph.nodes}
        near = get_close_matches(name.casefold(), free, 1)
        entries = "the labels that are known" if name == graph.target else "NaN where nothing is known"
        remedy = f"{'rename it, or ' if near else ''}add the column, with {entries}"
        if self.names and all(map(_is_number, self.names)):
            remedy = f"names are {listed(self.names)}; of a file the first line has to name the columns"
        raise DataError(
            f"{role}column {name!r}: found none{f', but {free[near[0]]!r}' if near else ''}; expected one: {remedy}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_table(data: Table, wanted: Set[str]) -> Columns:
    """Reads any kind of table. Only wanted columns are looked into.

    Raises:
        DataError: no table, no rows, columns of different lengths or of one name, or a column that is none.
    """
    columns: dict[str, Column]
    data = arrow_columns(data, wanted) if hasattr(data, "__arrow_c_stream__") else data
    if isinstance(data, pd.DataFrame):
        names = [str(name) for name in data.columns]
        columns = {name: data.iloc[:, i] for i, name in enumerate(names) if name in wanted}
    elif isinstance(data, Mapping):
        names = [str(name) for name in data]
        columns = {str(name): _column(str(name), data[name]) for name in data if str(name) in wanted}
    elif isinstance(data, Dataset):
        names, columns = _from_dataset(data, wanted)
    else:
        raise DataError(
            f"found a {type(data).__name__} as table; expected a pandas DataFrame, a polars or pyarrow table, a "
            f"mapping of column name to array, or a torch Dataset of such mappings{_remedy(data)}"
        )
    if doubled := [name for name, times in Counter(names).items() if times > 1 and name in wanted]:
        raise DataError(f"column {doubled[0]!r}: found more than one; expected one: drop or rename the others")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise DataError(
            f"found {lengths[short]} rows in {short!r}, {lengths[long]} in {long!r}; expected one entry a row in each"
        )
    rows = max(lengths.values(), default=len(data) if isinstance(data, pd.DataFrame) else 1)
    if rows == 0:
        raise DataError("the table is empty; expected at least one row")
    return Columns(columns, names, rows)


def arrow_columns(data: Any, wanted: Set[str] | None = None) -> pd.DataFrame | dict[str, Any]:
    """Returns another library's table, which has Arrow's C stream, as one of ours: wanted columns as arrays or Series.

    polars and pyarrow convert their own columns; others are read by pyarrow.

    Raises:
        DataError: it is neither, and pyarrow is not installed; or two columns have one name.
    """
    if isinstance(data, pd.DataFrame):
        return data
    home = type(data).__module__.split(".")[0]
    if home == "polars" and hasattr(data, "columns"):
        return {name: _of_polars(data[name]) if wanted is None or name in wanted else () for name in data.columns}
    if home != "pyarrow" or not hasattr(data, "column_names"):
        try:
            pyarrow: Any = importlib.import_module("pyarrow")
        except ImportError:
            raise DataError(
                f"found a {type(data).__name__} as table, which pyarrow reads; run: pip install 'pyro_cama[parquet]'"
            ) from None
        data = pyarrow.table(data)
    if doubled := [name for name, times in Counter(data.column_names).items() if times > 1]:
        raise DataError(f"column {doubled[0]!r}: found more than one; expected one: drop or rename the others")
    columns = dict(zip(data.column_names, data.columns, strict=True))
    return {name: column.to_pandas() if wanted is None or name in wanted else () for name, column in columns.items()}


def _of_polars(column: Any) -> Any:
    """One of polars' columns as an array; its categories, which an array does not have, as ours."""
    match type(column.dtype).__name__:
        case "Enum":
            return pd.Series(pd.Categorical(column.to_list(), categories=column.dtype.categories.to_list()))
        case "Categorical":
            return pd.Series(column.to_list(), dtype="category")
        case _:
            return column.to_numpy()


def _remedy(data: Any) -> str:
    """What to do about a table that is none, in words."""
    if isinstance(data, np.ndarray | Tensor):
        return ": name its columns, pandas.DataFrame(array, columns=[...])"
    if hasattr(data, "toarray"):
        return ": a column is dense, and named: pandas.DataFrame(matrix.toarray(), columns=[...])"
    return ": call .collect() first" if hasattr(data, "collect") else ""


def _from_dataset(data: Dataset[Any], wanted: Set[str]) -> tuple[list[str], dict[str, Column]]:
    """Names and wanted columns of a dataset that yields a mapping a row."""
    rows = cast(Iterable[Any], data)
    if hasattr(data, "__len__") and not isinstance(data, IterableDataset):
        rows = (data[i] for i in range(len(cast(Any, data))))
    return from_rows(rows, wanted)


def from_rows(rows: Iterable[Any], wanted: Set[str]) -> tuple[list[str], dict[str, Column]]:
    """Reads names and wanted columns of rows, each a mapping of column name to value.

    Raises:
        DataError: no rows, a row that is no mapping, or one without an entry of a column of the first row.
    """
    names: list[str] = []
    entries: dict[str, list[Any]] = {}
    number = -1
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"found a {type(row).__name__} as row {row_number(number)} (counted from 0) of the dataset; "
                "expected a mapping of column name to value"
            )
        if number == 0:
            names = [str(name) for name in row]
            entries = {name: [] for name in names if name in wanted}
        for name, value in row.items():
            if str(name) in entries:
                entries[str(name)].append(value)
        if short := [name for name, column in entries.items() if len(column) <= number]:
            raise DataError(
                f"column {short[0]!r}: found no entry in row {row_number(number)} (counted from 0); expected NaN there"
            )
    if number < 0:
        raise DataError("the table is empty; expected at least one row")
    return names, {name: _column(name, column) for name, column in entries.items()}


def _column(name: str, value: Any) -> Column:
    """A column of any kind as a Series or an array; what it holds is not looked at."""
    if isinstance(value, pd.Series):
        return value
    if isinstance(value, pd.Index | pd.api.extensions.ExtensionArray):
        return pd.Series(value)
    if isinstance(value, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(value)
        value = np.ma.getdata(value).astype(np.float64 if value.dtype.kind in "biuf" else object)
        value[masked] = np.nan
    elif isinstance(value, Tensor):
        value = _array(value)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _listed(value)
    elif not hasattr(value, "__array__"):
        raise DataError(
            f"column {name!r}: found a {type(value).__name__}; expected an array, list, tensor or Series"
            f"{': sparse columns are not read, call .toarray()' if hasattr(value, 'toarray') else ''}"
        )
    array = np.asarray(value)
    if array.ndim == 0:
        raise DataError(f"column {name!r}: found a single value; expected one entry a row")
    return array


def _listed(values: Sequence[Any]) -> Column:
    """A list of scalars as a Series, one of arrays stacked if their shapes agree and as objects if not.

    Bytes are not stacked with other numbers: an image's mean another unit.
    """
    entries = [plain_entry(value) for value in values]
    if not any(isinstance(entry, np.ndarray | list | tuple) for entry in entries):
        return pd.Series(entries, dtype=object)
    shapes = {entry.shape if isinstance(entry, np.ndarray) else None for entry in entries}
    bytes_ = {getattr(entry, "dtype", None) == np.uint8 for entry in entries}
    if len(shapes) == 1 and None not in shapes and len(bytes_) == 1:
        return np.stack(entries)
    column = np.empty(len(entries), dtype=object)
    for i, entry in enumerate(entries):  # a slice assignment would unpack entries of equal length
        column[i] = entry
    return column


def plain_entry(value: Any) -> Any:
    """Returns one entry of a column: a tensor as array, an array of no dimension as scalar."""
    if isinstance(value, Tensor):
        value = _array(value)
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _array(value: Tensor) -> NDArray[Any]:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
