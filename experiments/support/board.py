"""One pair of the board: every peer on it, CAMA on it, and what to say about all pairs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

import pyro_cama
from pyro_cama.adaptation.result import Adaptation
from support import drift_pairs, experiment
from support.drift import cross_fit
from support.drift_pairs import Pair
from support.experiment import Row, line_of, row
from support.peers import NOT_ADAPTED, PEERS, SEEDS, TRANSDUCTIVE, Source

NAME = "real_drift"
CAMA = ("cama", "cama_adapted", "cama_always")
HARM, MISSED = 0.02, 0.05  # accuracy that a kept change lost; that a refused one would have won
SMOKE_FIT: dict[str, Any] = {"max_epochs": 5}
SMOKE_ADAPT: dict[str, Any] = {"steps": 10, "restarts": 1, "folds": 2}
Halves = list[tuple[pd.DataFrame, pd.DataFrame]]


def halves(pair: Pair, seed: int) -> Halves:
    """Rows to adapt on and rows to score, once or twice, whose scored rows together are all new ones."""
    return [(pair.new, pair.new)] if pair.protocol == "transductive" else cross_fit(pair.new, seed)


def scores(truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, and its mean over the classes that there are.

    >>> scores(np.array(["a", "a", "a", "b"]), np.array(["a", "a", "a", "a"]))
    {'accuracy': 0.75, 'balanced_accuracy': 0.5}
    """
    right = labels == truth
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[truth == level].mean() for level in np.unique(truth)])),
    }


def _row(pair: Pair, line: str, seed: int, value: float, metric: str, size: str, setting: str = "") -> Row:
    """A row that `line_of` gives this line."""
    method = line if line == "cama_always" else line.removesuffix("_adapted")
    return row(
        NAME, method, value, metric=metric, trained_on=pair.name, tested_on=pair.name,
        adapted_on="" if line in (*NOT_ADAPTED, "cama") else pair.name,
        severity="made" if pair.made else "natural", seed=seed,
        setting=setting or f"{size}, {'transductive' if line in TRANSDUCTIVE else pair.protocol}",
    )  # fmt: skip


# peers ----------------------------------------------------------------------------------------------------------------


def run_peers(
    name: str, seeds: Sequence[int], *, methods: Iterable[str], size: str = "full", data_dir: str | None = None
) -> list[Row]:
    """Accuracies of the peers on a pair, and their time a seed; slow ones get the first seeds only, `SEEDS`."""
    pair = drift_pairs.pair(name, data_dir)
    source = Source(pair, max_epochs=3 if size == "smoke" else 150)
    rows = []
    for line in methods:
        begun, its_seeds = time.perf_counter(), seeds[: SEEDS.get(line, len(seeds))]
        for seed in its_seeds:
            parts = halves(pair, seed)
            labels = [PEERS[line](source, seed, seen.drop(columns=pair.target), scored) for seen, scored in parts]
            truth = np.concatenate([scored[pair.target].to_numpy(str) for _, scored in parts])
            found = scores(truth, np.concatenate(labels).astype(str))
            rows += [_row(pair, line, seed, value, metric, size) for metric, value in found.items()]
        rows.append(_row(pair, line, its_seeds[0], (time.perf_counter() - begun) / len(its_seeds), "seconds", size))
    return rows


# CAMA -----------------------------------------------------------------------------------------------------------------


def run_cama(
    name: str, seed: int, *, effect: str | None = None, size: str = "full", data_dir: str | None = None
) -> list[Row]:
    """Accuracies of CAMA on a pair, not adapted, adapted as its guard decides, and always; and what the guard saw.

    Args:
        effect: of the style; None is the graph's.
    """
    pair = drift_pairs.pair(name, data_dir)
    raw = pair.graph.to_dict()
    z = raw["latents"]["z"]
    graph = raw if effect is None else raw | {"latents": raw["latents"] | {"z": {"dim": z["dim"], "effect": effect}}}
    smoke = size == "smoke"
    begun = time.perf_counter()
    cama = pyro_cama.build(graph, seed=seed, device="cpu")
    cama.fit(pair.train, progress=False, **(SMOKE_FIT if smoke else {}))
    rows = [_row(pair, "cama", seed, time.perf_counter() - begun, "seconds", size)]
    found: dict[str, list[np.ndarray]] = {line: [] for line in CAMA}
    truth = []
    for half, (seen, scored) in enumerate(halves(pair, seed)):
        truth.append(scored[pair.target].to_numpy(str))
        options: dict[str, Any] = {"progress": False, **(SMOKE_ADAPT if smoke else {})}
        unlabelled, begun = seen.drop(columns=pair.target), time.perf_counter()
        adapted = cama.adapt(unlabelled, **options)
        seconds = time.perf_counter() - begun
        assert adapted.adaptation is not None
        always = adapted if adapted.adaptation.applied else cama.adapt(unlabelled, keep="always", **options)
        for line, model in zip(CAMA, (cama, adapted, always), strict=True):
            found[line].append(np.asarray(model.predict(scored)).astype(str))
            accuracy = scores(truth[-1], found[line][-1])["accuracy"]
            rows.append(_row(pair, line, seed, accuracy, "accuracy_of_half", size, f"half {half}"))
        rows += _seen_by_the_guard(pair, seed, half, adapted.adaptation, cama.classes, seen, seconds, size)
    for line, labels in found.items():
        both = scores(np.concatenate(truth), np.concatenate(labels))
        rows += [_row(pair, line, seed, value, metric, size) for metric, value in both.items()]
    return rows


def _seen_by_the_guard(
    pair: Pair, seed: int, half: int, adaptation: Adaptation, classes: Sequence[Any], seen: pd.DataFrame,
    seconds: float, size: str,
) -> list[Row]:  # fmt: skip
    """Every number of the adaptation, its reason, and how far its class proportions are from the truth."""

    def note(metric: str, value: float, setting: str = f"half {half}") -> Row:
        return _row(pair, "cama_adapted", seed, value, metric, size, setting)

    numbers = {field.name: getattr(adaptation, field.name) for field in fields(adaptation)}
    proportions = dict(zip(map(str, classes), adaptation.proportions_after, strict=True))
    true = seen[pair.target].astype(str).value_counts(normalize=True)
    distance = sum(abs(share - true.get(level, 0.0)) for level, share in proportions.items()) / 2
    return [
        *(note(name, float(value)) for name, value in numbers.items() if isinstance(value, bool | int | float)),
        note("gain", adaptation.evidence_after - adaptation.evidence_before),
        note("seconds", seconds),
        note("reason", adaptation.accepted, f"half {half}: {adaptation.reason}"),
        note("proportions", distance, f"half {half}: {json.dumps({k: round(p, 4) for k, p in proportions.items()})}"),
    ]


# what to say ----------------------------------------------------------------------------------------------------------


def by_pair(rows: Sequence[Row], metric: str = "accuracy") -> pd.DataFrame:
    """Mean over seeds, a pair a row, a method a column."""
    return experiment.summary(rows, metric=metric)[0]


def rates(rows: Sequence[Row]) -> str:
    """How often a kept change hurt, and a refused one would have helped, by adaptation and by pair."""
    wanted = [r | {"line": line_of(r)} for r in rows if r["metric"] in ("accuracy_of_half", "accepted")]
    if not wanted:
        return "CAMA was not run"
    frame = pd.DataFrame(wanted)
    place = ["tested_on", "seed", "setting"]
    accuracy = frame[frame["metric"] == "accuracy_of_half"].pivot(index=place, columns="line", values="value")
    kept = frame[frame["metric"] == "accepted"].set_index(place)["value"] > 0
    gain = accuracy["cama_always"] - accuracy["cama"]
    hurt, missed = kept & (gain < -HARM), ~kept & (gain > MISSED)
    pairs = pd.DataFrame({"kept": kept, "gain": gain, "adapted": accuracy["cama_adapted"] - accuracy["cama"]})
    mean = pairs.groupby(level="tested_on").mean()
    worse = list(mean.index[mean["adapted"] < -HARM])
    refused = list(mean.index[(mean["gain"] - mean["adapted"] > MISSED)])
    return (
        f"{len(kept)} adaptations of {len(mean)} pairs: {kept.sum()} kept, of which {hurt.sum()} lost more than "
        f"{HARM:.0%}; {(~kept).sum()} refused, of which {missed.sum()} would have won more than {MISSED:.0%}\n"
        f"pairs that lost more than {HARM:.0%} in the mean: {len(worse)} ({', '.join(worse) or 'none'}); "
        f"that would have won {MISSED:.0%} more if always kept: {len(refused)} ({', '.join(refused) or 'none'})"
    )


def report(rows: Sequence[Row]) -> str:
    """A table of pairs with the best peer of each, the methods' means, and the guard's rates."""
    mean = by_pair(rows)
    peers = mean[[line for line in mean.columns if line not in CAMA]].dropna(how="all")
    table = mean[[line for line in (*CAMA, "net", "logistic", "logistic_standardised", "boosting") if line in mean]]
    text = []
    if not peers.empty:
        best = peers.max(axis=1)
        table = table.assign(best_peer=best, which=peers.idxmax(axis=1))
        if "cama_adapted" in mean:
            table = table.assign(distance=mean["cama_adapted"] - best)
            near = table["distance"].dropna() >= -0.03
            text.append(f"within 3 points of the best peer: {near.sum()} of {len(near)} pairs")
    error = experiment.summary(rows)[1]
    methods = pd.DataFrame(
        {"mean": mean.mean(), "se over seeds": error.mean(), "balanced": by_pair(rows, "balanced_accuracy").mean(),
         "pairs": mean.notna().sum()}
    ).sort_values("mean", ascending=False)  # fmt: skip
    return "\n\n".join(
        [
            table.round(3).to_string(),
            "mean over pairs, each one vote\n" + methods.round(3).to_string(),
            *text,
            rates(rows),
        ]
    )


def drawn(rows: Sequence[Row]) -> list[Row]:
    """What the picture shows: CAMA, logistic regression, and the best peer of each pair, chosen by the labels."""
    shown = [r for r in rows if line_of(r) in ("cama", "cama_adapted", "logistic", "logistic_standardised")]
    of_peers = [r for r in rows if line_of(r) not in CAMA and r["metric"] == "accuracy"]
    if not of_peers:
        return shown
    best = by_pair(of_peers).idxmax(axis=1)
    return shown + [r | {"line": "best_peer"} for r in of_peers if line_of(r) == best[r["tested_on"]]]
