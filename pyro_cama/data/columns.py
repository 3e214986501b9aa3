"""Columns of any kind to the raw values of a node.

A column of numbers, texts, lists, tensors, paths of images and missing entries (:mod:`pyro_cama.data.tables` finds it
in a table) becomes a plain array and a mask. What does not fit the node is a DataError here.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pyro_cama._messages import caller_level, one_of, shown
from pyro_cama._number_texts import comma_hint
from pyro_cama.data.image_files import read_image
from pyro_cama.data.row_numbers import Column, Index, Mask, plain_scalar, row_number, rows_text, sizes_text
from pyro_cama.data.tables import plain_entry
from pyro_cama.errors import DataError
from pyro_cama.graph.nodes import Node
from pyro_cama.graph.schema import Level

# what pandas.api.types.infer_dtype calls objects that are all numbers
_NUMERIC = {"integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty"}
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_YAML_BOOLEANS = ("yes", "no", "on", "off", "y", "n")
_WORDS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}


def levels_of(node: Node) -> tuple[Level, ...]:
    """Returns the levels of a node, none if it is not discrete."""
    return node.levels or ()


def read_column(node: Node, column: Column, unknown_is_missing: bool = False) -> tuple[NDArray[Any], Mask]:
    """Reads a column to the raw values (rows, ...) of a node, a copy, and a mask of the rows that hold one.

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
    if node.is_image and (bad := _any((raw < 0) | (raw > 1))).any():
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
    positions, found = _factorized(node.name, column)
    matched = _matched(levels, found)
    codes = np.array([*matched, -1])[positions]
    if unknown_is_missing or -1 not in matched:
        return codes
    bad = (codes < 0) & (positions >= 0)
    first = found[positions[bad.argmax()]]
    raise DataError(
        f"column {node.name!r}: found unknown levels in {rows_text(bad, column)}; "
        f"{one_of(first, [text_of(level) for level in levels])}; correct them, or add the level to the graph"
        + _boolean_hint(first, levels)
    )


def _boolean_hint(first: Any, levels: Sequence[Level]) -> str:
    """What to do about booleans for texts such as yes and no, and the other way round."""
    if isinstance(first, bool) and all(isinstance(level, str) for level in levels):
        return "; booleans are no texts: column.map({True: ..., False: ...}) makes levels of them"
    if isinstance(first, str) and first.strip().casefold() in _YAML_BOOLEANS and {*map(type, levels)} == {bool}:
        return f"; YAML reads unquoted {first.strip()} as a boolean: quote the levels in the graph"
    return ""


def _matched(levels: Sequence[Level], found: Sequence[Any]) -> list[int]:
    """Codes of values, -1 for what is no level.

    A value is matched exactly, else by how it is written, else by :func:`text_of` where that is true of one level
    alone; among levels that are all numbers a text counts as the number it spells, wherever the column comes from.
    """
    exact = {level: code for code, level in enumerate(levels)}
    written = {_written(level): code for code, level in enumerate(levels)}
    times = Counter(text_of(level) for level in levels)
    alike = {text_of(level): code for code, level in enumerate(levels) if times[text_of(level)] == 1}
    numbers: dict[Any, int] = {} if any(isinstance(level, str) for level in levels) else exact

    def code(value: Any) -> int:
        if value in exact:
            return exact[value]
        found = written.get(_written(value), alike.get(text_of(value), -1))
        return numbers.get(_spelled(value), -1) if found < 0 and isinstance(value, str) else found

    return [code(value) for value in found]


def read_sites(name: str, column: Column) -> tuple[Index, list[Level]]:
    """Reads a scope column: indices (rows,) into the distinct sites, -1 where missing, and these as they appear.

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
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype) and not dtype.isnative:  # pandas hashes the machine's own byte order only
        column = column.astype(dtype.newbyteorder("="))
    try:
        positions, found = pd.factorize(cast(Any, column))
    except TypeError as error:
        raise DataError(f"column {name!r}: {error}; expected one text, number or boolean a row") from error
    narrow = _narrow_float(dtype)
    return positions, [plain_scalar(value if narrow is None else narrow(value)) for value in found]


def _narrow_float(dtype: Any) -> type[np.floating[Any]] | None:
    """The type of floats that have fewer digits than Python's, which pandas would widen: 0.1 to 0.10000000149."""
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
    if isinstance(dtype, pd.SparseDtype):
        dtype = dtype.subtype
    dtype = getattr(dtype, "numpy_dtype", dtype)  # of Float32 and float[pyarrow]
    return dtype.type if isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize < 8 else None


def text_of(value: Any) -> str:
    """Returns the text by which levels and sites are compared: 1, 1.0, "1" and "1.0" are the same, "01" is another.

    A text is a whole float's where it is just what that is written as: whole numbers beside a missing one become
    floats in pandas, and "1.0" in its files.
    """
    if isinstance(value, str) and _FLOAT.fullmatch(value) and str(float(value)) == value:
        value = float(value)
    return _written(value)


def _written(value: Any) -> str:
    """How a value is written, a whole float as an integer."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _spelled(text: str) -> Level:
    """The number or boolean that a text spells; any other text as it is."""
    bare = text.strip()
    if bare in _WORDS:
        return _WORDS[bare]
    if _INTEGER.fullmatch(bare):
        return int(bare)
    return float(bare) if _FLOAT.fullmatch(bare) else text


def _stacked(node: Node, column: Column, shape: tuple[int, ...]) -> NDArray[Any]:
    """Vectors or images as new floats (rows, *shape), NaN where missing."""
    if not isinstance(column, pd.Series) and column.ndim > 1:
        if column.shape[1:] != shape:
            raise _wrong_shape(node, column.shape[1:])
        return _floats(node, column, np.arange(len(column)))
    if node.is_image and (paths := _paths(node, column)) is not None:
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
    if node.is_image:
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
            f"column {node.name!r}: found uint8 in row {row_number(int(rows[as_bytes.argmax()]))}, "
            f"{blocks[other].dtype} in row {row_number(int(other))} (counted from 0); expected one of them in all "
            "rows: divide the uint8 by 255, or convert the others"
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
                raise DataError(f"column {node.name!r}: row {row_number(row)} (counted from 0): {error}") from error
        elif _block(entry).ndim or not pd.isna(entry):
            raise DataError(
                f"column {node.name!r}: found no path in row {row_number(row)} (counted from 0), but {shown(entry)}; "
                "expected paths or arrays, not both"
            )
    return loaded


def _block(entry: Any) -> NDArray[Any]:
    """One entry of a column as an array, of no dimension if it is a single value."""
    entry = plain_entry(entry)
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
    if not node.is_image:
        return _numbers(node, array, rows)
    dtype = np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
    if array.dtype.kind not in "biuf":
        return _numbers(node, array, rows).astype(dtype)
    floats: NDArray[Any] = array.astype(dtype)
    if array.dtype != np.uint8:
        return floats
    if array.size and array.max() == 1:
        warnings.warn(
            f"column {node.name!r}: found uint8 of 0 and 1 alone, read as 0 and 1/255, nearly black; expected "
            "0 to 255: convert black and white images to bool or floats",
            stacklevel=caller_level(),
        )
    return floats / 255


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
        value = plain_entry(flat[i])
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
        + comma_hint(flat[bad.argmax()])
    )


def _no_array(node: Node, column: Column, row: int) -> DataError:
    entry = column.iloc[row] if isinstance(column, pd.Series) else column[row]
    found = shown(plain_scalar(entry)) if isinstance(entry, str | Real) else f"a value of type {type(entry).__name__}"
    remedy = "give arrays or paths of image files" if node.is_image else "reshape the column, or correct 'dim'"
    return DataError(
        f"column {node.name!r}: found {found} in row {row_number(row)} (counted from 0); expected an array of shape "
        f"({sizes_text(node.event_shape)}): {remedy}" + ("" if node.is_image else " in the graph")
    )


def _wrong_shape(node: Node, found: tuple[int, ...], row: int | None = None) -> DataError:
    shape = node.event_shape
    place = "" if row is None else f" in row {row_number(row)} (counted from 0)"
    expected = f"shape ({sizes_text(shape)})" if shape else "one value a row"
    key = "shape" if node.is_image else "dim"
    remedy = "reshape the column" + ("" if node.levels else f", or correct {key!r} in the graph")
    return DataError(
        f"column {node.name!r}: found entries of shape ({sizes_text(found)}){place}; expected {expected}: " + remedy
    )
