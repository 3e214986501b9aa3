"""What a change is: a known world, a new one to adapt to, one that no adaptation can be trusted in, or unclear."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyro_cama._messages import listed
from pyro_cama.adaptation.adapt import adapt
from pyro_cama.adaptation.options import moving_together
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.data.batch import Batch
from pyro_cama.errors import DataError
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.stream.course import Course
from pyro_cama.stream.reading import Reader, parted
from pyro_cama.stream.regimes import Regime, entered
from pyro_cama.stream.step import Kind

FEWEST = 20  # rows that are compared with known worlds
RECOGNISED = 0.01  # level of the test of a known world
HELD_OUT = 0.25  # of a new world's rows: they calibrate its test, and nothing adapts to them


@dataclass(frozen=True)
class Decision:
    """What is decided about a change.

    Attributes:
        kind: see :class:`pyro_cama.stream.step.Step`.
        reason: it in a sentence.
        reads: number of the world to read with as long as nothing is decided.
        forgotten: number of a world that had to go.
    """

    kind: Kind
    reason: str
    reads: int
    forgotten: int | None = None


def decide(
    course: Course, reader: Reader[Any], *, least: int, most_regimes: int, seed: int, options: dict[str, Any]
) -> tuple[Course, Decision]:
    """Decides about a change that was noticed; the course is that of the world decided for, or stays undecided.

    Args:
        least: rows to adapt to.
        most_regimes: in the bank.
        seed: of what is drawn.
        options: of :func:`pyro_cama.adaptation.adapt.adapt`.
    """
    recent, since = course.recent, course.since
    rows = recent.rows
    assert rows is not None
    later = recent.since(int(recent.steps[0]) + 1)  # the first batch may be of both worlds
    if later.count >= least:
        assert later.rows is not None
        rows = later.rows
    last = recent.latest(FEWEST).rows  # a change may have passed before it was decided upon
    last = None if last is rows else last
    said = f"the world changed{'' if since == course.steps else f' with step {since}'}"
    for some in (rows, last):
        found = None if some is None or some.rows < FEWEST else _recognised(course, reader, some, seed)
        if found is None:
            continue
        back, number = course.with_regime(found), found.number
        if number == course.present:
            reason = f"regime {number} as before: there was an alarm, but the rows since then are of it"
            return back.arrived(number), Decision("same", reason, number)
        return back.arrived(number), Decision("back", f"{said}: regime {number} is back", number)
    if rows.rows < max(least, FEWEST):
        reads = _best_read(course, reader, rows)
        missing = f"{said}: to what is not known yet, from {rows.rows} rows; at {max(least, FEWEST)} the model adapts"
        return course, Decision("undecided", missing, reads)
    return _adapted(course, reader, rows, said, most_regimes, seed, options)


def _recognised(course: Course, reader: Reader[Any], rows: Batch, seed: int) -> Regime | None:
    """Returns the world that explains rows best of those that they may be of, these counted in; None if of none."""
    ties = np.random.default_rng([seed, course.steps]).random(rows.rows)
    fitting: list[tuple[float, float, Regime]] = []
    for regime in reader.comparable(course.bank, rows):
        known = regime.calibration
        if known is None:
            continue
        read = reader.read(regime, rows)
        bins = known.bins(read.scores, read.labels, ties)
        if not known.rejects(read.labels, bins, RECOGNISED):
            found = replace(regime, calibration=known.plus(read.labels, bins))
            fitting.append((read.evidence, -float(known.log_payoffs(read.labels, bins).max()), found))
    return max(fitting, key=lambda one: one[:2])[2] if fitting else None


def _best_read(course: Course, reader: Reader[Any], rows: Batch) -> int:
    """Returns the number of the world with whose parameters rows have the highest evidence."""
    trusted = [regime for regime in course.bank if regime.trusted]
    own = reader.comparable(trusted, rows) or trusted
    return max(own, key=lambda regime: (reader.read(regime, rows).evidence, -regime.number)).number


def _adapted(
    course: Course, reader: Reader[Any], rows: Batch, said: str, most: int, seed: int, options: dict[str, Any]
) -> tuple[Course, Decision]:
    """Adapts to a new world; if that cannot be trusted, the world is known by its rows and read as the best before."""
    learnt, held = parted(rows, HELD_OUT, seed + course.steps)
    number = course.following
    pair, record, refusal = _tried(course, reader, learnt, held, options)
    if pair is not None and record is not None:
        new = Regime.of(pair, number, None, course.steps)
        read = reader.read(new, held)
        new = replace(new, calibration=read.calibration(seed), class_prior=record.class_prior, adaptation=record)
        bank, gone = entered(course.bank, new, most)
        how = f"the model adapted, to regime {number}, which is new: {record.reason}"
        if not record.applied:  # what lies over images is enough
            over = f"something lies over most images {listed(new.overlaid)}, and hidden pixels count as unknown"
            how = f"to regime {number}, which is new: {over}; m stays as it was, as {record.reason}"
        reason = f"{said}; {how}"
        return _moved(course, bank, number), Decision("new", reason, number, gone)
    best = course.regime(_best_read(course, reader, held))
    new = replace(
        best,
        number=number,
        reads_as=best.number,
        calibration=reader.read(best, rows).calibration(seed),
        class_prior=() if record is None else record.class_prior,
        adaptation=record,
        came=course.steps,
        visits=1,
    )
    bank, gone = entered(course.bank, new, most)
    reason = f"{said}, to regime {number}, which is new; it is read as regime {best.number}: {refusal}"
    return _moved(course, bank, number), Decision("refused", reason, best.number, gone)


def _moved(course: Course, bank: tuple[Regime, ...], number: int) -> Course:
    """Returns the course in a new world; the one it leaves may have had to go."""
    stays = course.present if any(regime.number == course.present for regime in bank) else number
    return replace(course, bank=bank, present=stays, following=number + 1).arrived(number)


def _tried(
    course: Course, reader: Reader[Any], learnt: Batch, held: Batch, options: dict[str, Any]
) -> tuple[ModelGuidePair | None, Adaptation | None, str]:
    """Adapts from the present world, and if that is refused from the first; what is kept has to explain rows better."""
    present = course.regime(course.present)
    starts = [present] if present.reads_as == 0 else [present, course.regime(0)]
    now = reader.read(present, held).evidence
    record: Adaptation | None = None
    refusal = ""
    shared_or_own = moving_together(reader.pair.graph, None)[0]  # a world is what rows share, if they share any
    for start in starts:
        try:
            pair, found = adapt(reader.stand(start), learnt, progress=False, only=shared_or_own, **options)
        except (DataError, FloatingPointError) as error:
            refusal = refusal or str(error)
            continue
        if found.applied or pair.overlaid != start.overlaid:
            new = Regime.of(pair, course.following, None, course.steps)
            free = start is present or new.overlaid != present.overlaid  # of a comparison with the present world
            if free or reader.read(new, held).evidence > now:
                return pair, found, ""
        record, refusal = record or found, refusal or found.reason
    return None, record, refusal
