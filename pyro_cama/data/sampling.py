"""Tables that do not fit in memory: surveyed, sampled and shuffled part by part.

A :class:`Stream` is a table read in parts of at most ``chunk`` rows, as often as wanted; :func:`open_stream` makes
one of files, folders and loaders. One pass (:func:`survey`) learns what :meth:`TableEncoder.fit` learns from a
table in memory, and draws the held-out rows; every later pass is an epoch (:func:`minibatches`). Nothing here
grows with the number of rows.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from pyro_cama._arguments import expect, expect_whole, number
from pyro_cama._messages import listed
from pyro_cama.data.batch import Batch
from pyro_cama.data.columns import read_sites, text_of
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.encoder_fit import EncoderFit
from pyro_cama.data.row_numbers import Index, numbered
from pyro_cama.data.streams import Stream
from pyro_cama.data.tables import Columns
from pyro_cama.errors import DataError, data_errors_at
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.schema import Level

Target = Literal["require", "use", "ignore"]
_logger = logging.getLogger("pyro_cama")
_HELD = 2_000  # rows held out at most
_FEW = 20  # rows of which none are
_POOL = 3  # parts that wait for the next, so that rows mix
_SURVEY, _EPOCH, _SAMPLE = range(3)  # draws that share no seed


@dataclass(frozen=True)
class Survey:
    """What one pass over a stream finds.

    Attributes:
        encoder: fitted to all rows.
        rows: how many there are.
        held: a uniform sample of the rows, held out for validation: ``validation * rows`` of them, 2,000 at most,
            none under 20 rows. Its ``rows`` may be 0.
        sample: a uniform sample of the other rows.
        threshold: a row is held out if, and only if, its key (:func:`keys`) is at most this; -1 if none is.
    """

    encoder: TableEncoder
    rows: int
    held: Batch
    sample: Batch
    threshold: float


def keys(seed: int, part: int, rows: int) -> NDArray[np.float64]:
    """Draws uniform numbers in [0, 1), (rows,): a function of the seed, the part's number and the place in it."""
    return np.random.default_rng(_entropy(seed, part, _SURVEY)).random(rows)


def survey(
    stream: Stream,
    graph: CausalGraph,
    *,
    validation: float,
    seed: int,
    sample: int = 10_000,
    encoder: TableEncoder | None = None,
    progress: bool = True,
) -> Survey:
    """Learns statistics and sites, counts the rows and draws the held-out ones, in one pass.

    Args:
        stream: the training table; it has to hold the target's column.
        graph: the causal graph.
        validation: fraction of the rows to hold out.
        seed: of the keys that draw the rows.
        sample: most rows of :attr:`Survey.sample`.
        encoder: a fitted one; nothing is learnt then, and only the rows drawn are encoded.
        progress: shows a bar.

    Raises:
        DataError: what :meth:`TableEncoder.fit` raises, after the name of the file; rows are counted in the whole file.
        ValueError: ``validation`` or ``sample`` is out of range.
    """
    fits = number(validation) and 0 <= validation < 1
    expect("survey", "validation", validation, fits, "a number of at least 0, less than 1")
    expect_whole("survey", "sample", sample, 0)
    learnt = encoder or TableEncoder(graph)
    fitting = EncoderFit(graph, learnt.scope) if encoder is None else None
    found = _Smallest(max(1, sample + (_HELD if validation else 0)))
    bar = tqdm(total=stream.rows, desc="survey", unit=" rows", leave=False, disable=not progress)
    rows = 0
    with bar:
        for part, frame in _pass(stream, learnt, "require"):
            drawn = keys(seed, part, len(frame))
            some = np.flatnonzero(drawn < found.limit)
            if fitting is not None:
                with _placed(stream, part, frame):
                    found.add(drawn[some], fitting.add(learnt.columns_of(frame, graph.order), some))
            elif len(some):
                found.add(drawn[some], _encoded(stream, learnt, part, frame, "use", some))
            rows += len(frame)
            bar.update(len(frame))
    _note(stream, graph)
    drawn, batch = found.smallest()
    held = min(round(validation * rows), _HELD, rows - 1) if rows >= _FEW else 0
    threshold = float(drawn[held - 1]) if held else -1.0
    order = torch.arange(batch.rows)
    parts = batch.select(order[:held]), batch.select(order[held : held + sample])
    if fitting is not None:
        with data_errors_at(stream.name):
            learnt.learn(fitting)
            parts = fitting.encoded(parts[0], learnt.statistics), fitting.encoded(parts[1], learnt.statistics)
    return Survey(learnt, rows, *parts, threshold)


def minibatches(
    stream: Stream,
    encoder: TableEncoder,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    held: float = -1.0,
    survey_seed: int | None = None,
    target: Target = "use",
) -> Iterator[Batch]:
    """Yields one epoch: every row that is not held out once, encoded and shuffled; the last minibatch may be short.

    Parts come in a random order where the source can jump, and rows are shuffled across some four parts at a time. The
    order is a function of ``seed`` and ``epoch``.

    Args:
        stream: the table.
        encoder: fitted.
        batch_size: rows of a minibatch.
        seed, epoch: of the order.
        held: :attr:`Survey.threshold`; -1 leaves nothing out.
        survey_seed: the seed of the survey, if it was not ``seed``.
        target: what to do about the labels, see :meth:`TableEncoder.encode`.

    Raises:
        DataError: the rows do not fit the graph, or are other ones than in an earlier pass.
        ValueError: ``batch_size`` is no whole number of at least 1.
    """
    expect_whole("minibatches", "batch_size", batch_size)
    order, mixing = np.random.default_rng(_entropy(seed, epoch, _EPOCH)).spawn(2)
    pool: list[Batch] = []
    fresh = 0  # rows that have joined since the pool was last shuffled
    for part, frame in _pass(stream, encoder, target, order):
        left = np.flatnonzero(keys(seed if survey_seed is None else survey_seed, part, len(frame)) > held)
        if not len(left):
            continue
        pool.append(_encoded(stream, encoder, part, frame, target, left))
        fresh += len(left)
        if fresh >= stream.chunk:
            rows = sum(batch.rows for batch in pool)
            ready = max(0, rows - _POOL * stream.chunk) // batch_size * batch_size
            mixed, permutation = Batch.concatenate(pool), torch.from_numpy(mixing.permutation(rows))
            for start in range(0, ready, batch_size):
                yield mixed.select(permutation[start : start + batch_size])
            pool, fresh = [mixed.select(permutation[ready:])], 0
            del mixed
    if pool:
        mixed = Batch.concatenate(pool)
        for some in torch.from_numpy(mixing.permutation(mixed.rows)).split(batch_size):
            yield mixed.select(some)


def sample_rows(stream: Stream, encoder: TableEncoder, rows: int, seed: int, target: Target = "use") -> Batch:
    """Draws a uniform sample of at most ``rows`` rows, encoded, in random order; one pass.

    Args:
        stream: the table.
        encoder: fitted.
        rows: how many to draw.
        seed: of the draw.
        target: what to do about the labels, see :meth:`TableEncoder.encode`.

    Raises:
        DataError: a drawn row does not fit the graph.
        ValueError: ``rows`` is no whole number of at least 1.
    """
    expect_whole("sample_rows", "rows", rows)
    found = _Smallest(rows)
    for part, frame in _pass(stream, encoder, target):
        drawn = np.random.default_rng(_entropy(seed, part, _SAMPLE)).random(len(frame))
        some = np.flatnonzero(drawn < found.limit)
        if len(some):
            found.add(drawn[some], _encoded(stream, encoder, part, frame, target, some))
    return found.smallest()[1]


def encoded_parts(stream: Stream, encoder: TableEncoder, target: Target = "ignore") -> Iterator[Batch]:
    """Yields all rows, encoded, in file order and in parts of at most ``stream.chunk`` rows.

    Raises:
        DataError: the rows do not fit the graph.
    """
    for part, frame in _pass(stream, encoder, target):
        yield _encoded(stream, encoder, part, frame, target, np.arange(len(frame)))


def with_sites(stream: Stream, encoder: TableEncoder) -> TableEncoder:
    """Returns a copy of the encoder that also knows the sites of the stream; one pass.

    As :meth:`TableEncoder.with_sites` does for a table in memory.

    Raises:
        DataError: the scope column is missing.
    """
    if encoder.scope is None:
        return copy.copy(encoder)
    sites: dict[str, Level] = {}
    for part, frame in _pass(stream, encoder, None):
        with _placed(stream, part, frame):
            for site in read_sites(encoder.scope, frame[encoder.scope])[1]:
                sites.setdefault(text_of(site), site)
    return encoder.with_sites({encoder.scope: [*sites.values()] or [None]})


class _Smallest:
    """The rows of the smallest keys among those seen; never more than twice as many in memory, and the last part.

    Attributes:
        limit: no row of a key this large or larger will be among them.
    """

    def __init__(self, rows: int) -> None:
        self.limit = np.inf
        self._rows = rows
        self._keys: list[NDArray[np.float64]] = []
        self._batches: list[Batch] = []

    def add(self, drawn: NDArray[np.float64], batch: Batch) -> None:
        """Takes in rows and their keys, (batch.rows,)."""
        if not batch.rows:
            return
        self._keys.append(drawn)
        self._batches.append(batch)
        if sum(map(len, self._keys)) >= 2 * self._rows:
            self.smallest()

    def smallest(self) -> tuple[NDArray[np.float64], Batch]:
        """Returns keys and rows, by ascending key."""
        drawn = np.concatenate(self._keys)
        order = np.argsort(drawn, kind="stable")[: self._rows]
        self._keys = [drawn[order]]
        self._batches = [Batch.concatenate(self._batches).select(torch.from_numpy(order))]
        if len(order) == self._rows:
            self.limit = float(self._keys[0][-1])
        return self._keys[0], self._batches[0]


def _pass(
    stream: Stream, encoder: TableEncoder, target: Target | None, order: np.random.Generator | None = None
) -> Iterator[tuple[int, pd.DataFrame]]:
    """All parts that hold rows, with the columns that encoding takes, or the scope column alone (``target`` None)."""
    graph, rows = encoder.graph, 0
    columns = [] if target is None else [n for n in graph.order if n != graph.target or target != "ignore"]
    if encoder.scope is not None and encoder.scope not in columns:
        columns.append(encoder.scope)
    required = [name for name in columns if name != graph.target or target == "require"]
    for part, frame in stream.parts(columns, order):
        if absent := [name for name in required if name not in frame]:
            with data_errors_at(stream.source(part)):
                Columns({}, [*(stream.names or map(str, frame.columns))], len(frame)).column(absent[0], graph)
        if len(frame) > stream.chunk:
            raise DataError(f"{stream.source(part)}: found {len(frame)} rows; expected at most {stream.chunk} a part")
        rows += len(frame)
        if len(frame):
            yield part, frame
    if stream.rows is not None and rows != stream.rows:
        raise DataError(
            f"{stream.name}: found {rows} rows, {stream.rows} in an earlier pass; expected the same rows every time: a "
            "table must not change while it is read, nor can it be read only once"
        )
    if not rows:
        raise DataError(f"{stream.name}: the table is empty; expected at least one row")
    stream.rows = rows


def _encoded(
    stream: Stream, encoder: TableEncoder, part: int, frame: pd.DataFrame, target: Target, some: Index
) -> Batch:
    """Some rows of a part, encoded."""
    with _placed(stream, part, frame, some):
        return encoder.encode(frame if len(some) == len(frame) else frame.iloc[some], target=target)


@contextmanager
def _placed(stream: Stream, part: int, frame: pd.DataFrame, some: Index | None = None) -> Iterator[None]:
    """DataErrors inside name the part's file, and number rows as its index does."""
    numbers = frame.index.to_numpy()
    numbers = numbers if numbers.dtype.kind == "i" else np.arange(len(frame))
    with data_errors_at(stream.source(part)), numbered(numbers if some is None else numbers[some]):
        yield


def _note(stream: Stream, graph: CausalGraph) -> None:
    """As the encoder does for a table in memory."""
    scope = TableEncoder(graph).scope
    known = {*graph.nodes, *([] if scope is None else [scope])}
    known |= {f"{node.name}[{i}]" for node in graph.nodes.values() for i in range(node.dim or 0)}
    if unknown := [name for name in stream.names if name not in known]:
        _logger.warning("columns that are no nodes of the graph are ignored: %s", listed(unknown))


def _entropy(*numbers: int) -> list[int]:
    return [number % 2**64 for number in numbers]


def train_validation_split(y: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits row numbers into those for training and those for validation, stratified by label.

    Of fewer than 20 rows none are for validation, and of many 2,000 suffice.
    """
    rows = len(y)
    fraction = min(fraction, 2000 / max(rows, 1))
    generator = np.random.default_rng(seed)
    if fraction <= 0 or rows < 20:
        return torch.arange(rows), torch.arange(0)
    held: list[int] = []
    for label in torch.unique(y):
        members = torch.nonzero(y == label).flatten().numpy()
        take = round(fraction * len(members))
        held.extend(generator.permutation(members)[:take].tolist())
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[held] = True
    return torch.nonzero(~mask).flatten(), torch.nonzero(mask).flatten()
