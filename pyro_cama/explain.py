"""What changed: after ``adapt``, which children moved and by how much, in the user's own units.

The estimate is the adapted theta; its uncertainty comes from the folds of the adaptation, each adapted to the other
rows only: the delete-a-group jackknife (Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17),
whose intervals take Student's t with folds - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from torch import Tensor

from pyro_cama.errors import expect, number
from pyro_cama.manipulation import Manipulation
from pyro_cama.training import manipulation_of

if TYPE_CHECKING:
    from pyro_cama.cama import CAMA

FOLDS = 4  # to be asked for where there are no intervals
_MOST = 8  # parameters in a reading without intervals: a confusion of many levels has many


@dataclass(frozen=True)
class Explanation:
    """What an adaptation says about the world that its rows come from.

    Attributes:
        table: a row per manipulable child (component of a vector, and site), the largest change first.
            ``change`` is how far a usual reading moves, in training standard deviations (in shares of readings
            for discrete children, in units of the rate for counts), ``low`` and ``high`` its 95 % interval, ``moved``
            whether the change is real (the interval of some parameter leaves out "unchanged") and not ``small``
            (0.25 standard deviations, a tenth of a rate, 5 % of the discrete readings), ``reading`` the change in words
            and raw units.  Without folds to take intervals from, ``moved`` is missing (pd.NA), ``high`` is
            infinite, and ``reading`` holds estimates.
        parameters: a row per parameter: ``estimate``, ``low``, ``high`` in raw units, and ``unchanged``, its value
            where nothing is manipulated.
        kept: whether the copy carries the change; if not, nothing is said to have moved.
        reason: the adaptation's own.
        note: that the uncertainty is unknown, and what to do about it; empty where it is known.
    """

    table: pd.DataFrame
    parameters: pd.DataFrame
    kept: bool
    reason: str
    note: str = ""

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
            where = f" at {row['site']}" if "site" in row else ""
            lines.append(f"  {row['column']}{where}: {row['reading']}")
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Any:
        """The change of every reading with its interval, those that moved in colour; a matplotlib figure.

        Where the uncertainty is unknown, the estimates alone, as hollow dots.

        Args:
            path: where to write the picture, if anywhere.

        Raises:
            ImportError: matplotlib is missing; names the extra.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("Explanation.plot needs matplotlib: pip install 'pyro_cama[demo]'") from None
        table = self.table.iloc[::-1]
        figure = Figure(figsize=(7, 1.2 + 0.24 * len(table)), layout="constrained")
        axis = figure.subplots()
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
        axis.set_xlim(left=0)
        axis.set_xlabel("change of a usual reading (training standard deviations; shares of discrete readings)")
        title = "estimated changes, uncertainty unknown" if self.note else "which columns moved"
        axis.set_title(title if self.kept else "no shift was accepted", loc="left", fontsize=11)
        axis.grid(axis="x", color="#e6e6e6")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        if path is not None:
            figure.savefig(path, dpi=130)
        return figure


def explain_shift(cama: CAMA, *, level: float = 0.95) -> Explanation:
    """What the last adaptation of a model found.

    Args:
        cama: a copy that ``adapt`` returned.
        level: of the intervals.

    Raises:
        ValueError: the model was never adapted, or no child's mechanism has parameters (``concat``).
    """
    adaptation = cama.adaptation
    if adaptation is None:
        raise ValueError("explain_shift: this model was never adapted; call it on what adapt(new_data) returns")
    manipulation = manipulation_of(cama.model)
    if manipulation.size == 0:
        raise ValueError(
            "explain_shift: the mechanism concat has no parameters that could be explained; declare a structured one "
            "(affine, rate, confusion)"
        )
    expect("explain_shift", "level", level, number(level) and 0 < level < 1, "a number above 0, less than 1")
    folds = [torch.tensor(t) for t in adaptation.replicates]
    known = len(folds) > 1 or not adaptation.applied
    whole = torch.tensor(adaptation.theta) * float(adaptation.applied)
    scope = cama.graph.m.scope if cama.graph.m else "row"
    sites = cama.encoder.sites if scope not in ("row", "dataset") else (None,)
    rows: list[dict[str, Any]] = []
    parameters: list[dict[str, Any]] = []
    for index, site in enumerate(sites):
        place = {} if site is None else {"site": site}
        if site is not None and site not in adaptation.sites:
            continue
        for column, small, read in _readings(cama, manipulation):
            estimate, resting = read(whole[index]), read(torch.zeros_like(whole[index]))
            others = [read(fold[index]) for fold in folds] if adaptation.applied else [estimate] * 2
            real = False
            for name, value in estimate.items():
                low, high = _interval(value, [o[name] for o in others], level)
                if name != "change":
                    real |= name != "offset" and not low <= resting[name] <= high  # gain and mean tell it apart
                    parameters.append(
                        {"column": column, **place, "parameter": name, "estimate": value, "low": low, "high": high,
                         "unchanged": resting[name]}
                    )  # fmt: skip
            low, high = _interval(estimate["change"], [o["change"] for o in others], level)
            moved = bool(real and estimate["change"] >= small)
            own = parameters[-len(estimate) + 1 :]
            rows.append(
                {"column": column, **place, "moved": moved if known else pd.NA, "change": estimate["change"],
                 "low": max(low, 0.0), "high": high, "small": small,
                 "reading": _words(estimate, resting, own, moved) if known else _estimates(own)}
            )  # fmt: skip
    table = pd.DataFrame(rows).sort_values("change", ascending=False, kind="stable", ignore_index=True)
    if known:
        note = ""
    else:
        table["moved"] = table["moved"].astype("boolean")  # bool, but missing
        enough = "" if adaptation.rows >= 2 * FOLDS else f", with {2 * FOLDS} rows or more,"
        note = f"uncertainty unknown: adapting with {FOLDS} folds{enough} gives intervals"
    return Explanation(table, pd.DataFrame(parameters), adaptation.applied, adaptation.reason, note)


def _readings(cama: CAMA, manipulation: Manipulation) -> list[tuple[str, float, Any]]:
    """Every manipulated component: its name, what is small, and a function from all of theta to its parameters."""
    found: list[tuple[str, float, Any]] = []
    for group in manipulation.groups:
        if not group.theta_size:
            continue
        assert group.mechanism is not None
        for name in group.nodes:
            node = cama.graph.nodes[name]
            statistics = cama.encoder.statistics[name]
            span = group.component(name)
            start = (span.start or 0) if isinstance(span, slice) else span
            for i in range(node.dim or 1):
                own = {
                    k: v.reshape(-1)[i] if node.type in ("continuous", "count") else v for k, v in statistics.items()
                }

                def read(
                    theta: Tensor, group: Any = group, node: Any = node, own: Any = own, at: int = start + i
                ) -> Any:
                    theta = manipulation.theta(theta, group)
                    return group.mechanism.describe(theta if group.image else theta[at], node, own)

                found.append((name if node.dim is None else f"{name}[{i}]", group.mechanism.small, read))
    return found


def _interval(value: float, others: list[float], level: float) -> tuple[float, float]:
    """Delete-a-group jackknife around ``value``; infinite where nothing was held out."""
    k = len(others)
    if k < 2:
        return -math.inf, math.inf
    se = math.sqrt((k - 1) / k * float(np.square(np.array(others) - np.mean(others)).sum()))
    half = float(student.ppf(0.5 + level / 2, k - 1)) * se
    return value - half, value + half


def _words(estimate: dict[str, float], resting: dict[str, float], intervals: list[dict[str, Any]], moved: bool) -> str:
    if not moved:
        return "as before"
    real = {p["parameter"] for p in intervals if not p["low"] <= resting[p["parameter"]] <= p["high"]}
    if "gain" not in real:  # an offset alone is the shift at the mean, less certain
        real -= {"offset"}
    said = [
        f"{p['parameter']} {p['estimate']:.3g} [{p['low']:.3g}, {p['high']:.3g}]"
        for p in intervals
        if p["parameter"] in real
    ]
    return ", ".join(said)


def _estimates(parameters: list[dict[str, Any]]) -> str:
    """What is estimated to differ from unchanged, where nothing says how certain that is."""
    said = {p["parameter"]: f"{p['estimate']:.3g}" for p in parameters if p["estimate"] != p["unchanged"]}
    if "shift at the mean" in said:  # with the gain it says all
        said.pop("offset", None)
    if not said:
        return "no change estimated"
    distance = {p["parameter"]: abs(p["estimate"] - p["unchanged"]) for p in parameters}
    largest = set(sorted(said, key=lambda name: -distance[name])[:_MOST])
    more = f", and {len(said) - _MOST} smaller ones" if len(said) > _MOST else ""
    return f"estimated {', '.join(f'{name} {value}' for name, value in said.items() if name in largest)}{more}"
