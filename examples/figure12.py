"""The paper's Figure 12: measurements of a random nonlinear causal model, shifted up and down.

(a) The co-parents shift by whole standard deviations and take their children along, through unchanged equations.
(b) The children's readings shift alone; nobody's label, parents or co-parents change.

Every seed draws other equations over graphs/measurement.yaml.  Trained on clean rows; adapted, without labels, on rows
that nobody is scored on.  Writes results/figure12.json (tidy rows) and results/figure12.png.

    python examples/figure12.py            # five models, about 50 minutes on two cores
    python examples/figure12.py --quick    # one model, two shifts
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import pyro_cama
from pyro_cama import CAMA, CausalGraph
from support import experiment
from support.baselines import CVAE, Classifier, DiscriminativeNet, boosting, logistic
from support.experiment import Row
from support.measurement import FIT, GRAPH, HIDDEN, SCORE, Rows, adapt_options, rows_of, variant

MAIN = "affine, dataset"
ROW_SHIFTS = (1.5, 2.0)
SHIFTED = {"figure12a": "co-parents", "figure12b": "children"}


def task(seed: int, setting: str, shifts: tuple[float, ...]) -> list[Row]:
    rows = rows_of(seed, setting)
    graph = CausalGraph(GRAPH)
    models = {
        MAIN: variant(graph, "dataset", "affine"),
        "affine, row": variant(graph, "row", "affine"),
        "concat, row": variant(graph, "row", "concat"),
    }
    camas = {name: pyro_cama.build(g, seed=seed, hidden=HIDDEN).fit(rows.train, progress=False, **FIT[setting])
             for name, g in models.items()}  # fmt: skip
    net = DiscriminativeNet(seed, **({} if setting != "smoke" else {"max_epochs": 5})).fit(rows.train, "y")
    cvae = CVAE(graph, seed, hidden=HIDDEN, **FIT[setting]).fit(rows.train, "y")
    fixed: dict[str, Classifier] = {"net": net, "boosting": boosting(seed).fit(rows.train, "y"),
                                    "logistic": logistic().fit(rows.train, "y"), "cvae": cvae}  # fmt: skip
    found: list[Row] = []
    for name, who in SHIFTED.items():
        nodes = graph.blanket.coparents if name == "figure12a" else graph.blanket.children
        found += _panel(name, who, nodes, rows, camas, fixed, net, cvae, seed, setting, shifts)
        if name == "figure12a":  # no shift is no shift
            found += [row | {"experiment": "figure12b"} for row in found if row["severity"] == 0]
            shifts = tuple(shift for shift in shifts if shift)
    return found


def _panel(
    name: str, who: str, nodes: tuple[str, ...], rows: Rows, camas: dict[str, CAMA], fixed: dict[str, Classifier],
    net: DiscriminativeNet, cvae: CVAE, seed: int, setting: str, shifts: tuple[float, ...],
) -> list[Row]:  # fmt: skip
    found: list[Row] = []

    def note(method: str, value: float, shift: float, **more: Any) -> None:
        more = {"tested_on": "clean" if shift == 0 else f"{who} {shift:+g} sd", **more}
        found.append(experiment.row(name, method, value, severity=shift, seed=seed, setting=setting, **more))

    for shift in shifts:
        unlabelled, test = (rows.shifted(part, nodes, shift) for part in ("adapt", "test"))
        unlabelled, where = unlabelled.drop(columns="y"), f"{who} {shift:+g} sd"
        for method, classifier in fixed.items():
            note(method, classifier.accuracy(test), shift)
        note("tent", net.adapt_tent(unlabelled).accuracy(test), shift, adapted_on=where)
        note("shot_im", net.adapt_shot_im(unlabelled).accuracy(test), shift, adapted_on=where)
        note("coral", net.adapt_coral(unlabelled).accuracy(test), shift, adapted_on=where)
        note("cvae", cvae.adapt(unlabelled).accuracy(test), shift, adapted_on=where)
        for mechanism, cama in camas.items():
            if mechanism != MAIN and (name == "figure12a" or shift not in ROW_SHIFTS):
                continue  # beside the main one, for comparison
            note("cama", cama.score(test, **SCORE), shift, mechanism=mechanism)
            row_scope = mechanism.endswith("row")
            adapted = cama.adapt(
                unlabelled, rows.train if row_scope else None, progress=False, **adapt_options(setting)
            )
            more: dict[str, Any] = {"mechanism": mechanism, "adapted_on": where}
            note("cama", adapted.score(test, **SCORE), shift, **more)
            note("cama", adapted.adaptation.accepted, shift, metric="kept", **more)
            if shift:
                clean = rows.shifted("test", (), 0.0)
                if row_scope:  # under a shared m, rows of another origin are not this model's
                    note("cama", cama.score(clean, **SCORE), 0.0, mechanism=mechanism)
                    note("cama", adapted.score(clean, **SCORE), shift, **more | {"tested_on": "clean"})
                clean = clean.head(200)
                same = np.array_equal(
                    cama.predict_proba(clean, do={"m": 0.0}), adapted.predict_proba(clean, do={"m": 0.0})
                )
                note("cama", same, shift, metric="same_under_do0", **more | {"tested_on": "clean"})
    return found


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
    tasks = [{"seed": seed, "setting": setting, "shifts": shifts} for seed in experiment.seeds(options)]
    rows = experiment.run(task, tasks, "figure12", options)
    shown = [r for r in rows if r["tested_on"] != "clean" or r["severity"] == 0]
    for name, who in SHIFTED.items():
        mine = [r for r in shown if r["experiment"] == name]
        print(f"\n{name}, {who} shifted, accuracy ({setting}, {len(tasks)} random models)")
        print(experiment.table(mine, "severity"))
    print("\nevery model and shift")
    print(report(rows).round(3).to_string())
    titles = {name: f"{name[-3:]}: {who} shifted" for name, who in SHIFTED.items()}
    drawn = [r | {"experiment": titles[r["experiment"]]} for r in shown if r["mechanism"] in ("", MAIN)]
    experiment.lines(drawn, options.out / "figure12.png", xlabel="shift (standard deviations)")


if __name__ == "__main__":
    main()
