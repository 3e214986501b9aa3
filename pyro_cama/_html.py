"""What objects look like in a notebook: small pieces of HTML, in the notebook's own colours, light or dark.

Everything is escaped here; a piece needs nothing beside it.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = "#e6e6e6"  # in a picture: becomes the page's own colour of lines
_LETTER = 9.0  # pixels; pictures are scrolled on a phone rather than made too small to read
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_MOST = 30  # rows of a table
_STYLE = (
    "<style>"
    ".pyro-cama{--line:color-mix(in srgb,currentColor 22%,transparent);font:13px/1.45 system-ui,sans-serif;"
    "max-width:60em;text-align:left}"
    ".pyro-cama p{margin:.3em 0;overflow-wrap:anywhere}"
    ".pyro-cama .scroll{overflow-x:auto;margin:.4em 0}"
    ".pyro-cama table{border-collapse:collapse;margin:0;border:0;font:inherit;width:auto}"
    ".pyro-cama tr,.pyro-cama tr:nth-child(even){background:none}"
    ".pyro-cama th,.pyro-cama td{text-align:left;vertical-align:top;padding:.15em 1.2em .15em 0;border:0;"
    "border-bottom:1px solid var(--line);font-weight:400;background:none;color:inherit;max-width:30em;"
    "min-width:3em;overflow-wrap:break-word;white-space:normal}"
    ".pyro-cama td:last-child{min-width:14em}"
    ".pyro-cama thead th{opacity:.75;white-space:nowrap}"
    ".pyro-cama .badge{color:#fff;border-radius:.6em;padding:.05em .6em;margin-right:.4em}"
    ".pyro-cama .paper{background:#fff;color:#222;border-radius:6px;padding:6px}"
    "</style>"
)
_BADGES = {"good": "#1a7553", "bad": "#a8382f", "plain": "#5f656e"}


def visible_text(value: Any) -> Any:
    r"""Escapes characters that act on their neighbours unseen: control characters and overrides of the direction.

    >>> visible_text("a\u202eb")
    'a\\u202eb'
    """
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value) if type(value) is str else value


def text(value: Any) -> str:
    """Returns a value as text that HTML shows as it is.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return html.escape(str(visible_text(str(value))))


def card(title: str, *parts: str, badge: tuple[str, str] | None = None) -> str:
    """Returns what a notebook shows of an object.

    Args:
        title: plain text.
        parts: HTML, from the functions here.
        badge: a word, and its kind: good, bad or plain.
    """
    mark = (
        "" if badge is None else f'<span class="badge" style="background:{_BADGES[badge[1]]}">{text(badge[0])}</span>'
    )
    return f'<div class="pyro-cama">{_STYLE}<p>{mark}<strong>{text(title)}</strong></p>{"".join(parts)}</div>'


def paragraph(said: str) -> str:
    """Returns plain text as a paragraph."""
    return f"<p>{text(said)}</p>" if said else ""


def table(rows: Iterable[Sequence[Any]], head: Sequence[Any] = ()) -> str:
    """Returns rows of plain values as a table, of many the first thirty; the first entry of a row is its name."""
    listed = [*rows]
    if not listed:
        return ""
    top = f"<thead><tr>{''.join(f'<th>{text(name)}</th>' for name in head)}</tr></thead>" if head else ""
    body = "".join(
        f"<tr><th>{text(first)}</th>{''.join(f'<td>{text(entry)}</td>' for entry in rest)}</tr>"
        for first, *rest in listed[:_MOST]
    )
    more = paragraph(f"... and {len(listed) - _MOST} more") if len(listed) > _MOST else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>{more}'


def picture(figure: Figure, name: str, *, paper: bool = False) -> str:
    """Returns a figure as inline SVG; on white where its own colours need it."""
    shown = svg_text(figure, "p" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8], name)
    return f'<div class="scroll{" paper" if paper else ""}">{shown}</div>'


def new_figure(width: float, height: float, *, kept: bool = False) -> Figure:
    """Returns an empty figure, sizes in inches; ``kept`` by pyplot, so that a notebook shows it, or by nobody."""
    if kept:
        from matplotlib import pyplot

        return pyplot.figure(figsize=(width, height), layout="constrained")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_axes(width: float, height: float, *, kept: bool = False) -> Axes:
    """Returns empty axes on a figure of their own, see :func:`new_figure`."""
    return new_figure(width, height, kept=kept).subplots()


def figure_of(axis: Axes) -> Figure:
    """Returns the whole figure that axes are on."""
    figure = axis.get_figure(root=True)
    assert figure is not None
    return figure


def svg_text(figure: Figure, key: str, name: str) -> str:
    """Returns a figure as inline SVG, black and the colour of lines left to the page, its ids its own.

    Args:
        key: told apart from those of the page's other pictures.
        name: for whom cannot see it.
    """
    import matplotlib
    from matplotlib.text import Text

    smallest = min(float(said.get_fontsize()) for said in figure.findobj(Text) if said.get_text())
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": key, "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing, bbox_inches="tight")
    drawn = file.getvalue()
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    assert view is not None
    body = drawn[drawn.index("<g ") : drawn.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = body.replace('href="#', f'href="#{key}-').replace("url(#", f"url(#{key}-")
    body = body.replace("#000000", "currentColor").replace(LINE, "var(--line)")
    body = re.sub(r"\s*\n\s*", " ", body)
    width = float(view[1])
    size = f"min-width: {_LETTER / smallest * width:.0f}px; max-width: {1.5 * width:.0f}px"
    label = html.escape(visible_text(name))
    return f'<svg viewBox="0 0 {view[1]} {view[2]}" style="{size}" role="img" aria-label="{label}">{body}</svg>'
