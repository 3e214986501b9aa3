"""Monitor: a model that follows a stream of batches, and adapts only where the world is another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal

import numpy as np
from numpy.typing import NDArray

from pyro_cama._arguments import expect, expect_options, expect_whole, number
from pyro_cama._messages import listed
from pyro_cama.adaptation.options import AdaptOptions
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.data.batch import Batch
from pyro_cama.data.open_stream import DataSource
from pyro_cama.data.tables import Table
from pyro_cama.data.unknown_levels import Unknown, reading_unknown
from pyro_cama.errors import DataError
from pyro_cama.handlers.contexts import one_at_a_time, one_core
from pyro_cama.inference.class_posterior import most_probable_labels
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.model.pair import PairT
from pyro_cama.stream import state as files
from pyro_cama.stream.change import ChangeTest
from pyro_cama.stream.course import Course, Recent
from pyro_cama.stream.decision import FEWEST, Decision, decide
from pyro_cama.stream.reading import Reader, some_rows
from pyro_cama.stream.regimes import Regime
from pyro_cama.stream.step import Kind, Step


@dataclass(frozen=True)
class MonitorOptions:
    """How to watch; see :meth:`pyro_cama.CAMA.monitor`.

    Raises:
        ValueError: an option is out of range; names it, what was found and what was expected.
    """

    false_alarms: float = 0.01
    least: int = 100
    window: int = 4000
    most_regimes: int = 16
    class_prior: Literal["train", "regime"] = "train"

    def __post_init__(self) -> None:
        level, mix = self.false_alarms, self.class_prior
        expect("monitor", "false_alarms", level, number(level) and 0 < level < 1, "a number between 0 and 1")
        expect_whole("monitor", "least", self.least, FEWEST)
        expect_whole("monitor", "window", self.window, self.least)
        expect_whole("monitor", "most_regimes", self.most_regimes, 3)
        expect("monitor", "class_prior", mix, mix in ("train", "regime"), "'train' or 'regime'")


class Monitor(Generic[PairT]):
    """A model that reads a stream of batches; :meth:`pyro_cama.CAMA.monitor` makes one.

    Example:
        >>> import pyro_cama
        >>> from pyro_cama import datasets
        >>> table = datasets.load("wine").sample(frac=1, random_state=0)
        >>> train, held, rows = table[:90], table[90:130], table[130:]
        >>> cama = pyro_cama.build(datasets.graph("wine"), hidden=16, device="cpu").fit(train, progress=False)
        >>> monitor = cama.monitor(held, least=40)
        >>> moved = rows.assign(alcohol=rows["alcohol"] + 2.0)
        >>> [monitor.update(batch).kind for batch in (rows, moved, moved, rows)]
        ['same', 'new', 'same', 'back']
        >>> monitor.present, [regime.number for regime in monitor.regimes]
        (0, [0, 1])

    Attributes:
        options: what the monitor was asked for.

    Args:
        pair: the model; it is left alone.
        clean, state, unknown, predict: as :meth:`pyro_cama.CAMA.monitor`.
        options: the rest of its arguments.
        adapt: options of :func:`pyro_cama.adaptation.adapt.adapt`.
        told: is given every copy of the model, and the adaptation that it carries.
    """

    def __init__(
        self,
        pair: PairT,
        clean: DataSource | None,
        options: MonitorOptions,
        state: str | Path | None,
        unknown: Unknown,
        predict: Mapping[str, Any],
        adapt: dict[str, Any],
        told: Callable[[PairT, Adaptation], None] | None = None,
    ) -> None:
        m = pair.graph.m
        if m is None:
            raise ValueError("monitor: this graph has no manipulation latent (m is null), so nothing can adapt")
        if pair.graph.site_column is not None:
            raise ValueError(
                f"monitor: m belongs to the values of {pair.graph.site_column!r}; expected scope dataset or row: give "
                "every one of them a monitor of its own, under scope dataset"
            )
        expect_options("monitor", adapt, AdaptOptions)
        AdaptOptions(**{name: value for name, value in adapt.items() if value is not None})
        PredictionOptions.checked("monitor", pair.graph, None, **predict)
        self.options, self._adapt, self._unknown = options, adapt, unknown
        self._reader, self._told = Reader(pair, predict), told
        self._path = None if state is None else Path(state)
        self._asked = {**asdict(options), **{name: repr(value) for name, value in sorted(adapt.items())}}
        self._asked |= {f"predict {name}": repr(value) for name, value in sorted(predict.items())}
        self._model = files.fingerprint(self._reader.pair)
        if self._path is not None and self._path.exists():
            self._course = files.read(self._path, self._model, self._asked, pair.device)
            return
        self._course = self._begun(clean)
        if self._path is not None:
            self._write(self._course)

    # what it knows ---------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        at = "a change that is not decided upon" if self.undecided else f"regime {self.present}"
        return f"Monitor({self.steps} steps, {len(self.regimes)} regimes, in {at})"

    @property
    def steps(self) -> int:
        """How many batches there were."""
        return self._course.steps

    @property
    def present(self) -> int:
        """Number of the regime that the stream is in, as far as is known."""
        return self._course.present

    @property
    def undecided(self) -> bool:
        """Whether there was a change of which it is not known yet where it leads."""
        return self._course.since is not None

    @property
    def regimes(self) -> tuple[Regime, ...]:
        """The worlds that are known."""
        return self._course.bank

    @one_at_a_time
    def model(self, regime: int | None = None) -> PairT:
        """Returns a copy of the model, as it reads in a regime; left out, in the present one.

        Raises:
            ValueError: there is no such regime.
        """
        asked = self.present if regime is None else regime
        known = [one.number for one in self.regimes]
        expect("model", "regime", asked, asked in known, f"one of {', '.join(map(str, known))}")
        there = self._course.regime(asked)
        copy = self._reader.stand(there).copy()
        if self._told is not None and there.trusted and there.adaptation is not None:
            self._told(copy, there.adaptation)
        return copy

    # steps -----------------------------------------------------------------------------------------------------------

    @one_at_a_time
    def update(self, rows: Table | Batch, *, then: Callable[[Step], object] | None = None) -> Step:
        """Reads a batch: predicts, tests whether the world has changed, and does what is to be done about it.

        Whatever is raised, the monitor is as it was before.  With a state, that is written before the step comes back.

        Args:
            rows: in raw units; a target column is not looked at.
            then: is given the step before the state is written, to keep what comes of it: if the process is killed in
                between, the same batch makes the same step again.

        Raises:
            DataError: there is no row, or the rows do not fit the graph.
            OSError: the state cannot be written.
        """
        pair = self._reader.pair
        with reading_unknown(self._unknown, "update"):
            batch = pair.recorded(rows, "ignore")  # worlds differ in what they see of it
        if not batch.rows:
            raise DataError("update: found no rows; expected at least one")
        with one_core() if pair.device.type == "cpu" and not pair.model.has_images else nullcontext():
            course, step = self._stepped(self._course, batch)
        if then is not None:
            then(step)
        if self._path is not None:
            self._write(course)
        self._course = course
        return step

    def _begun(self, clean: DataSource | None) -> Course:
        """The course before the first step."""
        first = Regime.of(self._reader.pair, 0, None, 0)
        if clean is not None:
            with reading_unknown(self._unknown, "monitor"):
                rows = self._reader.pair.read(clean, "ignore", sampled=True)
            if rows.rows < FEWEST:
                raise DataError(
                    f"monitor(clean=...): found {rows.rows} rows; expected at least {FEWEST}, of the world that the "
                    "model was fitted to, and held out of the fit"
                )
            read = self._reader.read(first, rows)
            first = replace(first, calibration=read.calibration(self._seed))
        return Course(0, (first,), 0, 1, ChangeTest.new(self.options.false_alarms), 0, Recent.none())

    @property
    def _seed(self) -> int:
        return self._reader.pair.settings.seed

    def _stepped(self, course: Course, batch: Batch) -> tuple[Course, Step]:
        """Returns the course after a batch, and the step."""
        present = course.regime(course.present)
        if present.calibration is None:
            return self._calibrated(course, present, batch)
        own_mix = self.options.class_prior == "regime"
        test = course.test
        if course.since is None:
            read = self._reader.read(present, batch)
            ties = np.random.default_rng([self._seed, course.steps]).random(batch.rows)
            course = course.seen(read, batch, ties, self.options.window)
            test = course.test
            if not test.alarms:
                reason = f"regime {present.number} as before (evidence of a change {test.evidence:.1f} nats)"
                proba = self._reader.proba(present, batch, own_mix=own_mix)
                return course, self._step(course, proba, "same", present, test, reason)
            course = course.alarmed()
        else:
            kept = some_rows(batch, self.options.window, self._seed + course.steps)
            recent = course.recent.untested(kept, course.steps + 1, self.options.window)
            course = replace(course, steps=course.steps + 1, recent=recent)
        since = course.since
        course, decision = decide(
            course,
            self._reader,
            least=self.options.least,
            most_regimes=self.options.most_regimes,
            seed=self._seed,
            options=self._adapt,
        )
        reads = course.regime(decision.reads if decision.kind == "undecided" else course.present)
        proba = self._reader.proba(reads, batch, own_mix=own_mix)
        empty = [name for name in batch.empty if name != self._reader.pair.graph.target]
        missing = f"; {listed(empty)}: no entry in this batch, which may be the change" if empty else ""
        return course, self._step(course, proba, decision.kind, reads, test, decision.reason + missing, since, decision)

    def _calibrated(self, course: Course, first: Regime, batch: Batch) -> tuple[Course, Step]:
        """Reads a batch while rows of the first world are gathered."""
        proba = self._reader.proba(first, batch, own_mix=self.options.class_prior == "regime")
        kept = some_rows(batch, self.options.window, self._seed + course.steps)
        recent = course.recent.untested(kept, course.steps + 1, self.options.window)
        course = replace(course, steps=course.steps + 1, recent=recent)
        reason = f"rows of regime 0 are gathered ({recent.count} of {self.options.least}), to compare later ones with"
        if recent.count >= self.options.least:
            assert recent.rows is not None
            calibration = self._reader.read(first, recent.rows).calibration(self._seed)
            course = replace(course, recent=Recent.none(), entered=course.steps)
            course = course.with_regime(replace(first, calibration=calibration))
            reason = f"{recent.count} rows of regime 0 are there to compare later ones with"
        return course, self._step(course, proba, "calibrating", first, course.test, reason)

    def _step(
        self,
        course: Course,
        proba: NDArray[np.float64],
        kind: Kind,
        reads: Regime,
        test: ChangeTest,
        reason: str,
        since: int | None = None,
        decision: Decision | None = None,
    ) -> Step:
        return Step(
            number=course.steps,
            kind=kind,
            proba=proba,
            labels=most_probable_labels(self._reader.pair, proba),
            regime=None if kind == "undecided" else course.present,
            reads_as=reads.reads_as,
            evidence=test.evidence,
            threshold=test.threshold,
            since=since,
            reason=reason,
            forgotten=None if decision is None else decision.forgotten,
        )

    def _write(self, course: Course) -> None:
        assert self._path is not None
        files.write(course, self._path, self._model, self._asked)
