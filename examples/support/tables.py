"""The drifting-instruments experiment on a table: methods, protocol, tidy rows, a text table and a picture."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import torch
from tqdm import tqdm

import pyro_cama
from support.baselines import DiscriminativeNet, boosting
from support.drift import DRIFTS, Drift, cross_fit, load_table, split

GRAPHS = Path(__file__).parents[2] / "graphs"
METHODS = {
    "net": "net",
    "net_norm": "net, re-standardised",
    "net_shot_im": "net, SHOT-IM",
    "boosting": "boosting",
    "cama": "CAMA, not adapted",
    "cama_adapted": "CAMA, adapted",
}
COLOURS = {
    "net": "#9aa0a6", "net_norm": "#7a86b8", "net_shot_im": "#c58b4b", "boosting": "#c9c9c9",
    "cama": "#8fc1a9", "cama_adapted": "#1b7f5c",
}  # fmt: skip
Row = dict[str, Any]


def run(
    table: str,
    seed: int,
    *,
    drifts: Iterable[Drift] = DRIFTS,
    protocol: str = "disjoint",
    class_prior: Literal["train", "estimate"] = "train",
    setting: str = "full",
    fit: dict[str, Any] | None = None,
    adapt: dict[str, Any] | None = None,
    tune: bool = True,
    progress: bool = True,
) -> list[Row]:
    """Accuracies of all methods on one half/half split of a table, clean and under every drift.

    Args:
        protocol: "disjoint" adapts on one half of the test rows and scores the other, and the other way round;
            "transductive" adapts on the test rows themselves, still without labels.
        class_prior: of CAMA's predictions; "estimate" where the mix of classes may have changed.
    """
    frame, target = load_table(table)
    train, test = split(frame, target, seed)
    columns = [name for name in frame.columns if name != target]
    net = DiscriminativeNet(seed, **({} if tune else {"max_epochs": 20})).fit(train, target)
    trees = boosting(seed).fit(train, target)
    cama = pyro_cama.build(GRAPHS / f"{table}.yaml", seed=seed, device="cpu")
    cama.fit(train, progress=progress, **(fit or {}))
    rows: list[Row] = []

    def note(method: str, drift: str, value: float, adapted_on: str = "", metric: str = "accuracy") -> None:
        rows.append(
            {
                "experiment": f"{table}_drift", "method": method, "mechanism": "affine" if "cama" in method else "",
                "trained_on": "clean", "adapted_on": adapted_on, "tested_on": drift, "severity": drift, "seed": seed,
                "metric": metric, "value": value, "setting": f"{setting}, {protocol}", "device": "cpu",
            }
        )  # fmt: skip

    for method, classifier in (("net", net), ("boosting", trees)):
        note(method, "clean", classifier.accuracy(test))
    note("cama", "clean", cama.score(test))
    for drift in tqdm((None, *drifts), desc="drifts", disable=not progress, leave=False):
        moved = test if drift is None else drift.apply(test, train, columns, seed)[0]
        name = "clean" if drift is None else str(drift)
        if drift is not None:
            note("net", name, net.accuracy(moved))
            note("boosting", name, trees.accuracy(moved))
            note("cama", name, cama.score(moved, class_prior=class_prior))
        folds = cross_fit(moved, seed) if protocol == "disjoint" else [(moved, moved)]
        kept = 0

        def adapted(unlabelled: pd.DataFrame, scored: pd.DataFrame) -> float:
            nonlocal kept
            model = cama.adapt(unlabelled, progress=False, **(adapt or {}))
            kept += model.adaptation.accepted
            return model.score(scored, class_prior=class_prior)

        ways: dict[str, Callable[[pd.DataFrame, pd.DataFrame], float]] = {
            "net_norm": lambda a, b: net.adapt_norm(a).accuracy(b),
            "net_shot_im": lambda a, b: net.adapt_shot_im(a).accuracy(b),
            "cama_adapted": adapted,
        }
        for method, way in ways.items():
            value = sum(way(a.drop(columns=target), b) * len(b) for a, b in folds) / sum(len(b) for _, b in folds)
            note(method, name, value, adapted_on=name)
        note("cama_adapted", name, kept / len(folds), adapted_on=name, metric="kept")
    return rows


def run_all(tasks: list[dict[str, Any]], stem: Path, *, jobs: int = 2, smoke: bool = False) -> None:
    """Runs tasks (arguments of :func:`run`) in processes, prints a table each and writes ``stem``.json and .png."""
    if smoke:
        few = {"fit": {"max_epochs": 5}, "adapt": {"steps": 10, "restarts": 1, "folds": 2}, "tune": False}
        tasks = [tasks[-1] | few | {"drifts": tasks[-1]["drifts"][-1:], "setting": "smoke"}]
    rows: list[Row] = []
    with tqdm(total=len(tasks), desc="tables x seeds") as bar:
        if jobs > 1 and len(tasks) > 1:
            with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
                for found in pool.map(_task, tasks):
                    rows += found
                    bar.update()
        else:
            for task in tasks:
                rows += _task(task)
                bar.update()
    for table in dict.fromkeys(row["experiment"] for row in rows):
        mine = [row for row in rows if row["experiment"] == table]
        print(f"\n{table.replace('_', ' ')}, accuracy ({mine[0]['setting']}, {len({r['seed'] for r in mine})} seeds)")
        print(summary(mine).round(3).to_string())
    write(rows, stem.with_suffix(".json"))
    plot(rows, stem.with_suffix(".png"))
    print(f"\nwrote {stem}.json and .png")


def _task(arguments: dict[str, Any]) -> list[Row]:
    torch.set_num_threads(1)
    return run(progress=False, **arguments)


def summary(rows: list[Row]) -> pd.DataFrame:
    """Mean accuracy by drift and method, with the standard error over seeds where there are several."""
    frame = pd.DataFrame(rows).query("metric == 'accuracy'")
    drifts = list(dict.fromkeys(frame["tested_on"]))
    mean = frame.pivot_table(index="tested_on", columns="method", values="value", sort=False)
    mean = mean.loc[drifts, [m for m in METHODS if m in mean.columns]]
    moved = frame[frame["tested_on"] != "clean"]
    mean.loc["mean over drifts"] = moved.groupby("method")["value"].mean()
    if frame["seed"].nunique() > 1:
        by_seed = moved.groupby(["method", "seed"])["value"].mean()
        mean.loc["± standard error"] = by_seed.groupby("method").sem()
    return mean.rename(columns=METHODS)


def plot(rows: list[Row], path: Path) -> None:
    """Accuracy of every method under every drift, one panel a table."""
    frame = pd.DataFrame(rows).query("metric == 'accuracy'")
    tables = list(dict.fromkeys(frame["experiment"]))
    figure, axes = plt.subplots(len(tables), 1, figsize=(9, 3.6 * len(tables)), squeeze=False, layout="constrained")
    for axis, table in zip(axes[:, 0], tables, strict=True):
        part = frame[frame["experiment"] == table]
        drifts = list(dict.fromkeys(part["tested_on"]))
        for method, label in METHODS.items():
            mine = part[part["method"] == method].groupby("tested_on", sort=False)["value"]
            mean, error = mine.mean().reindex(drifts), mine.sem().reindex(drifts).fillna(0.0)
            strong = method == "cama_adapted"
            axis.errorbar(
                range(len(drifts)), mean, yerr=error, label=label, color=COLOURS[method], marker="o",
                markersize=6 if strong else 4, linewidth=2.2 if strong else 1.3, zorder=3 if strong else 2,
            )  # fmt: skip
        axis.set_xticks(range(len(drifts)), [d.replace(" on ", "\non ") for d in drifts], fontsize=8)
        axis.set_ylabel("accuracy")
        axis.set_title(table.removesuffix("_drift").replace("_", " "), loc="left", fontsize=11)
        axis.grid(axis="y", color="#e6e6e6")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(fontsize=8, ncols=3, frameon=False, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def write(rows: list[Row], path: Path) -> None:
    """Writes tidy rows as JSON, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as part:
        json.dump(rows, part, indent=1)
    os.replace(part.name, path)
