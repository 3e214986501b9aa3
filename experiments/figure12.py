"""The paper's Figure 12: measurements of a random nonlinear causal model, shifted up and down.

(a) The co-parents shift by whole standard deviations and take their children along, through unchanged equations.
(b) The children's readings shift alone; nobody's label, parents or co-parents change.

Every seed draws other equations over the graph "measurement".  Trained on clean rows; adapted, without labels, on rows
that nobody is scored on.  Writes results/figure12.json (tidy rows) and results/figure12.png.

    python experiments/figure12.py            # five models, about ten minutes on two cores
    python experiments/figure12.py --quick    # one model, two shifts
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pyro_cama import CAMA, CausalGraph
from support import experiment
from support.baselines import boosting, logistic
from support.experiment import Row
from support.measurement import (
    GRAPH,
    SCORE,
    Rows,
    adapt_options,
    fitted_cama,
    fitted_cvae,
    fitted_net,
    rows_of,
    variant,
)

SHIFTED = {"figure12a": "co-parents", "figure12b": "children"}
Note = Callable[..., None]


def task(seed: int, setting: str, shifts: tuple[float, ...], scope: str) -> list[Row]:
    """One random model: in scope dataset both panels, beside the baselines; in scope row the children's."""
    rows, graph = rows_of(seed, setting), CausalGraph(GRAPH)
    mechanisms = ("affine",) if scope == "dataset" else ("affine", "concat")
    camas = {
        f"{mechanism}, {scope}": fitted_cama(variant(graph, scope, mechanism), rows.train, seed, setting)
        for mechanism in mechanisms
    }
    baselines = fitted_baselines(rows, graph, seed, setting) if scope == "dataset" else None
    found: list[Row] = []
    for name, who in SHIFTED.items():
        if scope == "row" and name == "figure12a":
            continue
        nodes = graph.blanket.coparents if name == "figure12a" else graph.blanket.children
        for shift in shifts:
            where = f"{who} {shift:+g} sd" if shift else "clean"
            unlabelled, test = (rows.shifted(part, nodes, shift) for part in ("adapt", "test"))
            unlabelled = unlabelled.drop(columns="y")

            def note(method: str, value: float, name: str = name, shift: float = shift, **more: Any) -> None:
                found.append(experiment.row(name, method, value, severity=shift, seed=seed, setting=setting, **more))

            if baselines:
                note_baselines(baselines, unlabelled, test, where, note)
            for mechanism, cama in camas.items():
                note_cama(cama, mechanism, rows, unlabelled, test, where, setting, note)
        if name == "figure12a":  # no shift is no shift
            found.extend([row | {"experiment": "figure12b"} for row in found if row["severity"] == 0])
            shifts = tuple(shift for shift in shifts if shift)
    return found


def fitted_baselines(rows: Rows, graph: CausalGraph, seed: int, setting: str) -> dict[str, Any]:
    return {
        "net": fitted_net(rows.train, seed, setting),
        "boosting": boosting(seed).fit(rows.train, "y"),
        "logistic": logistic().fit(rows.train, "y"),
        "cvae": fitted_cvae(graph, rows.train, seed, setting),
    }


def note_baselines(
    baselines: dict[str, Any], unlabelled: pd.DataFrame, test: pd.DataFrame, where: str, note: Note
) -> None:
    for method, classifier in baselines.items():
        note(method, classifier.accuracy(test), tested_on=where)
    net, cvae = baselines["net"], baselines["cvae"]
    ways = {"tent": net.adapt_tent, "shot_im": net.adapt_shot_im, "coral": net.adapt_coral, "cvae": cvae.adapt}
    for method, adapt in ways.items():
        note(method, adapt(unlabelled).accuracy(test), tested_on=where, adapted_on=where)


def note_cama(
    cama: CAMA, mechanism: str, rows: Rows, unlabelled: pd.DataFrame, test: pd.DataFrame, where: str, setting: str,
    note: Note,
) -> None:  # fmt: skip
    row_scope = mechanism.endswith("row")
    adapted = cama.adapt(unlabelled, rows.train if row_scope else None, progress=False, **adapt_options(setting))
    note("cama", cama.score(test, **SCORE), mechanism=mechanism, tested_on=where)
    more: dict[str, Any] = {"mechanism": mechanism, "adapted_on": where}
    note("cama", adapted.score(test, **SCORE), tested_on=where, **more)
    assert adapted.adaptation is not None
    note("cama", adapted.adaptation.accepted, metric="kept", tested_on=where, **more)
    if where == "clean":
        return
    clean = rows.shifted("test", (), 0.0)
    if row_scope:  # under a shared m, rows of another origin are not this model's
        note("cama", cama.score(clean, **SCORE), mechanism=mechanism)
        note("cama", adapted.score(clean, **SCORE), **more)
    clean = clean.head(200)
    same = np.array_equal(cama.predict_proba(clean, do={"m": 0.0}), adapted.predict_proba(clean, do={"m": 0.0}))
    note("cama", same, metric="same_under_do0", **more)


def report(rows: list[Row]) -> pd.DataFrame:
    """What has to be shown: losses against the net's, and distances to clean, a line a model and shift."""
    frame = pd.DataFrame(rows).query("metric == 'accuracy'")
    frame["who"] = frame["method"] + frame["mechanism"].map(lambda m: f" ({m})" if m else "")
    frame["who"] += (frame["adapted_on"] != "").map({True: ", adapted", False: ""})
    shifted = frame[(frame["tested_on"] != "clean") | (frame["severity"] == 0)]
    wide = shifted.pivot_table(index=["experiment", "seed", "severity"], columns="who", values="value")
    return wide[["net", *[c for c in wide.columns if c.startswith("cama")]]]


def main() -> None:
    options = experiment.parser(__doc__).parse_args()
    setting = experiment.size(options)
    shifts = {"full": (-3.0, -1.5, 0.0, 1.5, 3.0), "quick": (0.0, 3.0), "smoke": (2.0,)}[setting]
    row_shifts = tuple(shift for shift in shifts if shift > 0)[:1]
    tasks = [
        {"seed": seed, "setting": setting, "scope": scope, "shifts": shifts if scope == "dataset" else row_shifts}
        for scope in ("dataset", "row")
        for seed in experiment.seeds(options)
    ]
    rows = experiment.run(task, tasks, "figure12", options)
    shown = [r for r in rows if r["tested_on"] != "clean" or r["severity"] == 0]
    for name, who in SHIFTED.items():
        mine = [r for r in shown if r["experiment"] == name]
        print(f"\n{name}, {who} shifted, accuracy ({setting}, {len(tasks) // 2} random models)")
        print(experiment.table(mine, "severity"))
    print("\nevery model and shift")
    print(report(rows).round(3).to_string())
    titles = {name: f"{name[-3:]}: {who} shifted" for name, who in SHIFTED.items()}
    drawn = [r | {"experiment": titles[r["experiment"]]} for r in shown if "row" not in r["mechanism"]]
    experiment.lines(drawn, options.out / "figure12.png", xlabel="shift (standard deviations)")


if __name__ == "__main__":
    main()
