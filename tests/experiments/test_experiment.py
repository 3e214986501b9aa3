"""The harness of the experiments (experiments/support/experiment.py)."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from support import experiment
from support.experiment import Row, row


def options(out: Path, *arguments: str) -> argparse.Namespace:
    return experiment.parser("").parse_args([*arguments, "--out", str(out)])


def one(seed: int, calls: str, faulty: Sequence[int] = ()) -> list[Row]:
    """A task that notes its call and its process."""
    with Path(calls).open("a") as file:
        file.write(f"{seed} {os.getpid()} {torch.get_num_threads()}\n")
    if seed in faulty:
        raise ValueError("no such thing")
    return [row("test", method, seed + bonus, seed=seed) for method, bonus in (("cama", 0.0), ("net", 0.5))]


def lines(path: Path) -> list[list[int]]:
    return [[int(word) for word in line.split()] for line in path.read_text().splitlines()]


def test_sizes(tmp_path: Path) -> None:
    for arguments, name, count in (
        ((), "full", 5),
        (("--quick",), "quick", 1),
        (("--smoke", "--seeds", "2"), "smoke", 2),
    ):
        given = options(tmp_path, "--seed", "3", *arguments)
        assert experiment.size(given) == name
        assert list(experiment.seeds(given)) == list(range(3, 3 + count))


def test_rows_are_tidy() -> None:
    assert tuple(row("test", "cama", 0.5)) == experiment.KEYS
    assert row("test", "cama", float("nan"))["value"] is None
    assert row("test", "cama", 1, severity="much")["severity"] == "much"


def test_processes_of_one_thread_and_rows_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    tasks = [{"seed": seed, "calls": str(calls)} for seed in (3, 1, 2)]
    rows = experiment.run(one, tasks, "test", options(tmp_path / "out"))
    assert [r["seed"] for r in rows] == [3, 3, 1, 1, 2, 2]
    assert json.loads((tmp_path / "out" / "test.json").read_text()) == rows
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["test.json"], "nothing else is left"
    assert all(process != os.getpid() and threads == 1 for _, process, threads in lines(calls))


def test_rows_of_other_seeds_and_parts_stay(tmp_path: Path) -> None:
    given = options(tmp_path, "--jobs", "1")
    other = row("other", "cama", 0.0, seed=1)
    experiment.write(
        [row("test", "cama", 0.0, seed=2), row("test", "gone", 0.0, seed=1), other], tmp_path / "test.json"
    )
    tasks = [{"seed": seed, "calls": str(tmp_path / "calls")} for seed in (3, 1)]
    rows = experiment.run_among([(one, tasks)], "test", given)
    found = [(r["experiment"], r["method"], r["seed"]) for r in rows]
    of_test = [("test", method, seed) for seed, many in ((1, 2), (2, 1), (3, 2)) for method in ("cama", "net")[:many]]
    assert found == [*of_test, ("other", "cama", 1)]
    assert json.loads((tmp_path / "test.json").read_text()) == rows
    assert {path.name for path in tmp_path.iterdir()} == {"test.json", "calls"}


@pytest.mark.parametrize("arguments", [("--jobs", "1"), ("--jobs", "2")])
def test_a_failing_task_is_named_and_the_others_are_not_lost(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    calls, given = tmp_path / "calls", options(tmp_path, *arguments)
    tasks = [{"seed": seed, "calls": str(calls), "faulty": [1]} for seed in range(3)]
    with pytest.raises(RuntimeError, match=r'task failed: one .*"seed": 1') as raised:
        experiment.run(one, tasks, "test", given)
    assert isinstance(raised.value.__cause__, ValueError)
    assert not (tmp_path / "test.json").exists()
    part = tmp_path / "test.part.jsonl"
    assert len(part.read_text().splitlines()) == 2
    with part.open("a") as file:
        file.write('{"task": "cut o')
    tasks[1] = tasks[1] | {"faulty": []}  # another task now
    calls.unlink()
    rows = experiment.run(one, tasks, "test", given)
    assert [seed for seed, _, _ in lines(calls)] == [1]
    assert [r["seed"] for r in rows] == [0, 0, 1, 1, 2, 2]
    assert not part.exists()


def test_results_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "test.json"
    experiment.write([row("test", "cama", 1.0)], path)
    before = path.read_text()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        experiment.write([], path)
    assert path.read_text() == before


def test_table_is_mean_and_standard_error_over_seeds() -> None:
    rows = [
        row("test", method, value, seed=seed, tested_on=case)
        for case, values in (("b", (0.5, 0.7)), ("a", (0.8, 0.8)))
        for method in ("cama", "net")
        for seed, value in enumerate(values)
    ] + [row("test", "net", 0.9, tested_on="b"), row("test", "net", 7.0, metric="kept")]
    mean, error = experiment.summary(rows)
    assert list(mean.index) == ["b", "a"]
    assert list(mean.columns) == ["net", "cama"], "as METHODS has them"
    assert mean.loc["b", "net"] == pytest.approx(0.7)
    assert error.loc["b", "cama"] == pytest.approx(0.1)
    text = experiment.table(rows)
    assert "0.600 ± 0.100" in text
    assert "CAMA, not adapted" in text
    assert "±" not in experiment.table([r for r in rows if r["seed"] == 0])
    both = experiment.table(rows, ["tested_on", "line"], "metric", digits=1)
    assert "0.8 ± 0.0" in both


@pytest.mark.parametrize("severity", [1.0, "much"])
def test_pictures(tmp_path: Path, severity: float | str) -> None:
    rows = [
        row(name, method, 0.1 * seed, severity=level, tested_on=str(level), seed=seed)
        for name in ("one", "two", "three", "four")
        for method in ("net", "cama_adapted", "something else")
        for level in (0.0, severity)
        for seed in range(2)
    ]
    experiment.lines(rows, tmp_path / "lines.png")
    experiment.dots(rows, tmp_path / "new" / "dots.png")
    assert (tmp_path / "lines.png").stat().st_size > 1000
    assert (tmp_path / "new" / "dots.png").stat().st_size > 1000


def test_a_method_looks_the_same_in_every_figure() -> None:
    assert experiment.styles(["net", "new"])["net"] == experiment.styles(["cama", "net"])["net"]
    assert len({style.colour for style in experiment.METHODS.values()}) == len(experiment.METHODS)
