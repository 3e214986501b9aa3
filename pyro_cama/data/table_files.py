"""CSV and Parquet files, one or a folder of them as one table, read in parts or whole."""

from __future__ import annotations

import csv
import importlib
import logging
from abc import abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_cama._messages import listed, shown
from pyro_cama._number_texts import NO_NUMBER, comma_hint, is_text, missing_numbers, numbers_of
from pyro_cama.data.partitions import of_folders
from pyro_cama.data.row_numbers import Mask
from pyro_cama.data.streams import Stream
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Node

SUFFIXES = (".csv", ".parquet")
_DECIMAL = {";": ", decimal=','"}  # where commas are in numbers
_logger = logging.getLogger("pyro_cama")
_PER_FILE = 32  # bits of a part's number that count the parts of one CSV file


class _Files(Stream):
    """Files of one kind, one table together.

    Columns without a name, and unused ones of a name that others have too, are ignored.  Folders named column=value
    on the way to a file are a column of its rows, unless the file has one of that name.
    """

    def __init__(self, paths: Sequence[Path], graph: CausalGraph, chunk: int, name: str) -> None:
        self.chunk, self.name = chunk, name
        self._paths, self._graph = list(paths), graph
        self._sizes = [self._size(path) for path in self._paths]
        self._headers = [self._unique(path, self._header(path)) for path in self._paths]
        self._given = [
            of_folders(path, Path(name), header) for path, header in zip(self._paths, self._headers, strict=True)
        ]
        self.names = [name for name in [*self._headers[0], *self._given[0]] if name]
        self._told: set[tuple[str, str]] = set()  # columns and their marks

    @abstractmethod
    def _header(self, path: Path) -> list[str]:
        """Names of the file's columns."""

    def _unique(self, path: Path, header: list[str]) -> list[str]:
        """The names, empty where they could not be told apart.

        Raises:
            DataError: such a column is used.
        """
        used = {*self._graph.nodes, *self._parts_of(self._graph.nodes)}
        if self._graph.site_column is not None:
            used.add(self._graph.site_column)
        doubled = {name: times for name, times in Counter(header).items() if times > 1 and name}
        if wrong := [name for name in doubled if name in used]:
            raise DataError(f"{path}: found column {wrong[0]!r} more than once; expected one: rename the others")
        left = [f"{name!r}, which is there {times} times" for name, times in doubled.items()]
        if nameless := header.count(""):
            left.insert(0, "a column without a name" if nameless == 1 else f"{nameless} columns without a name")
        if left and path == self._paths[0]:
            _logger.warning("%s: ignored: %s", path, "; ".join(left))
        return ["" if name in doubled else name for name in header]

    def _size(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected a table") from error

    def _expect_unchanged(self, columns: Collection[str]) -> None:
        """Files of the same size as at first, with the same of the wanted columns."""
        for path, size in zip(self._paths, self._sizes, strict=True):
            if (now := self._size(path)) != size:
                raise DataError(
                    f"{path}: found {now} bytes, {size} when it was opened; expected a file that stays as it is while "
                    "it is read: start again"
                )
        headers = [[*header, *given] for header, given in zip(self._headers, self._given, strict=True)]
        first = {*self._columns_of(headers[0], columns)}
        for path, header in zip(self._paths, headers, strict=True):
            if odd := sorted(first ^ {*self._columns_of(header, columns)}):
                has, lacks = (path, self._paths[0]) if odd[0] in header else (self._paths[0], path)
                raise DataError(
                    f"{lacks}: found no column {odd[0]!r}, which {has.name} has; expected the same columns in all "
                    "files of a folder"
                )

    def _columns_of(self, header: Sequence[str], columns: Collection[str]) -> list[str]:
        """The file's columns that make these: a vector ``x`` may be ``x[0]``, ``x[1]``, ... ."""
        parts = self._parts_of(name for name in columns if name in self._graph.nodes and name not in header)
        return [name for name in header if name in columns or name in parts]

    def _parts_of(self, names: Iterable[str]) -> set[str]:
        return {f"{name}[{i}]" for name in names for i in range(self._graph.nodes[name].dim or 0)}

    def _declared(self, frame: pd.DataFrame, columns: Collection[str], number: int) -> pd.DataFrame:
        """A file's frame as the encoder takes it: vectors one column, numbers where they are, paths from the folder."""
        path = self._paths[number]
        for name, value in self._given[number].items():
            if name in columns:
                frame[name] = pd.Series(value, index=frame.index, dtype="object")
        for name in columns:
            if name not in self._graph.nodes:
                continue
            node = self._graph.nodes[name]
            if node.is_image and name in frame:
                frame[name] = frame[name].map(lambda entry: _from(path.parent, entry))
            elif node.levels and not any(isinstance(level, str) for level in node.levels) and name in frame:
                frame[name] = self._numeric_levels(frame[name], path)
            elif not node.levels and node.dim is None and name in frame:
                frame[name] = self._numbers(frame[name], path)
            elif node.dim and name not in frame:
                frame = self._gathered(frame, node, path)
        return frame

    def _numbers(self, column: pd.Series[Any], path: Path) -> pd.Series[Any]:
        numbers, marks = numbers_of(column)
        self._tell(column, marks, path)
        return numbers

    def _numeric_levels(self, column: pd.Series[Any], path: Path) -> pd.Series[Any]:
        """Levels as they stand; among numbers what says that one is missing is no level."""
        if not is_text(column):
            return column
        missing, marks = missing_numbers(column)
        self._tell(column, marks, path)
        return column.where(~missing) if missing.any() else column

    def _tell(self, column: pd.Series[Any], marks: Mask, path: Path) -> None:
        """Says once that a column's marks are taken for missing numbers."""
        for mark in dict.fromkeys(column[marks]):
            if (key := (str(column.name), mark)) not in self._told:
                self._told.add(key)
                row = column.index[int(np.asarray(column == mark).argmax())]
                _logger.warning(
                    "%s: column %r: %r, first in row %s (counted from 0), is read as missing", path, *key, row
                )

    def _gathered(self, frame: pd.DataFrame, node: Node, path: Path) -> pd.DataFrame:
        """The columns ``x[0]``, ``x[1]``, ... as one column of vectors."""
        parts = [f"{node.name}[{i}]" for i in range(node.dim or 0)]
        found = [part for part in parts if part in frame]
        if not found:
            return frame
        if len(found) < len(parts):
            missing = [part for part in parts if part not in found]
            raise DataError(
                f"{path}: vector {node.name!r}: found no column {listed(missing)}; expected {listed(parts)}"
            )
        for part in parts:
            frame[part] = self._numbers(frame[part], path)
            bad = frame[part].map(lambda entry: isinstance(entry, str)).to_numpy(dtype=bool)
            if bad.any():
                row = int(bad.argmax())
                entry = frame[part].iloc[row]
                raise DataError(
                    f"{path}: column {part!r}: found no number in row {frame.index[row]} (counted from 0), "
                    f"{shown(entry)}; correct it, or leave the field empty if it is missing{comma_hint(entry)}"
                )
        vectors = [*frame[parts].to_numpy(dtype=np.float64, na_value=np.nan)]
        return frame.drop(columns=parts).assign(**{node.name: pd.Series(vectors, index=frame.index)})

    def source(self, part: int) -> str:
        """Returns the name of the part's file."""
        return str(self._paths[0])


class CsvStream(_Files):
    """CSV files: UTF-8, fields separated by commas, names in the first line.

    An empty field is missing, among numbers also NA, NaN, null and None, and marks such as "?", which is logged.
    Fields that a comma at the end of every line makes are no column. Levels and sites are texts as they
    stand, which :mod:`pyro_cama.data.columns` matches as it does those of any other table.
    """

    def __init__(self, paths: Sequence[Path], graph: CausalGraph, chunk: int, name: str) -> None:
        super().__init__(paths, graph, chunk, name)
        self._checked = [False for _ in self._paths]

    def _header(self, path: Path) -> list[str]:
        return next(_lines(path))

    def parts(
        self, columns: Collection[str], order: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """See :meth:`Stream.parts`; files come in any order, the rows of a file in its own."""
        self._expect_unchanged(columns)
        files = range(len(self._paths)) if order is None else order.permutation(len(self._paths)).tolist()
        for number in files:
            yield from enumerate(self._read(number, columns), number << _PER_FILE)

    def source(self, part: int) -> str:
        """Returns the name of the part's file."""
        return str(self._paths[part >> _PER_FILE])

    def _read(self, number: int, columns: Collection[str]) -> Iterator[pd.DataFrame]:
        path, header = self._paths[number], self._headers[number]
        if not self._checked[number]:
            for _ in _lines(path):
                pass
            self._checked[number] = True
        wanted = self._columns_of(header, columns)
        nodes = self._graph.nodes
        texts = {n for n in wanted if n in columns and (n not in nodes or nodes[n].levels or nodes[n].is_image)}
        levels = {n for n in texts if n not in nodes or nodes[n].levels}
        places = {
            name: str(header.index(name)) for name in wanted
        }  # of numbers pandas takes some for places among these
        blank: Any = {place: [""] if name in levels else [*NO_NUMBER] for name, place in places.items()}
        kinds: Any = {places[name]: "str" for name in texts}
        with reading(path), pd.read_csv(
            path, encoding="utf-8-sig", index_col=False, low_memory=False, keep_default_na=False, na_values=blank,
            dtype=kinds, header=0, names=[*map(str, range(len(header)))], usecols=[*places.values()],
            chunksize=self.chunk,
        ) as reader:  # fmt: skip
            start = 0
            for frame in reader:
                frame.columns = pd.Index([header[int(place)] for place in frame.columns])
                frame.index = pd.RangeIndex(start, start + len(frame))
                start += len(frame)
                yield self._declared(frame, columns, number)


class ParquetStream(_Files):
    """Parquet files, read by row groups; needs pyarrow."""

    def __init__(self, paths: Sequence[Path], graph: CausalGraph, chunk: int, name: str) -> None:
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
            self._parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise ImportError(_needs_pyarrow(name)) from None
        self._metadata: list[Any] = []  # of every file
        super().__init__(paths, graph, chunk, name)
        self._groups: list[tuple[int, int, int]] = []  # of every row group: file, place in it, first row there
        self._firsts: list[int] = []  # and the number of its first part
        self.rows = part = 0
        for number, metadata in enumerate(self._metadata):
            start = 0
            for place in range(metadata.num_row_groups):
                self._groups.append((number, place, start))
                self._firsts.append(part)
                rows = metadata.row_group(place).num_rows
                start += rows
                part += -(-rows // chunk)
            self.rows += start

    def _header(self, path: Path) -> list[str]:
        with reading(path), self._parquet.ParquetFile(path) as file:
            names = [str(name) for name in file.schema_arrow.names]
            self._metadata.append(file.metadata)
        return names

    def parts(
        self, columns: Collection[str], order: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """See :meth:`Stream.parts`; row groups come in any order, the rows of a group in its own."""
        self._expect_unchanged(columns)
        groups = range(len(self._groups)) if order is None else order.permutation(len(self._groups)).tolist()
        for group in groups:
            (number, place, start), part = self._groups[group], self._firsts[group]
            for i, table in enumerate(self._tables(number, place, columns)):
                frame = table.to_pandas(types_mapper=self._kind, ignore_metadata=True)
                frame.index = pd.RangeIndex(start + i * self.chunk, start + i * self.chunk + len(frame))
                yield part + i, self._declared(frame, columns, number)

    def source(self, part: int) -> str:
        """Returns the name of the part's file."""
        return str(self._paths[self._groups[bisect_right(self._firsts, part) - 1][0]])

    def _tables(self, number: int, place: int, columns: Collection[str]) -> Iterator[Any]:
        """A row group in tables of ``chunk`` rows; the last may be short."""
        path, known, rows = self._paths[number], self._metadata[number], 0
        held: list[Any] = []
        wanted = self._columns_of(self._headers[number], columns)
        with reading(path), self._parquet.ParquetFile(path, metadata=known, pre_buffer=False) as file:
            for batch in file.iter_batches(self.chunk, row_groups=[place], columns=wanted):
                held.append(batch)
                rows += batch.num_rows
                while rows >= self.chunk:  # where a batch ends may depend on the columns asked for
                    table = self._arrow.Table.from_batches(held)
                    yield table.slice(0, self.chunk).select(wanted)
                    held, rows = table.slice(self.chunk).to_batches(), rows - self.chunk
            if rows:
                yield self._arrow.Table.from_batches(held).select(wanted)

    def _kind(self, kind: Any) -> Any:
        """Integers stay integers where some are missing, in every part alike."""
        if self._arrow.types.is_integer(kind):
            return getattr(pd, f"{'U' if str(kind)[0] == 'u' else ''}Int{kind.bit_width}Dtype")()
        return pd.BooleanDtype() if self._arrow.types.is_boolean(kind) else None


def read_plain(path: Path) -> pd.DataFrame:
    """Reads a whole table without a graph: the columns of a CSV file as text, those of a Parquet file as they are.

    Raises:
        DataError: as :func:`open_stream`, and a damaged line.
        ImportError: Parquet, and pyarrow is not installed.
    """
    if path.suffix.lower() == ".parquet":
        try:
            with reading(path):
                return pd.read_parquet(path)
        except ImportError:
            raise ImportError(_needs_pyarrow(path)) from None
    (header,) = _lines(path)
    with reading(path):
        frame = pd.read_csv(
            path, encoding="utf-8-sig", index_col=False, low_memory=False, keep_default_na=False, dtype="str",
            na_values=[""], header=0, names=range(len(header)),
        )  # fmt: skip
    frame.columns = pd.Index(header)  # pandas would name what has no name, and rename what is there twice
    return frame


def _needs_pyarrow(name: object) -> str:
    return f"{name}: Parquet files need pyarrow; run: pip install 'pyro_cama[parquet]'"


def _lines(path: Path) -> Iterator[list[str]]:
    """The names in the first line; read on, checks every line, since pandas would fill up short ones.

    Where all lines but the first end in a comma, an empty name is added.
    """
    header: list[str] = []
    rows = 0
    with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            for fields in lines:
                where = f"{path}: line {lines.line_num}: "
                if any("\0" in field for field in fields):
                    raise DataError(f"{where}found a zero byte; expected text: the file is damaged, or no CSV file")
                if not fields:
                    continue
                if not header:
                    if len(fields) == 1 and (mark := next((m for m in ";\t|" if m in fields[0]), "")):
                        raise DataError(
                            f"{where}found {shown(fields[0])}; expected commas, not {mark!r}, between fields, and "
                            f"points in numbers: pandas.read_csv(..., sep={mark!r}{_DECIMAL.get(mark, '')}) may read it"
                        )
                    header = fields
                    continue
                rows += 1
                width = len(header)
                if rows == 1:
                    trailing = len(fields) == width + 1 and not fields[-1]
                    yield [*header, ""] if trailing else header
                if trailing and len(fields) == width:
                    raise DataError(f"{where}found {width} fields; expected {width + 1}, the last of them empty")
                if len(fields) != width + trailing or (trailing and fields[-1]):
                    raise DataError(f"{where}found {len(fields)} fields; expected {width}, as in the first line")
        except csv.Error as error:
            raise DataError(
                f"{path}: line {lines.line_num}: {error}; expected each quote closed, and quotes within a field doubled"
            ) from error
    if not header:
        raise DataError(f"{path}: is empty; expected names of columns in the first line")
    if not rows:
        yield header


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what pandas, pyarrow and the system raise about a file into a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected a table") from error
    except ValueError as error:
        raise DataError(f"{path}: is no valid {path.suffix[1:].lower()} file: {error}") from error


def _from(folder: Path, entry: Any) -> Any:
    """A path from the table's folder; anything else as it is."""
    return str(folder / entry) if isinstance(entry, str | Path) else entry
