"""Four real tables, and much that may happen to their columns: drift, wrong gains and units, noise, dead sensors.

Half of the rows train; the other half is changed.  Every method that adapts sees one half of those without labels and
is scored on the other, and the other way round.  Writes results/real_tables.json and .png.

    python experiments/real_tables.py                                        # five seeds, 25 minutes on two cores
    python experiments/real_tables.py --methods cama cama_adapted            # these anew, others as they were
    python experiments/real_tables.py --tables wine --cases calibration noise
    python experiments/real_tables.py --protocol transductive                # adapts on the rows it is scored on
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from pyro_cama import datasets
from support import experiment, tables
from support.drift import CASES, CASES_OF, Case
from support.experiment import Row

KINDS = list(dict.fromkeys(case.kind for case in CASES))


def summary(rows: Sequence[Row]) -> str:
    """Accuracy by kind of change, in the mean over tables, and the worst that adapting did."""
    accuracies = [r for r in rows if r["metric"] == "accuracy"]
    changed = [r for r in accuracies if r["severity"] != "clean"]
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)  # a table counts once, whatever its number of cases
    for row in [*accuracies, *(r | {"severity": "all changes"} for r in changed)]:
        cells[experiment.line_of(row), row["trained_on"], row["severity"], row["seed"]].append(row)
    means = [some[0] | {"value": fmean(r["value"] for r in some)} for some in cells.values()]
    by_kind = experiment.table(means, index="severity")
    frame = pd.DataFrame([r | {"line": experiment.line_of(r)} for r in rows])
    place = ["trained_on", "tested_on", "seed"]
    value = frame[frame["metric"].isin(["accuracy", "rows"])].pivot(index=place, columns="line", values="value")
    lost = ((value["cama"] - value["cama_adapted"]) * value[""]).round()
    worst = int(lost.argmax())
    where = ", ".join(map(str, lost.index[worst]))
    return (
        f"{by_kind}\n\n{len({(r['trained_on'], r['tested_on']) for r in changed})} cases, "
        f"{len({r['seed'] for r in rows})} seeds; by adapting CAMA lost rows in {(lost > 0).mean():.0%} of the runs, "
        f"at worst {lost.iloc[worst]:.0f} of {value[''].iloc[worst]:.0f} ({where})"
    )


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """New rows, and old ones of other lines."""
    lines = {experiment.line_of(row) for row in new}
    order = list(datasets.TABLES)
    rows = [*(row for row in old if experiment.line_of(row) not in lines), *new]
    return sorted(rows, key=lambda row: (order.index(row["trained_on"]), row["seed"]))


def main() -> None:
    parser = experiment.parser(__doc__)
    parser.add_argument("--tables", nargs="+", choices=list(datasets.TABLES), help="all; two if --quick")
    parser.add_argument("--cases", nargs="+", choices=KINDS, default=KINDS, help="kinds of changes")
    parser.add_argument("--methods", nargs="+", choices=tables.ALL, help="all")
    parser.add_argument("--protocol", choices=["disjoint", "transductive"], default="disjoint")
    options = parser.parse_args()
    full = experiment.size(options) == "full"
    names = options.tables or (list(datasets.TABLES) if full else ["anes96", "wine"])

    def cases(table: str) -> list[Case]:
        chosen = [case for case in CASES_OF[table] if case.kind in options.cases]
        return chosen if full else list({case.kind: case for case in chosen}.values())

    methods = options.methods or tables.ALL
    common = {
        "name": "real_table", "methods": methods, "protocol": options.protocol, "size": experiment.size(options)
    }  # fmt: skip
    tasks = [
        {"table": table, "seed": seed, "cases": cases(table), **common}
        for table in names
        for seed in experiment.seeds(options)
    ]
    if options.smoke:
        tasks = [task | {"cases": task["cases"][-1:]} for task in tasks]
    stem = "real_tables" if options.protocol == "disjoint" else "real_tables_transductive"
    path: Path = options.out / f"{stem}.json"
    old = json.loads(path.read_text()) if options.methods and path.exists() else []
    rows = merged(old, experiment.run(tables.run, tasks, stem, options))
    experiment.write(rows, path)
    for table in names:
        print(f"\n{table.replace('_', ' ')}, accuracy ({common['size']}, {options.protocol})")
        print(experiment.table([r for r in rows if r["trained_on"] == table]))
    print(f"\nall tables, accuracy\n{summary(rows)}")
    experiment.dots(rows, options.out / f"{stem}.png", panel="trained_on")


if __name__ == "__main__":
    main()
