"""One HTML file about a model and rows that have to be read: what moved, whether to trust it, how right it is.

The file needs nothing beside it: styles are inline and pictures are SVG, drawn by matplotlib in the page's own colours,
light or dark.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from pyro_cama._files import replacing
from pyro_cama._html import visible_text
from pyro_cama._messages import listed
from pyro_cama._version import __version__
from pyro_cama.cama import CAMA
from pyro_cama.data.batch import Batch
from pyro_cama.data.tables import Table
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.handlers.contexts import one_at_a_time
from pyro_cama.inference.do import UserDo, clean_do
from pyro_cama.report.drift import Drift
from pyro_cama.report.sections import (
    Reading,
    Section,
    answer,
    calibration_section,
    confusion_section,
    glossary_section,
    graph_section,
    moved_section,
    robustness_section,
    scores_section,
    training_section,
    verdict_section,
)


@one_at_a_time
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

    It holds the guard's verdict, what moved, with pictures of the readings before, now and corrected, scores, confusion
    matrices and calibration before and after adaptation (where ``data`` has labels), accuracy under drifts, the course
    of training (of a model fitted in this process: the history is not stored) and the graph.

    Args:
        cama: a model that was adapted to ``data``, or a fitted one, which is then adapted here.
        data: the rows in question, in raw units; labels may be missing.
        before: the fitted model that ``cama`` was made of; without it an adapted model is compared with itself under
            do(m=0).
        clean: labelled rows that nothing happened to; drifts start from them, adaptation in scope row uses them, and
            pictures of readings show them (else rows that the model draws).
        drifts: "radius offset", "radius, texture gain": accuracy on the clean rows while these columns are off by 0 to
            3 standard deviations, or times 0.5 to 2.
        follow: adapt the fitted model anew at every point of these curves, without labels; as slow as it sounds.
        options: of :func:`pyro_cama.adaptation.adapt.adapt`.

    Returns:
        ``path``.

    Raises:
        DataError: the rows do not fit the graph.
        ValueError: a drift that cannot be, or lacks clean rows; models of different targets.
        OSError: ``path`` cannot be written to.
    """
    path = Path(path)
    _expect_writable(path)
    asked = [Drift.parse(text, cama.graph) for text in drifts]
    if asked and clean is None:
        raise ValueError(f"report(drifts={[*drifts]!r}): found no clean rows to apply them to; pass clean=")
    _expect_pair(cama, before, follow)
    options = {"progress": False, **options}
    batch = cama.encode(data)
    readings = _readings(cama, data, before, clean, options)
    cama = readings[-1].cama
    labels = _labels(cama, batch)
    sections = [verdict_section(cama), moved_section(cama, batch, clean)]
    if labels is not None and (labels >= 0).any():
        sections += [
            scores_section(readings, labels),
            confusion_section(readings, labels),
            calibration_section(readings, labels),
        ]
    sections += [
        robustness_section(readings, clean, asked, follow, options),
        training_section(cama),
        graph_section(cama),
    ]
    shown = [section for section in [*sections, glossary_section()] if section is not None]
    page = _page(cama, batch, labels, answer(readings, labels), shown)
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return path


def _expect_writable(path: Path) -> None:
    """Raises what would stop the report at its end, before an hour's adapting."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; make it first, or choose another")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path.parent}: this folder may not be written to; choose another")


def _expect_pair(cama: CAMA, before: CAMA | None, follow: bool) -> None:
    """Raises a ValueError where ``before`` is of another target, or what is to be followed cannot start over."""
    if before is not None and (before.graph.target, before.classes) != (cama.graph.target, cama.classes):
        raise ValueError(
            f"report(before=...): found a model of {before.graph.target!r} with {listed(before.classes)}; expected one "
            f"of {cama.graph.target!r} with {listed(cama.classes)}, which the other was made of"
        )
    fitted = cama if before is None else before
    if follow and (fitted.adaptation is not None or fitted.graph.m is None):
        raise ValueError("report(follow=True): found no model that can start over; pass the fitted one as before=")


def _labels(cama: CAMA, batch: Batch) -> NDArray[np.int64] | None:
    """Returns class codes, ``(rows,)``, -1 where the label is missing; None without the target's column."""
    y = batch.values.get(cama.graph.target)
    if y is None:
        return None
    known = batch.observed.get(cama.graph.target)
    labels: NDArray[np.int64] = y.long().cpu().numpy()
    return np.where(True if known is None else known.cpu().numpy(), labels, -1)


def _page(
    cama: CAMA,
    batch: Batch,
    labels: NDArray[np.int64] | None,
    said: tuple[str, str, str],
    sections: Sequence[Section],
) -> str:
    """Returns the page as HTML: what the report is about, and its sections."""
    graph, today = cama.graph, datetime.date.today()
    facts = {
        "target": f"{graph.target}: {', '.join(map(str, cama.classes))}",
        "rows": f"{batch.rows}, {0 if labels is None else int((labels >= 0).sum())} of them labelled",
        "children": ", ".join(graph.blanket.children),
        "parents": ", ".join(graph.blanket.parents) or "none",
        "co-parents": ", ".join(graph.blanket.coparents) or "none",
        "manipulation": _manipulations(graph),
        "written": f"{today.day} {today:%B %Y}, by pyro_cama {__version__}",
    }
    badge, kind, sentence = said
    return rendered(f"Report on {graph.target}", (badge, kind), sentence, facts, sections)


def rendered(
    title: str, badge: tuple[str, str], answer: str, facts: Mapping[str, str], sections: Sequence[Section]
) -> str:
    """Returns a page as HTML.

    Args:
        title: of the page.
        badge: a word, and its kind: good, bad or plain.
        answer: a sentence beside it.
        facts: what the page is about, by name.
        sections: what it says.
    """
    template = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=visible_text, trim_blocks=True, lstrip_blocks=True
    ).from_string((resources.files("pyro_cama.report") / "report.html.jinja").read_text(encoding="utf-8"))
    return template.render(title=title, badge=badge[0], kind=badge[1], answer=answer, facts=facts, sections=sections)


def _manipulations(graph: CausalGraph) -> str:
    """The scope of the manipulation; of several, each by its name."""
    if len(graph.manipulations) > 1:
        return ", ".join(f"{m.name}: scope {m.scope}" for m in graph.manipulations)
    return "none" if graph.m is None else f"scope {graph.m.scope}"


def _readings(
    cama: CAMA, data: Table, before: CAMA | None, clean: Table | None, options: Mapping[str, Any]
) -> list[Reading]:
    """Returns the rows as read before and after adapting; one reading only where nothing adapts."""
    m = cama.graph.m
    do: UserDo | str = "auto"
    if m is None and before is None:
        return [Reading("as fitted", cama, do, cama.predict_proba(data))]
    if before is None and cama.adaptation is not None:
        before, do = cama, clean_do(cama.graph)
    elif before is None:
        before, cama = cama, cama.adapt(data, clean, **options)
    first = Reading("before adapting", before, do, before.predict_proba(data, do))  # type: ignore[arg-type]
    return [first, Reading("after adapting", cama, "auto", cama.predict_proba(data))]
