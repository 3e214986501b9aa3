"""Only the class mix of new rows changes: a class alone, a class lacking, 5 to 95 % of one; and with a drift on top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import pyro_cama
from support import drift_pairs, experiment
from support.board import SMOKE_ADAPT, SMOKE_FIT, scores
from support.drift import Case, Drift, load_table, split
from support.experiment import Row, row

TABLES = ("breast_cancer", "wine", "digits", "anes96", "crabs")
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
DRIFT = Drift(1.0, 0.5)


@dataclass(frozen=True)
class Mix(Case):
    """As many rows as there are with `share` of them of one class, and the others among themselves as they were."""

    kind = "mix"
    target: str
    level: str
    share: float
    fraction: float = 0.0

    def __str__(self) -> str:
        return {0.0: f"no {self.level}", 1.0: f"{self.level} alone"}.get(self.share, f"{self.share:.0%} {self.level}")

    def apply(
        self, frame: pd.DataFrame, train: pd.DataFrame, columns: list[str], seed: int
    ) -> tuple[pd.DataFrame, list[str]]:
        """Those rows; no column moved."""
        rng = np.random.default_rng(seed)
        of_it = (frame[self.target] == self.level).to_numpy()
        one, others = (rng.permutation(np.flatnonzero(rows)) for rows in (of_it, ~of_it))
        total = min(
            len(one) / self.share if self.share else math.inf,
            len(others) / (1 - self.share) if self.share < 1 else math.inf,
        )
        rows = np.concatenate([one[: round(self.share * total)], others[: round((1 - self.share) * total)]])
        return frame.iloc[np.sort(rows)].reset_index(drop=True), []


def cases(target: str, levels: Sequence[str]) -> list[Mix]:
    """Every class alone and lacking (of two, one alone is the other lacking), and shares of the first."""
    lacking = [Mix(target, level, 0.0) for level in levels] if len(levels) > 2 else []
    return [
        *(Mix(target, level, 1.0) for level in levels),
        *lacking,
        *(Mix(target, levels[0], share) for share in SHARES),
    ]


def run(table: str, seed: int, *, size: str = "full") -> list[Row]:
    """CAMA before and after adapting to a half's rows of every mix, with and without a drift of half of the columns."""
    if table == "crabs":
        both = drift_pairs.pair("crabs_blue_orange")
        frame, graph = pd.concat([both.train, both.new], ignore_index=True), both.graph
    else:
        frame, graph = load_table(table)[0], drift_pairs.graph_of(table)
    target = graph.target
    train, test = split(frame, target, seed)
    columns = [name for name in graph.blanket.children if train[name].nunique() > 1]
    smoke = size == "smoke"
    cama = pyro_cama.build(graph, seed=seed, device="cpu")
    cama.fit(train, progress=False, **(SMOKE_FIT if smoke else {}))
    rows = []
    every = cases(target, sorted(train[target].unique()))
    for case in every[-1:] if smoke else every:
        mixed, _ = case.apply(test, train, columns, seed)
        for kind, new in (("mix alone", mixed), ("mix and drift", DRIFT.apply(mixed, train, columns, seed)[0])):
            adapted = cama.adapt(new.drop(columns=target), progress=False, **(SMOKE_ADAPT if smoke else {}))
            assert adapted.adaptation is not None
            for model, where in ((cama, ""), (adapted, kind)):
                accuracy = scores(new[target].to_numpy(str), np.asarray(model.predict(new)).astype(str))["accuracy"]
                rows.append(_row(accuracy, "accuracy", table, case, kind, where, seed, f"{size}, {len(new)} rows"))
            kept = adapted.adaptation
            rows.append(_row(kept.accepted, "kept", table, case, kind, kind, seed, kept.reason))
    return rows


def _row(value: float, metric: str, table: str, case: Mix, kind: str, adapted_on: str, seed: int, setting: str) -> Row:
    return row(
        "real_drift_mixes", "cama", value, metric=metric, trained_on=table, adapted_on=adapted_on, severity=kind,
        tested_on=str(case) if kind == "mix alone" else f"{case}, {DRIFT}", seed=seed, setting=setting,
    )  # fmt: skip


def report(rows: Sequence[Row]) -> str:
    """Accuracies by table and kind, and how often adapting lost more than sampling noise: one row or 2 %."""
    text = [experiment.table(rows, ["trained_on", "severity"])]
    frame = pd.DataFrame([r | {"line": experiment.line_of(r)} for r in rows if r["metric"] == "accuracy"])
    place = ["trained_on", "severity", "tested_on", "seed"]
    value = frame.pivot(index=place, columns="line", values="value")
    lost = value["cama"] - value["cama_adapted"]
    for kind, of_kind in lost.groupby(level="severity", sort=False):
        worst: Any = of_kind.idxmax()
        text.append(
            f"{kind}: {(of_kind > 0.02).sum()} of {len(of_kind)} lost more than 2 points, at worst {of_kind.max():.3f} "
            f"({worst[0]}, {worst[2]}, seed {worst[3]})"
        )
    return "\n\n".join(text)
