"""Something happens to the columns of a real table: every method on one split of it, and what to say about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm import tqdm

import pyro_cama
from support import experiment
from support.baselines import CVAE, DiscriminativeNet, boosting, logistic
from support.drift import DRIFTS, NETWORKS, Case, Unchanged, cross_fit, graph_of, load_table, split
from support.experiment import Row, row

# sampled rows are many, and their graph is right: the paper's own objective, in large batches
_SAMPLED = {"conditional_weight": 0.0, "batch_size": 256, "lr": 6e-3, "anneal": True, "max_epochs": 40}
FIT: dict[str, dict[str, Any]] = dict.fromkeys(NETWORKS, _SAMPLED)
FIT_DEEP = FIT | {"digits": {"batch_size": 128, "lr": 3e-3, "anneal": True, "max_epochs": 60}}
MANY = FIT_DEEP  # tables of many rows
# of networks, whose m has to be drawn: a third of the defaults' time, and hardly worse
ADAPT = {"restarts": 2, "samples": 2, "steps": 60, "batch_size": 128}
# how a method comes from another one and from rows without labels
ADAPTED: dict[str, tuple[str, Callable[..., Any]]] = {
    "net_adapted": ("net", DiscriminativeNet.adapt_norm),
    "tent": ("net", DiscriminativeNet.adapt_tent),
    "shot_im": ("net", DiscriminativeNet.adapt_shot_im),
    "coral": ("net", DiscriminativeNet.adapt_coral),
    "cvae_adapted": ("cvae", CVAE.adapt),
    "cama_adapted": ("cama", pyro_cama.CAMA.adapt),
}
ALL = ("net", "logistic", "boosting", "cvae", "cama", *ADAPTED)
FEW = ("net", "boosting", "cama", "net_adapted", "shot_im", "cama_adapted")
SMOKE: dict[str, dict[str, Any]] = {
    "net": {"max_epochs": 20},
    "fit": {"max_epochs": 5},
    "cama_adapted": {"steps": 10, "restarts": 1, "folds": 2},
    "cvae_adapted": {"steps": 5},
}


def run(
    table: str,
    seed: int,
    *,
    name: str,
    cases: Sequence[Case] = DRIFTS,
    methods: Iterable[str] = ALL,
    protocol: str = "disjoint",
    class_prior: Literal["train", "estimate"] = "train",
    size: str = "full",
    graph: pyro_cama.CausalGraph | None = None,
    progress: bool = False,
) -> list[Row]:
    """Accuracies of the methods on one half/half split of a table, clean and in every case.

    Args:
        name: of the experiment; the table is the rows' `trained_on`, the case `tested_on`, its kind `severity`.
        protocol: "disjoint" adapts on one half of the test rows and scores the other, and the other way round;
            "transductive" adapts on the test rows themselves, still without labels.
        class_prior: of CAMA's predictions; "estimate" where the mix of classes may have changed.
        size: "smoke" makes all training short.
        graph: of CAMA; by default the table's.
    """
    frame, target = load_table(table)
    train, test = split(frame, target, seed)
    options: dict[str, dict[str, Any]] = {"cama_adapted": ADAPT} if table in NETWORKS and graph is None else {}
    if size == "smoke":
        options = SMOKE
    graph = graph_of(table) if graph is None else graph
    fit = FIT.get(table, {}) | options.get("fit", {})
    assert graph.m is not None
    mechanism = ", ".join([*sorted(set(graph.m.mechanism.values())), graph.m.scope])
    learn: dict[str, Callable[[], Any]] = {
        "net": lambda: DiscriminativeNet(seed, **options.get("net", {})).fit(train, target),
        "logistic": lambda: logistic().fit(train, target),
        "boosting": lambda: boosting(seed).fit(train, target),
        "cvae": lambda: CVAE(graph, seed, **(FIT_DEEP.get(table, {}) | fit)).fit(train, target),
        "cama": lambda: pyro_cama.build(graph, seed=seed, device="cpu").fit(train, progress=progress, **fit),
    }
    methods = set(methods)
    bases = methods | {base for method, (base, _) in ADAPTED.items() if method in methods}
    models = {method: learn[method]() for method in learn if method in bases}
    columns = [column for column in frame.columns if column in graph.blanket.children and train[column].nunique() > 1]
    rows: list[Row] = []

    def score(model: Any, of: pd.DataFrame) -> float:
        return model.score(of, class_prior=class_prior) if isinstance(model, pyro_cama.CAMA) else model.accuracy(of)

    for case in tqdm((Unchanged(), *cases), desc="cases", disable=not progress, leave=False):
        after, moved = case.apply(test, train, columns, seed)

        def note(method: str, value: float, metric: str = "accuracy", setting: str = "", case: Case = case) -> None:
            rows.append(
                row(
                    name, method.removesuffix("_adapted"), value, metric=metric,
                    mechanism=mechanism if "cama" in method else "",
                    trained_on=table, adapted_on=str(case) if method in ADAPTED else "", tested_on=str(case),
                    severity=case.kind, seed=seed, setting=setting or f"{size}, {protocol}",
                )
            )  # fmt: skip

        for method in sorted(methods & models.keys()):
            note(method, score(models[method], after))
        pairs = cross_fit(after, seed) if protocol == "disjoint" else [(after, after)]
        if table in MANY:  # where rows are many, one way round will do
            pairs = pairs[:1]
        for method in sorted(methods & ADAPTED.keys()):
            base, adapt = ADAPTED[method]
            quiet = {"progress": False} if base == "cama" else {}
            twins = [
                adapt(models[base], seen.drop(columns=target), **options.get(method, {}), **quiet) for seen, _ in pairs
            ]
            right = sum(score(twin, scored) * len(scored) for twin, (_, scored) in zip(twins, pairs, strict=True))
            note(method, right / sum(len(scored) for _, scored in pairs))
            if method == "cama_adapted":
                note(method, sum(twin.adaptation.accepted for twin in twins) / len(twins), "kept")
                named = [set(twin.explain_shift().moved) for twin in twins]
                note(method, len(moved) * len(twins), "moved", json.dumps(moved))
                note(method, sum(map(len, named)), "named")
                note(method, sum(len(found & set(moved)) for found in named), "named_rightly")
        note("", len(after), "rows")
    return rows


def report(rows: Sequence[Row], path: Path) -> None:
    """Prints a table of accuracies by case for every table, and draws them."""
    for name in dict.fromkeys(r["trained_on"] for r in rows):
        mine = [r for r in rows if r["trained_on"] == name and r["metric"] == "accuracy"]
        mean = [r | {"tested_on": "mean of all but clean"} for r in mine if r["tested_on"] != "clean"]
        print(f"\n{name.replace('_', ' ')}, accuracy ({mine[0]['setting']}, {len({r['seed'] for r in mine})} seeds)")
        print(experiment.table([*mine, *mean]))
    experiment.lines(rows, path, x="tested_on", panel="trained_on", wide=1, each=(9.0, 3.6))
    print(f"\nwrote {path}")
