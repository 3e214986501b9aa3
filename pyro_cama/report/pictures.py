"""Pictures as inline SVG in the page's own colours, and figures and texts as the page shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyro_cama._html import LINE, figure_of, svg_text
from pyro_cama._html import new_axes as empty_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOK: tuple[dict[str, Any], ...] = (  # told apart without colours too, and on black as on white
    {"color": "#d1731c", "marker": "s", "linestyle": "--"},
    {"color": "#1b8f66", "marker": "o", "linestyle": "-"},
    {"color": "#3f7fd0", "marker": "^", "linestyle": "-."},
)


@dataclass(frozen=True)
class Block:
    """A picture or a table, and the sentence under it."""

    caption: str
    picture: str = ""  # SVG
    paper: bool = False
    wide: bool = False
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    shades: Sequence[Sequence[float]] = ()  # of a table's cells, its first column left out
    name: str = ""


def new_axes(ax: Axes | None = None, *, kept: bool = False) -> Axes:
    """Returns axes in the report's style: those given, or new ones, which a notebook shows if they are ``kept``."""
    axis = empty_axes(4.8, 3.4, kept=kept) if ax is None else ax
    axis.grid(color=LINE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return axis


def picture_block(axis: Axes, caption: str, key: str, name: str) -> Block:
    """Returns a picture as a block; ``key`` and ``name`` are :func:`pyro_cama._html.svg_text`'s."""
    return Block(caption, svg_text(figure_of(axis), key, name), name=name)


def number_text(value: float, digits: int = 3) -> str:
    """Writes a number with so many decimals; a dash where it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
