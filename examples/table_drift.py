"""Breast cancer and wine under drifting instruments: CAMA beside discriminative baselines, over several seeds.

Half of the rows train, half test; the drift adds 0.5, 1 or 2 training standard deviations to 20, 50 or 100 % of the
features.  Writes results/table_drift.json (tidy rows) and results/table_drift.png.

    python examples/table_drift.py                            # five seeds, about 15 minutes on two cores
    python examples/table_drift.py --protocol transductive    # adapts on the rows it is scored on, without labels
"""

from __future__ import annotations

import argparse
from pathlib import Path

from support.drift import DRIFTS, TABLES
from support.tables import run_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: one seed, one drift, few epochs")
    parser.add_argument("--quick", action="store_true", help="one seed, three drifts")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--protocol", choices=["disjoint", "transductive"], default="disjoint")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    drifts = [d for d in DRIFTS if d.size_sd == 1.0] if options.quick else list(DRIFTS)
    common = {"drifts": drifts, "protocol": options.protocol, "setting": "quick" if options.quick else "full"}
    tasks = [
        {"table": table, "seed": seed, **common}
        for table in options.tables
        for seed in range(options.seed, options.seed + (1 if options.quick else options.seeds))
    ]
    name = "table_drift" if options.protocol == "disjoint" else "table_drift_transductive"
    run_all(tasks, options.out / name, jobs=options.jobs, smoke=options.smoke)


if __name__ == "__main__":
    main()
