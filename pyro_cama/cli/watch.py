"""watch: files of a folder one after the other, each once, read by a monitor; nothing is lost or done twice."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pandas as pd

from pyro_cama._messages import one_of
from pyro_cama.cama import CAMA, load
from pyro_cama.cli.errors import one_line
from pyro_cama.cli.files import errors_in, expect_other_names, read_rows, read_table, write_tables
from pyro_cama.cli.ledger import FAILED, Ledger, Line
from pyro_cama.data.batch import Batch
from pyro_cama.data.table_files import SUFFIXES
from pyro_cama.data.unknown_levels import Unknown, reading_unknown
from pyro_cama.errors import DataError
from pyro_cama.stream.monitor import Monitor
from pyro_cama.stream.step import Step

LABELS, LEDGER, STATE, REPORT = "labels", "ledger.csv", "monitor.state", "report.html"
CHANGED, NOT_FOLLOWED, FILES_FAILED = 3, 4, 5  # exit codes, the greatest counts
SHOWN = 500  # files in a report


@dataclass
class Watch:
    """A folder that is watched.

    Attributes:
        cama: the model.
        monitor: of the stream.
        folder, pattern, order: which files, in which order.
        settle: seconds that a file has to lie unchanged.
        output: where labels, ledger, state and report are.
        ledger: of what was done.
        ids: columns to carry along.
        unknown: what a level is that the graph does not name.
        code: exit code so far.
    """

    cama: CAMA
    monitor: Monitor[CAMA]
    folder: Path
    pattern: str
    order: str
    settle: float
    output: Path
    ledger: Ledger
    ids: tuple[str, ...]
    unknown: Unknown
    code: int = 0

    def waiting(self) -> list[Path]:
        """Returns the files that have come and were not done, in their order.

        Raises:
            OSError: the folder is not there any more.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: no such folder; expected one that files arrive in")
        now, found = time.time(), []
        for path in self.folder.glob(self.pattern):
            if path.name in self.ledger.files or path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            if path.is_file() and now - (changed := path.stat().st_mtime) >= self.settle:
                found.append((changed if self.order == "time" else 0.0, path.name, path))
        return [path for *_, path in sorted(found)]

    def sweep(self) -> int:
        """Reads all files that wait; returns how many there were."""
        count = 0
        for path in self.waiting():
            with _notes_at_once(path):
                self._read(path)
            count += 1
        if count or not (self.output / REPORT).exists():
            from pyro_cama.report.stream import stream_report

            stream_report(self.ledger.last(SHOWN), self.output / REPORT, title=f"Stream of {self.cama.graph.target}")
        return count

    def _read(self, path: Path) -> None:
        """Reads a file: labels, a line of the ledger and the state, in this order."""
        try:
            named, batch = self._rows(path)
        except (DataError, OSError, ImportError) as error:
            said = one_line(str(error))
            self.ledger.add(self._line(path, FAILED, said))
            click.echo(f"{path.name}: failed: {said}")
            self.code = FILES_FAILED
            return

        def write(step: Step) -> None:
            write_tables([_labelled(self.cama, named, step)], self.output / LABELS / path.name, True, "%.6g")
            self.ledger.add(self._line(path, step.kind, step.reason, step))

        step = self.monitor.update(batch, then=write)
        click.echo(f"{path.name}: {step}")
        if step.changed:
            self.code = max(self.code, CHANGED)

    def _rows(self, path: Path) -> tuple[pd.DataFrame, Batch]:
        """The columns that tell rows apart, and the rows encoded.

        Raises:
            DataError: the file does not fit the graph; names it.
        """
        table = read_table(path, self.cama.graph)
        names = [str(name) for name in table.columns]
        if missing := [name for name in self.ids if name not in names]:
            raise DataError(f"{path}: --id: found no column {missing[0]!r}; {one_of(missing[0], names)}")
        beside = [name for name in self.ids if name not in self.cama.graph.nodes]
        with errors_in(path), reading_unknown(self.unknown, "watch"):
            batch = self.cama.encode(table.drop(columns=beside), target="ignore")
        return table.set_axis(names, axis=1)[[*self.ids]].astype(object).reset_index(drop=True), batch

    def _line(self, path: Path, kind: str, reason: str, step: Step | None = None) -> Line:
        told: dict[str, Any] = {"step": self.monitor.steps}
        if step is not None:
            told = {name: getattr(step, name) for name in ("rows", "regime", "reads_as")}
            told |= {"step": step.number, "evidence": f"{step.evidence:.2f}", "threshold": f"{step.threshold:.2f}"}
        line = {"file": path.name, "kind": kind, "reason": one_line(reason)}
        for name in ("step", "rows", "regime", "reads_as", "evidence", "threshold"):
            line[name] = "" if told.get(name) is None else str(told[name])
        return line

    def exit_code(self) -> int:
        """Returns 0 for nothing new, or what a scheduler should know: changed, not followed, failed."""
        present = self.monitor.regimes[[r.number for r in self.monitor.regimes].index(self.monitor.present)]
        lost = self.monitor.undecided or not present.trusted
        return max(self.code, NOT_FOLLOWED) if lost else self.code


def watch(
    model: Path,
    folder: Path,
    clean: Path | None,
    pattern: str,
    order: str,
    once: bool,
    every: float,
    settle: float,
    false_alarms: float,
    least: int,
    ids: tuple[str, ...],
    unknown: Unknown,
    output: Path,
) -> int:
    """Reads the files of a folder as they arrive, and returns an exit code."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one that files arrive in")
    _claim(output)
    cama = load(model)
    expect_other_names(ids, cama.classes)
    rows = None
    if clean is not None and not (output / STATE).exists():
        rows = read_rows(clean, cama.graph)
    (output / LABELS).mkdir(parents=True, exist_ok=True)
    with errors_in(clean or output):
        monitor = cama.monitor(
            rows, state=output / STATE, false_alarms=false_alarms, least=least, window=max(4000, least), unknown=unknown
        )
    ledger = Ledger(output / LEDGER, monitor.steps)
    found = Watch(cama, monitor, folder, pattern, order, settle, output, ledger, ids, unknown)
    while True:
        count = found.sweep()
        if once:
            click.echo(f"{count} file{'' if count == 1 else 's'} read, {monitor!r}; see {output / REPORT}")
            return found.exit_code()
        time.sleep(every)


def _claim(output: Path) -> None:
    """Refuses a place for results where something else is.

    Raises:
        OSError: its folder is missing, or it is no folder, or one that holds other things.
    """
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder; make it first, or choose another")
    if not output.exists():
        return
    if not output.is_dir():
        raise FileExistsError(f"{output} is a file; expected a folder, or nothing yet")
    other = {p.name for p in output.iterdir() if not p.name.startswith(".")} - {LABELS, LEDGER, STATE, REPORT}
    if other:
        raise FileExistsError(f"{output} holds something other than what watch writes ({min(other)}); choose another")


def _labelled(cama: CAMA, named: pd.DataFrame, step: Step) -> pd.DataFrame:
    """Labels and probabilities of a file's rows, after the columns that tell them apart."""
    columns: dict[str, Any] = {"label": step.labels}
    columns |= {f"p({level})": step.proba[:, i] for i, level in enumerate(cama.classes)}
    return pd.concat([named, pd.DataFrame(columns)], axis=1)


@contextmanager
def _notes_at_once(path: Path) -> Iterator[None]:
    """Prints warnings of a file when they come: a command that watches has no end to keep them for."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
        if issubclass(category, UserWarning):
            click.echo(f"Note: {path.name}: {one_line(str(message))}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
