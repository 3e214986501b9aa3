"""What adapting without labels does to accuracy, and what it says of that itself, on drifts whose labels are known.

Hundreds of simulated cases, `support/simulated_drift.py`: inside and outside of what an affine mechanism can undo,
other mixes of the classes, other parts of the population, 10 to 2,000 rows.  Prints how often a kept change lost
accuracy and a refused one would have won some, and the numbers of `pyro_cama/adaptation/expected_accuracy.py`, fitted
to these cases; real drift (`real_drift.py`) had no part in them.  Writes results/guard.json and .png.

    python experiments/guard.py             # two seeds, about 550 cases
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

import pyro_cama
from pyro_cama.adaptation.expected_accuracy import ADAPTED, NOT_ADAPTED, Calibration, logit
from support import experiment, simulated_drift
from support.board import HARM, MISSED, SMOKE_ADAPT, SMOKE_FIT, scores
from support.experiment import Row, row
from support.simulated_drift import OTHER_PART, Case, Table

STAGES = {"not adapted": NOT_ADAPTED, "adapted": ADAPTED}
ENOUGH = 50  # scored rows that count in full


def measure(table: str, seed: int, *, size: str = "full") -> list[Row]:
    """Every case of a table: accuracy without and with the change, as it is and as it was estimated."""
    given = simulated_drift.table(table)
    smoke = size == "smoke"
    fit: dict[str, Any] = SMOKE_FIT if smoke else {}
    cama, rows, count = None, list[Row](), 0
    for case in simulated_drift.drifts(given, table, seed):
        if cama is None:
            cama = pyro_cama.build(given.graph, seed=seed, device="cpu").fit(case.train, progress=False, **fit)
        rows += _of_case(cama, given, case, table, seed, count, smoke)
        count += 1
        if smoke and count == 3:
            return rows
    for case, graph in simulated_drift.other_parts(given, table, seed):
        own = pyro_cama.build(graph, seed=seed, device="cpu").fit(case.train, progress=False, **fit)
        rows += _of_case(own, given, case, table, seed, count, smoke)
        count += 1
    return rows


def _of_case(cama: Any, given: Table, case: Case, table: str, seed: int, number: int, smoke: bool) -> list[Row]:
    options: dict[str, Any] = {"progress": False, **(SMOKE_ADAPT if smoke else {})}
    try:
        adapted = cama.adapt(case.seen.drop(columns=given.target), keep="always", **options)
    except pyro_cama.DataError:  # readings that do not fit the graph: a level that was never seen
        return []
    found, truth = adapted.adaptation, case.scored[given.target].to_numpy(str)
    said = {"not adapted": found.accuracy_before, "adapted": found.accuracy_after}
    rows = []

    def note(metric: str, value: float, stage: str = "adapted", setting: str = "") -> None:
        rows.append(
            row(
                "guard",
                "cama",
                value,
                metric=metric,
                trained_on=table,
                adapted_on=case.kind if stage == "adapted" else "",
                tested_on=f"{case.kind} {number}",
                severity=case.mix,
                seed=seed,
                setting=setting,
            )
        )

    for stage, model in zip(STAGES, (cama, adapted), strict=True):
        note("accuracy", scores(truth, np.asarray(model.predict(case.scored)).astype(str))["accuracy"], stage)
        for name, value in said[stage]._asdict().items():
            note(name, value, stage)
    note("kept", found.accepted, setting=found.reason)
    note("rows", len(case.seen))
    note("scored", len(case.scored))
    return rows


def by_case(rows: Sequence[Row]) -> pd.DataFrame:
    """A case a row: what happened, and for each stage its accuracy, estimate, low and high."""
    frame = pd.DataFrame(rows)
    stage = np.where(frame["adapted_on"] == "", "not adapted", "adapted")
    frame = frame.assign(
        what=np.where(frame["metric"].isin(["kept", "rows", "scored"]), "", stage + " ") + frame["metric"]
    )
    frame["kind"] = frame["tested_on"].str.rsplit(n=1).str[0]
    frame = frame.rename(columns={"trained_on": "table", "severity": "mix"})
    return frame.pivot(
        index=["table", "seed", "kind", "mix", "tested_on"], columns="what", values="value"
    ).reset_index()


def _weight(cases: pd.DataFrame) -> np.ndarray:
    """How much a case counts: an accuracy on few rows is little but noise."""
    return (cases["scored"].clip(upper=ENOUGH) / ENOUGH).to_numpy()


def fitted(cases: pd.DataFrame, stage: str) -> Calibration:
    """The calibration that these cases ask for: a weighted logistic regression, and quantiles of what it leaves."""
    now = STAGES[stage]
    said = np.array([(logit(p) - now.intercept) / now.slope for p in cases[f"{stage} estimate"]])
    truth, weight = cases[f"{stage} accuracy"].to_numpy(), _weight(cases)
    both, labels = np.concatenate([said, said])[:, None], np.repeat([1, 0], len(said))
    model = LogisticRegression(C=np.inf).fit(
        both, labels, sample_weight=np.concatenate([truth * weight, (1 - truth) * weight])
    )
    intercept, slope = float(model.intercept_[0]), float(model.coef_[0, 0])
    left = [logit(p) - intercept - slope * s for p, s in zip(truth, said, strict=True)]
    low, high = np.quantile(left, [0.05, 0.95], weights=weight, method="inverted_cdf")
    return Calibration(*(round(float(number), 2) for number in (intercept, slope, low, high)))


def report(cases: pd.DataFrame) -> str:
    """How often adapting harmed or was refused in vain, by what happened and by mix; and how good the estimates are."""
    gain = cases["adapted accuracy"] - cases["not adapted accuracy"]
    kept = cases["kept"] > 0
    frame = cases.assign(
        gain=gain, kept=kept, harmed=kept & (gain < -HARM), missed=~kept & (gain > MISSED),
        after=cases["adapted accuracy"].where(kept, cases["not adapted accuracy"]),
    )  # fmt: skip
    columns = {
        "not adapted accuracy": "mean",
        "after": "mean",
        "adapted accuracy": "mean",
        "kept": "sum",
        "harmed": "sum",
        "missed": "sum",
    }
    text = [
        f"{len(cases)} cases: {kept.sum()} kept, of which {frame['harmed'].sum()} lost more than {HARM:.0%}; "
        f"{(~kept).sum()} refused, of which {frame['missed'].sum()} would have won more than {MISSED:.0%}"
    ]
    for name in ("kind", "mix"):
        grouped = frame.groupby(name, sort=False)
        text.append(grouped.agg(columns).assign(cases=grouped.size()).round(3).to_string())
    weight = _weight(cases)
    for stage in STAGES:
        off = cases[f"{stage} estimate"] - cases[f"{stage} accuracy"]
        inside = (cases[f"{stage} low"] <= cases[f"{stage} accuracy"]) & (
            cases[f"{stage} accuracy"] <= cases[f"{stage} high"]
        )
        text.append(
            f"{stage}: estimated accuracy off by {np.average(off.abs(), weights=weight):.3f} in the mean, "
            f"{np.average(off, weights=weight):+.3f} to one side; {np.average(inside, weights=weight):.0%} within the "
            f"interval; these cases ask for {fitted(cases, stage)}"
        )
    return "\n\n".join(text)


def picture(cases: pd.DataFrame, path: Path) -> None:
    """Estimated against true accuracy, each stage in a panel."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), sharex=True, sharey=True, layout="constrained")
    other = cases["kind"].isin([*simulated_drift.OUTSIDE, OTHER_PART])
    for axis, stage in zip(axes, STAGES, strict=True):
        for some, label, colour in ((~other, "within the mechanism", "#1b7f5c"), (other, "outside of it", "#c4513a")):
            of = cases[some]
            axis.scatter(of[f"{stage} estimate"], of[f"{stage} accuracy"], s=9, alpha=0.6, color=colour, label=label)
        axis.plot([0, 1], [0, 1], color="#888888", linewidth=1)
        axis.set(title=stage, xlabel="estimated accuracy", xlim=(0, 1), ylim=(0, 1))
    axes[0].set_ylabel("accuracy on other rows")
    axes[0].legend(loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser: argparse.ArgumentParser = experiment.parser(__doc__, seeds=2)
    options = parser.parse_args()
    size = experiment.size(options)
    tables = [*simulated_drift.TABLES, *(f"random {k}" for k in range(simulated_drift.RANDOM))]
    tables = {"full": tables, "quick": ["wine", "random 0", "random 1", "random 2"], "smoke": ["random 0"]}[size]
    tasks = [{"table": name, "seed": seed, "size": size} for seed in experiment.seeds(options) for name in tables]
    rows = experiment.run(measure, tasks, "guard", options)
    cases = by_case(rows)
    print(report(cases))
    picture(cases, options.out / "guard.png")


if __name__ == "__main__":
    main()
