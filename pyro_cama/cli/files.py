"""The command line's files: tables in and out, and results that appear whole or not at all."""

from __future__ import annotations

import csv
import importlib
import itertools
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_cama._files import placing, replacing
from pyro_cama.cama import CAMA
from pyro_cama.data.image_files import image_table
from pyro_cama.data.open_stream import open_stream
from pyro_cama.data.table_files import SUFFIXES, read_plain
from pyro_cama.errors import DataError, data_errors_at
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.inference.novelty import USUAL
from pyro_cama.persistence.storage import FILES, write_files

LARGE = 256 * 2**20  # bytes of a file that is read in parts


def read_table(path: Path, graph: CausalGraph | None = None) -> pd.DataFrame:
    """Reads a table as the library takes it, rows in the file's order.

    What a file may hold is said in :mod:`pyro_cama.data.open_stream`.

    Args:
        path: a .csv or .parquet file, or a folder of images (:func:`pyro_cama.image_table`); Parquet needs pyarrow.
        graph: says which columns are numbers; without one every CSV column comes as text.

    Raises:
        DataError: no such file, another format, lines of different lengths; names file and line.
        ImportError: Parquet, and pyarrow is not installed.
    """
    if path.is_dir():
        if graph is None or not any(graph.nodes[name].is_image for name in graph.order):
            of_images = "" if graph is None else "; the graph has no image node, of which a folder could be"
            raise DataError(f"{path}: found a folder; expected a table, .csv or .parquet{of_images}")
        return image_table(path, graph)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: found suffix {path.suffix!r}; expected a table, .csv or .parquet")
    if graph is None:
        frame = read_plain(path)
    else:
        stream = open_stream(path, graph, chunk=sys.maxsize)
        assert stream is not None
        frames = [frame for _, frame in stream.parts({*stream.names, *graph.nodes})]
        frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if not len(frame):
        raise DataError(f"{path}: found names of columns, but no rows; expected at least one row")
    return frame


def read_rows(path: Path, graph: CausalGraph) -> pd.DataFrame | Path:
    """Reads as :func:`read_table`; of a file too large for that returns its path, for the library to read in parts."""
    return (
        path
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.stat().st_size > LARGE
        else read_table(path, graph)
    )


def parts_of(path: Path, graph: CausalGraph) -> Iterator[pd.DataFrame]:
    """Yields a table with all its columns, one too large for memory in parts.

    Raises:
        DataError: as :func:`read_table`.
    """
    rows = read_rows(path, graph)
    if isinstance(rows, pd.DataFrame):
        yield rows
        return
    stream = open_stream(rows, graph)
    assert stream is not None
    for _, frame in stream.parts({*stream.names, *graph.nodes}):
        yield frame


@contextmanager
def errors_in(path: Path) -> Iterator[None]:
    """Puts the file's name before what a :class:`DataError` inside says, and says which line of a CSV file a row is.

    Warnings say the line too.

    Raises:
        DataError: the same one, with its place.
    """
    try:
        with _lines_in_warnings(path), data_errors_at(path):
            yield
    except DataError as error:
        found = re.search(r"\brows? (\d+)\b.*counted from 0", str(error))
        line = _line_of(path, int(found[1])) if found else None
        if line is None or found is None:
            raise
        raise DataError(f"{error}; row {found[1]} ends in line {line} of the file") from error


@contextmanager
def _lines_in_warnings(path: Path) -> Iterator[None]:
    """Says in warnings inside, after the number of a row, which line of a CSV file that is."""

    def placed(found: re.Match[str]) -> str:
        line = _line_of(path, int(found[1]))
        return found[0] if line is None else f"{found[0]} (line {line})"

    shown = warnings.showwarning

    def show(message: Warning | str, *rest: Any, **options: Any) -> None:
        text = re.sub(r"\bin row (\d+)", placed, str(message)) if isinstance(message, UserWarning) else message
        shown(text, *rest, **options)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _line_of(path: Path, row: int) -> int | None:
    """The line in which a row ends, lines counted from 1 as editors do; None if it is no CSV file's, or not there."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return None
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        try:
            filled = (reader.line_num for entries in reader if entries)
            return next(itertools.islice(filled, row + 1, None), None)  # the first is the names'
        except csv.Error:
            return None


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the frame with every column of vectors as columns ``x[0]``, ``x[1]``, ...

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


def expect_other_names(ids: Iterable[str], classes: Iterable[Any]) -> None:
    """Refuses to carry along columns whose names the labels and what stands beside them have.

    Raises:
        DataError: such a column; names it.
    """
    own = {"label", "evidence", "unusual", *(f"p({level})" for level in classes)}
    if taken := [name for name in ids if name in own]:
        raise DataError(f"--id: found {taken[0]!r}, a name that the result has for its own; rename the column")


def claim(path: Path, force: bool, suffixes: tuple[str, ...] = ()) -> None:
    """Refuses a place for results before any work is done.

    Raises:
        FileExistsError: something is there, and ``force`` is False.
        OSError: its folder is missing or may not be written to, or it is a folder where a file should go.
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
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path.parent}: this folder may not be written to; choose another")


@contextmanager
def draft(path: Path, force: bool) -> Iterator[Path]:
    """Yields a name to write to, of the same suffix and in the same folder; moved to ``path`` if nothing goes wrong.

    Raises:
        OSError: what :func:`claim` raises; also a folder that cannot be written to.
    """
    claim(path, force, (path.suffix.lower(),))
    with replacing(path) as part:
        yield part
        claim(path, force)


def write_table(frame: pd.DataFrame, path: Path, force: bool) -> None:
    """Writes a .csv or .parquet file, vectors as :func:`flat` has them; raises as :func:`write_tables`."""
    write_tables([frame], path, force)


def write_tables(frames: Iterable[pd.DataFrame], path: Path, force: bool, float_format: str | None = None) -> None:
    """Writes one .csv or .parquet file of all frames, which have the same columns, vectors as :func:`flat` has them.

    Args:
        float_format: of floats in a .csv file, such as "%.6g"; None writes all their digits.

    Raises:
        OSError: what :func:`draft` raises.
        ImportError: Parquet, and pyarrow is not installed.
    """
    with draft(path, force) as part:
        if path.suffix.lower() == ".csv":
            for i, frame in enumerate(frames):
                mode: Any = "a" if i else "w"
                text: dict[str, Any] = {"index": False, "lineterminator": "\n", "float_format": float_format}
                flat(frame).to_csv(part, mode=mode, header=not i, **text)
            return
        try:
            arrow: Any = importlib.import_module("pyarrow")
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise ImportError(f"{path}: Parquet files need pyarrow: pip install 'pyro_cama[parquet]'") from None
        schema = writer = None
        try:
            for frame in frames:
                table = arrow.Table.from_pandas(flat(frame), schema=schema, preserve_index=False)
                schema = schema or table.schema
                writer = writer or parquet.ParquetWriter(part, schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()


def claim_model(folder: Path, force: bool) -> None:
    """Refuses as :func:`claim`, for a model's folder: ``--force`` replaces a model or an empty folder, nothing else.

    Raises:
        OSError: as :func:`claim`, and where ``folder`` holds something else than a model.
    """
    claim(folder, force)
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - {*FILES, USUAL}):
        raise FileExistsError(f"{folder} holds something other than a model; choose another folder")


def write_model(cama: CAMA, usual: str | None, folder: Path, force: bool) -> None:
    """Saves a model, and :mod:`pyro_cama.inference.novelty`'s figures beside its files, all or nothing.

    Raises:
        OSError: what :func:`claim_model` raises; also a folder that cannot be written to.
    """
    claim_model(folder, force)
    with placing(folder) as part:
        write_files(cama, cama.adaptation, part)
        if usual is not None:
            (part / USUAL).write_text(usual, encoding="utf-8")
        claim_model(folder, force)
