"""The demonstration: real data, instruments that drift, labels that stay, and nobody who tells the model.

scikit-learn's breast-cancer table (Wolberg, Street and Mangasarian 1995): 30 readings of 569 samples, all of them
effects of the diagnosis. Half of the rows train; later some instruments read too high. The model adapts to one half of
the other rows, without labels, and is scored on the rest; logistic regression is the yardstick.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from pyro_cama.cama import build
from pyro_cama.datasets.graphs import graph
from pyro_cama.datasets.tables import load

DRIFTS = ((1.0, 0.2), (1.0, 0.5), (1.0, 1.0), (2.0, 1.0))  # training standard deviations; share of the instruments


def run(seed: int = 0, *, quick: bool = False, progress: bool = True) -> Iterator[str]:
    """Trains, drifts and adapts; yields the lines to print, as they come."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    began = time.perf_counter()
    table = load("breast_cancer").sample(frac=1, random_state=seed, ignore_index=True)
    columns = [*table.columns.drop("diagnosis")]
    train, seen, later = np.split(np.arange(len(table)), [len(table) // 2, len(table) * 3 // 4])
    yield f"breast cancer: {len(train)} rows train, {len(seen)} adapt (without labels), {len(later)} are scored"
    cama = build(graph("breast_cancer"), seed=seed).fit(
        table.iloc[train], max_epochs=5 if quick else 300, progress=progress
    )
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    logistic.fit(table.iloc[train][columns], table.iloc[train]["diagnosis"])
    yield f"\n{'accuracy':<24}{'logistic':>10}{'CAMA':>10}{'adapted':>10}"

    def accuracies(after: pd.DataFrame, *models: Any) -> str:
        rows = after.iloc[later]
        found = [float(logistic.score(rows[columns], rows["diagnosis"])), *(model.score(rows) for model in models)]
        return "".join(f"{value:>10.3f}" for value in found)

    yield f"{'clean':<24}{accuracies(table, cama)}"
    options: dict[str, Any] = {"steps": 10, "restarts": 1, "folds": 2} if quick else {}
    adapted = cama
    for size, share in DRIFTS[-1:] if quick else DRIFTS:
        moved = np.random.default_rng(seed).permutation(columns)[: round(share * len(columns))]
        after = table.assign(**{name: table[name] + size * table.iloc[train][name].std() for name in moved})
        adapted = cama.adapt(after.iloc[seen][columns], progress=progress, **options)
        case = f"+{size:g} sd on {share:.0%}"
        yield f"{case:<24}{accuracies(after, cama, adapted)}"
    yield f"\nthe last one: {adapted.adaptation}"
    found = adapted.explain_shift().moved
    yield f"{len(found)} of {len(columns)} instruments are found to have moved: {', '.join(found[:3])}, ..."
    yield f"({time.perf_counter() - began:.0f} s)"
