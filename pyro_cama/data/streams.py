"""Tables read in parts: :class:`Stream`, and those of tables in memory, torch DataLoaders and IterableDatasets.

:mod:`pyro_cama.data.table_files` has those of CSV and Parquet files.
"""

from __future__ import annotations

import itertools
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from pyro_cama.data.row_numbers import Column, numbered
from pyro_cama.data.tables import Table, from_rows, read_table
from pyro_cama.errors import DataError, data_errors_at


class Stream(ABC):
    """A table read in parts, none of which holds more than ``chunk`` rows; it can be read many times.

    Attributes:
        chunk: most rows in a part.
        name: what messages call the table.
        names: of all columns, as far as they are known before the first pass.
        rows: number of rows, None while no pass has counted them.
    """

    chunk: int
    name: str = "the stream"
    names: Sequence[str] = ()
    rows: int | None = None

    @abstractmethod
    def parts(
        self, columns: Collection[str], order: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """Reads all rows once.

        Args:
            columns: those to read; one that does not exist is left out.
            order: draws a random order of the parts, where the source can jump to them; None is file order.

        Yields:
            The number of every part, the same in every pass and ascending in file order, and its rows in raw units.
            An index of integers says how messages number the rows.

        Raises:
            DataError: the source cannot be read.
        """

    def source(self, part: int) -> str:
        """Returns what messages call the place that a part comes from."""
        return f"{self.name}, part {part}"


class FrameStream(Stream):
    """A table in memory: what its columns point at need not fit."""

    def __init__(self, data: Table, chunk: int, name: str = "the table") -> None:
        whole = read_table(data, set())
        self.chunk, self.name, self.names = chunk, name, whole.names
        self._data = data

    def parts(
        self, columns: Collection[str], order: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """See :meth:`Stream.parts`; the parts come in any order."""
        table = read_table(self._data, {*columns})
        number = -(-table.rows // self.chunk)
        for part in range(number) if order is None else order.permutation(number).tolist():
            yield part, _frame(table.columns, part * self.chunk, min(table.rows, (part + 1) * self.chunk))

    def source(self, part: int) -> str:
        """Returns the name of the table."""
        return self.name


class _Passes:
    """What every pass of a source has to give alike: the rows in the same order, told by their scalar entries."""

    def __init__(self, name: str) -> None:
        self._name, self._seen = name, dict[tuple[int, str], int]()

    def expect_same(self, part: int, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns the part.

        Raises:
            DataError: its rows are not those of an earlier pass; images and vectors may be, as they may be augmented.
        """
        for column, entries in frame.items():
            if len(entries) and np.ndim(entries.iloc[0]):
                continue
            plain = entries.dtype.kind in "biuf" and isinstance(entries.dtype, np.dtype)
            read = entries.to_numpy().tobytes() if plain else repr(entries.tolist()).encode()
            if self._seen.setdefault((part, str(column)), now := zlib.crc32(read)) != now:
                first = int(frame.index[0])
                raise DataError(
                    f"{self._name}: column {column!r}: found other entries in rows {first} to {first + len(frame) - 1} "
                    "(counted from 0) than in an earlier pass; expected the same rows in the same order in every pass: "
                    "do not shuffle, the rows are shuffled here"
                )
        return frame


class LoaderStream(Stream):
    """The batches of a torch DataLoader, each a mapping of column name to values, in the loader's own order."""

    name = "the DataLoader"

    def __init__(self, loader: DataLoader[Any], chunk: int) -> None:
        # a batch sampler of the caller's own knows what it does
        drawn = isinstance(loader.sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler)
        if drawn or getattr(loader.sampler, "shuffle", False):
            raise DataError(
                "the DataLoader shuffles; expected the same rows in the same order in every pass: pass shuffle=False, "
                "the rows are shuffled here"
            )
        self.chunk, self._loader, self._passes = chunk, loader, _Passes(self.name)

    def parts(
        self, columns: Collection[str], order: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """See :meth:`Stream.parts`; the batches come in the loader's order."""
        start, part = 0, 0
        for number, batch in enumerate(self._loader):
            with data_errors_at(f"{self.name}, batch {number}"):
                table = read_table(batch, {*columns})
            self.names = self.names or table.names
            for first in range(0, table.rows, self.chunk):
                frame = _frame(table.columns, first, min(table.rows, first + self.chunk))
                frame.index = pd.RangeIndex(start + first, start + first + len(frame))
                yield part, self._passes.expect_same(part, frame)
                part += 1
            start += table.rows

    def source(self, part: int) -> str:
        """Returns the name of the loader."""
        return self.name


class RowsStream(Stream):
    """The rows of a torch IterableDataset, each a mapping of column name to value."""

    name = "the IterableDataset"

    def __init__(self, rows: IterableDataset[Any], chunk: int) -> None:
        self.chunk, self._rows, self._passes = chunk, rows, _Passes(self.name)

    def parts(
        self, columns: Collection[str], order: np.random.Generator | None = None
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """See :meth:`Stream.parts`; the rows come in the dataset's order."""
        rows = iter(self._rows)
        for part in itertools.count():
            if not (some := list(itertools.islice(rows, self.chunk))):
                return
            index = np.arange(part * self.chunk, part * self.chunk + len(some))
            with data_errors_at(self.name), numbered(index):
                names, found = from_rows(some, {*columns})
            self.names = self.names or names
            yield part, self._passes.expect_same(part, _frame(found, 0, len(some)).set_index(index))

    def source(self, part: int) -> str:
        """Returns the name of the dataset."""
        return self.name


def _frame(columns: Mapping[str, Column], start: int, stop: int) -> pd.DataFrame:
    """Rows ``start`` to ``stop`` of the columns; vectors and images become a column of arrays."""
    index = pd.RangeIndex(start, stop)

    def part(column: Column) -> pd.Series[Any]:
        if isinstance(column, pd.Series):
            return column.iloc[start:stop].set_axis(index)
        entries = column[start:stop]
        return pd.Series([*entries] if entries.ndim > 1 else entries, index=index)

    return pd.DataFrame({name: part(column) for name, column in columns.items()}, index=index)
