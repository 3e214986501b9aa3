"""The main job on real data: instruments drift, the labels stay where they are, nobody tells the model.

scikit-learn's breast-cancer table.  Half of the rows train; on the other half some
instruments are off.  CAMA adapts on 142 unlabelled rows and is scored on 142 others, and the other way round.
Prints a table and saves results/breast_cancer_drift.png and .json.

    python experiments/breast_cancer_drift.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from support import experiment, tables
from support.drift import Drift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: one drift, few epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    drifts = [Drift(1.0, 0.2), Drift(1.0, 0.5), Drift(1.0, 1.0), Drift(2.0, 1.0)]
    if options.smoke:
        drifts = drifts[-1:]
    start = time.perf_counter()
    rows = tables.run(
        "breast_cancer", options.seed, name="demo", cases=drifts, methods=tables.FEW,
        size="smoke" if options.smoke else "full", progress=True,
    )  # fmt: skip
    experiment.write(rows, options.out / "breast_cancer_drift.json")
    tables.report(rows, options.out / "breast_cancer_drift.png")
    print(f"({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
