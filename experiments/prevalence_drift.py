"""Instruments drift *and* the mix of classes changes: 85 % of the first class stays away.

Standardising the new rows anew undoes a pure drift, but takes a new mix for one.  CAMA estimates the class proportions
beside m (`adapt(class_prior="estimate")`, the default) and predicts with `class_prior="estimate"`.
Writes results/prevalence_drift.json and .png.

    python experiments/prevalence_drift.py       # five seeds, two tables, about six minutes on two cores
"""

from __future__ import annotations

from typing import Any

from pyro_cama import datasets
from support import experiment, tables
from support.drift import PrevalenceDrift

CHANGES = ((0.0, 0.0), (1.0, 0.5), (1.0, 1.0))


def main() -> None:
    options = experiment.parser(__doc__).parse_args()
    tasks: list[dict[str, Any]] = [
        {
            "table": table, "seed": seed, "name": "prevalence", "methods": tables.FEW, "class_prior": "estimate",
            "cases": [PrevalenceDrift(size, fraction, datasets.TABLES[table]) for size, fraction in CHANGES],
            "size": experiment.size(options),
        }
        for table in ("breast_cancer", "wine")
        for seed in experiment.seeds(options)
    ]  # fmt: skip
    if options.smoke:
        tasks = [tasks[-1] | {"cases": tasks[-1]["cases"][-1:]}]
    rows = experiment.run(tables.run, tasks, "prevalence_drift", options)
    tables.report(rows, options.out / "prevalence_drift.png")


if __name__ == "__main__":
    main()
