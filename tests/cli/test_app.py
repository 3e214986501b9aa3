"""Calling the command line wrongly, and being told: exit codes, help, completion, one line of error."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.shell_completion import ShellComplete

import pyro_cama
from pyro_cama import cli
from pyro_cama.cli import graphs
from pyro_cama.cli.files import flat
from tests.helpers.command_line import GRAPH, contents, done, refused, run


@pytest.mark.parametrize(
    ("files", "arguments", "code", "says"),
    [
        ({"g.yaml": "{target: y, nodes: {y: binery}}"}, ["check", "g.yaml"], 1, "did you mean 'binary'"),
        ({"g.yaml": GRAPH, "t.csv": "y,x\na\n"}, ["fit", "g.yaml", "t.csv", "-o", "m"], 1, "line 2: found 1 fields"),
        ({}, ["frobnicate"], 2, "No such command 'frobnicate'"),
    ],
)
def test_the_real_command(files: dict[str, str], arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = Path(sys.executable).with_name("pyro-cama")
    found = subprocess.run([command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == code
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    assert says in found.stderr
    assert {p.name for p in tmp_path.iterdir()} == files.keys()


def test_what_stdout_cannot_encode_is_escaped_and_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("y,温度\n" + "a,0.5\nb,1.25\na,2\n" * 5, encoding="utf-8")
    command = [sys.executable, "-m", "pyro_cama", "init", "t.csv", "--target", "y"]
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="cp1252", timeout=120, env=env)
    assert found.returncode == 0, found.stderr
    assert "\\u6e29\\u5ea6: {type: continuous}" in found.stdout
    assert found.stderr.startswith("Note: characters that stdout cannot encode are escaped")


def test_the_same_note_is_said_once(made: Path, tmp_path: Path) -> None:
    pd.read_csv(made / "t.csv").to_csv(tmp_path / "t.csv")
    said = run(
        "report",
        made / "model",
        tmp_path / "t.csv",
        "--clean",
        tmp_path / "t.csv",
        "--steps",
        1,
        "-o",
        tmp_path / "r.html",
    )
    assert said.exit_code == 0
    assert said.stderr.count("a column without a name") == 1


# calling it wrongly, and being told ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit"], "Missing argument 'GRAPH'. (see pyro-cama fit --help)"),
        (["fit", "g", "t"], "Missing option '-o'"),
        (["fit", "g", "t", "-o", "m", "--epochs", "-1"], "--epochs"),
        (["fit", "g", "t", "-o", "m", "--lr", "0"], "--lr"),
        (["fit", "g", "t", "-o", "m", "--seed", "1.5"], "--seed"),
        (["fit", "g", "t", "-o", "m", "--device", "abacus"], "no device of torch's here"),
        (["fit", "g", "t", "-o", "m", "--learning-rate", "1"], "--learning-rate"),
        (["simulate", "g", "-o", "r.csv", "-n", "0"], "--rows"),
        (["simulate", "g", "-o", "r.csv", "--shift", "x"], "expected node=number"),
        (["simulate", "g", "-o", "r.csv", "--shift", "=1"], "expected node=number"),
        (["simulate", "g", "-o", "r.csv", "--shift", "x=far"], "expected node=number"),
        (["simulate", "g", "-o", "r.csv", "--shift", "x=nan"], "expected node=number"),
        (["simulate", "g", "-o", "r.csv", "--shift", "x=1", "--shift", "x=2"], "more than once"),
        (["check", "g", "h"], "unexpected extra argument"),
        (["init", "t.csv"], "--target"),
        (["--frob"], "--frob"),
    ],
)
def test_wrong_calls_exit_with_2(arguments: list[str], says: str) -> None:
    refused(*arguments, says=says, code=2)


def test_every_command_has_help() -> None:
    text = done("--help")
    assert len(cli.app.commands) == 12
    for name in cli.app.commands:
        assert f"\n  {name} " in text
        assert "..." not in next(line for line in text.splitlines() if line.startswith(f"  {name} "))
        assert f"Usage: pyro-cama {name}" in done(name, "-h")
    assert pyro_cama.__version__ in done("--version")


def test_completion() -> None:
    complete = ShellComplete(cli.app, {}, "pyro-cama", "_PYRO_CAMA_COMPLETE")
    assert {item.value for item in complete.get_completions([], "")} == set(cli.app.commands)
    assert "--conditional-weight" in {item.value for item in complete.get_completions(["fit"], "--co")}


def test_debug_shows_the_traceback_before_the_line(tmp_path: Path) -> None:
    for arguments in (["--debug", "check", tmp_path / "g.yaml"], ["check", tmp_path / "g.yaml", "--debug"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("Traceback")
        assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyError("w"), 1, "KeyError: 'w'; this is a fault of pyro_cama's, pyro-cama --debug shows where"),
        (ValueError("two\n  lines"), 1, "Error: two lines"),
        (PermissionError(13, "Permission denied", "rows.csv"), 1, "Error: rows.csv: Permission denied"),
        (OSError(28, "No space left on device"), 1, "Error: No space left on device"),
        (
            MemoryError("Unable to allocate 256. GiB"),
            1,
            "Error: not enough memory: Unable to allocate 256. GiB; expected",
        ),
        (FloatingPointError("the loss became nan"), 1, "Error: the loss became nan"),
        (KeyboardInterrupt(), 130, "Error: interrupted"),
        (SystemExit(1), 130, "Error: interrupted"),  # what Lightning makes of SIGTERM
        (ValueError("g: 7 faults" + "\n  - f" * 7), 1, "g: 7 faults: 1) f; 2) f; 3) f; 4) f; 5) f; and 2 more"),
    ],
)
def test_whatever_goes_wrong_is_one_line(
    error: BaseException, code: int, says: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(graphs, "simulate", fails)
    result = run("simulate", made / "g.yaml", "-o", tmp_path / "rows.csv")
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("pyarrow", ["simulate", "g.yaml", "-o", "rows.parquet"], "pyro_cama[parquet]"),
        ("pyarrow", ["fit", "g.yaml", "t.parquet", "-o", "m"], "pyro_cama[parquet]"),
    ],
)
def test_a_missing_package_is_named(
    module: str, arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("g.yaml").write_text(GRAPH)
    Path("t.parquet").write_bytes(b"PAR1")
    before = contents(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    refused(*arguments, says=says)
    assert contents(tmp_path) == before


def test_notes_are_for_those_who_got_a_result(made: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    extra = tmp_path / "extra.csv"
    flat(table).assign(shoe=42).to_csv(extra, index=False)
    result = run("predict", made / "model", extra, "-o", tmp_path / "p.csv")
    assert result.exit_code == 0
    assert result.stderr == "Note: columns that are no nodes of the graph are ignored: 'shoe'\n"
    flat(table).assign(shoe=42, x="wide").to_csv(extra, index=False)
    refused("predict", made / "model", extra, "-o", tmp_path / "q.csv", says="found no number")
