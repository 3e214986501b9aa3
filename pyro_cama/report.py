"""One HTML file about a model and rows that have to be read: what moved, whether to trust it, how right it is.

The file needs nothing beside it: styles are inline and pictures are SVG, drawn by matplotlib in the page's own colours,
light or dark.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

import pyro_cama
from pyro_cama.cama import CAMA, Do
from pyro_cama.columns import Table, read_column, read_table
from pyro_cama.draw import draw
from pyro_cama.files import replacing
from pyro_cama.graph import CausalGraph
from pyro_cama.schema import listed, shown
from pyro_cama.scores import BINS, Scores, bins_of, figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

AMOUNTS = {"offset": np.linspace(0.0, 3.0, 7), "gain": 2.0 ** np.linspace(-1.0, 1.0, 7)}
_UNIT = {"offset": "offset (standard deviations of the clean rows)", "gain": "gain (reading times this)"}
_LOOK: tuple[dict[str, Any], ...] = (  # told apart without colours too, and on black as on white
    {"color": "#d1731c", "marker": "s", "linestyle": "--"},
    {"color": "#1b8f66", "marker": "o", "linestyle": "-"},
    {"color": "#3f7fd0", "marker": "^", "linestyle": "-."},
)
_LINE = "#e6e6e6"  # becomes the page's own colour of lines
_MOST = 60  # columns in a table
_LONGEST = 36  # letters beside an axis
_LETTER = 9.0  # pixels; pictures are scrolled on a phone rather than made too small to read
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Drift:
    """What happens to columns along a curve: ``offset`` adds standard deviations, ``gain`` multiplies readings.

    >>> graph = CausalGraph({"target": "y", "nodes": {"y": "binary", "a b": "continuous"}, "edges": [["y", "a b"]]})
    >>> Drift.parse("a b offset", graph)
    Drift(columns=('a b',), kind='offset')
    """

    columns: tuple[str, ...]
    kind: str

    @classmethod
    def parse(cls, text: str, graph: CausalGraph) -> Drift:
        """From columns, with commas between them, and the kind.

        Raises:
            ValueError: an unknown kind, or a column that holds no numbers.
        """
        names, _, kind = text.strip().rpartition(" ")
        names = names.strip()
        if kind not in AMOUNTS or not names:
            raise ValueError(
                f"drift {text!r}: expected columns, then {' or '.join(AMOUNTS)}, as in 'fever, age offset'"
            )
        columns = (names,) if names in graph.nodes else tuple(name.strip() for name in names.split(","))
        numbers = [name for name in graph.order if graph.nodes[name].type in ("continuous", "count")]
        unfit = [name for name in columns if name not in numbers]
        if unfit:
            raise ValueError(f"drift {text!r}: found {shown(unfit[0])}; expected some of {listed(numbers)}")
        return cls(columns, kind)

    def apply(self, table: Mapping[str, Any], graph: CausalGraph, amount: float) -> dict[str, Any]:
        """The table with its columns moved; counts stay counts."""
        moved = dict(table)
        for name in self.columns:
            raw, present = read_column(graph.nodes[name], table[name])
            raw[~present] = np.nan
            raw = raw * amount if self.kind == "gain" else raw + amount * np.nanstd(raw, 0)
            moved[name] = np.round(raw).clip(0) if graph.nodes[name].type == "count" else raw
        return moved


@dataclass(frozen=True)
class _Reading:
    """One way to read rows: a model, under ``do``, and what it says about the rows of the report."""

    name: str
    cama: CAMA
    do: Do | str
    p: NDArray[np.float64]

    @property
    def told(self) -> NDArray[np.bool_]:
        """Rows near enough to the training rows to have probabilities, (rows,)."""
        return np.asarray(np.isfinite(self.p).all(1))


@dataclass(frozen=True)
class _Block:
    """A figure: a picture or a table, and the sentence under it."""

    caption: str
    picture: str = ""  # SVG
    paper: bool = False
    wide: bool = False
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    shades: Sequence[Sequence[float]] = ()  # of a table's cells, its first column left out
    name: str = ""


@dataclass(frozen=True)
class _Section:
    title: str
    text: str = ""
    blocks: list[_Block] = field(default_factory=list)


def report(
    cama: CAMA,
    data: Table,
    path: str | Path,
    *,
    before: CAMA | None = None,
    clean: Table | None = None,
    drifts: Sequence[str] = (),
    follow: bool = False,
    **options: Any,
) -> Path:
    """Writes a report, one HTML file, whole or not at all; what was there is replaced.

    It holds the guard's verdict, what moved, scores, confusion matrices and calibration before and after adaptation
    (where ``data`` has labels), accuracy under drifts, the course of training (of a model fitted in this process: the
    history is not stored) and the graph.

    Args:
        cama: a model that was adapted to ``data``, or a fitted one, which is then adapted here.
        data: the rows in question, in raw units; labels may be missing.
        before: the fitted model that ``cama`` was made of; without it an adapted model is compared with itself under
            do(m=0).
        clean: labelled rows that nothing happened to; drifts start from them, and adaptation in scope row uses them.
        drifts: "radius offset", "radius, texture gain": accuracy on the clean rows while these columns are off by 0 to
            3 standard deviations, or times 0.5 to 2.
        follow: adapt the fitted model anew at every point of these curves, without labels; as slow as it sounds.
        options: of :func:`pyro_cama.adaptation.adapt`.

    Returns:
        ``path``.

    Raises:
        ImportError: matplotlib is missing; names the extra.
        DataError: the rows do not fit the graph.
        ValueError: a drift that cannot be, or lacks clean rows; models of different targets.
        OSError: ``path`` cannot be written to.
    """
    try:
        import matplotlib  # noqa: F401 - an hour's adapting should not end in an ImportError
    except ImportError:
        raise ImportError("report needs matplotlib; run: pip install 'pyro_cama[demo]'") from None
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; make it first, or choose another")
    asked = [Drift.parse(text, cama.graph) for text in drifts]
    if asked and clean is None:
        raise ValueError(f"report(drifts={[*drifts]!r}): found no clean rows to apply them to; pass clean=")
    if before is not None and (before.graph.target, before.classes) != (cama.graph.target, cama.classes):
        raise ValueError(
            f"report(before=...): found a model of {before.graph.target!r} with {listed(before.classes)}; expected one "
            f"of {cama.graph.target!r} with {listed(cama.classes)}, which the other was made of"
        )
    fitted = cama if before is None else before
    if follow and (fitted.adaptation is not None or fitted.graph.m is None):
        raise ValueError("report(follow=True): found no model that can start over; pass the fitted one as before=")
    options = {"progress": False, **options}
    batch = cama.encode(data)
    readings = _readings(cama, data, before, clean, options)
    cama = readings[-1].cama
    y = batch.values.get(cama.graph.target)
    labels = None if y is None else y.long().cpu().numpy()
    if labels is not None:
        known = batch.observed.get(cama.graph.target)
        labels = np.where(True if known is None else known.cpu().numpy(), labels, -1)
    sections = [_verdict(cama), _moved(cama)]
    if labels is not None and (labels >= 0).any():
        sections += [_scored(readings, labels), _confused(readings, labels), _calibrated(readings, labels)]
    sections += [_robust(readings, clean, asked, follow, options), _trained(cama), _drawn(cama)]
    graph = cama.graph
    facts = {
        "target": f"{graph.target}: {', '.join(map(str, cama.classes))}",
        "rows": f"{batch.rows}, {0 if labels is None else int((labels >= 0).sum())} of them labelled",
        "children": ", ".join(graph.blanket.children),
        "parents": ", ".join(graph.blanket.parents) or "none",
        "co-parents": ", ".join(graph.blanket.coparents) or "none",
        "manipulation": "none" if graph.m is None else f"scope {graph.m.scope}",
    }
    template = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_visible, trim_blocks=True, lstrip_blocks=True
    ).from_string((resources.files("pyro_cama") / "report.html.jinja").read_text(encoding="utf-8"))
    page = template.render(
        title=f"Report on {graph.target}",
        facts=facts,
        sections=[section for section in sections if section is not None],
        version=pyro_cama.__version__,
    )
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return path


def _readings(
    cama: CAMA, data: Table, before: CAMA | None, clean: Table | None, options: Mapping[str, Any]
) -> list[_Reading]:
    """Before and after adapting; one only where nothing adapts."""
    m = cama.graph.m
    do: Do | str = "auto"
    if m is None and before is None:
        return [_Reading("as fitted", cama, do, cama.predict_proba(data))]
    if before is None and cama.adaptation is not None:
        assert m is not None
        before, do = cama, {m.name: 0.0}
    elif before is None:
        before, cama = cama, cama.adapt(data, clean, **options)
    first = _Reading("before adapting", before, do, before.predict_proba(data, do))  # type: ignore[arg-type]
    return [first, _Reading("after adapting", cama, "auto", cama.predict_proba(data))]


# sections ------------------------------------------------------------------------------------------------------------


def _verdict(cama: CAMA) -> _Section:
    """The guard's."""
    title, found = "Verdict", cama.adaptation
    if found is None:
        return _Section(title, "This model was not adapted: its graph has no manipulation latent, or nobody asked.")
    said = "The adaptation was kept" if found.accepted else "The adaptation was not kept"
    if found.applied and not found.accepted:
        said = "The adaptation cannot be trusted, but was to be kept always"
    elif not found.applied:
        said += ", the model reads as before"
    rows = [
        ["evidence of held-out rows, before", f"{_number(found.evidence_before, 2)} nats a row"],
        ["evidence of held-out rows, after", f"{_number(found.evidence_after, 2)} nats a row"],
        ["standard error of the difference", f"{_number(found.gain_se, 2)} nats a row"],
        ["starts that give the same labels", f"{found.agreement:.0%} of rows"],
        ["generated rows recognised, before", f"{found.recovery_before:.0%}"],
        ["generated rows recognised, after", f"{found.recovery:.0%}"],
        ["rows adapted to", str(found.rows)],
    ]
    guarded = _Block("What the guard looked at.", head=["figure", "value"], rows=rows)
    train = cama.encoder.statistics[cama.graph.target]["frequencies"].tolist()
    shares = zip(cama.classes, train, found.proportions_before, found.proportions_after, strict=True)
    mix = _Block(
        "Share of every class in the training rows, and among the new rows as read before and after adapting.",
        head=["class", "training", "before", "after"],
        rows=[[str(name), *(f"{share:.1%}" for share in each)] for name, *each in shares],
    )
    return _Section(title, f"{said}: {found.reason}.", [guarded, mix])


def _moved(cama: CAMA) -> _Section | None:
    title = "Which columns moved"
    if cama.adaptation is None:
        return None
    try:
        found = cama.explain_shift()
    except ValueError as error:  # mechanisms without parameters
        return _Section(title, str(error))
    if not found.kept:
        return _Section(title, "No shift was accepted, so that nothing is said to have moved.")
    table = found.table.head(_MOST)
    sites = ["site"] if "site" in table else []
    rows = [
        [
            str(row["column"]), *(str(row[site]) for site in sites),
            "unknown" if found.note else "yes" if row["moved"] else "no", _number(row["change"], 2),
            "unknown" if found.note else f"{_number(row['low'], 2)} to {_number(row['high'], 2)}", row["reading"],
        ]
        for row in table.to_dict("records")
    ]  # fmt: skip
    more = f" The {_MOST} largest changes of {len(found.table)}." if len(found.table) > _MOST else ""
    listing = _Block(
        "The same in numbers: changes in training standard deviations (shares of discrete readings, units "
        f"of the rate of counts), with its 95 % interval, and what it means in raw units.{more}",
        wide=True,
        head=["column", *sites, "moved", "change", "interval", "reading"],
        rows=rows,
    )
    name = "Estimated change of every reading" if found.note else "Change of every reading with its interval"
    picture = found.plot()
    axis = picture.axes[0]
    labels = [_visible(label.get_text()) for label in axis.get_yticklabels()]
    axis.set_yticks(axis.get_yticks(), labels, parse_math=False)
    told = (
        "Estimated change of every reading, its uncertainty unknown"
        if found.note
        else "Change of every reading and its interval: green moved, grey did not"
    )
    plot = _Block(
        f"{told}; small bars mark what counts as a change.",
        _svg(picture, "moved", name),
        wide=True,
        name=name,
    )
    if found.note:
        guessed = ", ".join(map(str, found.estimated["column"].unique())) or "none"
        said = f"{found.note[0].upper()}{found.note[1:]}. Estimated to have moved: {guessed}."
    else:
        said = f"Moved: {', '.join(map(str, found.moved))}." if found.moved else "No column moved noticeably."
    return _Section(title, said, [plot, listing])


def _scored(readings: Sequence[_Reading], labels: NDArray[np.int64]) -> _Section:
    """How right every reading is."""
    found = [_scores(reading, labels) for reading in readings]
    rows = [
        ["accuracy", *(f"{s.accuracy:.3f} ± {math.sqrt(s.accuracy * (1 - s.accuracy) / s.rows):.3f}" for s in found)],
        ["log-loss, nats", *(_number(s.log_loss) for s in found)],
        ["calibration error", *(_number(s.calibration_error) for s in found)],
        ["rows", *(str(s.rows) for s in found)],
    ]
    lost = sum(int((~r.told & (labels >= 0)).sum()) for r in readings)
    caption = "On the labelled rows; ± is the standard error."
    if lost:
        caption += " Rows too far from the training rows for probabilities are left out."
    each = [
        [str(name), *(_number(s.classes[figure][i]) for s in found for figure in ("precision", "recall"))]
        for i, name in enumerate(found[0].classes["class"])
    ]
    head = ["class", *(f"{figure}, {r.name}" for r in readings for figure in ("precision", "recall"))]
    said = ", ".join(f"{s.accuracy:.3f} {r.name}" for r, s in zip(readings, found, strict=True))
    text = f"Accuracy {said}."
    if readings[0].do != "auto":
        text += " Before adapting is the same model under do(m=0)."
    blocks = [
        _Block(caption, head=["figure", *(r.name for r in readings)], rows=rows),
        _Block(
            "Of the rows read as a class, the share that are; of the rows of a class, the share read as such.",
            head=head,
            rows=each,
        ),
    ]
    return _Section("How right", text, blocks)


def _scores(reading: _Reading, labels: NDArray[np.int64]) -> Scores:
    seen = reading.told & (labels >= 0)
    if not seen.any():
        seen = labels >= 0  # nothing is told: every figure is NaN
    return figures(reading.p[seen], labels[seen], reading.cama.classes)


def confusion(p: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of every class (down) that are read as every class (across), (classes, classes); -1 is no label.

    >>> confusion(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), np.array([0, 1, -1])).tolist()
    [[1, 0], [1, 0]]
    """
    known, k = (labels >= 0) & np.isfinite(p).all(1), p.shape[1]
    return np.bincount(labels[known] * k + p[known].argmax(1), minlength=k * k).reshape(k, k)


def _confused(readings: Sequence[_Reading], labels: NDArray[np.int64]) -> _Section:
    blocks = []
    for reading in readings:
        counts, classes = confusion(reading.p, labels), [str(name) for name in reading.cama.classes]
        shares = counts / counts.sum(1, keepdims=True).clip(1)
        blocks.append(
            _Block(
                f"{reading.name.capitalize()}: rows of every class (down), as they are read (across); "
                f"{np.trace(counts)} of {counts.sum()} right.",
                wide=len(classes) > 6,
                head=["class", *classes],
                rows=[[name, *row] for name, row in zip(classes, counts.tolist(), strict=True)],
                shades=(0.55 * shares).round(3).tolist(),
            )
        )
    return _Section("Confusion", "", blocks)


def _calibrated(readings: Sequence[_Reading], labels: NDArray[np.int64]) -> _Section:
    figure, axis = _axes()
    axis.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":")
    for reading, look in zip(readings, _LOOK, strict=False):
        rows, confidence, right = calibration(reading.p, labels)
        axis.plot(confidence, right, label=reading.name, linewidth=1.5, markersize=0, **look)
        size = 12 + 90 * rows / max(rows.sum(), 1)
        axis.scatter(confidence, right, s=size, color=look["color"], marker=look["marker"], zorder=3)
    low = 1 / readings[0].p.shape[1]
    axis.set(
        xlabel="confidence in the answer", ylabel="share of right answers", xlim=(low - 0.02, 1.02), ylim=(-0.03, 1.03)
    )
    axis.legend(frameon=False)
    errors = ", ".join(f"{_scores(r, labels).calibration_error:.3f} {r.name}" for r in readings)
    caption = (
        f"Rows in {BINS} bins of confidence; larger marks hold more rows. On the dotted line answers are as right as "
        f"they are confident. Expected calibration error {errors}."
    )
    return _Section("Calibration", "", [_picture(figure, caption, "calibration", "Right answers against confidence")])


def calibration(
    p: NDArray[np.float64], labels: NDArray[np.int64], bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows, mean confidence and share of right answers of every bin that holds rows; Guo et al. 2017, Figure 1.

    Bins are those of :func:`pyro_cama.scores.bins_of`.

    >>> rows, confidence, right = calibration(np.array([[0.9, 0.1], [0.08, 0.92], [0.4, 0.6]]), np.array([0, 0, 1]), 5)
    >>> rows.tolist(), confidence.round(2).tolist(), right.tolist()
    ([1, 2], [0.6, 0.91], [1.0, 0.5])
    """
    known = (labels >= 0) & np.isfinite(p).all(1)
    confidence, hit = p[known].max(1), p[known].argmax(1) == labels[known]
    bin_of = bins_of(confidence, bins)
    rows = np.bincount(bin_of, minlength=bins)
    there = rows > 0
    mean, share = (np.bincount(bin_of, w, minlength=bins)[there] / rows[there] for w in (confidence, hit.astype(float)))
    return rows[there], mean, share


def _robust(
    readings: Sequence[_Reading], clean: Table | None, drifts: Sequence[Drift], follow: bool, options: Mapping[str, Any]
) -> _Section | None:
    """Accuracy on the clean rows while columns drift."""
    if not drifts or clean is None:
        return None
    cama, m = readings[-1].cama, readings[-1].cama.graph.m
    wanted = {name for reading in readings for name in _columns(reading.cama.graph)}
    table: dict[str, Any] = dict(read_table(clean, wanted).columns)
    y = cama.encode(table, target="require").values[cama.graph.target].long().cpu().numpy()
    # an m that is shared stands for what happened to the rows of the report, not to these
    shown_ = readings if m is None or m.scope == "row" else readings[:1]
    blocks = []
    for i, drift in enumerate(drifts):
        curves: dict[str, list[float]] = {reading.name: [] for reading in shown_}
        for amount in AMOUNTS[drift.kind].tolist():
            rows = drift.apply(table, cama.graph, amount)
            for reading in shown_:
                curves[reading.name].append(_accuracy(reading.cama.predict_proba(rows, reading.do), y))  # type: ignore[arg-type]
            if follow:
                anew = readings[0].cama.adapt(rows, table, **options)
                curves.setdefault("adapted at every point", []).append(_accuracy(anew.predict_proba(rows), y))
        figure, axis = _axes()
        for (name, values), look in zip(curves.items(), _LOOK if len(shown_) > 1 else _LOOK[::2], strict=False):
            axis.plot(AMOUNTS[drift.kind], values, label=name, linewidth=1.5, markersize=5, **look)
        axis.axhline(np.bincount(y).max() / len(y), color="#888888", linewidth=1, linestyle=":")
        if drift.kind == "gain":
            axis.set_xscale("log", base=2)
            axis.set_xticks([0.5, 1, 2], ["0.5", "1", "2"])
        axis.set(xlabel=_UNIT[drift.kind], ylabel="accuracy", ylim=(-0.03, 1.03))
        axis.legend(frameon=False)
        what = f"{drift.kind} of {', '.join(drift.columns)}"
        ends = "; ".join(f"{name} {values[0]:.3f} to {values[-1]:.3f}" for name, values in curves.items())
        caption = (
            f"{what[0].upper()}{what[1:]}: accuracy on the clean rows from the left to the right end, {ends}. Dotted: "
            "the largest class."
        )
        blocks.append(_picture(figure, caption, f"drift{i}", f"Accuracy by {what}"))
    return _Section("If columns drift", "", blocks)


def _columns(graph: CausalGraph) -> set[str]:
    """What a table has to hold."""
    m = graph.m
    return {*graph.order} | (set() if m is None or m.scope in ("row", "dataset") else {m.scope})


def _accuracy(p: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """Rows without probabilities are wrong."""
    return float(((p.argmax(1) == y) & np.isfinite(p).all(1)).mean())


def _trained(cama: CAMA) -> _Section | None:
    if cama.history is None or not cama.history.rows:
        return None
    rows, best = cama.history.rows, cama.history.best_epoch
    figure, axis = _axes()
    epochs = [row["epoch"] + 1 for row in rows]
    for key, name, look in (("loss", "training", _LOOK[0]), ("validation_loss", "validation", _LOOK[1])):
        values = [row.get(key, math.nan) for row in rows]
        if not all(map(math.isnan, values)):
            axis.plot(epochs, values, label=name, linewidth=1.5, color=look["color"], linestyle=look["linestyle"])
    axis.axvline(best + 1, color="#888888", linewidth=1, linestyle=":")
    axis.set(xlabel="epoch", ylabel="loss (nats a row)")
    axis.legend(frameon=False)
    caption = f"Loss of the clean model over {len(rows)} epochs; the weights of epoch {best + 1} (dotted) were kept."
    return _Section("Training", "", [_picture(figure, caption, "training", "Loss by epoch")])


def _drawn(cama: CAMA) -> _Section:
    picture = _svg(draw(cama.graph), "graph", "The causal graph")
    caption = "The causal graph: roles by colour and shape, latents and what they act on dashed."
    return _Section(
        "The graph",
        cama.graph.factorisation(),
        [_Block(caption, picture, paper=True, wide=True, name="The causal graph")],
    )


# pictures ------------------------------------------------------------------------------------------------------------


def _axes() -> tuple[Picture, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.grid(color=_LINE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _picture(figure: Picture, caption: str, key: str, name: str) -> _Block:
    return _Block(caption, _svg(figure, key, name), name=name)


def _svg(figure: Picture, key: str, name: str) -> str:
    """A figure as inline SVG, black and the colour of lines left to the page, its ids its own.

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
    label = html.escape(_visible(name))
    return f'<svg viewBox="0 0 {view[1]} {view[2]}" style="{size}" role="img" aria-label="{label}">{body}</svg>'


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _visible(value: Any) -> Any:
    r"""Text in which no character acts on its neighbours unseen: control characters and overrides of the direction.

    >>> _visible("a\u202eb")
    'a\\u202eb'
    """
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value) if type(value) is str else value
