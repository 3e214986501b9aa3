"""One HTML file on a stream: which world it was in, the evidence of a change, and what was decided, file by file."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyro_cama._files import replacing
from pyro_cama._html import figure_of
from pyro_cama._html import new_axes as empty_axes
from pyro_cama._version import __version__
from pyro_cama.report.page import rendered
from pyro_cama.report.pictures import Block, new_axes, picture_block
from pyro_cama.report.sections import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = Mapping[str, str]
COLOURS = {
    "same": "#8a929c", "calibrating": "#c2c8cf", "back": "#1b8f66", "new": "#3f7fd0", "refused": "#a8382f",
    "undecided": "#d1731c", "failed": "#000000",
}  # fmt: skip
MARKS = {
    "same": "o", "calibrating": "o", "back": "^", "new": "s", "refused": "X", "undecided": "D", "failed": "x",
}  # fmt: skip
WORDS = [
    ["same", "nothing speaks for a change"],
    ["back", "a known world is there again; nothing was adapted"],
    ["new", "another world, and the model has adapted to it"],
    ["refused", "another world, and no adaptation could be trusted; it is read as before"],
    ["undecided", "something has changed, and too few rows have come to say what"],
    ["calibrating", "the first rows are gathered, to compare others with"],
    ["failed", "the file could not be read"],
    ["evidence", "what bets against an unchanged world have earned, in nats; at the threshold there is an alarm"],
    ["regime", "a known world, by its number"],
]
ROWS = 100  # of the table


def stream_report(lines: Sequence[Line], path: str | Path, *, title: str = "Stream") -> Path:
    """Writes a report on the files of a stream, whole or not at all; what was there is replaced.

    Args:
        lines: a mapping a file, in order: its name (``file``), ``step``, ``rows``, ``kind``, ``regime``, ``evidence``,
            ``threshold`` and ``reason``, as ``pyro-cama watch`` keeps them in its ledger; empty where there is none.
        path: of the .html file.
        title: of the page.

    Returns:
        ``path``.

    Raises:
        OSError: ``path`` cannot be written to.
    """
    path = Path(path)
    changes = [line for line in lines if line["kind"] in ("back", "new", "refused")]
    failed = sum(line["kind"] == "failed" for line in lines)
    said, badge = "nothing changed", ("as it was", "good")
    if changes:
        said = f"{len(changes)} changes, the last at {changes[-1]['file']}: {changes[-1]['reason']}"
        badge = ("changed", "bad" if changes[-1]["kind"] == "refused" else "plain")
    if failed:
        said, badge = f"{failed} of {len(lines)} files could not be read; {said}", ("files failed", "bad")
    today = datetime.date.today()
    facts = {
        "files": f"{len(lines)}, the last {lines[-1]['file'] if lines else 'none'}",
        "written": f"{today.day} {today:%B %Y}, by pyro_cama {__version__}",
    }
    sections = [
        _chart(lines),
        _changes(lines),
        Section("Words", "", [Block("As this page uses them.", head=["word", "meaning"], rows=WORDS)]),
    ]
    page = rendered(title, badge, said, facts, [section for section in sections if section is not None])
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return path


def _chart(lines: Sequence[Line]) -> Section | None:
    """The regimes and the evidence of every file that was read."""
    read = [(i, line) for i, line in enumerate(lines, 1) if line["kind"] != "failed"]
    if not read:
        return None
    from matplotlib.ticker import MaxNLocator

    threshold = float(read[-1][1]["threshold"])
    most = 3 * threshold  # far above it, how far tells nothing
    at = np.array([i for i, _ in read])
    evidence = np.array([min(float(line["evidence"]), most) for _, line in read])
    axis = new_axes(empty_axes(9.0, 3.6))
    axis.axhline(threshold, color="#a8382f", linewidth=1.2, linestyle="--")
    axis.plot(at, evidence, color="#8a929c", linewidth=1.0)
    for kind, colour in COLOURS.items():
        own = np.array([line["kind"] == kind for _, line in read])
        if own.any():
            axis.plot(at[own], evidence[own], MARKS[kind], color=colour, markersize=6, label=kind, linestyle="none")
    axis.set_xlim(at[0] - 0.7, at[-1] + 0.7)
    axis.set_ylim(min(-1.0, float(evidence.min())) - 0.5, most + 1.0)
    _name_regimes(axis, read)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("file, in order")
    axis.set_ylabel("evidence of a change (nats)")
    figure_of(axis).legend(fontsize=9, frameon=False, ncols=len(COLOURS), loc="outside lower center")
    caption = (
        "Evidence that the world has changed, of every file, cut off at three times the threshold (dashed). Above: the "
        "number of the regime from there on, a question mark where it is not decided."
    )
    block = picture_block(axis, caption, "stream", "Evidence of a change by file, and the regimes")
    return Section("Course", "", [Block(block.caption, block.picture, wide=True, name=block.name)])


def _name_regimes(axis: Axes, read: Sequence[tuple[int, Line]]) -> None:
    """Writes above the axes which regime the stream is in, from where on; of many close together only some."""
    named, apart = -math.inf, (read[-1][0] - read[0][0] + 1) / 40
    last = None
    for i, line in read:
        if line["regime"] == last:
            continue
        last = line["regime"]
        axis.axvline(i - 0.5, color="#3f7fd0", linewidth=0.7, linestyle=":")
        if i - named >= apart:
            named = i
            axis.text(i - 0.4, 1.01, last or "?", fontsize=9, va="bottom", transform=axis.get_xaxis_transform())


def _changes(lines: Sequence[Line]) -> Section:
    """What was decided, the last first."""
    told = [line for line in reversed(lines) if line["kind"] != "same"][:ROWS]
    rows = [[line["file"], line["kind"], line["regime"] or "–", line["rows"] or "–", line["reason"]] for line in told]
    text = "Every file is as those before it." if not rows else ""
    blocks = [Block("The last first.", wide=True, head=["file", "what", "regime", "rows", "why"], rows=rows)]
    return Section("Changes and failures", text, blocks if rows else [])
