"""The main job on real data: instruments drift, the labels stay where they are, nobody tells the model.

scikit-learn's breast-cancer table, graphs/breast_cancer.yaml.  Half of the rows train; on the other half some
instruments are off.  CAMA adapts on 142 unlabelled rows and is scored on 142 others, and the other way round.
Prints a table and saves results/breast_cancer_drift.png and .json.

    python examples/breast_cancer_drift.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from support.drift import Drift
from support.tables import plot, run, summary, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: one drift, few epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    drifts = [Drift(1.0, 0.2), Drift(1.0, 0.5), Drift(1.0, 1.0), Drift(2.0, 1.0)]
    extra: dict[str, Any] = {}
    if options.smoke:
        drifts = drifts[-1:]
        extra = {"fit": {"max_epochs": 5}, "adapt": {"steps": 10, "restarts": 1, "folds": 2}, "tune": False}
    start = time.perf_counter()
    rows = run("breast_cancer", options.seed, drifts=drifts, setting="smoke" if options.smoke else "demo", **extra)
    print(f"\nbreast cancer, accuracy on 284 test rows, seed {options.seed}\n")
    print(summary(rows).round(3).to_string())
    write(rows, options.out / "breast_cancer_drift.json")
    plot(rows, options.out / "breast_cancer_drift.png")
    print(f"\npicture: {options.out / 'breast_cancer_drift.png'}   ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
