"""What one epoch of an optimisation reads: minibatches whose order is a function of the seed and the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.sampling import minibatches
from pyro_cama.data.streams import Stream


class Minibatches(Protocol):
    """A source of minibatches that can be read again and again."""

    def __len__(self) -> int:
        """Returns the number of minibatches of an epoch, the same in every process."""

    def epoch(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Any]:
        """Yields the minibatches of an epoch; of ``world`` processes each gets its own rows of every one of them."""


@dataclass(frozen=True)
class Shuffled:
    """Rows in memory, in a new order every epoch.

    Attributes:
        rows: how many there are.
        take: from row numbers, ``(batch,)``, to the minibatch that a loss reads.
        batch_size: rows of a minibatch, of all processes together.
        steps: minibatches of an epoch; None is one pass over the rows, the last minibatch may be short.

    >>> source = Shuffled(5, lambda rows: rows, batch_size=2)
    >>> sorted(torch.cat(list(source.epoch(0))).tolist()), len(source)
    ([0, 1, 2, 3, 4], 3)
    """

    rows: int
    take: Callable[[Tensor], Any]
    batch_size: int
    seed: int = 0
    steps: int | None = None

    def __len__(self) -> int:
        return self.steps or max(1, math.ceil(self.rows / self.batch_size))

    def epoch(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Any]:
        """See :class:`Minibatches`."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        size = min(self.batch_size, self.rows)
        order = [torch.randperm(self.rows, generator=generator)]
        if len(self) * size > self.rows + size - 1:  # more than one pass
            while sum(map(len, order)) < len(self) * size:
                order.append(torch.randperm(self.rows, generator=generator))
        for rows in torch.cat(order)[: len(self) * size].split(size):
            yield self.take(rows[own_rows(len(rows), rank, world)])


def own_rows(rows: int, rank: int, world: int) -> slice:
    """Returns the rows of a minibatch that one of several processes gets; too few to share are everybody's."""
    return slice(rank, None, world) if rows >= world else slice(None)


def row_selector(batch: Batch) -> Callable[[Tensor], Batch]:
    """Returns a function from row numbers to those rows; all of them are the batch itself, in its own order."""

    def take(rows: Tensor) -> Batch:
        device = next(iter(batch.values.values())).device
        return batch if len(rows) == batch.rows else batch.select(rows.to(device))

    return take


@dataclass(frozen=True)
class Streamed:
    """The minibatches of a stream: one pass an epoch, every process reads all and keeps its rows of each.

    Attributes:
        stream: the table.
        encoder: fitted.
        rows: how many are not held out.
        batch_size: rows of a minibatch, of all processes together.
        seed: of the order, and of the survey that drew the held-out rows.
        threshold: :attr:`pyro_cama.data.sampling.Survey.threshold`; -1 leaves nothing out.
        to: what is done to every minibatch, such as moving it to a device.
    """

    stream: Stream
    encoder: TableEncoder
    rows: int
    batch_size: int
    seed: int
    threshold: float
    to: Callable[[Batch], Batch]

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def epoch(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """See :class:`Minibatches`."""
        for batch in minibatches(
            self.stream,
            self.encoder,
            batch_size=self.batch_size,
            seed=self.seed,
            epoch=epoch,
            held=self.threshold,
            survey_seed=self.seed,
        ):
            mine = torch.arange(batch.rows)[own_rows(batch.rows, rank, world)]
            yield self.to(batch if world == 1 else batch.select(mine))
