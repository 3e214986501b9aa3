"""watch: files read once and in order, labels, ledger, report and exit codes; broken files, restarts, Ctrl-C."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_cama.cli import watch as watching
from pyro_cama.cli.ledger import COLUMNS as LEDGER
from pyro_cama.cli.ledger import Ledger
from tests.helpers.command_line import contents, done, refused, run
from tests.helpers.faults import ctrl_c
from tests.helpers.streams import COLUMNS, batch, model


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    model().save(folder / "model")
    batch(1).to_csv(folder / "clean.csv", index=False)
    return folder


def arrive(folder: Path, files: dict[str, str], first: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for i, (name, world) in enumerate(files.items(), first):
        batch(300 + i, world)[COLUMNS].assign(row=range(120)).to_csv(folder / name, index=False)


def watch(kept: Path, folder: Path, *more: Any) -> Any:
    out = folder.parent / "out"
    return run("watch", kept / "model", folder, "--clean", kept / "clean.csv", "-o", out, "--once", *more)


def ledger(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder.parent / "out" / "ledger.csv")


def test_files_are_read_once_and_in_order(kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    arrive(folder, {"b.csv": "A", "a.csv": "A"})
    result = watch(kept, folder, "--id", "row")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0].startswith("a.csv: step 1: regime 0 as before")
    labels = pd.read_csv(tmp_path / "out" / "labels" / "a.csv")
    assert labels.columns.tolist() == ["row", "label", "p(a)", "p(b)", "p(c)"]
    assert (labels["label"] == batch(301)["y"]).mean() > 0.9
    arrive(folder, {"c.csv": "B", "d.csv": "B"}, 2)
    assert watch(kept, folder, "--id", "row").exit_code == 3
    before = contents(tmp_path / "out")
    assert watch(kept, folder, "--id", "row").exit_code == 0
    assert contents(tmp_path / "out") == before
    found = ledger(folder)
    assert found.columns.tolist() == [*LEDGER]
    assert found["file"].tolist() == ["a.csv", "b.csv", "c.csv", "d.csv"]
    assert found["kind"].tolist() == ["same", "same", "new", "same"]
    assert found["regime"].tolist() == [0, 0, 1, 1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 changes, the last at c.csv" in page
    assert "<svg" in page


def test_one_run_or_many_come_to_the_same(kept: Path, tmp_path: Path) -> None:
    files = {"0.csv": "A", "1.csv": "B", "2.csv": "A"}
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    arrive(tmp_path / "one" / "in", files)
    watch(kept, tmp_path / "one" / "in")
    for i, (name, world) in enumerate(files.items()):
        arrive(tmp_path / "many" / "in", {name: world}, i)
        watch(kept, tmp_path / "many" / "in")
    assert contents(tmp_path / "one" / "out") == contents(tmp_path / "many" / "out")


def test_a_broken_file_is_told_and_not_tried_again(kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    arrive(folder, {"a.csv": "A", "c.csv": "A"})
    (folder / "b.csv").write_text("x0,x1\n1,two\n")
    (folder / "notes.txt").write_text("no table")
    result = watch(kept, folder)
    assert result.exit_code == 5
    assert "b.csv: failed: " in result.stdout
    assert ledger(folder)["kind"].tolist() == ["same", "failed", "same"]
    assert "b.csv" in ledger(folder)["reason"][1]
    assert watch(kept, folder).exit_code == 0
    assert "1 of 3 files could not be read" in (tmp_path / "out" / "report.html").read_text()


def test_a_world_that_is_not_followed_has_a_code(kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    noise = pd.DataFrame(np.random.default_rng(0).normal(0, 5, (120, 5)), columns=COLUMNS)
    noise.to_csv(folder / "0.csv", index=False)
    assert watch(kept, folder).exit_code == 4
    assert watch(kept, folder).exit_code == 4  # it is still so
    arrive(folder, {"1.csv": "A"})
    assert watch(kept, folder).exit_code == 3


def test_order_pattern_and_settle(kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    arrive(folder, {"day-2.csv": "A", "day-1.csv": "A", "other.csv": "A"})
    for age, name in ((300, "day-2.csv"), (200, "day-1.csv"), (0, "other.csv")):
        os.utime(folder / name, (time.time() - age,) * 2)
    watch(kept, folder, "--order", "time", "--settle", 60)
    assert ledger(folder)["file"].tolist() == ["day-2.csv", "day-1.csv"]
    watch(kept, folder, "--pattern", "day-*")
    assert len(ledger(folder)) == 2
    watch(kept, folder)
    assert ledger(folder)["file"].tolist()[2:] == ["other.csv"]


def test_ctrl_c_stops_and_the_same_command_goes_on(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    arrive(folder, {"a.csv": "A"})
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            arrive(folder, {"b.csv": "B"}, 1)
        else:
            ctrl_c()

    monkeypatch.setattr(watching.time, "sleep", sleep)
    out = tmp_path / "out"
    result = run("watch", kept / "model", folder, "--clean", kept / "clean.csv", "-o", out, "--every", 0.5)
    assert (result.exit_code, result.stderr) == (130, "Error: interrupted\n")
    assert waits == [0.5, 0.5]
    assert ledger(folder)["kind"].tolist() == ["same", "new"]
    assert watch(kept, folder).exit_code == 0


def test_a_full_disk_stops_and_the_file_waits(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    arrive(folder, {"a.csv": "A"})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "labels")

    with monkeypatch.context() as patch:
        patch.setattr(watching, "write_tables", full)
        result = watch(kept, folder)
    assert (result.exit_code, result.stderr) == (1, "Error: labels: No space left on device\n")
    assert watch(kept, folder).exit_code == 0
    assert ledger(folder)["step"].tolist() == [1]


def test_a_line_that_is_cut_off_or_not_committed_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    line = dict.fromkeys(LEDGER, "") | {"file": "a.csv", "step": "1", "kind": "same"}
    first = Ledger(path, 0)
    first.add(line)
    first.add(line | {"file": "b.csv", "step": "2", "reason": 'quoted, "so"'})
    assert Ledger(path, 2).files == {"a.csv", "b.csv"}
    with path.open("a") as file:
        file.write("c.csv,3,")
    assert Ledger(path, 2).files == {"a.csv", "b.csv"}
    assert path.read_text().endswith('"quoted, ""so"""\n')
    assert Ledger(path, 1).files == {"a.csv"}
    assert path.read_text().count("\n") == 2


def test_errors(kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    refused("watch", kept / "model", folder, "-o", tmp_path / "out", says="no such folder; expected one that files")
    arrive(folder, {"a.csv": "A"})
    refused("watch", kept / "model", folder, "-o", folder, "--once", says="holds something other than what watch")
    refused("watch", kept / "model", folder, "-o", tmp_path / "no" / "out", says="make it first")
    assert done("watch", kept / "model", folder, "-o", tmp_path / "out", "--once", "--least", 200)
    says = "found the state of a monitor with other options (least=200 there, 100 here)"
    refused("watch", kept / "model", folder, "-o", tmp_path / "out", "--once", says=says)
