"""How sure to be of readings that nothing in training was like: the likelihood to a power, on real tables under noise.

A model of the readings takes noise that it has not seen for evidence and is surer than it is right.  `predict_proba(
power=)` weighs p(x | y, z, m) to a power (Miller and Dunson 2019, *Robust Bayesian inference via coarsening*): the log
loss says what that buys, the accuracy what it costs.  Normal noise, in training standard deviations, on every reading;
half of the rows train.  Writes results/power.json and .png.

    python experiments/power.py       # three tables, five seeds, about four minutes on two cores
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro_cama
from pyro_cama.metrics import classification_metrics
from support import experiment
from support.drift import Noise, graph_of, load_table, split
from support.experiment import Row, row
from support.tables import FIT, SMOKE

TABLES = ("wine", "breast_cancer", "digits")
POWERS = (1.0, 0.5, 0.25, 0.125)
SIZES = (0.0, 0.5, 1.0)  # of the noise


def measure(table: str, seed: int, powers: Sequence[float], size: str) -> list[Row]:
    """Accuracy and log loss of one fitted model on the other half of a table."""
    frame, target = load_table(table)
    train, test = split(frame, target, seed)
    graph, found = graph_of(table), []
    options: dict[str, Any] = SMOKE["fit"] if size == "smoke" else FIT.get(table, {})
    cama = pyro_cama.build(graph, seed=seed, device="cpu").fit(train, progress=False, **options)
    y = cama.encode(test).values[target].long().numpy()
    columns = [name for name in graph.order if graph.nodes[name].type == "continuous"]
    for noise in SIZES:
        moved = Noise(noise, 1.0).apply(test, train, columns, seed)[0] if noise else test
        for power in powers:
            scores = classification_metrics(cama.predict_proba(moved, power=power), y, cama.classes)
            for metric, value in (("accuracy", scores.accuracy), ("log loss", scores.log_loss)):
                found.append(
                    row("power", "cama", value, metric=metric, mechanism=f"power {power:g}", trained_on=table,
                        tested_on=f"noise {noise:g} sd" if noise else "clean", severity=power, seed=seed, setting=size)
                )  # fmt: skip
    return found


def main() -> None:
    options = experiment.parser(__doc__).parse_args()
    size = experiment.size(options)
    names, powers = (TABLES[:1], POWERS[:2]) if size == "smoke" else (TABLES, POWERS)
    tasks = [
        {"table": name, "seed": seed, "powers": powers, "size": size}
        for name in names
        for seed in experiment.seeds(options)
    ]
    rows = experiment.run(measure, tasks, "power", options)
    for metric in ("accuracy", "log loss"):
        print(f"\n{metric} ({size})")
        print(experiment.table(rows, ["trained_on", "tested_on"], "severity", metric))
    experiment.lines(
        rows, options.out / "power.png", line="tested_on", panel="trained_on", metric="log loss",
        xlabel="power of the likelihood",
    )  # fmt: skip


if __name__ == "__main__":
    main()
