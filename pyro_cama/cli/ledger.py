"""The ledger of a watched folder: a CSV file with one line a file, appended to, and put right after a kill.

A line is written before the monitor's state; a line of a step that the state does not know was never done.
"""

from __future__ import annotations

import csv
import io
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from pyro_cama._files import naming, replacing
from pyro_cama.errors import DataError

COLUMNS = ("file", "step", "rows", "kind", "regime", "reads_as", "evidence", "threshold", "reason")
FAILED = "failed"

Line = dict[str, str]


class Ledger:
    """What was done with every file.

    Args:
        path: of the CSV file; it is made with the first line.
        steps: that the monitor's state knows; lines of later ones, and one that is cut off, are taken away.

    Attributes:
        files: names of the files that have a line.

    Raises:
        DataError: the file is none of this kind.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path = path
        kept: list[Line] = []
        whole = True
        for line in self._lines():
            whole = line is not None and int(line["step"]) <= steps
            if line is None or not whole:
                break
            kept.append(line)
        if not whole:
            with replacing(path) as part:
                part.write_text(_text([_header(), *kept]), encoding="utf-8", newline="")
        self.files = {line["file"] for line in kept}

    def add(self, line: Line) -> None:
        """Appends a line, on the disk when it comes back.

        Raises:
            OSError: it cannot be written.
        """
        with naming(self.path), open(self.path, "a", encoding="utf-8", newline="") as file:
            new = file.tell() == 0
            file.write(_text([_header(), line] if new else [line]))
            file.flush()
            os.fsync(file.fileno())
        self.files.add(line["file"])

    def last(self, most: int) -> list[Line]:
        """Returns so many of the last lines."""
        return list(deque((line for line in self._lines() if line is not None), most))

    def _lines(self) -> Iterator[Line | None]:
        """Yields the lines; None for one that is cut off."""
        if not self.path.exists():
            return
        with open(self.path, encoding="utf-8", newline="") as file:
            reader = csv.reader(_whole(file))
            first = next(reader, None)
            if first is not None and tuple(first) != COLUMNS:
                raise DataError(f"{self.path}: found columns {', '.join(first)}; expected {', '.join(COLUMNS)}")
            for entries in reader:
                yield dict(zip(COLUMNS, entries, strict=True)) if len(entries) == len(COLUMNS) else None


def _whole(lines: Iterator[str]) -> Iterator[str]:
    """Yields lines of a file, the last one as a stump if it does not end."""
    for line in lines:
        yield line if line.endswith("\n") else "cut off\n"


def _header() -> Line:
    return {name: name for name in COLUMNS}


def _text(lines: list[Line]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([line[name] for name in COLUMNS] for line in lines)
    return file.getvalue()
