"""The command line's files: tables in and out, and results that appear whole or not at all."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_cama.cama import CAMA
from pyro_cama.errors import DataError
from pyro_cama.graph import CausalGraph, Node
from pyro_cama.schema import listed, shown
from pyro_cama.storage import FILES, USUAL, put

TABLES = (".csv", ".parquet")
# what a numeric column may say where nothing was measured; to a column of levels these may be levels
NO_NUMBER = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>")


def read_table(path: Path, graph: CausalGraph | None = None) -> pd.DataFrame:
    """A table as the library takes it, rows in the file's order.

    CSV: UTF-8, fields separated by commas, names in the first line. An empty field is missing, in a numeric column
    also NA, NaN, null and None. A vector node ``x`` of ``dim`` d is one column (Parquet) or d of them, ``x[0]`` to
    ``x[d-1]``.

    Args:
        path: a .csv or .parquet file; Parquet needs pyarrow.
        graph: says which columns are numbers; without one every CSV column comes as text.

    Raises:
        DataError: no such file, another format, lines of different lengths; names file and line.
        ImportError: Parquet, and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise DataError(f"{path}: found suffix {path.suffix!r}; expected a table, .csv or .parquet")
    try:
        frame = _read_csv(path, graph) if suffix == ".csv" else pd.read_parquet(path)
    except ImportError:
        raise ImportError(f"{path}: Parquet files need pyarrow; run: pip install pyarrow") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected a table") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: is no valid {suffix[1:]} file: {error}") from error
    if not len(frame):
        raise DataError(f"{path}: found names of columns, but no rows; expected at least one row")
    for node in graph.nodes.values() if graph is not None else ():
        frame = _as_declared(frame, node, path)
    return frame


def _read_csv(path: Path, graph: CausalGraph | None) -> pd.DataFrame:
    header = _checked(path)
    nodes = list(graph.nodes.values()) if graph is not None else []
    numeric = {name for node in nodes if not node.levels for name in _columns_of(node)}
    # pandas would make numbers of levels such as "01"
    text = {n.name for n in nodes if n.levels and any(isinstance(level, str) for level in n.levels)}
    kinds: Any = str if graph is None else dict.fromkeys(text & {*header}, "str")
    blank: Any = {name: [*NO_NUMBER] if name in numeric else [""] for name in header}
    frame = pd.read_csv(
        path, encoding="utf-8-sig", index_col=False, low_memory=False,
        keep_default_na=False, na_values=blank, dtype=kinds,
    )  # fmt: skip
    frame.columns = pd.Index(header)  # pandas would name what has no name
    return frame


def _checked(path: Path) -> list[str]:
    """The names in the first line; pandas would fill up short lines, and rename what it finds twice."""
    header: list[str] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            for fields in lines:
                where = f"{path}: line {lines.line_num}: "
                if any("\0" in field for field in fields):
                    raise DataError(f"{where}found a zero byte; expected text: the file is damaged, or no CSV file")
                if not header:
                    header = fields
                    if len(fields) == 1 and (mark := next((m for m in ";\t|" if m in fields[0]), "")):
                        raise DataError(
                            f"{where}found {shown(fields[0])}; expected commas, not {mark!r}, between fields"
                        )
                elif fields and len(fields) != len(header):
                    raise DataError(f"{where}found {len(fields)} fields; expected {len(header)}, as in the first line")
        except csv.Error as error:
            raise DataError(
                f"{path}: line {lines.line_num}: {error}; expected each quote closed, and quotes within a field doubled"
            ) from error
    if not header:
        raise DataError(f"{path}: is empty; expected names of columns in the first line")
    doubled = [name for name, times in Counter(header).items() if times > 1 and name]
    if doubled:
        raise DataError(f"{path}: found column {doubled[0]!r} more than once; expected one: rename the others")
    return header


def _columns_of(node: Node) -> list[str]:
    return [node.name, *(f"{node.name}[{i}]" for i in range(node.dim or 0))]


def _as_declared(frame: pd.DataFrame, node: Node, path: Path) -> pd.DataFrame:
    """The frame with a vector's columns as one, and with numbers wherever a numeric column holds some."""
    if node.levels or node.type == "image":
        return frame
    name, *parts = _columns_of(node)
    found = [part for part in parts if part in frame.columns]
    if name not in frame.columns and found:
        if len(found) < len(parts):
            missing = [part for part in parts if part not in found]
            raise DataError(f"{path}: vector {name!r}: found no column {listed(missing)}; expected {listed(parts)}")
        for part in parts:
            numbers = _numbers(frame[part])
            bad = numbers.map(lambda value: isinstance(value, str))
            if bad.any():
                row = int(bad.to_numpy().argmax())
                raise DataError(
                    f"{path}: column {part!r}: found no number in row {row} (counted from 0), "
                    f"{shown(numbers.iloc[row])}; correct it, or leave the field empty if it is missing"
                )
            frame = frame.assign(**{part: numbers})
        stacked = list(frame[parts].to_numpy(dtype=float))
        return frame.drop(columns=parts).assign(**{name: pd.Series(stacked, index=frame.index)})
    # a vector in one column, as Parquet may hold it, is the library's to judge
    return frame.assign(**{name: _numbers(frame[name])}) if name in frame.columns and not parts else frame


def _numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """One odd entry makes texts of all: numbers again, but for what is none, so that a message can point at it."""
    if not (pd.api.types.is_string_dtype(column.dtype) or column.dtype == object):
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    odd = numbers.isna() & column.notna()
    return numbers.astype(object).where(~odd, column.astype(object)) if odd.any() else numbers


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with every column of vectors as columns ``x[0]``, ``x[1]``, ...

    >>> flat(pd.DataFrame({"y": [0, 1], "x": [[1.0, 2.0], [3.0, 4.0]]})).columns.tolist()
    ['y', 'x[0]', 'x[1]']
    """
    columns: dict[Any, Any] = {}
    for name, column in frame.items():
        if column.dtype == object and hasattr(column.iloc[0], "__len__") and not isinstance(column.iloc[0], str):
            columns |= {f"{name}[{i}]": part for i, part in enumerate(zip(*column, strict=True))}
        else:
            columns[name] = column
    return pd.DataFrame(columns)


# results -------------------------------------------------------------------------------------------------------------


def claim(path: Path, force: bool, suffixes: tuple[str, ...] = ()) -> None:
    """Refuses a place for results before any work is done.

    Raises:
        FileExistsError: something is there, and ``force`` is False.
        OSError: its folder is missing, or it is a folder where a file should go.
        ValueError: the suffix is none of ``suffixes``.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: found suffix {path.suffix!r}; expected {' or '.join(suffixes)}")
    if suffixes and path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    if not force and (path.exists() or path.is_symlink()):
        raise FileExistsError(f"{path} is there already; pass --force to replace it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; make it first, or choose another")


@contextmanager
def draft(path: Path, force: bool) -> Iterator[Path]:
    """A name to write to, of the same suffix and in the same folder; moved to ``path`` if nothing goes wrong.

    Raises:
        OSError: what :func:`claim` raises; also a folder that cannot be written to.
    """
    claim(path, force, (path.suffix.lower(),))
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        claim(path, force)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_table(frame: pd.DataFrame, path: Path, force: bool) -> None:
    """Writes a .csv or .parquet file, vectors as :func:`flat` has them.

    Raises:
        OSError: what :func:`draft` raises.
        ImportError: Parquet, and pyarrow is not installed.
    """
    with draft(path, force) as part:
        if path.suffix.lower() == ".csv":
            flat(frame).to_csv(part, index=False, lineterminator="\n")
            return
        try:
            flat(frame).to_parquet(part, index=False)
        except ImportError:
            raise ImportError(f"{path}: Parquet files need pyarrow; run: pip install pyarrow") from None


def claim_model(folder: Path, force: bool) -> None:
    """As :func:`claim`, for a model's folder: ``--force`` replaces a model or an empty folder, nothing else.

    Raises:
        OSError: as :func:`claim`, and where ``folder`` holds something else than a model.
    """
    claim(folder, force)
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - {*FILES, USUAL}):
        raise FileExistsError(f"{folder} holds something other than a model; choose another folder")


def write_model(cama: CAMA, usual: str | None, folder: Path, force: bool) -> None:
    """Saves a model, and :mod:`pyro_cama.cli_evidence`'s figures beside its files, all or nothing.

    Raises:
        OSError: what :func:`claim_model` raises; also a folder that cannot be written to.
    """
    claim_model(folder, force)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        cama.save(part / "new")
        if usual is not None:
            (part / "new" / USUAL).write_text(usual, encoding="utf-8")
        claim_model(folder, force)
        put(part / "new", folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
