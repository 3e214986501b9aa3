"""All that a monitor knows between two steps: values that are replaced and never written to, and bounded in size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from pyro_cama.data.batch import Batch
from pyro_cama.stream.change import Calibration, ChangeTest, Codes
from pyro_cama.stream.reading import Read
from pyro_cama.stream.regimes import Regime


@dataclass(frozen=True, eq=False)
class Recent:
    """The last rows, of which some may be of another world already.

    Attributes:
        rows: encoded; None for no row.
        steps: in which each came, ``(rows,)``.
        labels, bins: where each was counted in the calibration of the present world, ``(rows,)`` and ``(2, rows)``.
    """

    rows: Batch | None
    steps: Codes
    labels: Codes
    bins: Codes

    @classmethod
    def none(cls) -> Self:
        """Returns no rows."""
        empty = np.zeros(0, dtype=np.int64)
        return cls(None, empty, empty, np.zeros((2, 0), dtype=np.int64))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.steps)

    def untested(self, rows: Batch, step: int, most: int) -> Self:
        """Returns them with those of a step that are compared with no calibration; as :meth:`with_rows`."""
        none = np.zeros((2, rows.rows), dtype=np.int64)
        return self.with_rows(rows, step, none[0], none, most)

    def with_rows(self, rows: Batch, step: int, labels: Codes, bins: Codes, most: int) -> Self:
        """Returns them with those of a step; of more than ``most`` the first are left out."""
        joined = rows if self.rows is None else Batch.concatenate([self.rows, rows])
        steps = np.concatenate([self.steps, np.full(rows.rows, step)])
        found = replace(
            self,
            rows=joined,
            steps=steps,
            labels=np.concatenate([self.labels, labels]),
            bins=np.concatenate([self.bins, bins], 1),
        )
        return found if found.count <= most else found.where(np.arange(found.count) >= found.count - most)

    def since(self, step: int) -> Self:
        """Returns those of that step and later ones."""
        return self.where(self.steps >= step)

    def latest(self, rows: int) -> Self:
        """Returns those of the last steps that have so many together; all of them if they have fewer."""
        return self.since(int(self.steps[max(0, self.count - rows)])) if self.count else self

    def where(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Self:
        """Returns some of them."""
        if self.rows is None or chosen.all():
            return self
        if not chosen.any():
            return self.none()
        device = next(iter(self.rows.values.values())).device
        rows = self.rows.select(torch.from_numpy(chosen).to(device))
        return replace(self, rows=rows, steps=self.steps[chosen], labels=self.labels[chosen], bins=self.bins[:, chosen])


@dataclass(frozen=True, eq=False)
class Course:
    """Where a stream is.

    Attributes:
        steps: how many there were.
        bank: the known worlds, in order of number.
        present: number of the world that the stream is in, as far as is known.
        following: number of the next world that is new.
        test: of the present visit.
        entered: the step before the first of the present visit.
        recent: the last rows, those that a change may have begun with.
        since: the step with which a change began that is not decided upon; None if there is none.
    """

    steps: int
    bank: tuple[Regime, ...]
    present: int
    following: int
    test: ChangeTest
    entered: int
    recent: Recent
    since: int | None = None

    def regime(self, number: int) -> Regime:
        """Returns the world of a number."""
        return next(regime for regime in self.bank if regime.number == number)

    def with_regime(self, changed: Regime) -> Self:
        """Returns the course with what is now known of a world."""
        return replace(self, bank=tuple(changed if r.number == changed.number else r for r in self.bank))

    def seen(self, read: Read, rows: Batch, ties: np.ndarray[tuple[int], np.dtype[np.float64]], most: int) -> Self:
        """Returns the course after one more step in which the rows were tested; what is at alarm is yet to be done."""
        present = self.regime(self.present)
        assert present.calibration is not None
        bins = present.calibration.bins(read.scores, read.labels, ties)
        test = self.test.after(present.calibration.log_payoffs(read.labels, bins))
        calibration = present.calibration.plus(read.labels, bins)
        kept = slice(max(0, rows.rows - most), None)
        last = rows.select(torch.arange(rows.rows)[kept].to(next(iter(rows.values.values())).device))
        recent = self.recent.with_rows(last, self.steps + 1, read.labels[kept], bins[:, kept], most)
        earliest = self.entered + int(test.began[test.runs > 0].min(initial=test.batches))
        course = replace(self, steps=self.steps + 1, test=test, recent=recent.since(earliest))
        return course.with_regime(replace(present, calibration=calibration))

    def alarmed(self) -> Self:
        """Returns the course with the change noticed: the rows since it began no longer count for the present world."""
        since, present = self.entered + self.test.since, self.regime(self.present)
        recent, calibration = self.recent.since(since), present.calibration
        assert isinstance(calibration, Calibration)
        own = calibration.plus(recent.labels, recent.bins, -1.0)
        return replace(self, since=since, recent=recent).with_regime(replace(present, calibration=own))

    def arrived(self, number: int) -> Self:
        """Returns the course at the beginning of a visit to a world of the bank."""
        left, there = self.regime(self.present), self.regime(number)
        course = self.with_regime(replace(left, seen=self.steps))
        again = number != self.present and there.came != self.steps
        course = course.with_regime(replace(there, visits=there.visits + again))
        return replace(
            course,
            present=number,
            test=ChangeTest.new(self.test.level),
            entered=self.steps,
            recent=Recent.none(),
            since=None,
        )
