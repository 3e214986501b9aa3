"""The sections of a report, each from what the models say about the rows; None where there is nothing to say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_cama._html import figure_of, svg_text, visible_text
from pyro_cama._html import new_axes as empty_axes
from pyro_cama._messages import listed
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.data.tables import Table, read_table
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.drawing import draw_graph
from pyro_cama.inference.class_posterior import most_probable
from pyro_cama.inference.do import UserDo
from pyro_cama.metrics import BINS, Scores, classification_metrics, untold_text
from pyro_cama.report.drift import AMOUNTS, Drift
from pyro_cama.report.pictures import LOOK, Block, new_axes, number_text, picture_block
from pyro_cama.report.plots import draw_calibration, draw_training
from pyro_cama.report.readings import reading_blocks

_UNIT = {"offset": "offset (standard deviations of the clean rows)", "gain": "gain (reading times this)"}
_MOST = 60  # columns in a table


@dataclass(frozen=True)
class Reading:
    """One way to read rows: a model, under ``do``, and what it says about the rows of the report, NaN if nothing."""

    name: str
    cama: CAMA
    do: UserDo | str
    p: NDArray[np.float64]


@dataclass(frozen=True)
class Section:
    """A part of the page: its title, a sentence, and figures or tables."""

    title: str
    text: str = ""
    blocks: list[Block] = field(default_factory=list)


def answer(readings: Sequence[Reading], labels: NDArray[np.int64] | None) -> tuple[str, str, str]:
    """Returns the page's answer: a word for a badge, its kind (good, bad or plain), and a sentence."""
    cama = readings[-1].cama
    found, said = cama.adaptation, []
    each = () if found is None else found.together
    applied = any(one.applied for one in each)
    badge = ("not adapted", "plain")
    if found is not None:
        badge = ("applied, not trusted" if applied else "not kept", "bad")
        if any(one.accepted for one in each):
            badge = ("kept" if all(one.accepted for one in each) else "kept in part", "good")
    if labels is not None and (labels >= 0).any():
        values = [number_text(_scores(reading, labels).accuracy) for reading in readings]
        said.append(f"accuracy {' → '.join(values)}")
    elif found is not None and applied:
        found = next(one for one in each if one.applied)
        said.append(f"accuracy, estimated, {found.accuracy_before} → {found.accuracy_after}")
    if found is not None and applied:
        try:
            shift = cama.explain_shift()
        except ValueError:  # mechanisms without parameters
            shift = None
        if shift is not None and not shift.note and not shift.refused:
            named = shift.moved
            said.append(f"{len(named)} of {shift.table['column'].nunique()} columns moved")
            if named:
                first = shift.table.iloc[0]
                said.append(f"most of all {first['column']}: {first['reading']}")
    elif found is not None:
        said.append(f"read as before, since {found.reason}")
    return *badge, "; ".join(said)


def glossary_section() -> Section:
    """Returns what the page's words mean."""
    rows = [
        ["evidence", "how well the model explains readings without their labels: log p(x | a, c), averaged over rows"],
        ["nat", "the unit of evidence; one more for a row makes it 2.7 times as probable"],
        ["m, do(m=0)", "what the world does to the readings; do(m=0) reads rows as if nothing had happened to them"],
        ["starts", "places from which the adaptation began; where several agree, the answer is less of an accident"],
        ["generated rows recognised", "how often the model tells the class of rows that it made itself"],
        ["calibration error", "mean gap between how sure answers are and how often they are right"],
    ]
    return Section("Words", "", [Block("As this page uses them.", head=["word", "meaning"], rows=rows)])


def verdict_section(cama: CAMA) -> Section:
    """Returns the guard's verdict, and what it looked at."""
    title, found = "Verdict", cama.adaptation
    if found is None:
        return Section(title, "This model was not adapted: its graph has no manipulation latent, or nobody asked.")
    said, blocks = list[str](), list[Block]()
    for one in found.together:
        of = f" of {listed(one.manipulations)}" if len(found.together) > 1 else ""
        said.append(_decided(one, of))
        blocks += _looked_at(cama, one, of)
    return Section(title, " ".join(said), blocks)


def _decided(found: Adaptation, of: str) -> str:
    """What the guard decided, in a sentence."""
    said = f"The adaptation{of} was kept" if found.accepted else f"The adaptation{of} was not kept"
    if found.applied and not found.accepted:
        said = f"The adaptation{of} cannot be trusted, but was to be kept always"
    elif not (found.applied or of):
        said += ", the model reads as before"
    return f"{said}: {found.reason}."


def _looked_at(cama: CAMA, found: Adaptation, of: str) -> list[Block]:
    """What the guard looked at, and the classes' shares."""
    rows = [
        ["accuracy without the change, estimated", str(found.accuracy_before)],
        ["accuracy with it, estimated", str(found.accuracy_after)],
        ["evidence of held-out rows, before", f"{number_text(found.evidence_before, 2)} nats a row"],
        ["evidence of held-out rows, after", f"{number_text(found.evidence_after, 2)} nats a row"],
        ["standard error of the difference", f"{number_text(found.gain_se, 2)} nats a row"],
        ["starts that give the same labels", f"{found.agreement:.0%} of rows"],
        ["generated rows recognised, before", f"{found.recovery_before:.0%}"],
        ["generated rows recognised, after", f"{found.recovery:.0%}"],
        ["rows adapted to", str(found.rows)],
    ]
    guarded = Block(f"What the guard looked at{of}.", head=["figure", "value"], rows=rows)
    train = cama.encoder.statistics[cama.graph.target]["frequencies"].tolist()
    shares = zip(cama.classes, train, found.proportions_before, found.proportions_after, strict=True)
    mix = Block(
        "Share of every class in the training rows, and among the new rows as read before and after adapting.",
        head=["class", "training", "before", "after"],
        rows=[[str(name), *(f"{share:.1%}" for share in each)] for name, *each in shares],
    )
    return [guarded, mix]


def moved_section(cama: CAMA, batch: Batch, clean: Table | None) -> Section | None:
    """Returns which columns moved, by how much and how surely, and their readings; None of a model not adapted.

    Args:
        batch: the rows of the report.
        clean: rows that nothing happened to, where there are any.
    """
    title = "Which columns moved"
    if cama.adaptation is None:
        return None
    try:
        found = cama.explain_shift()
    except ValueError as error:  # mechanisms without parameters
        return Section(title, str(error))
    if not found.kept:
        return Section(title, "No shift was accepted, so that nothing is said to have moved.")
    table = found.table.head(_MOST)
    sites = ["site"] if "site" in table else []
    rows = []
    for row in table.to_dict("records"):
        moved = "unknown" if found.note else "yes" if row["moved"] else "no"
        interval = "unknown" if found.note else f"{number_text(row['low'], 2)} to {number_text(row['high'], 2)}"
        names = [str(row["column"]), *(str(row[site]) for site in sites)]
        rows.append([*names, moved, number_text(row["change"], 2), interval, row["reading"]])
    more = f" The {_MOST} largest changes of {len(found.table)}." if len(found.table) > _MOST else ""
    listing = Block(
        "The changes in numbers: in training standard deviations (shares of discrete readings, units "
        f"of the rate of counts), with its 95 % interval, and what it means in raw units.{more}",
        wide=True,
        head=["column", *sites, "moved", "change", "interval", "reading"],
        rows=rows,
    )
    name = "Estimated change of every reading" if found.note else "Change of every reading with its interval"
    axis = found.plot(ax=empty_axes(*found.size))
    labels = [visible_text(label.get_text()) for label in axis.get_yticklabels()]
    axis.set_yticks(axis.get_yticks(), labels, parse_math=False)
    told = (
        "Estimated change of every reading, its uncertainty unknown"
        if found.note
        else "Change of every reading and its interval: green moved, grey did not"
    )
    plot = Block(
        f"{told}; small bars mark what counts as a change.",
        svg_text(figure_of(axis), "moved", name),
        wide=True,
        name=name,
    )
    if found.note:
        guessed = ", ".join(map(str, found.estimated["column"].unique())) or "none"
        said = f"{found.note[0].upper()}{found.note[1:]}. Estimated to have moved: {guessed}."
    else:
        said = f"Moved: {', '.join(map(str, found.moved))}." if found.moved else "No column moved noticeably."
    if found.refused:
        said = f"The last rows changed nothing; what moved is of an adaptation before them. {said}"
    return Section(title, said, [plot, *reading_blocks(cama, found, batch, clean), listing])


def scores_section(readings: Sequence[Reading], labels: NDArray[np.int64]) -> Section:
    """Returns accuracy, log-loss and calibration error of every reading, and precision and recall of the classes."""
    found = [_scores(reading, labels) for reading in readings]
    rows = [
        ["accuracy", *(_with_error(s) for s in found)],
        ["log-loss, nats", *(number_text(s.log_loss) for s in found)],
        ["calibration error", *(number_text(s.calibration_error) for s in found)],
        ["rows", *(str(s.rows) for s in found)],
    ]
    caption = "On the labelled rows; ± is the standard error."
    if any(s.untold for s in found):
        rows.append(["rows without probabilities", *(str(s.untold) for s in found)])
        caption += " Rows too far from the training rows for probabilities are left out."
    each = [
        [str(name), *(number_text(s.classes[figure][i]) for s in found for figure in ("precision", "recall"))]
        for i, name in enumerate(found[0].classes["class"])
    ]
    head = ["class", *(f"{figure}, {r.name}" for r in readings for figure in ("precision", "recall"))]
    said = ", ".join(f"{number_text(s.accuracy)} {r.name}" for r, s in zip(readings, found, strict=True))
    text = f"Accuracy {said}.{_left_out(readings, found)}"
    if readings[0].do != "auto":
        text += " Before adapting is the same model under do(m=0)."
    blocks = [
        Block(caption, head=["figure", *(r.name for r in readings)], rows=rows),
        Block(
            "Of the rows read as a class, the share that are; of the rows of a class, the share read as such.",
            head=head,
            rows=each,
        ),
    ]
    return Section("How right", text, blocks)


def _with_error(found: Scores) -> str:
    """Accuracy and its standard error; a dash where no row has probabilities."""
    if not found.rows:
        return number_text(math.nan)
    return f"{found.accuracy:.3f} ± {math.sqrt(found.accuracy * (1 - found.accuracy) / found.rows):.3f}"


def _left_out(readings: Sequence[Reading], found: Sequence[Scores]) -> str:
    """A sentence a reading that leaves rows out."""
    pairs = zip(readings, found, strict=True)
    return "".join(f" {r.name.capitalize()}, {untold_text(s.untold)}." for r, s in pairs if s.untold)


def _scores(reading: Reading, labels: NDArray[np.int64]) -> Scores:
    seen = labels >= 0
    return classification_metrics(reading.p[seen], labels[seen], reading.cama.classes)


def confusion(p: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts the rows of every class (down) that are read as every class (across), (classes, classes); -1 is no label.

    >>> confusion(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), np.array([0, 1, -1])).tolist()
    [[1, 0], [1, 0]]
    """
    read, k = most_probable(p), p.shape[1]
    known = (labels >= 0) & (read >= 0)
    return np.bincount(labels[known] * k + read[known], minlength=k * k).reshape(k, k)


def confusion_section(readings: Sequence[Reading], labels: NDArray[np.int64]) -> Section:
    """Returns a table of every reading: rows of every class, as they are read."""
    blocks = []
    for reading in readings:
        counts, classes = confusion(reading.p, labels), [str(name) for name in reading.cama.classes]
        shares = counts / counts.sum(1, keepdims=True).clip(1)
        lost = int((labels >= 0).sum() - counts.sum())
        blocks.append(
            Block(
                f"{reading.name.capitalize()}: rows of every class (down), as they are read (across); "
                f"{np.trace(counts)} of {counts.sum()} right" + (f"; {untold_text(lost)}." if lost else "."),
                wide=len(classes) > 6,
                head=["class", *classes],
                rows=[[name, *row] for name, row in zip(classes, counts.tolist(), strict=True)],
                shades=(0.55 * shares).round(3).tolist(),
            )
        )
    return Section("Confusion", "", blocks)


def calibration_section(readings: Sequence[Reading], labels: NDArray[np.int64]) -> Section:
    """Returns a picture: the share of right answers against the confidence in them."""
    axis = draw_calibration([(r.name, r.p, labels) for r in readings], new_axes())
    found = [_scores(reading, labels) for reading in readings]
    errors = ", ".join(f"{number_text(s.calibration_error)} {r.name}" for r, s in zip(readings, found, strict=True))
    caption = (
        f"Rows in {BINS} bins of confidence; larger marks hold more rows. On the dotted line answers are as right as "
        f"they are confident. Expected calibration error {errors}.{_left_out(readings, found)}"
    )
    return Section("Calibration", "", [picture_block(axis, caption, "calibration", "Right answers against confidence")])


def robustness_section(
    readings: Sequence[Reading], clean: Table | None, drifts: Sequence[Drift], follow: bool, options: Mapping[str, Any]
) -> Section | None:
    """Returns pictures of the accuracy on the clean rows while columns drift; None without drifts or clean rows."""
    if not drifts or clean is None:
        return None
    cama, m = readings[-1].cama, readings[-1].cama.graph.m
    wanted = {name for reading in readings for name in _columns(reading.cama.graph)}
    table: dict[str, Any] = dict(read_table(clean, wanted).columns)
    y = cama.encode(table, target="require").values[cama.graph.target].long().cpu().numpy()
    # an m that is shared stands for what happened to the rows of the report, not to these
    shown_ = readings if m is None or m.per_row else readings[:1]
    blocks = []
    for i, drift in enumerate(drifts):
        curves: dict[str, list[float]] = {reading.name: [] for reading in shown_}
        lost = 0
        for amount in AMOUNTS[drift.kind].tolist():
            rows = drift.apply(table, cama.graph, amount)
            read = {r.name: r.cama.predict_proba(rows, r.do) for r in shown_}  # type: ignore[arg-type]
            if follow:
                read["adapted at every point"] = readings[0].cama.adapt(rows, table, **options).predict_proba(rows)
            for name, p in read.items():
                codes = most_probable(p)
                curves.setdefault(name, []).append(float((codes == y).mean()))
                lost = max(lost, int((codes < 0).sum()))
        axis = new_axes()
        for (name, values), look in zip(curves.items(), LOOK if len(shown_) > 1 else LOOK[::2], strict=False):
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
        if lost:
            caption += f" Rows without probabilities, up to {lost} of {len(y)} at a point, count as wrong."
        blocks.append(picture_block(axis, caption, f"drift{i}", f"Accuracy by {what}"))
    return Section("If columns drift", "", blocks)


def _columns(graph: CausalGraph) -> set[str]:
    """Returns the columns that a table has to hold."""
    return {*graph.order} | (set() if graph.site_column is None else {graph.site_column})


def training_section(cama: CAMA) -> Section | None:
    """Returns a picture of the losses by epoch; None of a model that was not fitted in this process."""
    if cama.history is None or not cama.history.rows:
        return None
    history = cama.history
    axis = draw_training(history, new_axes())
    caption = (
        f"Loss of the clean model over {history.epochs} epochs; the weights of epoch {history.best_epoch} (dotted) "
        "were kept."
    )
    return Section("Training", "", [picture_block(axis, caption, "training", "Loss by epoch")])


def graph_section(cama: CAMA) -> Section:
    """Returns the factorisation and a picture of the causal graph."""
    picture = svg_text(figure_of(draw_graph(cama.graph, kept=False)), "graph", "The causal graph")
    caption = "The causal graph: roles by colour and shape, latents and what they act on dashed."
    return Section(
        "The graph",
        cama.graph.factorisation(),
        [Block(caption, picture, paper=True, wide=True, name="The causal graph")],
    )
