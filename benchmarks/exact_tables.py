"""Processor time of fit, adapt and predict on tables: a linear style beside a deep one, and scikit-learn's boosting.

Every case runs in a process of its own, one thread, ways interleaved.  ``--beside`` takes another checkout of this
repository, whose deep style is then measured beside the others.  The gas sensors are read from PYRO_CAMA_DATA,
or left out.  Prints a line a case and writes benchmarks/exact_tables.json and .png.

    python benchmarks/exact_tables.py                                  # half an hour
    python benchmarks/exact_tables.py --cases breast_cancer --no-deep  # a try
    git worktree add ../before fd41fff
    python benchmarks/exact_tables.py --no-deep --sites --beside ../before  # ten minutes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
GAS = Path(os.environ.get("PYRO_CAMA_DATA", "")) / "real" / "gas_sensor_drift.parquet"
WAYS = ("linear", "deep", "boosting")


def synthetic(rows: int, columns: int, classes: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of classes that are a standard deviation apart in a few columns, and share three factors."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(99)
    means, factors = world.normal(size=(classes, columns)) * 0.6, world.normal(size=(3, columns)) * 0.7
    y = rng.integers(0, classes, rows)
    x = means[y] + rng.normal(size=(rows, 3)) @ factors + rng.normal(size=(rows, columns))
    return pd.DataFrame(x, columns=[f"x{i}" for i in range(columns)]), y


def table(name: str) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Training columns and labels, and new columns that have drifted."""
    if name == "breast_cancer":
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True, as_frame=True)
        x.columns = [f"x{i}" for i in range(x.shape[1])]
        new = x.iloc[1::2].copy()
        new.iloc[:, ::3] += 1.5 * x.iloc[:, ::3].std()
        return x.iloc[::2].reset_index(drop=True), y.to_numpy()[::2], new.reset_index(drop=True)
    if name == "gas":
        frame = pd.read_parquet(GAS)
        columns = [c for c in frame.columns if c not in ("batch", "gas", "concentration")]
        one, four = frame[frame["batch"] == 1], frame[frame["batch"] == 4]
        _, codes = np.unique(frame["gas"], return_inverse=True)
        return one[columns].reset_index(drop=True), codes[frame["batch"] == 1], four[columns].reset_index(drop=True)
    rows, width, classes = (int(part) for part in name.split("x"))
    x, y = synthetic(rows, width, classes, 0)
    new, _ = synthetic(min(rows, 20_000), width, classes, 1)
    new.iloc[:, ::3] += 1.5
    return x, y, new


def graph(x: pd.DataFrame, y: np.ndarray, way: str, scope: str) -> dict[str, Any]:
    """The target causes every column."""
    nodes: dict[str, Any] = {"y": {"type": "categorical", "levels": sorted(map(int, set(y)))}}
    nodes |= dict.fromkeys(x.columns, "continuous")
    latents: dict[str, Any] = {"m": {"scope": scope, "dim": 24 if scope == "site" else 4}}
    if way == "linear":
        latents["z"] = {"effect": "linear"}
    return {"target": "y", "nodes": nodes, "edges": [["y", c] for c in x.columns], "latents": latents}


def measured(name: str, way: str, sites: int = 0) -> dict[str, float]:
    """Seconds of processor time of fit, adapt (all starts, folds and checks) and predict."""
    warnings.simplefilter("ignore")
    x, y, new = table(name)
    if way == "boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        HistGradientBoostingClassifier().fit(x.iloc[:100], y[:100] % 2)  # imports and threads
        began = process_time()
        model: Any = HistGradientBoostingClassifier(random_state=0).fit(x, y)
        fitted = process_time()
        model.predict_proba(new)
        return {"fit": fitted - began, "predict": (process_time() - fitted) / len(new)}
    import torch

    from pyro_cama import build

    torch.set_num_threads(1)
    scope = "site" if sites else "dataset"
    if sites:
        x, new = x.assign(site="s"), new.assign(site=[f"t{i % sites}" for i in range(len(new))])
    columns = x.columns.drop("site", errors="ignore")
    build(graph(x[columns], y, way, scope), device="cpu").fit(
        x.assign(y=y).sample(min(len(x), 200), random_state=0), max_epochs=1, progress=False
    )
    began = process_time()
    cama = build(graph(x[columns], y, way, scope), device="cpu").fit(x.assign(y=y), progress=False)
    fitted = process_time()
    adapted = cama.adapt(new, progress=False)
    done = process_time()
    adapted.predict_proba(new)
    return {"fit": fitted - began, "adapt": done - fitted, "predict": (process_time() - done) / len(new)}


def in_process(name: str, way: str, sites: int, beside: Path | None) -> dict[str, float]:
    """The figures of :func:`measured`, of this checkout or another one, from a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(beside or HERE.parent)}
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", name, way, str(sites)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=HERE.parent)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def drawn(found: list[dict[str, Any]], path: Path) -> None:
    """Draws seconds of fit and adapt by case, a bar a way."""
    import matplotlib.pyplot as plt

    frame = pd.DataFrame(found)
    frame["line"] = frame["case"] + ", " + frame["way"]
    colours = {way: f"C{i}" for i, way in enumerate(frame["way"].unique())}
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.28 * len(frame) + 1), sharey=True, layout="constrained")
    for ax, figure_of in zip(axes, ("fit", "adapt"), strict=True):
        ax.barh(frame["line"], frame[figure_of].fillna(0.0), color=frame["way"].map(colours))
        for y, seconds in enumerate(frame[figure_of]):
            ax.text(
                0 if np.isnan(seconds) else seconds, y, "  -" if np.isnan(seconds) else f" {seconds:.2g}", va="center"
            )
        ax.set(xlabel=f"{figure_of}, seconds of processor time")
        ax.margins(x=0.12)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gas = ["gas"] if GAS.exists() else []
    every = ["breast_cancer", *gas, "1000x30x5", "20000x30x5", "100000x30x5", "1000x300x2"]
    parser.add_argument("--cases", nargs="+", default=every, help="also ROWSxCOLUMNSxCLASSES")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-deep", action="store_true", help="leaves the deep style out, which takes minutes")
    parser.add_argument("--sites", action="store_true", help="beside one site, twenty at once")
    parser.add_argument("--beside", type=Path, help="another checkout, whose deep style is measured too")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, way, sites = options.measure
        print(json.dumps(measured(name, way, int(sites))))
        return
    ways = [way for way in WAYS if way != "deep" or not options.no_deep]
    runs: list[tuple[str, str, str, int, Path | None]]
    runs = [(way, name, way, 0, None) for name in options.cases for way in ways]
    if options.beside:
        slow = [name for name in options.cases if name in ("breast_cancer", "gas")]  # others would take an hour
        runs += [("deep, beside", name, "deep", 0, options.beside.resolve()) for name in slow]
    if options.sites:
        runs += [(f"linear, {n} site{'s' if n > 1 else ''}", "2000x30x2", "linear", n, None) for n in (1, 20)]
    figures: dict[tuple[str, str], list[dict[str, float]]] = {}
    for repeat in range(options.repeats):
        for label, name, way, sites, beside in runs:
            if repeat and way == "deep":
                continue  # minutes each
            figures.setdefault((name, label), []).append(in_process(name, way, sites, beside))
    found = []
    for (name, label), some in figures.items():
        line = {"case": name, "way": label} | {key: median(one[key] for one in some) for key in some[0]}
        found.append(line)
        print(json.dumps({k: round(v, 7) if isinstance(v, float) else v for k, v in line.items()}))
    (HERE / "exact_tables.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    drawn(found, HERE / "exact_tables.png")


if __name__ == "__main__":
    main()
