"""What moved between two worlds: the table and the picture that ``explain_shift`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pyro_cama import _html
from pyro_cama._files import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPAN = 30.0


@dataclass(frozen=True)
class Explanation:
    """What an adaptation says about the world that its rows come from.

    Attributes:
        table: a row per manipulable child (component of a vector, and site), the largest change first.
            ``change`` is how far a usual reading moves, in training standard deviations (in shares of readings
            for discrete children, in units of the rate for counts), ``low`` and ``high`` its 95 % interval, ``group``
            what it moves with (of a graph with groups), ``moved``
            whether the change is real (the interval of some parameter leaves out "unchanged") and not ``small``
            (0.25 standard deviations, a tenth of a rate, 5 % of the discrete readings), ``reading`` the change in words
            and raw units.  Without folds to take intervals from, ``moved`` is missing (pd.NA), ``high`` the
            most there can be, and ``reading`` holds estimates.  In scope row all this is of the rows' mean, but for
            ``change`` without folds, which is the root mean square of the rows' own.
        parameters: a row per parameter: ``estimate``, ``low``, ``high`` in raw units, cut to what there can be (shares
            to 0 and 1), and ``unchanged``, its value
            where nothing is manipulated; in scope row also ``rows_low`` and ``rows_high``, between which nine of ten
            rows lie.
        kept: whether the copy carries the change; if not, nothing is said to have moved.
        reason: the last adaptation's own.
        note: that the uncertainty is unknown, and what to do about it; empty where it is known.
        refused: whether the last adaptation was not kept, so that all this is of one before it.
    """

    table: pd.DataFrame
    parameters: pd.DataFrame
    kept: bool
    reason: str
    note: str = ""
    refused: bool = False

    @property
    def moved(self) -> tuple[str, ...]:
        """Columns that are known to have moved, at any site."""
        return tuple(dict.fromkeys(self.table.loc[self.table["moved"], "column"]))

    @property
    def estimated(self) -> pd.DataFrame:
        """The rows of the table whose estimated change is not small, certain or not."""
        return self.table[self.table["change"] >= self.table["small"]]

    def __str__(self) -> str:
        if not self.kept:
            return f"no shift was accepted: {self.reason}"
        return self._changes() + (f"\n(the last rows changed nothing: {self.reason})" if self.refused else "")

    def _changes(self) -> str:
        if self.note:
            moved = self.estimated
            if moved.empty:
                return f"{self.note}; no reading is estimated to have moved noticeably"
            lines = [f"{self.note}; {len(moved)} of {len(self.table)} readings are estimated to have moved:"]
        else:
            moved = self.table[self.table["moved"]]
            if moved.empty:
                return "no column moved noticeably"
            lines = [f"{len(moved)} of {len(self.table)} readings moved:"]
        for row in moved.to_dict("records"):
            where = (f" ({row['group']})" if row.get("group") else "") + (f" at {row['site']}" if "site" in row else "")
            lines.append(f"  {row['column']}{where}: {row['reading']}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Explanation: {str(self).splitlines()[0].rstrip(':')}>"

    def _repr_html_(self) -> str:
        if not self.kept:
            return _html.card(str(self), badge=("no shift", "plain"))
        title, *_ = str(self).splitlines()
        site = [name for name in ("group", "site") if name in self.table]
        head = ["column", *site, "moved", "change", *([] if self.note else ["95 % interval"]), "reading"]
        rows = []
        for row in self.table.to_dict("records"):
            moved = "unknown" if self.note else "yes" if row["moved"] else "no"
            interval = [] if self.note else [f"{row['low']:.2f} to {row['high']:.2f}"]
            rows.append(
                [row["column"], *(row[k] for k in site), moved, f"{row['change']:.2f}", *interval, row["reading"]]
            )
        units = "changes in training standard deviations (shares of discrete readings, of the rate of counts)"
        last = f"the last rows changed nothing: {self.reason}" if self.refused else ""
        return _html.card(title.rstrip(":"), _html.table(rows, head), _html.paragraph(units), _html.paragraph(last))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the picture, in inches."""
        return 7.0, 1.2 + 0.24 * len(self.table)

    def plot(self, path: str | Path | None = None, *, ax: Axes | None = None) -> Axes:
        """Draws the change of every reading with its interval, those that moved in colour.

        Where the uncertainty is unknown, the estimates alone, as hollow dots.  Where the largest change is thirty times
        what counts as one, the axis is logarithmic beyond that.

        Args:
            path: where to write the picture, if anywhere.
            ax: matplotlib axes to draw on; left out, new ones.
        """
        table = self.table.iloc[::-1]
        axis = ax if ax is not None else _html.new_axes(*self.size, kept=path is None)
        for height, row in enumerate(table.to_dict("records")):
            if self.note:
                axis.plot(row["change"], height, "o", color="#9aa0a6", markerfacecolor="none", markersize=5)
                continue
            colour = "#1b7f5c" if row["moved"] else "#9aa0a6"
            axis.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=1.6)
            axis.plot(row["change"], height, "o", color=colour, markersize=5)
        names = [f"{r['column']} ({r['site']})" if "site" in r else r["column"] for r in table.to_dict("records")]
        names = [name if len(name) <= 36 else f"{name[:35]}…" for name in names]
        axis.set_yticks(range(len(table)), names, fontsize=8, parse_math=False)
        axis.plot(table["small"], range(len(table)), "|", color="#c58b4b", markersize=8)
        if not table.empty and table["change"].max() > _SPAN * table["small"].min():
            _logarithmic(axis, float(table["small"].max()))
        axis.set_xlim(left=0)
        axis.set_xlabel("change of a usual reading (training standard deviations; shares of discrete readings)")
        title = "estimated changes, uncertainty unknown" if self.note else "which columns moved"
        axis.set_title(title if self.kept else "no shift was accepted", loc="left", fontsize=11)
        axis.grid(axis="x", color="#e6e6e6")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        if path is not None:
            save_figure(_html.figure_of(axis), path, dpi=130)
        return axis


def _logarithmic(axis: Axes, start: float) -> None:
    """Makes the axis of changes logarithmic from ``start`` on, and linear from 0 to there."""
    axis.set_xscale("symlog", linthresh=start, linscale=0.4)
    top = axis.get_xlim()[1]
    ticks = [1.0]
    while ticks[-1] * 10 <= top:
        ticks.append(ticks[-1] * 10)
    axis.set_xticks([0.0, *ticks], ["0", *(f"{tick:,.0f}" for tick in ticks)])
    axis.set_xticks([tick * k for tick in [0.1, *ticks] for k in range(2, 10) if start < tick * k < top], minor=True)
