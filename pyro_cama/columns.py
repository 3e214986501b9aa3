"""Tables of any kind as columns, and columns of any kind as plain arrays.

What :mod:`pyro_cama.data` builds on: a DataFrame, a mapping or a torch Dataset becomes named columns, and a
column of numbers, texts, lists, tensors and missing entries the raw values of a node. What does not fit is a
DataError here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from pyro_cama.errors import DataError
from pyro_cama.graph import CausalGraph, Level, Node
from pyro_cama.image_files import read_image
from pyro_cama.schema import one_of, shown

Table: TypeAlias = pd.DataFrame | Mapping[str, Any] | Dataset[Any]
"""A DataFrame, a mapping of column name to array, or a torch Dataset that yields such mappings a row."""

Column: TypeAlias = "pd.Series[Any] | NDArray[Any]"
Mask: TypeAlias = NDArray[np.bool_]
Index: TypeAlias = NDArray[np.int64]

_SHOWN = 5  # offending rows in a message
_NUMBERS: ContextVar[Index | None] = ContextVar("_NUMBERS", default=None)
# what pandas.api.types.infer_dtype calls objects that are all numbers
_NUMERIC = {"integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty"}


@dataclass(frozen=True)
class Columns:
    """A table's wanted columns, the names of all its columns, and its number of rows."""

    columns: dict[str, Column]
    names: list[str]
    rows: int

    def column(self, name: str, graph: CausalGraph) -> Column:
        """The column of this name.

        Raises:
            DataError: there is none; the message names the nearest one that is no node.
        """
        if name in self.columns:
            return self.columns[name]
        role = "target " if name == graph.target else "" if name in graph.nodes else "scope "
        free = {other.casefold(): other for other in self.names if other not in graph.nodes}
        near = get_close_matches(name.casefold(), free, 1)
        raise DataError(
            f"{role}column {name!r}: found none{f', but {free[near[0]]!r}' if near else ''}; expected one: "
            f"{'rename it, or ' if near else ''}add the column, with NaN where nothing is known"
        )


def read_table(data: Table, wanted: Set[str]) -> Columns:
    """Reads any kind of table. Only wanted columns are looked into.

    Raises:
        DataError: no table, no rows, columns of different lengths or of one name, or a column that is none.
    """
    columns: dict[str, Column]
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
            f"found a {type(data).__name__} as table; expected a pandas DataFrame, a mapping of column name "
            "to array, or a torch Dataset of such mappings"
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


def _from_dataset(data: Dataset[Any], wanted: Set[str]) -> tuple[list[str], dict[str, Column]]:
    """Names and wanted columns of a dataset that yields a mapping a row."""
    rows = cast(Iterable[Any], data)
    if hasattr(data, "__len__") and not isinstance(data, IterableDataset):
        rows = (data[i] for i in range(len(cast(Any, data))))
    return from_rows(rows, wanted)


def from_rows(rows: Iterable[Any], wanted: Set[str]) -> tuple[list[str], dict[str, Column]]:
    """Names and wanted columns of rows, each a mapping of column name to value.

    Raises:
        DataError: no rows, a row that is no mapping, or one without an entry of a column of the first row.
    """
    names: list[str] = []
    entries: dict[str, list[Any]] = {}
    number = -1
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"found a {type(row).__name__} as row {_number(number)} (counted from 0) of the dataset; "
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
                f"column {short[0]!r}: found no entry in row {_number(number)} (counted from 0); expected NaN there"
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
        raise DataError(f"column {name!r}: found a {type(value).__name__}; expected an array, list, tensor or Series")
    array = np.asarray(value)
    if array.ndim == 0:
        raise DataError(f"column {name!r}: found a single value; expected one entry a row")
    # pandas hashes values of the machine's own byte order only
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _listed(values: Sequence[Any]) -> Column:
    """A list of scalars as a Series, one of arrays stacked if their shapes agree and as objects if not.

    Bytes are not stacked with other numbers: an image's mean another unit.
    """
    entries = [_entry(value) for value in values]
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


def _entry(value: Any) -> Any:
    """One entry: a tensor as array, an array of no dimension as scalar."""
    if isinstance(value, Tensor):
        value = _array(value)
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _array(value: Tensor) -> NDArray[Any]:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


@contextmanager
def numbered(rows: Index) -> Iterator[None]:
    """Messages inside call the rows of a table by these numbers: those of a part in the whole table."""
    token = _NUMBERS.set(rows)
    try:
        yield
    finally:
        _NUMBERS.reset(token)


def _number(row: int) -> int:
    numbers = _NUMBERS.get()
    return row if numbers is None else int(numbers[row])


def levels_of(node: Node) -> tuple[Level, ...]:
    """The levels of a node, none if it is not discrete."""
    return node.levels or ()


def read_column(node: Node, column: Column, unknown_is_missing: bool = False) -> tuple[NDArray[Any], Mask]:
    """Raw values (rows, ...), no more the caller's, and which rows hold one.

    Long codes (discrete), float64 (continuous, count) or floats of torch's default type (image). What a row
    without a value holds is arbitrary.

    Raises:
        DataError: the column does not fit the node.
    """
    if node.levels:
        codes = _codes(node, column, unknown_is_missing)
        return codes, codes >= 0
    shape = node.event_shape
    if not shape and column.ndim > 1:
        raise _wrong_shape(node, column.shape[1:])
    raw = _stacked(node, column, shape) if shape else _numbers(node, column, np.arange(len(column)))
    missing = _any(np.isnan(raw))
    if (bad := _any(np.isinf(raw))).any():
        raise DataError(
            f"column {node.name!r}: found infinite values in {rows_text(bad, raw)}; "
            "correct them, or set to NaN what is missing"
        )
    if node.type == "count" and (bad := _any((raw < 0) | (raw != np.floor(raw))) & ~missing).any():
        raise DataError(
            f"column {node.name!r}: found negative or fractional values in {rows_text(bad, raw)}; "
            "expected counts 0, 1, 2, ...: correct them, or make the node continuous"
        )
    if node.type == "image" and (bad := _any((raw < 0) | (raw > 1))).any():
        raise DataError(
            f"column {node.name!r}: found intensities from {np.nanmin(raw[bad]):g} to "
            f"{np.nanmax(raw[bad]):g} in {rows_text(bad)}; expected 0 to 1: rescale them, or give uint8"
        )
    return raw, ~missing


def _any(entries: NDArray[np.bool_]) -> Mask:
    """Which rows hold any True."""
    return np.asarray(entries.reshape(len(entries), -1).any(axis=-1))


def _codes(node: Node, column: Column, unknown_is_missing: bool) -> Index:
    """Codes (rows,) of a discrete node, -1 where missing."""
    if column.ndim > 1:
        raise _wrong_shape(node, column.shape[1:])
    levels = levels_of(node)
    exact = {level: code for code, level in enumerate(levels)}
    by_text = {text_of(level): code for code, level in enumerate(levels)}
    positions, found = _factorized(node.name, column)
    matched = [exact.get(value, by_text.get(text_of(value), -1)) for value in found]
    codes = np.array([*matched, -1])[positions]
    if unknown_is_missing or -1 not in matched:
        return codes
    bad = (codes < 0) & (positions >= 0)
    first = found[positions[bad.argmax()]]
    raise DataError(
        f"column {node.name!r}: found unknown levels in {rows_text(bad, column)}; "
        f"{one_of(first, [text_of(level) for level in levels])}; correct them, or add the level to the graph"
    )


def read_sites(name: str, column: Column) -> tuple[Index, list[Level]]:
    """Index (rows,) into the distinct sites, -1 where missing, and these sites in order of appearance.

    Raises:
        DataError: an entry is no text, finite number or boolean.
    """
    if column.ndim > 1:
        raise DataError(
            f"scope column {name!r}: found entries of shape ({sizes_text(column.shape[1:])}); expected one site a row"
        )
    positions, found = _factorized(name, column)
    sites: dict[str, Level] = {}
    for i, value in enumerate(found):
        if not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
            raise DataError(
                f"scope column {name!r}: found no text, finite number or boolean in "
                f"{rows_text(positions == i, column)}; convert the column, to text for instance"
            )
        # a whole float is an integer that had a missing entry beside it
        whole = isinstance(value, float) and value.is_integer()
        sites.setdefault(text_of(value), int(value) if whole else value)
    index = {text: i for i, text in enumerate(sites)}
    return np.array([*(index[text_of(value)] for value in found), -1])[positions], list(sites.values())


def _factorized(name: str, column: Column) -> tuple[Index, list[Any]]:
    """Index (rows,) into the distinct values, -1 where missing, and these values as plain Python ones."""
    try:
        positions, found = pd.factorize(cast(Any, column))
    except TypeError as error:
        raise DataError(f"column {name!r}: {error}; expected one text, number or boolean a row") from error
    return positions, [_scalar(value) for value in found]


def _scalar(value: Any) -> Any:
    """A numpy scalar as Python's; a float32 0.1 means 0.1."""
    if isinstance(value, np.floating):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value


def text_of(value: Any) -> str:
    """What makes two levels or sites the same: 1, 1.0 and "1" are."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _stacked(node: Node, column: Column, shape: tuple[int, ...]) -> NDArray[Any]:
    """Vectors or images as new floats (rows, *shape), NaN where missing."""
    if not isinstance(column, pd.Series) and column.ndim > 1:
        if column.shape[1:] != shape:
            raise _wrong_shape(node, column.shape[1:])
        return _floats(node, column, np.arange(len(column)))
    if node.type == "image" and (paths := _paths(node, column)) is not None:
        column = paths
    blocks = [_block(entry) for entry in column]
    present = np.array([block.ndim > 0 or not pd.isna(block[()]) for block in blocks])
    rows = np.flatnonzero(present)
    for row in rows:
        if blocks[row].ndim == 0 and shape == (1,):
            blocks[row] = blocks[row][None]
        if blocks[row].ndim == 0:
            raise _no_array(node, column, int(row))
        if blocks[row].shape != shape:
            raise _wrong_shape(node, blocks[row].shape, int(row))
    if node.type == "image":
        _expect_one_unit(node, blocks, rows)
    filled = np.stack([blocks[row] for row in rows]) if len(rows) else np.empty((0, *shape))
    floats = _floats(node, filled, rows)
    raw = np.full((len(blocks), *shape), np.nan, dtype=floats.dtype)
    raw[present] = floats
    return raw


def _expect_one_unit(node: Node, blocks: list[NDArray[Any]], rows: Index) -> None:
    """Refuses bytes beside other numbers: one of the two has the wrong unit."""
    as_bytes = np.array([blocks[row].dtype == np.uint8 for row in rows], dtype=np.bool_)
    if as_bytes.any() and not as_bytes.all():
        other = rows[as_bytes.argmin()]
        raise DataError(
            f"column {node.name!r}: found uint8 in row {_number(int(rows[as_bytes.argmax()]))}, "
            f"{blocks[other].dtype} in row {_number(int(other))} (counted from 0); expected one of them in all rows: "
            "divide the uint8 by 255, or convert the others"
        )


def _paths(node: Node, column: Column) -> Column | None:
    """A column of paths as one of uint8 arrays, with the missing entries left; None if it holds no path."""
    entries = [*column]
    named = np.array([isinstance(entry, str | Path) for entry in entries])
    if not named.any():
        return None
    loaded = np.empty(len(entries), dtype=object)
    for row, entry in enumerate(entries):
        if named[row]:
            try:
                loaded[row] = read_image(entry, node.event_shape)
            except DataError as error:
                raise DataError(f"column {node.name!r}: row {_number(row)} (counted from 0): {error}") from error
        elif _block(entry).ndim or not pd.isna(entry):
            raise DataError(
                f"column {node.name!r}: found no path in row {_number(row)} (counted from 0), but {shown(entry)}; "
                "expected paths or arrays, not both"
            )
    return loaded


def _block(entry: Any) -> NDArray[Any]:
    """One entry of a column as an array, of no dimension if it is a single value."""
    entry = _entry(entry)
    if isinstance(entry, str | bytes) or not (isinstance(entry, Sequence) or hasattr(entry, "__array__")):
        block = np.empty((), dtype=object)
        block[()] = entry
        return block
    try:
        array = np.asarray(entry)
    except ValueError:  # ragged
        return np.asarray(entry, dtype=object)
    # numpy would make text of the numbers beside a text
    return np.asarray(entry, dtype=object) if array.dtype.kind in "US" else array


def _floats(node: Node, array: NDArray[Any], rows: Index) -> NDArray[Any]:
    """New floats of the same shape; an image's have torch's default type, its uint8 are scaled to [0, 1]."""
    if node.type != "image":
        return _numbers(node, array, rows)
    dtype = np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
    if array.dtype.kind not in "biuf":
        return _numbers(node, array, rows).astype(dtype)
    floats: NDArray[Any] = array.astype(dtype)
    return floats / 255 if array.dtype == np.uint8 else floats


def _numbers(node: Node, column: Column, rows: Index) -> NDArray[np.float64]:
    """Entries as new float64 of the same shape, NaN where missing; ``rows`` are their row numbers."""
    if isinstance(column, pd.Series):
        dtype = column.dtype
        if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
            return column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        column = column.to_numpy(dtype=object)
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    flat = column.ravel()
    if flat.dtype != object:  # by way of pandas dates stay dates; numpy makes numbers of them
        flat = pd.Series(flat).to_numpy(dtype=object)
    missing = np.asarray(pd.isna(flat))
    if pd.api.types.infer_dtype(flat, skipna=True) in _NUMERIC:
        try:
            return np.where(missing, np.nan, flat).astype(np.float64).reshape(column.shape)
        except OverflowError:
            pass  # an integer beyond the floats: found below
    out, bad = np.full(flat.shape, np.nan), np.zeros(flat.shape, dtype=np.bool_)
    for i in np.flatnonzero(~missing):
        value = _entry(flat[i])
        try:
            bad[i] = not isinstance(value, Real | Decimal | np.bool_)
            out[i] = np.nan if bad[i] else float(value)
        except OverflowError:
            bad[i] = True
    if not bad.any():
        return out.reshape(column.shape)
    if column.ndim == 1 and (shape := _block(flat[bad.argmax()]).shape):
        raise _wrong_shape(node, shape, int(rows[bad.argmax()]))
    table = bad.reshape(len(column), -1)
    first = flat.reshape(table.shape)[np.arange(len(table)), table.argmax(-1)]
    raise DataError(
        f"column {node.name!r}: found no number in {rows_text(_any(table), first, rows)}; "
        "convert the column (pandas.to_numeric reads text), with NaN where an entry is missing"
    )


def rows_text(bad: Mask, values: Column | None = None, rows: Index | None = None) -> str:
    """The first bad rows, counted from 0, with their values if given."""
    places = np.flatnonzero(bad)
    text = []
    for place in places[:_SHOWN]:
        number = str(_number(int(place if rows is None else rows[place])))
        if values is not None:
            value = values.iloc[place] if isinstance(values, pd.Series) else values[place]
            number += f" ({shown(value.tolist() if isinstance(value, np.ndarray) else _scalar(value))})"
        text.append(number)
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return f"row{'s' if len(places) > 1 else ''} {', '.join(text)}{more} (counted from 0)"


def sizes_text(shape: Iterable[int]) -> str:
    """The sizes in words: 3, 4."""
    return ", ".join(str(size) for size in shape)


def _no_array(node: Node, column: Column, row: int) -> DataError:
    entry = column.iloc[row] if isinstance(column, pd.Series) else column[row]
    found = shown(_scalar(entry)) if isinstance(entry, str | Real) else f"a value of type {type(entry).__name__}"
    remedy = "give arrays or paths of image files" if node.type == "image" else "reshape the column, or correct 'dim'"
    return DataError(
        f"column {node.name!r}: found {found} in row {_number(row)} (counted from 0); expected an array of shape "
        f"({sizes_text(node.event_shape)}): {remedy}" + ("" if node.type == "image" else " in the graph")
    )


def _wrong_shape(node: Node, found: tuple[int, ...], row: int | None = None) -> DataError:
    shape = node.event_shape
    place = "" if row is None else f" in row {_number(row)} (counted from 0)"
    expected = f"shape ({sizes_text(shape)})" if shape else "one value a row"
    key = "shape" if node.type == "image" else "dim"
    remedy = "reshape the column" + ("" if node.levels else f", or correct {key!r} in the graph")
    return DataError(
        f"column {node.name!r}: found entries of shape ({sizes_text(found)}){place}; expected {expected}: " + remedy
    )
