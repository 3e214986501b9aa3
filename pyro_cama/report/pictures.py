"""Pictures as inline SVG in the page's own colours, and figures and texts as the page shows them."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

LOOK: tuple[dict[str, Any], ...] = (  # told apart without colours too, and on black as on white
    {"color": "#d1731c", "marker": "s", "linestyle": "--"},
    {"color": "#1b8f66", "marker": "o", "linestyle": "-"},
    {"color": "#3f7fd0", "marker": "^", "linestyle": "-."},
)
_LINE = "#e6e6e6"  # becomes the page's own colour of lines
_LETTER = 9.0  # pixels; pictures are scrolled on a phone rather than made too small to read
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


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


def new_axes() -> tuple[Picture, Axes]:
    """Returns an empty matplotlib figure in the report's style, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.grid(color=_LINE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def picture_block(figure: Picture, caption: str, key: str, name: str) -> Block:
    """Returns a figure as a block; ``key`` and ``name`` are :func:`svg_text`'s."""
    return Block(caption, svg_text(figure, key, name), name=name)


def svg_text(figure: Picture, key: str, name: str) -> str:
    """Returns a figure as inline SVG, black and the colour of lines left to the page, its ids its own.

    Args:
        key: told apart from those of the page's other pictures.
        name: for whom cannot see it.
    """
    import matplotlib
    from matplotlib.text import Text

    smallest = min(float(text.get_fontsize()) for text in figure.findobj(Text) if text.get_text())
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": key, "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing, bbox_inches="tight")
    text = file.getvalue()
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert view is not None
    body = text[text.index("<g ") : text.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = body.replace('href="#', f'href="#{key}-').replace("url(#", f"url(#{key}-")
    body = body.replace("#000000", "currentColor").replace(_LINE, "var(--line)")
    body = re.sub(r"\s*\n\s*", " ", body)
    width = float(view[1])
    size = f"min-width: {_LETTER / smallest * width:.0f}px; max-width: {1.5 * width:.0f}px"
    label = html.escape(visible_text(name))
    return f'<svg viewBox="0 0 {view[1]} {view[2]}" style="{size}" role="img" aria-label="{label}">{body}</svg>'


def number_text(value: float, digits: int = 3) -> str:
    """Writes a number with so many decimals; a dash where it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def visible_text(value: Any) -> Any:
    r"""Escapes characters that act on their neighbours unseen: control characters and overrides of the direction.

    >>> visible_text("a\u202eb")
    'a\\u202eb'
    """
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value) if type(value) is str else value
