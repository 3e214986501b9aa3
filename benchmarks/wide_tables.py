"""Time and peak memory of fit and adapt on wide tables, and on a child of many levels.

Every case runs in a process of its own, one thread: rows of a binary target, of which some columns (or two levels) have
changed among the new rows.  Prints a line a case and writes benchmarks/wide_tables.json.

    python benchmarks/wide_tables.py                          # half an hour
    python benchmarks/wide_tables.py --columns 30 --levels 30 # a try
"""

from __future__ import annotations

import argparse
import json
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from pyro_cama import build
from pyro_cama._files import replacing

Table = dict[str, Any]


def wide(columns: int, rows: int, seed: int) -> Table:
    """Rows of which 20 columns, or all of fewer, tell the classes apart by a standard deviation."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    x = rng.normal(size=(rows, columns))
    x[:, :20] += y[:, None]
    return {"y": y, **{f"x{i}": x[:, i] for i in range(columns)}}


def shares(levels: int) -> np.ndarray:
    """Frequencies of the levels in either class, ``(2, levels)``, falling off."""
    found = np.exp(1.2 * np.random.default_rng(0).normal(size=(2, levels))) / np.arange(1, levels + 1) ** 0.7
    return np.asarray(found / found.sum(1, keepdims=True))


def levelled(levels: int, rows: int, seed: int) -> Table:
    """Rows of a child of many levels, and four weak readings."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    c = np.array([rng.choice(levels, p=shares(levels)[k]) for k in y])
    return {"y": y, "c": c, **{f"x{i}": 0.75 * y + rng.normal(size=rows) for i in range(4)}}


def graph(table: Table, levels: int = 0) -> dict[str, Any]:
    """The target causes every other column."""
    nodes: dict[str, Any] = {"y": {"type": "binary"}, **dict.fromkeys([n for n in table if n != "y"], "continuous")}
    if levels:
        nodes["c"] = {"type": "categorical", "levels": list(range(levels))}
    edges = [["y", name] for name in nodes if name != "y"]
    return {"target": "y", "nodes": nodes, "edges": edges, "latents": {"m": {"scope": "dataset"}}}


def case(kind: str, size: int) -> dict[str, Any]:
    """Fits, adapts to new rows and scores them."""
    torch.set_num_threads(1)
    if kind == "columns":
        train, new, test = wide(size, 400, 0), wide(size, 300, 1), wide(size, 1000, 2)
        for table in (new, test):
            table["x0"], table["x3"] = 3.0 - table["x0"], 1.0 - table["x3"]  # read from their other ends
    else:
        train, new, test = levelled(size, 1000, 0), levelled(size, 500, 1), levelled(size, 1000, 2)
        apart = shares(size)[1] - shares(size)[0]
        one, other = (int(found) for found in (apart.argmax(), apart.argmin()))
        for table in (new, test):  # each tells most of a class
            table["c"] = np.choose((table["c"] == one) + 2 * (table["c"] == other), [table["c"], other, one])
    began = process_time()
    cama = build(graph(train, size if kind == "levels" else 0), device="cpu").fit(train, max_epochs=60, progress=False)
    fitted = process_time()
    adapted = cama.adapt(new, progress=False)
    seconds = process_time() - fitted
    return {
        kind: size,
        "fit": fitted - began,
        "adapt": seconds,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "before": cama.score(test),
        "after": adapted.score(test),
        "kept": adapted.adaptation.accepted if adapted.adaptation else False,
    }


def main() -> None:
    """Runs the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, nargs="*", default=[30, 300, 1000, 2000])
    parser.add_argument("--levels", type=int, nargs="*", default=[30, 100, 300, 1000])
    options = parser.parse_args()
    found = []
    for kind in ("levels", "columns"):
        for size in getattr(options, kind):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                row = pool.submit(case, kind, size).result()
            found.append(row)
            print(", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
            with replacing(Path(__file__).with_suffix(".json")) as path:
                path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
