"""A disk that fills up at any step of writing: file and cause are told, nothing half is left, what was there stays."""

import errno
import functools
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyro_cama
from pyro_cama import CAMA, _files
from pyro_cama._files import placing, replacing
from pyro_cama.cli.files import write_table
from pyro_cama.report import report
from tests.helpers.command_line import done, run
from tests.helpers.faults import as_it_is, disk, everything, files_of_at_most, unchanged
from tests.helpers.patches import module_at
from tests.helpers.training import COLUMNS, GRAPH, fitted, same, table

ROWS = table(60, seed=1)


@functools.cache
def model() -> CAMA:
    return fitted(max_epochs=1, conditional_weight=0.0)


@functools.cache
def adapted() -> CAMA:
    return model().adapt(ROWS[COLUMNS], steps=10, restarts=1, folds=1, keep="always", progress=False)


@functools.cache
def traced() -> Any:
    """What ``export`` writes, which takes seconds to make."""
    export, found = module_at("persistence.export"), []
    trace = export._traced
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(export, "_traced", lambda program: found.append(trace(program)) or found[0])
        model().export(Path(folder) / "out")
    return found[0]


def error_of(write: Callable[[], object]) -> OSError | None:
    try:
        write()
    except OSError as error:
        return error
    return None


@pytest.fixture(autouse=True)
def what_takes_long_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_at("report.page"), "_page", lambda *_: "<p>the page</p>")


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "save": ("out", lambda out: model().save(out)),
    "save over": ("out", lambda out: adapted().save(out, overwrite=True)),
    "export": ("out", lambda out: model().export(out)),
    "report": ("out.html", lambda out: report(adapted(), ROWS, out)),
    "plot": ("out.svg", lambda out: adapted().explain_shift().plot(out)),
    "draw": ("out.svg", lambda out: pyro_cama.graph.draw_graph(model().graph, out)),
    "graph": ("out.yaml", lambda out: model().graph.to_yaml(out)),
    "csv": ("out.csv", lambda out: write_table(ROWS, out, True)),
    "parquet": ("out.parquet", lambda out: write_table(ROWS, out, True)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_told_and_leaves_what_was_there(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, write = WRITERS[kind]
    home = tmp_path / "home"
    out = home / name
    home.mkdir()
    if kind == "export":
        program = traced()
        monkeypatch.setattr(module_at("persistence.export"), "_traced", lambda _: program)
    if kind == "save over":
        model().save(out)
    elif out.suffix:
        out.write_text("what was there")
    before = everything(home)
    for step in itertools.count(1):
        with disk(home, step) as found:
            told = error_of(lambda: write(out))
        if found.steps < step:
            break
        assert told is not None, f"step {step}"
        assert everything(home) == before, f"step {step}"
        assert told.strerror == "No space left on device"
        place = Path(str(told.filename))
        assert place == home or place.is_relative_to(out), f"step {step}: {told}"
    assert told is None
    assert step > 2
    assert everything(home) != before
    assert [p.name for p in home.iterdir()] == [name]


def test_a_full_disk_while_checkpoints_are_written(tmp_path: Path) -> None:
    def fit(folder: Path, cama: CAMA, **options: Any) -> CAMA:
        quick: dict[str, Any] = {"max_epochs": 2, "conditional_weight": 0.0, "checkpoint_seconds": 0}
        return cama.fit(ROWS, progress=False, checkpoints=folder, **quick, **options)

    def new() -> CAMA:
        return pyro_cama.build(GRAPH, seed=3, hidden=16, device="cpu")

    whole, resumed = fit(tmp_path / "whole", new()), 0
    for step in itertools.count(1):
        folder, cama = tmp_path / str(step), new()
        before = as_it_is(cama)
        with disk(folder, step) as found:
            told = error_of(lambda to=folder, of=cama: fit(to, of))
        if found.steps < step:
            break
        assert told is not None, f"step {step}"
        assert told.strerror == "No space left on device"
        assert Path(str(told.filename)).is_relative_to(folder), f"step {step}: {told}"
        assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")], f"step {step}"
        assert unchanged(cama, before)
        if (folder / "last.ckpt").exists():
            resumed += 1
            assert same(whole, fit(folder, cama, resume=True))
    assert step > 8
    assert resumed


def test_a_save_that_cannot_put_the_old_model_back_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = model().save(tmp_path / "out"), os.replace

    monkeypatch.setattr(_files, "exchange", lambda *_: False)  # as where there is none

    def replace(source: Any, target: Any) -> None:
        if Path(target) == out:
            raise OSError(28, "No space left on device", str(source), None, str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space left on device") as caught:
        adapted().save(out, overwrite=True)
    assert same(pyro_cama.load(caught.value.filename, device="cpu"), model())


@pytest.mark.parametrize("size", [0, 2000, 7000])
@pytest.mark.parametrize("kind", ["save", "export", "checkpoints", "parquet", "csv"])
def test_a_disk_that_is_really_full_does_not_end_the_process(
    kind: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "export":
        program = traced()
        monkeypatch.setattr(module_at("persistence.export"), "_traced", lambda _: program)
    rows, cama, out = table(2000), model().copy(), tmp_path / f"out.{kind}"
    writers: dict[str, Callable[[], object]] = {
        "save": lambda: cama.save(out),
        "export": lambda: cama.export(out),
        "checkpoints": lambda: cama.fit(ROWS, max_epochs=1, progress=False, checkpoints=out),
        "parquet": lambda: write_table(rows, out, True),
        "csv": lambda: write_table(rows, out, True),
    }
    if kind in ("csv", "parquet"):
        out.write_text("what was there")
    before = everything(tmp_path)
    with files_of_at_most(size):
        told = error_of(writers[kind])
    assert told is not None
    assert told.errno == errno.EFBIG
    assert Path(str(told.filename)).is_relative_to(out)
    if kind == "checkpoints":
        assert not [p for p in out.rglob("*") if p.name.startswith(".") or p.name == "last.ckpt"]
    else:
        assert everything(tmp_path) == before


# the command line ---------------------------------------------------------------------------------------------------

COMMANDS: dict[str, tuple[list[str], str]] = {
    "fit": (["fit", "g.yaml", "t.csv", "--epochs", "0", "--hidden", "4", "--layers", "1"], "out"),
    "fit over": (["fit", "g.yaml", "t.csv", "--epochs", "0", "--hidden", "4", "--layers", "1", "--force"], "out"),
    "adapt": (["adapt", "model", "t.csv"], "out"),
    "predict": (["predict", "model", "t.csv", "--force"], "out.csv"),
    "report": (["report", "model", "t.csv", "--force"], "out.html"),
    "init": (["init", "t.csv", "--target", "y", "--force"], "out.yaml"),
}


def inside(folder: Path, arguments: list[str]) -> list[str]:
    return [str(folder / a) if a in ("g.yaml", "t.csv", "model") else a for a in arguments]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with g.yaml, t.csv and a tiny model."""
    folder = tmp_path_factory.mktemp("made")
    model().graph.to_yaml(folder / "g.yaml")
    ROWS.to_csv(folder / "t.csv", index=False)
    done(*inside(folder, COMMANDS["fit"][0]), "-o", folder / "model")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_tells_of_a_full_disk_in_one_line(
    command: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, name = COMMANDS[command]
    arguments = inside(made, arguments)
    copy = adapted()
    monkeypatch.setattr(CAMA, "adapt", lambda *_, **__: copy)
    home = tmp_path / "home"
    out = home / name
    home.mkdir()
    if command == "fit over":
        done(*inside(made, COMMANDS["fit"][0]), "-o", out)
    elif out.suffix:
        out.write_text("what was there")
    before = everything(home)
    for step in itertools.count(1):
        with disk(home, step) as found:
            result = run(*arguments, "-o", out)
        if found.steps < step:
            break
        assert result.exit_code == 1, f"step {step}: {result.output}"
        assert everything(home) == before, f"step {step}"
        assert result.stderr.startswith(f"Error: {home}"), result.stderr
        assert result.stderr.endswith(": No space left on device\n")
        assert result.stderr.count("\n") == 1
    assert result.exit_code == 0, result.output
    assert step > 2
    assert [p.name for p in home.iterdir()] == [name]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_may_not_be_written_to_is_told_before_any_work(
    command: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, name = COMMANDS[command]
    arguments = inside(made, arguments)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    monkeypatch.setattr(CAMA, "fit", lambda *_, **__: pytest.fail("it began"))
    result = run(*arguments, "-o", tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path}: this folder may not be written to; choose another\n"
    assert not list(tmp_path.iterdir())


# words --------------------------------------------------------------------------------------------------------------


def test_an_error_about_another_file_keeps_its_words(tmp_path: Path) -> None:
    for made in (replacing, placing):
        with pytest.raises(FileNotFoundError) as caught, made(tmp_path / "out"):
            (tmp_path / "other").read_text()
        assert caught.value.filename == str(tmp_path / "other")
        with pytest.raises(OSError, match=r"^no errno$"), made(tmp_path / "out"):
            raise OSError("no errno")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError) as caught, placing(tmp_path / "file" / "out"):
        pytest.fail("nothing to fill")
    assert caught.value.filename == str(tmp_path / "file")
    with pytest.raises(NotADirectoryError) as caught, replacing(tmp_path / "file" / "out.txt") as part:
        part.write_text("")
    assert caught.value.filename == str(tmp_path / "file" / "out.txt")
