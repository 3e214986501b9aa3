"""Where the rows of a stream come from: CSV and Parquet files, folders of them, loaders, tables of image paths."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.data import DataLoader, IterableDataset

from pyro_cama._arguments import expect_whole
from pyro_cama.data.batch import Batch
from pyro_cama.data.image_files import image_table, labelled_paths
from pyro_cama.data.partitions import is_partition, partitioned
from pyro_cama.data.streams import FrameStream, LoaderStream, RowsStream, Stream
from pyro_cama.data.table_files import SUFFIXES, CsvStream, ParquetStream
from pyro_cama.data.tables import Table
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph

DataSource = Table | Batch | Stream | DataLoader[Any] | str | Path
"""A table in memory, encoded or not, or what :func:`open_stream` reads in parts."""

ROWS, IMAGES = 65_536, 1_024  # of a part, where the graph has no images and where it has some
PIXELS = 2**26  # of the images of a part, at most


def open_stream(data: Any, graph: CausalGraph, *, chunk: int | None = None) -> Stream | None:
    """Opens a table that may be read in parts as a stream; returns None for an ordinary table in memory.

    Args:
        data: a .csv or .parquet file, a folder of such files (read in the order of their names) or of folders named
            column=value that hold some, a folder of images with one subfolder a class, an ``ImageFolder``, a torch
            DataLoader of mappings of columns, an IterableDataset of mappings a row, or a table in memory with a column
            of image paths. A Stream comes back as it is.
        graph: says which columns are numbers, levels and images.
        chunk: most rows of a part: 65,536, or 1,024 where the graph has images, fewer where they are large.

    Relative paths of images are relative to the table's folder if it is a file, to the working directory if not.

    Raises:
        DataError: no such file, another format, an empty folder or file, a loader that shuffles.
        ImportError: Parquet, and pyarrow is not installed.
        ValueError: ``chunk`` is no whole number of at least 1.
    """
    if isinstance(data, Stream):
        return data
    images = [name for name in graph.order if graph.nodes[name].is_image]
    numbers = sum(math.prod(graph.nodes[name].event_shape) for name in images)
    size = chunk if chunk is not None else min(IMAGES, max(1, PIXELS // numbers)) if images else ROWS
    expect_whole("open_stream", "chunk", size)
    if isinstance(data, str | os.PathLike):
        return _open_path(Path(data), graph, size)
    if isinstance(data, DataLoader):
        return LoaderStream(data, size)
    if isinstance(data, IterableDataset):
        return RowsStream(data, size)
    if _is_image_folder(data):
        if getattr(data, "transforms", None) is not None:
            raise DataError(
                "the ImageFolder: found a transform, which would not be applied; expected none: save the images as "
                "the graph wants them, or pass a DataLoader of mappings"
            )
        return FrameStream(labelled_paths(data.samples, data.classes, graph, "the ImageFolder"), size)
    if isinstance(data, pd.DataFrame | Mapping) and any(_holds_paths(data, name) for name in images):
        return FrameStream(data, size)
    return None


def _is_image_folder(data: Any) -> bool:
    """Whether rows are an ``ImageFolder``'s: pairs of path and number of class. A table's columns may be named so."""
    if isinstance(data, pd.DataFrame | Mapping) or not (hasattr(data, "samples") and hasattr(data, "classes")):
        return False
    samples = data.samples
    return isinstance(samples, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in samples[:1])


def _open_path(path: Path, graph: CausalGraph, chunk: int) -> Stream:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not files and any(is_partition(p) for p in path.iterdir()):
            files = partitioned(path, SUFFIXES)
        kinds = {p.suffix.lower() for p in files}
        if len(kinds) > 1:
            raise DataError(f"{path}: found both .csv and .parquet files; expected one kind: move the others")
        if not files and any(p.is_dir() for p in path.iterdir()):
            return FrameStream(image_table(path, graph), chunk, str(path))
        if not files:
            raise DataError(f"{path}: found no .csv and no .parquet file; expected a folder of them")
    else:
        files, kinds = [path], {path.suffix.lower()}
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; expected a .csv or .parquet file, or a folder of them")
        if not kinds <= {*SUFFIXES}:
            raise DataError(f"{path}: found suffix {path.suffix!r}; expected a table, .csv or .parquet")
    kind = CsvStream if kinds == {".csv"} else ParquetStream
    return kind(files, graph, chunk, str(path))


def _holds_paths(table: pd.DataFrame | Mapping[str, Any], name: str) -> bool:
    """Whether the first entry of the column that is not missing is a path."""
    if name not in table:
        return False
    column = table[name]
    if getattr(column, "ndim", 1) != 1 or not isinstance(column, Iterable):
        return False
    first = next((entry for entry in column if not (entry is None or entry is pd.NA or isinstance(entry, float))), None)
    return isinstance(first, str | Path)
