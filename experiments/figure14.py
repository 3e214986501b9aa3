"""The paper's Figure 14: what a wrong graph costs, and whether `diagnose` sees it.

Some children are declared co-parents of the remaining ones (0, 1, 2, 4 or 6 of 10), an edge into a child is left out,
or one is drawn the other way round.  Rows come from the right graph; tested clean, with all true children's readings
shifted, and with the true co-parents shifted, each after adaptation.  `diagnose` looks at the clean training rows.

Writes results/figure14.json (tidy rows) and results/figure14.png.

    python experiments/figure14.py            # five random models, about ten minutes on two cores
    python experiments/figure14.py --quick    # one model, three graphs
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_cama import CausalGraph
from support import experiment
from support.experiment import Row
from support.measurement import GRAPH, SCORE, adapt_options, fitted_cama, fitted_net, rows_of

WRONG = {"full": ("0", "1", "2", "4", "6", "missing edge", "reversed edge"), "quick": ("0", "2", "6"), "smoke": ("2",)}
SHIFTS = {"clean": ("children", 0.0), "children +2 sd": ("children", 2.0),
          "co-parents +2 sd": ("coparents", 2.0)}  # fmt: skip


def misdeclared(graph: CausalGraph, wrong: str, seed: int) -> tuple[CausalGraph, tuple[str, ...]]:
    """The graph with a mistake in it, and the nodes that the mistake is about."""
    raw = graph.to_dict()
    edges = [tuple(edge) for edge in graph.edges]
    children = graph.blanket.children
    rng = np.random.default_rng(seed)
    if wrong.isdigit():
        nodes = tuple(sorted(rng.permutation(children)[: int(wrong)].tolist(), key=children.index))
        rest = [name for name in children if name not in nodes]
        edges = [(a, b) for a, b in edges if a not in nodes and b not in nodes]
        edges += [(node, child) for node in nodes for child in rest]
    else:  # an edge from a co-parent
        inner = [(a, b) for a, b in edges if a in graph.blanket.coparents]
        picked = inner[rng.integers(len(inner))]
        nodes = picked
        edges = [edge for edge in edges if edge != picked]
        if wrong == "reversed edge":
            edges.append((picked[1], picked[0]))
    raw["edges"] = [list(edge) for edge in edges]
    for latent in raw["latents"].values():
        if latent and "children" in latent:
            del latent["children"]
    return CausalGraph(raw), nodes


def task(seed: int, setting: str, wrong: str) -> list[Row]:
    rows = rows_of(seed, setting)
    train = rows.train.head(5000)
    right = CausalGraph(GRAPH)
    graph, nodes = misdeclared(right, wrong, seed)
    cama = fitted_cama(graph, train, seed, setting)
    found: list[Row] = []

    def note(method: str, value: float, tested_on: str, **more: Any) -> None:
        options = {"mechanism": "affine, dataset" if method == "cama" else "", "severity": wrong, **more}
        found.append(
            experiment.row("figure14", method, value, tested_on=tested_on, seed=seed, setting=setting, **options)
        )

    net = None
    if wrong == WRONG[setting][0]:
        net = fitted_net(train, seed, setting)
    for name, (who, size) in SHIFTS.items():
        moved = getattr(right.blanket, who)
        unlabelled, test = rows.shifted("adapt", moved, size).drop(columns="y"), rows.shifted("test", moved, size)
        note("cama", cama.score(test, **SCORE), name)
        if size == 0.0:
            continue
        adapted = cama.adapt(unlabelled, progress=False, **adapt_options(setting))
        note("cama", adapted.score(test, **SCORE), name, adapted_on=name)
        if net is not None:  # sees no graph: the same for all of them
            for label in WRONG[setting]:
                note("net", net.accuracy(test), name, severity=label)
                note("shot_im", net.adapt_shot_im(unlabelled).accuracy(test), name, adapted_on=name, severity=label)
    found += diagnosed(cama, train.head(2500), nodes, wrong, seed, setting)
    return found


def diagnosed(cama: Any, frame: Any, nodes: tuple[str, ...], wrong: str, seed: int, setting: str) -> list[Row]:
    """Which nodes `diagnose` points at: how many of them rightly, and of the misdeclared ones how many."""
    suspects = set(cama.diagnose(frame, draws=0, progress=False).suspects)
    hits = len(suspects & set(nodes))
    figures = {
        "suspects": len(suspects),
        "pointed_at": float(hits > 0 if nodes else not suspects),
        "precision": hits / len(suspects) if suspects else 1.0,
        "recall": hits / len(nodes) if nodes else 1.0,
    }
    common: dict[str, Any] = {"severity": wrong, "seed": seed, "setting": setting, "mechanism": "affine, dataset"}
    return [experiment.row("figure14", "cama", value, metric=name, **common) for name, value in figures.items()]


def main() -> None:
    options = experiment.parser(__doc__).parse_args()
    setting = experiment.size(options)
    tasks = [{"seed": s, "setting": setting, "wrong": w} for s in experiment.seeds(options) for w in WRONG[setting]]
    rows = experiment.run(task, tasks, "figure14", options)
    seeds = len({row["seed"] for row in rows})
    for name in SHIFTS:
        print(f"\nfigure14, {name}, accuracy by what is wrong ({setting}, {seeds} random models)")
        print(experiment.table([r for r in rows if r["tested_on"] == name], "severity"))
    print("\ndiagnose on clean rows")
    print(experiment.table(rows, "severity", metric="pointed_at"))
    drawn = [r | {"experiment": r["tested_on"], "severity": r["severity"].replace(" ", "\n")} for r in rows]
    experiment.lines(drawn, options.out / "figure14.png", xlabel="what is wrong with the graph", wide=2)


if __name__ == "__main__":
    main()
