"""Writes in processes that are killed at every step in turn, and says what each leaves: ``python -m ... FOLDER``.

A process of its own, of one thread, forks them: importing torch for every one would take minutes.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.cli.files import write_table
from pyro_cama.report import report
from tests.helpers.command_line import done
from tests.helpers.command_line import run as command
from tests.helpers.faults import disk, everything
from tests.helpers.patches import module_at
from tests.helpers.streams import batch
from tests.helpers.streams import model as streaming
from tests.helpers.training import COLUMNS, GRAPH, fitted, same, table

Write = Callable[[Path], object]
ROWS = table(60, seed=1)
FIT: dict[str, Any] = {"max_epochs": 1, "conditional_weight": 0.0, "checkpoint_seconds": 0, "progress": False}


def in_a_fork(do: Callable[[], object], folder: Path, step: int | None) -> bool:
    """Does it in a process that is killed at a step of writing; returns whether it was."""
    child = os.fork()
    if child == 0:
        try:
            with disk(folder, step, kills=True):
                do()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0
    return False


def visible(folder: Path) -> dict[str, bytes | None]:
    return {
        name: data
        for name, data in everything(folder).items()
        if not any(part.startswith(".") for part in Path(name).parts)
    }


def writes(write: Write, before: Write, home: Path, name: str) -> dict[str, Any]:
    """Kills it at every step in turn; returns how many there are, and after which neither old nor new stood there.

    What a killed one leaves hidden stays, and may not stand in the way of the next.
    """

    def fresh() -> Path:
        shutil.rmtree(home / name, ignore_errors=True)
        before(home / name)
        return home / name

    home.mkdir()

    out = fresh()
    old = visible(home)
    write(out)
    new, wrong = visible(home), []
    for step in itertools.count(1):
        out = fresh()
        killed = in_a_fork(functools.partial(write, out), home, step)
        if visible(home) not in ((old, new) if killed else (new,)):
            wrong.append(step)
        if not killed:
            return {"steps": step - 1, "wrong": wrong, "changes": old != new}
    raise AssertionError


def watch(home: Path) -> dict[str, Any]:
    """Kills the watching of a folder at every step of writing; run again, it comes to what an unharmed run does."""
    decision, stream = module_at("stream.decision"), module_at("report.stream")
    adapt, results = decision.adapt, []
    decision.adapt = lambda *a, **o: (results or results.append(adapt(*a, **o)) or results)[0]
    stream._chart = lambda *_: None
    (home / "in").mkdir(parents=True)
    for i, world in enumerate("ABA"):
        batch(i, world).to_csv(home / "in" / f"{i}.csv", index=False)
    (home / "in" / "broken.csv").write_text("x0\n1,2,3\n")
    batch(9).to_csv(home / "clean.csv", index=False)
    kept = streaming().save(home / "model")

    def run(out: Path) -> None:
        command("watch", kept, home / "in", "--clean", home / "clean.csv", "-o", out, "--once")

    run(home / "whole")
    whole, wrong = visible(home / "whole"), []
    for step in itertools.count(1):
        out = home / str(step) / "out"
        out.parent.mkdir()
        killed = in_a_fork(functools.partial(run, out), out.parent, step)
        if killed:
            run(out)
        if visible(out) != whole:
            wrong.append(step)
        if not killed:
            return {"steps": step - 1, "wrong": wrong, "changes": len(whole) == 7}
    raise AssertionError


def checkpoints(home: Path) -> dict[str, Any]:
    """Kills a fit at every step of its checkpoints; goes on from what is there, to the same weights."""

    def fit(folder: Path, **options: Any) -> CAMA:
        cama = pyro_cama.build(GRAPH, seed=3, hidden=8, device="cpu")
        return cama.fit(ROWS, checkpoints=folder, **FIT, **options)

    whole, wrong = fit(home / "whole"), []
    for step in itertools.count(1):
        folder = home / str(step)
        killed = in_a_fork(functools.partial(fit, folder), folder, step)
        if not killed:
            return {"steps": step - 1, "wrong": wrong, "changes": True}
        if not same(whole, fit(folder, resume=True)):
            wrong.append(step)
    raise AssertionError


def main(folder: Path) -> None:
    """Prints what :func:`writes` and :func:`checkpoints` found, as JSON."""
    model = fitted(max_epochs=1, conditional_weight=0.0)
    adapted = model.adapt(ROWS[COLUMNS], steps=5, restarts=1, folds=1, keep="always", progress=False)
    export = module_at("persistence.export")
    trace, programs = export._traced, []
    export._traced = lambda program: programs[0] if programs else programs.append(trace(program)) or programs[0]
    module_at("report.page")._page = lambda *_: "<p>the page</p>"
    CAMA.adapt = lambda *_, **__: adapted  # type: ignore[method-assign]
    ROWS.to_csv(folder / "t.csv", index=False)
    kept = model.save(folder / "model")

    def nothing(out: Path) -> None:
        pass

    def text(out: Path) -> None:
        out.write_text("what was there")

    def cleared(write: Write) -> Write:
        return lambda out: (shutil.rmtree(out, ignore_errors=True), write(out))

    cases: dict[str, tuple[Write, Write, str]] = {
        "save": (cleared(model.save), nothing, "out"),
        "save over": (lambda out: adapted.save(out, overwrite=True), model.save, "out"),
        "export": (cleared(model.export), nothing, "out"),
        "report": (lambda out: report(adapted, ROWS, out), text, "out.html"),
        "csv": (lambda out: write_table(ROWS, out, True), text, "out.csv"),
        "adapt": (lambda out: done("adapt", kept, folder / "t.csv", "-o", out, "--force"), model.save, "out"),
    }
    found = {kind: writes(write, before, folder / kind, name) for kind, (write, before, name) in cases.items()}
    print(json.dumps({**found, "checkpoints": checkpoints(folder / "checkpoints")}))


if __name__ == "__main__":
    if sys.argv[2:] == ["watch"]:
        print(json.dumps({"watch": watch(Path(sys.argv[1]))}))
    else:
        main(Path(sys.argv[1]))
