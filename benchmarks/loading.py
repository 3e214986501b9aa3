"""What comes before the first step: importing the package, starting a command, and building a large graph's model."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import Row, interleaved, quartiles

import pyro_cama

IMPORTS = {
    "import pyro_cama": "import pyro_cama",
    "import pyro_cama, then build": "import pyro_cama; pyro_cama.build",
    "import pyro": "import pyro",
}


def _spent() -> float:
    """Processor seconds of all finished child processes: imports wait for little else."""
    spent = os.times()
    return spent.children_user + spent.children_system


def importing(quick: bool) -> list[Row]:
    def run(code: str) -> Any:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    times = interleaved({name: run(code) for name, code in IMPORTS.items()}, 3 if quick else 9, warm=1, clock=_spent)
    goals = {"import pyro_cama": 1.3, "import pyro_cama, then build": None}
    return [
        times.ratio(name, "import pyro", f"{name}, over import pyro", goal=goal, profile=f"{times.median(name):.2f} s")
        for name, goal in goals.items()
    ]


def commands(quick: bool) -> list[Row]:
    """Whole processes of the command line: what they take beyond imports is little."""
    graph = {"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]}
    with tempfile.TemporaryDirectory() as folder:
        model, table, labels = (str(Path(folder) / name) for name in ("model", "table.csv", "labels.csv"))
        rows = pyro_cama.simulate(graph, 300)
        rows.to_csv(table, index=False)
        pyro_cama.build(graph, device="cpu").fit(rows, max_epochs=1, progress=False).save(model)
        command = [sys.executable, "-m", "pyro_cama.cli"]
        calls = {
            "import pyro": [sys.executable, "-c", "import pyro"],
            "pyro-cama --help": [*command, "--help"],
            "pyro-cama fit --help": [*command, "fit", "--help"],
            "pyro-cama predict, 300 rows": [*command, "predict", model, table, "-o", labels, "--force"],
        }

        def run(call: list[str]) -> Any:
            return lambda: subprocess.run(call, check=True, stdout=subprocess.DEVNULL)

        runs = {name: run(call) for name, call in calls.items()}
        times = interleaved(runs, 3 if quick else 9, warm=1, clock=_spent)
    goals = {"pyro-cama --help": 0.2, "pyro-cama fit --help": 0.2, "pyro-cama predict, 300 rows": 1.2}
    return [
        times.ratio(name, "import pyro", f"{name}, over import pyro", goal=goal, profile=f"{times.median(name):.2f} s")
        for name, goal in goals.items()
    ]


def graph_of(nodes: int) -> dict[str, Any]:
    """A fifth each parents and co-parents, half of the rest continuous; every child has one to three other causes."""
    rng = random.Random(0)
    parents = [f"a{i}" for i in range(nodes // 5)]
    coparents = [f"c{i}" for i in range(nodes // 5)]
    children = [f"x{i}" for i in range(nodes - 1 - 2 * (nodes // 5))]
    edges = [f"{name} -> y" for name in parents] + [f"y -> {name}" for name in children]
    left = coparents.copy()
    for name in children:
        causes = {left.pop()} if left else {rng.choice(coparents)}
        causes |= set(rng.sample(coparents, rng.randrange(3)))
        edges += [f"{cause} -> {name}" for cause in sorted(causes)]
    kinds: list[Any] = ["continuous", "count", "binary", {"type": "categorical", "levels": ["u", "v", "w"]}]
    types = {name: rng.choice(kinds) for name in [*parents, *coparents, *children]}
    return {"target": "y", "nodes": {"y": {"type": "categorical", "levels": ["p", "q"]}, **types}, "edges": edges}


def building(quick: bool) -> list[Row]:
    graph = graph_of(500)
    found = []
    for _ in range(2 if quick else 7):
        start = time.process_time()
        pyro_cama.build(graph, device="cpu")
        found.append(time.process_time() - start)
    low, middle, high = quartiles(found)
    about = f"{len(pyro_cama.build(graph, device='cpu').model.groups)} groups of nodes"
    return [Row("build, 500 nodes", middle, "s", 1.0, spread=(low, high), profile=about)]
