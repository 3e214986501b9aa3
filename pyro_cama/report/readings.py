"""Pictures of the columns that moved: readings before, now, and with what happened to them undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pyro_cama._html import new_axes as empty_axes
from pyro_cama._html import visible_text
from pyro_cama.cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.data.tables import Table
from pyro_cama.graph.nodes import Node
from pyro_cama.inference.do import clean_do
from pyro_cama.inference.reconstruction import undone_readings
from pyro_cama.report.pictures import LOOK, Block, new_axes, picture_block

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pyro_cama.adaptation.explanation import Explanation

MOST = 12  # pictures
_DECADE = 10.0  # medians further apart than this are shown on a logarithmic axis
_DRAWN = 2000  # rows of the model's own where there are no clean ones
_BINS = 24
_LEVELS = 8

Samples = dict[str, NDArray[np.float64]]
"""Readings of one column, or shares of its levels: before, now, corrected."""


@dataclass(frozen=True)
class _Worlds:
    """Rows in which nothing was manipulated, the rows of the report, and the values of these with m undone."""

    before: Batch
    now: Batch
    corrected: Mapping[str, torch.Tensor]


def reading_blocks(cama: CAMA, found: Explanation, batch: Batch, clean: Table | None) -> list[Block]:
    """Returns a picture of every column that moved, the largest change first; of an image none.

    Args:
        cama: the adapted model.
        found: what it says has moved.
        batch: the rows of the report.
        clean: rows that nothing happened to; without them the model's own under do(m=0) stand for the training rows.
    """
    moved = found.estimated if found.note else found.table[found.table["moved"]]
    chosen = [row for row in moved.to_dict("records") if not cama.graph.nodes[_place(cama, row["column"])[0]].is_image]
    if not chosen:
        return []
    drawn = 200 if cama.model.has_images else _DRAWN
    rows = cama.sample(drawn, clean_do(cama.graph)) if clean is None else clean
    worlds = _Worlds(cama.encode(rows), batch, undone_readings(cama, batch))
    whose = "rows that the model draws under do(m=0)" if clean is None else "clean rows"
    blocks = []
    for i, row in enumerate(chosen[:MOST]):
        name, part = _place(cama, row["column"])
        here = row.get("site")
        at = None if pd.isna(here) else cama.encoder.sites.index(here)
        axis = new_axes(empty_axes(4.8, 2.4))
        said = _draw(cama, cama.graph.nodes[name], _samples(cama, worlds, name, part, at), axis)
        where = "" if at is None else f" at {here}"
        title = f"{row['column']}{where}"
        more = f" Before: {whose}." if i == 0 else ""
        blocks.append(picture_block(axis, f"{title}: {said}{more}", f"reading{i}", f"Readings of {title}"))
    return blocks


def _place(cama: CAMA, column: str) -> tuple[str, int | None]:
    """Returns a column's node, and its component of a vector."""
    if column in cama.graph.nodes:
        return column, None
    name, _, part = column.rpartition("[")
    return name, int(part.rstrip("]"))


def _samples(cama: CAMA, worlds: _Worlds, name: str, part: int | None, site: int | None) -> Samples:
    node, now = cama.graph.nodes[name], worlds.now
    here = now.observed.get(name, torch.ones(now.rows, dtype=torch.bool, device=cama.device))
    if site is not None and now.site is not None:
        here = here & (now.site == site)
    there = worlds.before.observed.get(name, slice(None))
    values = {
        "before": worlds.before.values[name][there],
        "now": now.values[name][here],
        "corrected": worlds.corrected[name][here],
    }
    return {world: _in_raw_units(cama, node, value, part) for world, value in values.items() if len(value)}


def _in_raw_units(cama: CAMA, node: Node, values: torch.Tensor, part: int | None) -> NDArray[np.float64]:
    """Numbers ``(rows,)``, or shares of the levels ``(levels,)``; levels that m is undone of are probabilities."""
    if node.levels:
        shares = values.double()
        if node.type == "binary":
            shares = torch.stack([1 - shares, shares], -1)
        elif shares.dim() == 1:
            shares = torch.nn.functional.one_hot(values.long(), node.classes).double()
        found: NDArray[np.float64] = shares.mean(0).cpu().numpy()
        return found
    whole = node.type == "count"  # corrected they are not, and decoding would make them so
    numbers = values.double().cpu().numpy() if whole else cama.encoder.decode(node.name, values)
    return np.asarray(numbers if part is None else numbers[:, part], dtype=float)


def _draw(cama: CAMA, node: Node, samples: Samples, axis: Axes) -> str:
    """Draws one column, and returns in words what is seen."""
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(axis="y", visible=False)
    said = _draw_levels(node, samples, axis) if node.levels else _draw_numbers(samples, axis)
    axis.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=9)
    return said


def _looks(samples: Samples) -> Iterator[tuple[str, NDArray[np.float64], dict[str, Any]]]:
    looks = {"before": {}, "now": LOOK[0], "corrected": LOOK[1]}
    for world, values in samples.items():
        yield world, values, {k: v for k, v in looks[world].items() if k != "marker"}


def _draw_numbers(samples: Samples, axis: Axes) -> str:
    medians = {world: float(np.median(values)) for world, values in samples.items()}
    logarithmic = all((values > 0).all() for values in samples.values()) and (
        max(medians.values()) > _DECADE * min(medians.values())
    )
    if logarithmic:
        axis.set_xscale("log")
    for world, values, look in _looks(samples):
        low, high = np.quantile(values, [0.005, 0.995])
        if low == high:
            low, high = (low / 1.02, high * 1.02) if logarithmic else (low - 0.5, high + 0.5)
        edges = np.geomspace(low, high, _BINS + 1) if logarithmic else np.linspace(low, high, _BINS + 1)
        heights, _ = np.histogram(values, edges)
        heights = np.concatenate([[0], heights / max(heights.max(), 1), [0]])
        steps = np.concatenate([[edges[0]], edges, [edges[-1]]])[:-1]
        if world == "before":
            axis.fill_between(steps, heights, step="post", color="#888888", alpha=0.45, linewidth=0, label=world)
        else:
            axis.step(steps, heights, where="post", linewidth=1.6, label=world, **look)
    axis.set_ylim(0, 1.08)
    told = ", ".join(f"{_short(value)} {world}" for world, value in medians.items())
    return f"median {told}{'; a logarithmic axis' if logarithmic else ''}."


def _short(value: float) -> str:
    """Writes four digits, without an exponent where that is shorter.

    >>> _short(572234.0), _short(0.01234567)
    ('572,234', '0.01235')
    """
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g}"


def _draw_levels(node: Node, samples: Samples, axis: Axes) -> str:
    gap = np.max([np.abs(shares - samples["now"]) for shares in samples.values()], axis=0)
    shown = np.sort(np.argsort(-gap, kind="stable")[:_LEVELS])
    names = [visible_text(str(node.levels[k])) for k in shown] if node.levels else []
    width = 0.8 / len(samples)
    for i, (world, shares, look) in enumerate(_looks(samples)):
        colour = look.get("color", "#888888")
        axis.bar(np.arange(len(shown)) + (i - 1) * width, shares[shown], width, color=colour, label=world)
    labels = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
    axis.set_xticks(range(len(shown)), labels, fontsize=9, parse_math=False)
    if max(map(len, labels)) * len(labels) > 36:
        for label in axis.get_xticklabels():
            label.set(rotation=20, ha="right")
    k = int(np.argmax(gap))
    told = ", ".join(f"{shares[k]:.0%} {world}" for world, shares in samples.items())
    more = f"; the {_LEVELS} levels that differ most" if len(node.levels or ()) > _LEVELS else ""
    return f"share of {visible_text(str(node.levels[k])) if node.levels else k}: {told}{more}."
