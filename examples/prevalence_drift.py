"""Instruments drift *and* the mix of classes changes: 85 % of the first class stays away.

Standardising the new rows anew undoes a pure drift, but takes a new mix for one.  CAMA estimates the class proportions
beside m (`adapt(class_prior="estimate")`, the default) and predicts with `class_prior="estimate"`.
Writes results/prevalence_drift.json and .png.

    python examples/prevalence_drift.py       # five seeds, two tables, about six minutes on two cores
"""

from __future__ import annotations

import argparse
from pathlib import Path

from support.drift import TABLES, PrevalenceDrift
from support.tables import run_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: one seed, one drift, few epochs")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    tasks = []
    for table, (_, target) in TABLES.items():
        drifts = [PrevalenceDrift(size, fraction, target) for size, fraction in ((0.0, 0.0), (1.0, 0.5), (1.0, 1.0))]
        tasks += [
            {"table": table, "seed": seed, "drifts": drifts, "class_prior": "estimate"}
            for seed in range(options.seed, options.seed + options.seeds)
        ]
    run_all(tasks, options.out / "prevalence_drift", jobs=options.jobs, smoke=options.smoke)


if __name__ == "__main__":
    main()
