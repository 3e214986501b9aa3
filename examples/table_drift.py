"""Breast cancer and wine under drifting instruments: CAMA beside discriminative baselines, over several seeds.

Half of the rows train, half test; the drift adds 0.5, 1 or 2 training standard deviations to 20, 50 or 100 % of the
features.  Writes results/table_drift.json (tidy rows) and results/table_drift.png.

    python examples/table_drift.py                            # five seeds, about 15 minutes on two cores
    python examples/table_drift.py --protocol transductive    # adapts on the rows it is scored on, without labels
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from support.drift import DRIFTS, Drift
from support.tables import Row, plot, run, summary, write


def task(arguments: dict[str, Any]) -> list[Row]:
    torch.set_num_threads(1)
    return run(**arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: one seed, one drift, few epochs")
    parser.add_argument("--quick", action="store_true", help="two minutes: one seed, three drifts")
    parser.add_argument("--tables", nargs="+", default=["breast_cancer", "wine"])
    parser.add_argument("--protocol", choices=["disjoint", "transductive"], default="disjoint")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    common: dict[str, Any] = {"protocol": options.protocol, "progress": False}
    seeds, drifts, common["setting"] = options.seeds, list(DRIFTS), "full"
    if options.quick:
        seeds, drifts, common["setting"] = 1, [d for d in DRIFTS if d.size_sd == 1.0], "quick"
    if options.smoke:
        seeds, drifts, common["setting"] = 1, [Drift(2.0, 1.0)], "smoke"
        common |= {"fit": {"max_epochs": 5}, "adapt": {"steps": 10, "restarts": 1, "folds": 2}, "tune": False}
        options.tables = options.tables[-1:]
    tasks = [
        {"table": table, "seed": seed, "drifts": drifts, **common}
        for table in options.tables
        for seed in range(options.seed, options.seed + seeds)
    ]
    rows: list[Row] = []
    if options.jobs > 1 and len(tasks) > 1:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            for found in tqdm(pool.map(task, tasks), total=len(tasks), desc="tables x seeds"):
                rows += found
    else:
        for one in tqdm(tasks, desc="tables x seeds"):
            rows += task(one)
    for table in options.tables:
        print(f"\n{table}, accuracy ({options.protocol}, {seeds} seeds)")
        print(summary([r for r in rows if r["experiment"] == f"{table}_drift"]).round(3).to_string())
    name = "table_drift" if options.protocol == "disjoint" else f"table_drift_{options.protocol}"
    write(rows, options.out / f"{name}.json")
    plot(rows, options.out / f"{name}.png")
    print(f"\nwrote {options.out / name}.json and .png")


if __name__ == "__main__":
    main()
