"""Prints digests of what small models give, so that a change of structure can show that it changed nothing else.

    python tools/digests.py > before.txt      # at the commit before
    python tools/digests.py | diff before.txt -

Fits and adapts tables in the three scopes, one graph of ``affects: measurement`` and a tiny image model, and digests
weights, predictions, evidence, samples, explanations, saved folders, simulated rows and the command line's output.
Digests compare two commits on one machine: another processor or torch may round otherwise.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
import yaml

import pyro_cama

GRAPHS = Path(__file__).parents[1] / "graphs"
QUICK: dict[str, Any] = {"max_epochs": 3, "progress": False}


def digest(value: Any) -> str:
    """Hashes tensors, arrays, tables, files and folders, bit by bit, and the text of all else."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()[:16]


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            _feed(sha, str(key))
            _feed(sha, value[key])
    elif isinstance(value, (list, tuple)):
        for one in value:
            _feed(sha, one)
    elif isinstance(value, torch.Tensor):
        _feed(sha, value.detach().cpu().contiguous().numpy())
    elif isinstance(value, pd.DataFrame):
        for column in value:
            _feed(sha, str(column))
            _feed(sha, value[column].tolist())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        sha.update(f"{value.dtype}{value.shape}".encode())
        sha.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Path) and value.is_dir():
        for path in sorted(value.rglob("*")):
            if path.is_file():
                _feed(sha, path.name)
                sha.update(path.read_bytes())
    else:
        sha.update(repr(value).encode())


def digests_of(name: str, graph: Any, train: Any, new: Any, **adapting: Any) -> Iterator[tuple[str, Any]]:
    """Fits, adapts and asks a model everything."""
    cama = pyro_cama.build(graph, seed=3, hidden=16)
    yield f"{name} built", cama.modules.state_dict()
    cama.fit(train, **QUICK)
    adapted = cama.adapt(new, keep="always", progress=False, **adapting)
    yield f"{name} refused or kept", vars(adapted.adaptation)
    for state, model in (("fitted", cama), ("adapted", adapted)):
        where = f"{name} {state}"
        yield f"{where} weights", model.modules.state_dict()
        yield f"{where} predict_proba", model.predict_proba(new)
        yield f"{where} estimated mix", model.predict_proba(new, class_prior="estimate")
        yield f"{where} predict", model.predict(new)
        yield f"{where} elbo", model.elbo(train)
        yield f"{where} elbo of eq. 4", model.elbo(train, do=None)
        yield f"{where} sample", model.sample(20, seed=5)
        yield f"{where} reconstruct", model.reconstruct(new)
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model")
            yield f"{where} folder", Path(folder) / "model"
            yield f"{where} loaded", pyro_cama.load(Path(folder) / "model").predict_proba(new)
    found = adapted.explain_shift()
    yield f"{name} explain_shift", [found.table, found.parameters, str(found)]
    yield f"{name} summary", cama.summary()


def tables() -> Iterator[tuple[str, Any]]:
    """Digests of clinic in three scopes, of both kinds of ``affects``, and of wine."""
    text = yaml.safe_load((GRAPHS / "clinic.yaml").read_text(encoding="utf-8"))
    rows = pyro_cama.simulate(text, 240, seed=1)
    yield "simulate clinic", rows
    shift = {"fever": pyro_cama.Shift(offset=1.0)}
    new = pyro_cama.simulate(text, 120, seed=2, do=shift).drop(columns="infection")
    yield "simulate clinic, shifted", new
    rows["hospital"], new["hospital"] = "here", ["there", "elsewhere"] * 60
    new.loc[3:6, "fever"] = np.nan
    for scope in ("row", "dataset", "hospital"):
        graph = text | {"latents": text["latents"] | {"m": text["latents"]["m"] | {"scope": scope}}}
        yield from digests_of(f"clinic {scope}", graph, rows, new, steps=20)
    graph["latents"]["m"] = graph["latents"]["m"] | {"scope": "row", "affects": "quantity"}
    yield from digests_of("clinic quantity", graph, rows, new, steps=20, folds=1)
    wine = pyro_cama.simulate(GRAPHS / "wine.yaml", 150, seed=1)
    moved = wine.assign(alcohol=wine["alcohol"] + 1.5).drop(columns="cultivar")
    yield from digests_of("wine", GRAPHS / "wine.yaml", wine, moved, steps=20)
    cama = pyro_cama.build(GRAPHS / "wine.yaml", seed=1, hidden=16)
    graph = cama.graph.to_dict()
    graph["latents"]["m"]["scope"] = "row"
    cama = pyro_cama.build(graph, seed=1, hidden=16)
    cama.fit(wine, manipulated=wine.assign(alcohol=wine["alcohol"] + 1.5), interventions=1.0, **QUICK)
    yield "wine of three parts, weights", cama.modules.state_dict()
    yield "wine of three parts, refined", cama.predict_proba(moved, widen=2.0, refine=2, refine_z=2, power=0.7)


def images() -> Iterator[tuple[str, Any]]:
    """Digests of a tiny image model."""
    graph = yaml.safe_load((GRAPHS / "mnist.yaml").read_text(encoding="utf-8"))
    graph["nodes"]["digit"]["levels"] = [0, 1]
    graph["nodes"]["image"] |= {"shape": [1, 8, 8], "channels": 4}
    graph["latents"] = {"z": {"dim": 4}, "m": {"dim": 8, "scope": "row", "mechanism": "warp+intensity"}}
    rng = np.random.default_rng(0)
    digit = rng.integers(0, 2, 120)
    image = 0.1 + 0.05 * rng.random((120, 1, 8, 8))
    image[digit == 0, :, 2:6, 3] = 0.9
    image[digit == 1, :, 3, 2:6] = 0.9
    train = {"digit": digit, "image": image}
    new = {"image": np.roll(image, 1, axis=2)}
    yield from digests_of("image", graph, train, new, steps=20)


def others() -> Iterator[tuple[str, Any]]:
    """Digests of streams, attacks, diagnosis, report, export and the scikit-learn wrapper."""
    from pyro_cama.attacks import AttackableTable, pgd
    from pyro_cama.report import report
    from pyro_cama.sklearn import CAMAClassifier

    wine = pyro_cama.simulate(GRAPHS / "wine.yaml", 150, seed=6)
    with tempfile.TemporaryDirectory() as folder:
        wine.to_csv(Path(folder) / "wine.csv", index=False)
        cama = pyro_cama.build(GRAPHS / "wine.yaml", seed=2, hidden=16).fit(Path(folder) / "wine.csv", **QUICK)
        yield "stream weights", cama.modules.state_dict()
        yield "stream predict_proba", cama.predict_proba(Path(folder) / "wine.csv")
        rows = AttackableTable(cama, wine)
        yield "attack", pgd(rows.logits, rows.x, rows.y, eps=0.3, steps=3, mask=rows.mask)
        found = cama.diagnose(wine, draws=20, progress=False)
        yield "diagnosis", str(found)
        page = report(cama, wine, Path(folder) / "report.html")
        yield "report", page.read_bytes() if isinstance(page, Path) else (Path(folder) / "report.html").read_bytes()
        cama.export(Path(folder) / "served")
        program = torch.export.load(Path(folder) / "served" / "program.pt2").module()
        batch = cama.encode(wine, "ignore")
        yield "exported", program(*(batch.values[name] for name in cama.graph.order if name != cama.graph.target))
    classifier = CAMAClassifier(hidden=16, max_epochs=2, progress=False)
    classifier.fit(wine.drop(columns="cultivar"), wine["cultivar"])
    yield "classifier", classifier.predict_proba(wine.drop(columns="cultivar"))


def commands() -> Iterator[tuple[str, Any]]:
    """Digests of what the command line prints."""
    with tempfile.TemporaryDirectory() as folder:
        wine = pyro_cama.simulate(GRAPHS / "wine.yaml", 120, seed=4)
        wine.to_csv(Path(folder) / "rows.csv", index=False)
        graph = str(GRAPHS / "wine.yaml")
        calls = {
            "init": ["init", "rows.csv", "--target", "cultivar"],
            "check": ["check", graph],
            "fit": ["fit", graph, "rows.csv", "-o", "model", "--epochs", "2"],
            "predict": ["predict", "model", "rows.csv", "-o", "labels.csv"],
            "adapt": ["adapt", "model", "rows.csv", "-o", "adapted", "--steps", "10"],
            "evaluate": ["evaluate", "model", "rows.csv"],
            "report": ["report", "adapted", "rows.csv", "--before", "model", "-o", "report.html"],
            "simulate": ["simulate", graph, "-o", "drawn.csv", "--rows", "20"],
            "draw": ["draw", graph, "-o", "graph.svg"],
            "help": ["--help"],
            "help of fit": ["fit", "--help"],
            "help of adapt": ["adapt", "--help"],
            "a fault": ["predict", "model", "nowhere.csv", "-o", "other.csv"],
        }
        for name, words in calls.items():
            script = [sys.executable, "-c", "from pyro_cama.cli import main; main()", *words]
            done = subprocess.run(script, cwd=folder, capture_output=True, text=True)
            yield f"command {name}", [done.returncode, done.stdout, done.stderr.replace(folder, "")]
        for name in ("labels.csv", "drawn.csv", "adapted"):
            written = Path(folder) / name
            yield f"file {name}", written if written.is_dir() else written.read_bytes()


def main() -> None:
    """Prints a line a digest."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in (tables, images, others, commands):
            for name, value in part():
                print(f"{digest(value)}  {name}", flush=True)


if __name__ == "__main__":
    main()
