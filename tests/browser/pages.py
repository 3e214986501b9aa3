"""The reports that the browser opens, made by models of a few steps, and what it can be asked about one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from playwright.sync_api import Page

from pyro_cama import CAMA, build
from pyro_cama.report.page import report
from pyro_cama.report.stream import stream_report

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}
JUDGES = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
QUICK: dict[str, Any] = {"steps": 10, "restarts": 1, "folds": 2, "keep": "always", "progress": False}

LONG = "a_reading_without_a_single_space_" * 8
HOSTILE = (
    "<script>document.title = 'run'</script>",
    '"><img src=x onerror="document.title=\'run\'">',
    LONG,
    "درجة الحرارة",
    "\u202eright to left",
    "{{ 7 * 7 }} &amp; $\\frac{1}{2}$",
)


@dataclass
class Opened:
    """A page, and what it asked for and said on its way."""

    page: Page
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def judge(self, call: str) -> Any:
        """What a function of ``page.js`` finds."""
        return self.page.evaluate(f"() => {{ {JUDGES}; return {call}; }}")


def written(folder: Path) -> dict[str, Path]:
    """Everything a report may hold; hostile names and many classes; a single class predicted, nothing adapted."""
    plain = ("temperature", "pulse", "pressure", "lesions"), ("benign", "malignant", "unclear")
    fitted = _fitted(*plain)
    new, clean = _rows(90, *plain, 1, drift=4.0), _rows(120, *plain, 2)
    report(
        fitted, new, folder / "full.html", clean=clean, drifts=["temperature offset", "pulse, pressure gain"], **QUICK
    )
    hostile = HOSTILE, (*HOSTILE, *(f"class {k}" for k in range(20 - len(HOSTILE))))
    report(
        _fitted(*hostile), _rows(120, *hostile, 1, drift=4.0), folder / "hostile.html", clean=_rows(60, *hostile, 2),
        drifts=[f"{LONG} offset"], **QUICK,
    )  # fmt: skip
    still = _fitted(*plain, m=False, epochs=0)
    said = pd.Series(still.predict(new), index=new.index)
    one = new[said == said.mode()[0]]
    assert one["y"].nunique() > 1, "the rows of a class it always reads as one"
    report(still, one, folder / "one.html")
    stream_report(_stream(), folder / "stream.html", title=f"Stream of {HOSTILE[0]}")
    return {path.stem: path for path in folder.iterdir()}


def _stream() -> list[dict[str, str]]:
    """A ledger of sixty files, with hostile names, of which some could not be read."""
    lines, regime = [], ""
    kinds = {0: "calibrating", 9: "new", 20: "back", 30: "refused", 31: "undecided", 40: "failed", 50: "new"}
    for i in range(60):
        kind = kinds.get(i, "same")
        regime = "" if kind == "undecided" else {"new": str(i), "back": "0"}.get(kind, regime or "3")
        told = {
            "file": f"{HOSTILE[i % len(HOSTILE)]} {i}.csv",
            "kind": kind,
            "regime": regime,
            "rows": "100",
            "step": "1",
        }
        evidence = "200" if kind == "new" else "6.1" if kind in ("back", "undecided") else f"{(i * 7 % 5) - 2.5:.2f}"
        lines.append({**told, "evidence": evidence, "threshold": "4.61", "reason": f"{LONG} {HOSTILE[-1]}"})
    return lines


def _rows(
    rows: int, children: tuple[str, ...], classes: tuple[str, ...], seed: int, drift: float = 0.0
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % len(classes)
    angle = 2 * np.pi * y / len(classes)
    frame = {
        name: 10 + 3 * np.cos(angle + i) + 0.3 * rng.normal(size=rows) + (drift if i == 0 else 0)
        for i, name in enumerate(children)
    }
    return pd.DataFrame(frame | {"y": [classes[k] for k in y]})


def _fitted(children: tuple[str, ...], classes: tuple[str, ...], *, m: bool = True, epochs: int = 15) -> CAMA:
    graph = {
        "target": "y",
        "nodes": {"y": {"type": "categorical", "levels": list(classes)}} | dict.fromkeys(children, "continuous"),
        "edges": [["y", name] for name in children],
        "latents": {"z": {"dim": 1, "effect": "deep"}, "m": {"dim": 2, "scope": "dataset"} if m else None},
    }
    cama = build(graph, hidden=16, layers=1, device="cpu")
    return cama.fit(_rows(240, children, classes, 0), max_epochs=epochs, lr=2e-2, progress=False)
