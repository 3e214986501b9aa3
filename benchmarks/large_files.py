"""Peak memory and time of the command line on Parquet files of very different length: fit one epoch, adapt, predict.

Each command runs in a process of its own, whose peak resident memory is read when it ends.  Rows are made in parts too:
30 readings of a binary target, drifting in the file that is adapted to.  Writes benchmarks/large_files.json.

    python benchmarks/large_files.py                         # 100,000 and 5,000,000 rows; 3 GB of disk
    python benchmarks/large_files.py --rows 20000 40000      # a try
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pyro_cama._files import replacing
from pyro_cama.cli.files import write_tables

COLUMNS = [f"x{i}" for i in range(30)]
GRAPH = {
    "target": "y",
    "nodes": {"y": {"type": "binary"}, **dict.fromkeys(COLUMNS, "continuous")},
    "edges": [f"y -> {name}" for name in COLUMNS],
    "latents": {
        "z": {"dim": 4, "children": COLUMNS},
        "m": {"dim": 30, "children": COLUMNS, "mechanism": "affine", "scope": "dataset"},
    },
}
FIT = ["--epochs", "1", "--batch-size", "1024", "--device", "cpu"]


def parts(rows: int, drift: float, seed: int, part: int = 100_000) -> Any:
    """Frames of at most ``part`` rows."""
    loads = np.random.default_rng(0).normal(size=(5, len(COLUMNS)))
    gains = np.exp(drift * np.random.default_rng(1).normal(size=len(COLUMNS)))
    for start in range(0, rows, part):
        generator = np.random.default_rng([seed, start])
        count = min(part, rows - start)
        y = generator.integers(0, 2, count)
        causes = np.column_stack([y * 1.2 - 0.6, generator.normal(size=(count, 4))])
        x = (causes @ loads + generator.normal(size=(count, len(COLUMNS)))) * gains + drift
        yield pd.DataFrame({"y": y, **dict(zip(COLUMNS, x.T, strict=True))})


def measured(*arguments: object) -> tuple[float, float]:
    """Seconds and peak MB of a command in a process of its own."""
    began = perf_counter()
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "pyro_cama.cli", *map(str, arguments)])
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"pyro-cama {' '.join(map(str, arguments))} failed")
    return perf_counter() - began, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 5_000_000])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/large_files.json"))
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            graph, train, new = folder / "graph.yaml", folder / "train.parquet", folder / "new.parquet"
            graph.write_text(yaml.safe_dump(GRAPH))
            write_tables(parts(rows, 0.0, seed=2), train, False)
            write_tables(parts(rows, 0.5, seed=3), new, False)
            size = train.stat().st_size / 2**20
            commands = {
                "fit": ["fit", graph, train, *FIT, "-o", folder / "model"],
                "adapt": ["adapt", folder / "model", new, "-o", folder / "adapted"],
                "predict": ["predict", folder / "adapted", new, "--samples", 2, "-o", folder / "labels.parquet"],
            }
            for command, arguments in commands.items():
                seconds, peak = measured(*arguments)
                found.append(
                    {"command": command, "rows": rows, "file MB": size, "seconds": seconds, "peak memory MB": peak}
                )
                print(pd.DataFrame(found).to_string(index=False, float_format="{:.0f}".format), flush=True)
    with replacing(options.out) as part:
        part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
