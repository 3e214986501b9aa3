"""The command line: files, figures, pictures; a corpus of malformed input; nothing lost, nothing half written."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

import pyro_cama
from pyro_cama import CAMA, CausalGraph, DataError, cli
from pyro_cama.adaptation.options import TABLES
from pyro_cama.cli import demo as cli_demo
from pyro_cama.cli import files as cli_tables
from pyro_cama.cli import graphs
from pyro_cama.cli.files import flat, read_table, write_table
from pyro_cama.cli.first_graph import first_graph, guess
from pyro_cama.graph.drawing import _curve, _layout, _patch, draw_graph
from pyro_cama.inference.evidence import elbo_of_unlabelled
from pyro_cama.inference.novelty import NoveltyThreshold
from pyro_cama.metrics import calibration_error, classification_metrics, scores
from tests.helpers.patches import module_at, rows_at_a_time, rows_of_a_part
from tests.helpers.paths import CORPUS, GRAPHS

GRAPH = """
target: y
nodes:
  y: {type: categorical, levels: [a, b]}
  x: {type: continuous}
  n: {type: count}
  k: {type: binary}
  v: {type: continuous, dim: 2}
edges: [y -> x, y -> n, k -> x, y -> v]
latents: {z: {dim: 1}, m: {dim: 1, scope: dataset}}
"""
SHORT = {
    "N": "target: y, nodes: {y: binary, x: continuous}",
    "E": "edges: [y -> x]",
    "H": "y,x,n,k,v[0],v[1]",
    "R": "a,0.5,3,0,1,2\nb,1.5,4,1,2,3",
}


def run(*args: object) -> Result:
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def done(*args: object) -> str:
    """What a command that succeeds prints on stdout."""
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*args: object, says: object = "", code: int = 1) -> str:
    """The one line of a command that fails cleanly."""
    result = run(*args)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    assert str(says) in result.stderr
    assert "fault of pyro_cama" not in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with g.yaml, t.csv (60 rows) and a tiny model; nobody writes into it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "g.yaml").write_text(GRAPH)
    done("simulate", folder / "g.yaml", "-n", 60, "-o", folder / "t.csv")
    tiny = ["--epochs", 1, "--hidden", 4, "--layers", 1, "--device", "cpu"]
    done("fit", folder / "g.yaml", folder / "t.csv", "-o", folder / "model", *tiny)
    return folder


@pytest.fixture(scope="module")
def model(made: Path) -> CAMA:
    return pyro_cama.load(made / "model")


@pytest.fixture(scope="module")
def table(made: Path) -> pd.DataFrame:
    return read_table(made / "t.csv", CausalGraph(made / "g.yaml"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# the corpus ----------------------------------------------------------------------------------------------------------


def corpus(name: str) -> list[Any]:
    entries = yaml.safe_load((CORPUS / name).read_text(encoding="utf-8"))
    return [pytest.param(entry, id=f"{i}-{str(entry['says'])[:30]}") for i, entry in enumerate(entries)]


def written(folder: Path, entry: dict[str, Any], key: str, suffix: str) -> Path:
    path = folder / f"input.{entry.get('as', suffix)}"
    text = Template(entry.get(key, "")).safe_substitute(SHORT)
    path.write_bytes(bytes.fromhex(entry["hex"]) if "hex" in entry else text.encode())
    return path


@pytest.mark.parametrize("entry", corpus("graphs.yaml"))
def test_a_malformed_graph_is_one_clear_line(entry: dict[str, Any], made: Path, tmp_path: Path) -> None:
    path = written(tmp_path, entry, "text", "yaml")
    (tmp_path / "out").mkdir()
    before = contents(tmp_path)
    assert str(path) in refused("check", path, says=entry["says"])
    refused("fit", path, made / "t.csv", "-o", tmp_path / "out" / "model", says=entry["says"])
    assert contents(tmp_path) == before
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("entry", corpus("tables.yaml"))
def test_a_malformed_table_is_one_clear_line(entry: dict[str, Any], made: Path, tmp_path: Path) -> None:
    path, out = written(tmp_path, entry, "csv", "csv"), tmp_path / "out"
    out.mkdir()
    command = {
        "fit": ("fit", made / "g.yaml", path, "-o", out / "model"),
        "predict": ("predict", made / "model", path, "-o", out / "p.csv"),
        "adapt": ("adapt", made / "model", path, "-o", out / "model"),
        "evaluate": ("evaluate", made / "model", path),
        "init": ("init", path, "--target", "y", "-o", out / "g.yaml"),
    }[entry.get("by", "fit")]
    before = contents(tmp_path)
    assert str(path) in refused(*command, says=entry["says"])
    assert contents(tmp_path) == before
    assert not list(out.iterdir())


def test_the_corpus_is_large() -> None:
    assert len(corpus("graphs.yaml")) >= 150
    assert len(corpus("tables.yaml")) >= 60


@pytest.mark.parametrize("command", ["draw", "simulate"])
def test_the_other_readers_of_a_graph_refuse_it_too(command: str, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("{target: y, nodes: {y: binary}, edges: [y -> x]}")
    out = tmp_path / {"draw": "g.png", "simulate": "rows.csv"}[command]
    refused(command, tmp_path / "g.yaml", "-o", out, says="'x', no node")
    assert [p.name for p in tmp_path.iterdir()] == ["g.yaml"]


@pytest.mark.parametrize(
    ("text", "says"), [("[" * 3000, "nested too deeply"), ("{a: " * 3000, "nested too deeply"), ("- " * 3000, "nested")]
)
def test_deep_nesting_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(text)
    refused("check", tmp_path / "g.yaml", says=says)


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
    assert len(cli.app.commands) == 10
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
        (FloatingPointError("the loss became nan"), 1, "Error: the loss became nan"),
        (KeyboardInterrupt(), 130, "Error: interrupted"),
        (SystemExit(1), 130, "Error: interrupted"),  # what Lightning makes of it
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
        ("matplotlib.figure", ["draw", "g.yaml", "-o", "g.png"], "pip install 'pyro_cama[demo]'"),
        ("sklearn.datasets", ["demo"], "pip install 'pyro_cama[demo]'"),
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


# nothing written over, nothing half written --------------------------------------------------------------------------

WRITERS = {
    "init": (["init", "t.csv", "--target", "y"], "out.yaml"),
    "draw": (["draw", "g.yaml"], "out.svg"),
    "simulate": (["simulate", "g.yaml", "-n", "9"], "out.csv"),
    "predict": (["predict", "model", "t.csv"], "out.csv"),
    "fit": (["fit", "g.yaml", "t.csv", "--epochs", "0", "--hidden", "4", "--layers", "1"], "out"),
}


def inside(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]) -> list[str]:
    """The arguments with inputs where they are; the working folder is for what is written."""
    monkeypatch.chdir(tmp_path)
    return [str(made / a) if (made / a).exists() else a for a in arguments]


@pytest.mark.parametrize("command", WRITERS)
def test_force_is_needed_to_write_over(
    command: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, name = WRITERS[command]
    arguments, out = inside(made, monkeypatch, tmp_path, arguments), Path(name)
    refused(*arguments, "-o", Path("nowhere") / name, says="no such folder")
    assert not list(Path().iterdir())
    done(*arguments, "-o", out)
    assert [p.name for p in Path().iterdir()] == [name]
    umask = os.umask(0)
    os.umask(umask)
    assert {p.stat().st_mode & 0o777 for p in Path().rglob("*") if p.is_file()} == {0o666 & ~umask}
    first = contents(tmp_path)
    refused(*arguments, "-o", out, says="pass --force to replace it")
    assert contents(tmp_path) == first
    done(*arguments, "-o", out, "--force")
    assert contents(tmp_path).keys() == first.keys()


@pytest.mark.parametrize("command", WRITERS)
def test_an_interrupted_write_leaves_what_was_there(
    command: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, name = WRITERS[command]
    arguments, out = inside(made, monkeypatch, tmp_path, arguments), Path(name)
    if command == "fit":
        done(*arguments, "-o", out)
    else:
        out.write_text("what was there")
    before = contents(tmp_path)

    def replace(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace)
    assert run(*arguments, "-o", out, "--force").exit_code == 130
    monkeypatch.undo()
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_model_that_cannot_take_its_place_gives_it_back(
    made: Path, model: CAMA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli_tables.write_model(model, "{}", tmp_path / "out", False)
    before = contents(tmp_path)
    calls = itertools.count()
    real = os.replace

    def replace(source: Any, to: Any) -> None:
        if Path(source).name == "new" and next(calls) == 0:
            raise OSError(28, "No space left on device")
        real(source, to)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        cli_tables.write_model(model, None, tmp_path / "out", True)
    assert contents(tmp_path) == before


def test_force_replaces_models_only(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    for out in (folder, folder / "chapter.txt"):
        arguments = ["fit", made / "g.yaml", made / "t.csv", "-o", out, "--force"]
        refused(*arguments, says="holds something other than a model")
    refused("simulate", made / "g.yaml", "-o", folder, "--force", says="expected .csv or .parquet")
    assert contents(folder) == {"chapter.txt": b"years of work"}


@pytest.mark.parametrize(
    ("command", "out", "says"),
    [
        ("simulate", "rows.txt", "suffix '.txt'; expected .csv or .parquet"),
        ("draw", "g.gif", "suffix '.gif'; expected .png or .svg or .pdf"),
        ("simulate", "rows", "suffix ''"),
    ],
)
def test_the_suffix_is_looked_at_first(command: str, out: str, says: str, tmp_path: Path) -> None:
    refused(command, tmp_path / "missing.yaml", "-o", tmp_path / out, says=says)


# tables --------------------------------------------------------------------------------------------------------------


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRAPH)
    graph = CausalGraph(tmp_path / "g.yaml")
    rows = pyro_cama.simulate(graph, 50, seed=3)
    write_table(rows, tmp_path / "t.csv", False)
    back = read_table(tmp_path / "t.csv", graph)
    for name in ("y", "x", "n", "k"):
        assert back[name].tolist() == rows[name].tolist()  # to the last bit
    assert np.stack(list(back["v"])).tolist() == np.stack(list(rows["v"])).tolist()


def levels_graph(*levels: Any) -> CausalGraph:
    return CausalGraph(
        {
            "target": "y",
            "nodes": {"y": {"type": "categorical", "levels": list(levels)}, "x": "continuous", "b": "binary"},
            "edges": ["y -> x", "y -> b"],
        }
    )


@pytest.mark.parametrize(
    ("levels", "text", "codes"),
    [
        (("01", "1"), "y,x,b\n01,1,0\n1,2,1\n,3,", [0, 1, -1]),  # text is text
        (("NA", "None", ""), "y,x,b\nNA,NA,True\nNone,null,False\n,7,", [0, 1, -1]),  # a level may be called NA
        ((1, 2), "y,x,b\n1,1,0\n2,2,1\n,3,1", [0, 1, -1]),  # whole numbers beside a missing one
        ((0.5, 1.5), "y,x,b\n1.5,1,0\n0.50,2,1\n,3,1", [1, 0, -1]),
    ],
)
def test_levels_survive_csv(levels: tuple[Any, ...], text: str, codes: list[int], tmp_path: Path) -> None:
    graph = levels_graph(*levels)
    (tmp_path / "t.csv").write_text("\ufeff" + text, encoding="utf-8")
    encoder = pyro_cama.build(graph, hidden=2, layers=0).encoder.fit(read_table(tmp_path / "t.csv", graph))
    batch = encoder.encode(read_table(tmp_path / "t.csv", graph))
    known = batch.observed["y"].tolist()
    assert [int(c) if k else -1 for c, k in zip(batch.values["y"], known, strict=True)] == codes
    numbers = [line.split(",")[1] for line in text.splitlines()[1:]]
    assert batch.observed.get("x", torch.ones(3) > 0).tolist() == [n not in ("NA", "null") for n in numbers]


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.text(max_size=5), st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))),
        min_size=1,
        max_size=6,
    )
)
def test_any_text_and_number_survives(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    rows = [(text.replace("\0", "").replace("\r", ""), number) for text, number in rows]
    rows = [row for row in rows if row != ("", None)] or [("a", 1.0)]
    levels = [*dict.fromkeys([text for text, _ in rows if text]), "never", "ever"]
    path = tmp_path_factory.mktemp("any") / "t.csv"
    write_table(pd.DataFrame(rows, columns=["y", "x"]).assign(b=1), path, False)
    back = read_table(path, levels_graph(*dict.fromkeys(levels)))
    assert [None if pd.isna(text) else text for text in back["y"]] == [text or None for text, _ in rows]
    assert [None if np.isnan(number) else number for number in back["x"]] == [number for _, number in rows]


def test_parquet(made: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    graph = CausalGraph(made / "g.yaml")
    write_table(table, tmp_path / "t.parquet", False)
    back = read_table(tmp_path / "t.parquet", graph)[table.columns.tolist()]
    pd.testing.assert_frame_equal(back, table, check_dtype=False)  # Int64 may hold missing entries, int64 not
    table.to_parquet(tmp_path / "lists.parquet")  # the vector as one column
    back = read_table(tmp_path / "lists.parquet", graph)
    assert np.stack(list(back["v"])).tolist() == np.stack(list(table["v"])).tolist()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no more")
    refused("predict", made / "model", tmp_path / "bad.parquet", "-o", tmp_path / "p.csv", says="no valid parquet file")


# a first graph -------------------------------------------------------------------------------------------------------


def texts(values: Any) -> "pd.Series[Any]":
    return pd.Series([str(v) for v in values])


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        (texts([0, 1, 1, 0]), {"type": "binary"}),
        (texts(["no", "yes", "", "no"]), {"type": "binary", "levels": ["no", "yes"]}),
        (texts([True, False, True]), {"type": "binary", "levels": [False, True]}),
        (pd.Series([True, False, None]), {"type": "binary", "levels": [False, True]}),
        (texts(["c", "a", "b", "a", "c"]), {"type": "categorical", "levels": ["a", "b", "c"]}),
        (texts([3, 1, 2, 1, 3]), {"type": "categorical", "levels": [1, 2, 3]}),
        (pd.Series([3.0, 1.0, np.nan, 2.0]), {"type": "categorical", "levels": [1, 2, 3]}),
        (texts(["01", "02", "03", "01"]), {"type": "categorical", "levels": ["01", "02", "03"]}),
        (texts([0, 3, 7, 1, 9, 4, 12, 0]), {"type": "count"}),
        (texts([34, 71, 28, 90, 55, 61, 34]), {"type": "continuous"}),
        (texts([-3, 3, 7, 1, 9, 4, 12, 0]), {"type": "continuous"}),
        (texts([1999, 2004, 2001, 2010, 2011, 2003]), {"type": "continuous"}),
        (texts([0.5, "NA", 2.25, 1, 7]), {"type": "continuous"}),
        (texts([1e300, -2e-300, 0.25]), {"type": "continuous"}),
    ],
)
def test_types_are_guessed(column: "pd.Series[Any]", keys: dict[str, Any]) -> None:
    assert guess(column).keys == keys


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (texts([f"P{i:03}" for i in range(30)]), "30 different texts"),
        (texts(["ann", "bob", "cyd"]), "an identifier"),
        (texts(["a"] * 4), "one value, 'a'"),
        (texts([7, 7]), "one value, 7"),
        (texts([""] * 3), "no entry"),
        (texts(["NA", "nan"]), "no entry"),
        (texts(range(100, 130)), "a running number, 100 to 129"),
        (texts([1.5, "inf", 2.5]), "infinite"),
        (pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"])), "dates"),
        (pd.Series([[1, 2], [3, 4]]), "entries such as [1, 2]"),
    ],
)
def test_what_is_no_node_is_left_out(column: "pd.Series[Any]", why: str) -> None:
    found = guess(column)
    assert found.keys is None
    assert why in found.why


def test_from_a_table_to_a_model(made: Path, tmp_path: Path) -> None:
    table = pd.read_csv(made / "t.csv").assign(
        patient=[f"P{i:03}" for i in range(60)], z=np.arange(60) / 7, m=np.arange(60) % 2
    )
    table["a: # 'b'"] = np.arange(60) ** 0.5
    table["p -> q"] = np.arange(60) ** 2
    table.to_csv(tmp_path / "t.csv", index=True)  # pandas' index comes as a column without a name
    result = run("init", tmp_path / "t.csv", "--target", "y", "-o", tmp_path / "g.yaml")
    assert result.exit_code == 0
    assert result.stderr == (
        "Note: left out 'patient': 60 different texts, such as 'P000': an identifier, or prose\n"
        "Note: left out '': a column without a name\n"
    )
    graph = CausalGraph(tmp_path / "g.yaml")
    types = {name: node.type for name, node in graph.nodes.items()}
    assert types == {
        "y": "binary", "x": "continuous", "n": "count", "k": "binary", "v[0]": "continuous", "v[1]": "continuous",
        "z": "continuous", "m": "binary", "a: # 'b'": "continuous", "p -> q": "continuous",
    }  # fmt: skip
    assert set(graph.blanket.children) == types.keys() - {"y"}
    assert "60 rows" in (tmp_path / "g.yaml").read_text()
    assert done("init", tmp_path / "t.csv", "--target", "y") == (tmp_path / "g.yaml").read_text()
    assert "children    n, k, x, v[0], v[1], z, m, " in done("check", tmp_path / "g.yaml")


@settings(max_examples=60)
@given(st.data())
def test_any_table_gives_a_graph_or_says_why_not(data: st.DataObject) -> None:
    entry = st.one_of(st.sampled_from(["", "0", "1", "a", "b", "NA", "1.5", "01", "True"]), st.text(max_size=4))
    names = data.draw(st.lists(st.text(max_size=6), min_size=1, max_size=5, unique=True))
    rows = data.draw(st.integers(1, 8))
    table = pd.DataFrame({name: data.draw(st.lists(entry, min_size=rows, max_size=rows)) for name in names})
    target = data.draw(st.sampled_from(names))
    hopeless = guess(table[target], discrete=True).keys is None or target == ""
    if hopeless or not any(name and guess(table[name]).keys for name in names if name != target):
        with pytest.raises(DataError, match=r"^t\.csv: "):
            first_graph(table, target, "t.csv")
        return
    text, left_out = first_graph(table, target, "t.csv")
    graph = CausalGraph.from_yaml(text)
    assert graph.target == target
    assert set(graph.nodes) | set(left_out) == set(names)
    assert set(graph.nodes) == {target, *graph.blanket.children}


# simulate, fit, predict, adapt, evaluate, demo ------------------------------------------------------------------------


def test_check_says_roles_and_what_drifts() -> None:
    text = done("check", GRAPHS / "clinic.yaml")
    assert "parents     age, exposure\n" in text
    assert "co-parents  age, smoker, medication\n" in text
    assert "manipulable white_cells (rate), fever (affine), cough (confusion); scope hospital\n" in text
    assert "p(ward | infection, age, fever, z)" in text
    assert "outside the target's Markov blanket: billing\n" in text


def test_shift_moves_one_column_and_what_it_causes(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRAPH.replace("k -> x", "n -> x"))
    for name, options in (("clean", []), ("again", []), ("off", ["--shift", "n=+4"]), ("other", ["--seed", 1])):
        done("simulate", tmp_path / "g.yaml", "-n", 40, "-o", tmp_path / f"{name}.csv", *options)
    clean, again, off, other = (pd.read_csv(tmp_path / f"{n}.csv") for n in ("clean", "again", "off", "other"))
    pd.testing.assert_frame_equal(clean, again)
    assert (off["n"] - clean["n"] == 4).all()
    assert (off["x"] != clean["x"]).any()
    pd.testing.assert_frame_equal(off[["y", "k", "v[0]"]], clean[["y", "k", "v[0]"]])
    assert not other.equals(clean)
    refused("simulate", tmp_path / "g.yaml", "-o", tmp_path / "w.csv", "--shift", "w=1", says="found no such node")
    refused("simulate", tmp_path / "g.yaml", "-o", tmp_path / "w.csv", "--shift", "k=1", says="expected a level")


def test_fit_follows_its_seed_and_prints_figures(made: Path, tmp_path: Path) -> None:
    arguments = ["fit", made / "g.yaml", made / "t.csv", "--epochs", 2, "--hidden", 4, "--layers", 0]
    text = done(*arguments, "-o", tmp_path / "a")
    assert "2 epochs, the best" in text
    assert "validation on 9 rows: accuracy " in text
    done(*arguments, "-o", tmp_path / "b")
    done(*arguments, "-o", tmp_path / "c", "--seed", 1)
    a, b, c = (contents(tmp_path / name)["tensors.safetensors"] for name in "abc")
    assert a == b != c
    options = ["--conditional-weight", 0, "--batch-size", 7, "--lr", 0.01, "--anneal", "--device", "cpu"]
    done(*arguments, "-o", tmp_path / "c", "--force", *options)


def test_fit_on_few_rows_says_that_nothing_was_validated(made: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("".join((made / "t.csv").read_text().splitlines(keepends=True)[:12]))
    arguments = ["--epochs", 1, "--hidden", 4, "--layers", 0, "-o", tmp_path / "m"]
    assert "no validation: fewer than 20 rows" in done("fit", made / "g.yaml", tmp_path / "t.csv", *arguments)
    assert json.loads((tmp_path / "m" / "usual.json").read_text())["held_out"] == 0


def test_predictions_are_the_librarys(made: Path, model: CAMA, table: pd.DataFrame, tmp_path: Path) -> None:
    done("predict", made / "model", made / "t.csv", "-o", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv")
    assert found.columns.tolist() == ["label", "p(a)", "p(b)", "evidence", "unusual"]
    assert found["label"].tolist() == model.predict(table).tolist()
    np.testing.assert_array_equal(found[["p(a)", "p(b)"]], model.predict_proba(table))
    np.testing.assert_allclose(found["evidence"], model.elbo(table.drop(columns="y")).double(), rtol=1e-6)
    unlabelled = tmp_path / "x.csv"
    pd.read_csv(made / "t.csv").drop(columns="y").to_csv(unlabelled, index=False)
    done("predict", made / "model", unlabelled, "-o", tmp_path / "q.csv")
    assert (tmp_path / "q.csv").read_text() == (tmp_path / "p.csv").read_text()


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_missing_file_is_named_once(command: str, made: Path, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "p.csv") if command == "predict" else ()
    said = refused(command, made / "model", made / "nope.csv", *output, says="nope.csv: no such file")
    assert said.count("nope.csv") == 1


def test_a_budget_is_the_librarys(made: Path, model: CAMA, table: pd.DataFrame, tmp_path: Path) -> None:
    budget = ("--samples", 3, "--power", 0.5, "--refine-z", 2)
    done("predict", made / "model", made / "t.csv", *budget, "-o", tmp_path / "p.csv")
    p = model.predict_proba(table, samples=3, power=0.5, refine_z=2)
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "p.csv")[["p(a)", "p(b)"]], p)
    said = done("evaluate", made / "model", made / "t.csv", *budget)
    assert said.strip() == str(scores(model, table, samples=3, power=0.5, refine_z=2))
    assert said != done("evaluate", made / "model", made / "t.csv")
    for power in (0, 1.1):
        refused("evaluate", made / "model", made / "t.csv", "--power", power, says="--power", code=2)


def test_rows_unlike_anything_seen_are_flagged(made: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(made / "t.csv")
    odd = [8, 9, 10]
    rows["x"] = rows["x"].astype(float)
    rows.loc[odd, "x"] = [50.0, -1e6, 1e30]
    rows.to_csv(tmp_path / "t.csv", index=False)
    assert "60 rows, 3 unlike anything seen" in done(
        "predict", made / "model", tmp_path / "t.csv", "-o", tmp_path / "p.csv"
    )
    found = pd.read_csv(tmp_path / "p.csv")
    assert found.index[found["unusual"]].tolist() == odd
    assert found["label"].isna().tolist() == [i == 10 for i in range(60)]  # 1e30 leaves no probabilities
    refused("evaluate", made / "model", tmp_path / "t.csv", says="no probabilities for row 10")


def test_without_usual_nothing_is_flagged(model: CAMA, made: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    said = done("predict", tmp_path / "model", made / "t.csv", "-o", tmp_path / "p.csv")
    assert "is not known" in said
    assert "unusual" not in pd.read_csv(tmp_path / "p.csv").columns
    for text in ("", "{}", "[]", '{"format": 2}', '{"format": 1, "threshold": 0}', "null", "\x00"):
        (tmp_path / "model" / "usual.json").write_text(text)
        arguments = ["predict", tmp_path / "model", made / "t.csv", "-o", tmp_path / "q.csv"]
        refused(*arguments, says="usual.json is damaged")


def test_evidence_is_each_rows_own(model: CAMA, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = elbo_of_unlabelled(model, table)
    asked = rows_at_a_time(monkeypatch, 7)
    np.testing.assert_allclose(elbo_of_unlabelled(model, table), whole, rtol=1e-5)
    assert asked
    np.testing.assert_allclose(elbo_of_unlabelled(model, table.iloc[5:6]), whole[5:6], rtol=1e-5)
    np.testing.assert_array_equal(elbo_of_unlabelled(model, table.assign(y="a")), elbo_of_unlabelled(model, table))


def test_the_threshold_by_hand() -> None:
    seen = np.arange(3000.0)
    usual = NoveltyThreshold.of(seen, seen[1000:])
    assert usual.threshold == 2.0  # the third smallest of 3000, lower than the second of the held-out ones, 1001
    assert usual.flag(np.array([1.9, 2.0, np.nan, -np.inf])).tolist() == [True, False, True, True]
    assert NoveltyThreshold.of(seen, np.array([5.0, 1.0])).threshold == 1.0  # few held out: none of them is unusual
    later = usual.after(seen - 7.0)
    assert (later.threshold, later.median) == (-5.0, usual.median - 7.0)
    assert NoveltyThreshold(**{k: v for k, v in json.loads(later.to_json()).items() if k != "format"}) == later


def test_few_fresh_rows_are_flagged() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        held, fresh = rng.standard_normal(100), rng.standard_normal(500)
        overfitted = rng.standard_normal(900) + 4.0  # evidence of rows that were trained on
        shares.append(NoveltyThreshold.of(np.concatenate([overfitted, held]), held).flag(fresh).mean())
    assert np.mean(shares) == pytest.approx(1 / 101, rel=0.2)


def test_adapt(made: Path, model: CAMA, table: pd.DataFrame, tmp_path: Path) -> None:
    write_table(table.assign(x=table["x"] * 1.5 + 3.0), tmp_path / "off.csv", False)
    arguments = ["adapt", made / "model", tmp_path / "off.csv", "--clean", made / "t.csv", "--steps", 10]
    text = done(*arguments, "-o", tmp_path / "new")
    assert text.startswith(("kept: ", "not kept: "))
    adapted = pyro_cama.load(tmp_path / "new")
    assert str(adapted.adaptation) in text
    assert adapted.adaptation.rows == 60
    for name in adapted.explain_shift().table["column"]:
        assert name in text
    usual = {
        name: NoveltyThreshold.load(folder) for name, folder in (("old", made / "model"), ("new", tmp_path / "new"))
    }
    assert usual["old"] is not None
    assert usual["new"] is not None
    moved = usual["new"].median - usual["old"].median
    assert usual["new"].threshold == pytest.approx(usual["old"].threshold + moved)
    assert (moved != 0) == adapted.adaptation.applied
    refused(*arguments[:2], made / "g.yaml", "-o", tmp_path / "w", says="suffix '.yaml'")
    broken = tmp_path / "broken.csv"
    broken.write_text("y,x,n,k,v[0],v[1]\n,0.5,3,0,1,2\n")
    bad_clean = ["adapt", made / "model", tmp_path / "off.csv", "--clean", broken, "-o", tmp_path / "w"]
    assert str(broken) in refused(*bad_clean, says="no label in row 0")


def test_adapt_without_folds_says_that_nothing_is_certain(
    made: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_at("adaptation.options"), "TABLES", replace(TABLES, restarts=1))
    monkeypatch.setattr(module_at("adaptation.adapt"), "judge", lambda *_, **__: (True, "to be explained", 1.0))
    write_table(table.assign(x=table["x"] * 1.5 + 3.0), tmp_path / "off.csv", False)
    text = done("adapt", made / "model", tmp_path / "off.csv", "--steps", 10, "--folds", 1, "-o", tmp_path / "new")
    assert "uncertainty unknown: adapting with 4 folds gives intervals" in text
    found = pyro_cama.load(tmp_path / "new").explain_shift()
    for row in found.table.to_dict("records"):
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [row["column"]]]
        assert line.split()[1] == "unknown"
        assert row["reading"] in line
    assert "as before" not in text


def test_adapt_needs_a_manipulation(made: Path, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRAPH.replace("m: {dim: 1, scope: dataset}", "m: null"))
    tiny = ["--epochs", 1, "--hidden", 4, "--layers", 1]
    done("fit", tmp_path / "g.yaml", made / "t.csv", "-o", tmp_path / "m", *tiny)
    refused("adapt", tmp_path / "m", made / "t.csv", "-o", tmp_path / "n", says="no manipulation latent")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "settings.json").unlink(), "lacks settings.json"),
        (lambda folder: (folder / "settings.json").write_text("{"), "settings.json is damaged"),
        (lambda folder: (folder / "tensors.safetensors").write_bytes(b"\0" * 9), "tensors.safetensors is damaged"),
        (lambda folder: (folder / "graph.yaml").write_text("[]"), "graph.yaml is damaged"),
        (lambda folder: (folder / "usual.json").write_text("{"), "usual.json is damaged"),
    ],
)
def test_a_damaged_model_is_one_line(damage: Callable[[Path], object], says: str, made: Path, tmp_path: Path) -> None:
    done("predict", made / "model", made / "t.csv", "-o", tmp_path / "p.csv")
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in contents(made / "model").items():
        (folder / name).write_bytes(data)
    damage(folder)
    refused("predict", folder, made / "t.csv", "-o", tmp_path / "q.csv", says=says)
    refused("predict", tmp_path / "none", made / "t.csv", "-o", tmp_path / "q.csv", says="is not a folder")


def test_evaluate_prints_what_scikit_learn_finds(made: Path, model: CAMA, table: pd.DataFrame) -> None:
    text = done("evaluate", made / "model", made / "t.csv")
    p, y = model.predict_proba(table), table["y"].to_numpy()
    accuracy, loss = metrics.accuracy_score(y, model.predict(table)), metrics.log_loss(y, p)
    assert text.startswith(f"60 rows: accuracy {accuracy:.3f}, log-loss {loss:.3f}, calibration error ")
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["class", "a", "b"]


@pytest.mark.parametrize("seed", range(5))
def test_figures_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet([0.4, 0.3, 0.2, 0.05], 80), rng.integers(0, 3, 80)
    p[:, 3] *= seed != 0  # a class that nobody predicts
    p /= p.sum(1, keepdims=True)
    found = classification_metrics(p, y, ("a", "b", "c", "d"))
    said = p.argmax(1)
    assert found.accuracy == metrics.accuracy_score(y, said)
    assert found.log_loss == pytest.approx(metrics.log_loss(y, p, labels=range(4)), rel=1e-9)
    precision, recall, f1, rows = metrics.precision_recall_fscore_support(
        y, said, labels=range(4), zero_division=np.nan
    )
    np.testing.assert_allclose(found.classes["precision"], precision)
    np.testing.assert_allclose(found.classes["recall"], recall)
    np.testing.assert_allclose(found.classes["f1"], f1)
    assert found.classes["rows"].tolist() == rows.tolist()
    confidence, right, error = p.max(1), said == y, 0.0
    for i in range(15):
        bin_ = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if bin_.any():
            error += bin_.mean() * abs(right[bin_].mean() - confidence[bin_].mean())
    assert calibration_error(confidence, right) == pytest.approx(error, abs=1e-12)


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    real = cli_demo.build
    monkeypatch.setattr(cli_demo, "build", lambda graph, seed: real(graph, seed=seed, hidden=4, layers=1, device="cpu"))
    lines = done("demo", "--quick").splitlines()
    assert lines[0] == "breast cancer: 284 rows train, 142 adapt (without labels), 143 are scored"
    figures_of = {line[:24].strip(): [float(f) for f in line[24:].split()] for line in lines[3:5]}
    assert len(figures_of["clean"]) == 2
    assert len(figures_of["+2 sd on 100%"]) == 3
    assert figures_of["clean"][0] > 0.9 > figures_of["+2 sd on 100%"][0]
    assert any(line.startswith("the last one: ") for line in lines)


# pictures ------------------------------------------------------------------------------------------------------------


def random_graph(size: int, seed: int) -> CausalGraph:
    """Up to 40 nodes in random roles, edges along a random order."""
    rng = np.random.default_rng(seed)
    names = [f"node {i}" * int(rng.integers(1, 4)) for i in range(size)]
    target = size // 3
    edges = [
        [a, b]
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2)
        if rng.random() < (0.5 if i == target else 2.0 / size)
    ]
    if [names[target], names[-1]] not in edges:
        edges.append([names[target], names[-1]])
    nodes = {name: "binary" if i == target else "continuous" for i, name in enumerate(names)}
    return CausalGraph({"target": names[target], "nodes": nodes, "edges": edges})


PICTURED = [*sorted(GRAPHS.glob("*.yaml")), *((size, seed) for size in (2, 3, 7, 15, 40) for seed in (0, 1))]


@pytest.mark.parametrize("given", PICTURED, ids=str)
def test_a_picture_is_readable(given: Any) -> None:
    graph = CausalGraph(given) if isinstance(given, Path) else random_graph(*given)
    roles, boxes, ways, (width, height) = _layout(graph)
    latents = {latent.name for latent in (graph.z, graph.m) if latent is not None}
    assert boxes.keys() == graph.nodes.keys() | latents
    expected = {(latent.name, c) for latent in (graph.z, graph.m) if latent is not None for c in latent.children}
    assert ways.keys() == set(graph.edges) | expected
    for one, other in itertools.combinations(boxes.values(), 2):
        apart = abs(one.x - other.x) >= (one.width + other.width) / 2 + 0.05
        assert apart or abs(one.y - other.y) >= (one.height + other.height) / 2 + 0.05
    for box in boxes.values():
        assert box.width / 2 <= box.x + 1e-9
        assert box.x + box.width / 2 <= width + 1e-9
        assert box.height / 2 - 1e-9 <= box.y <= height - box.height / 2 + 1e-9
    for (cause, effect), stops in ways.items():
        for name, point, towards in ((cause, stops[0], stops[1]), (effect, stops[-1], stops[-2])):
            patch = _patch(roles[name], boxes[name])
            border = patch.get_path().transformed(patch.get_patch_transform())
            outwards = np.sign(point[0] - boxes[name].x)
            assert np.sign(towards[0] - point[0]) in (0, outwards)
            assert border.contains_point((point[0] - 0.02 * outwards, point[1]))
            assert not border.contains_point((point[0] + 0.02 * outwards, point[1]))
        points = np.concatenate([segment.to_polygons(closed_only=False)[0] for segment in [_curve(stops)]])
        steps = np.linspace(points[:-1], points[1:], 8).reshape(-1, 2)
        for name, box in boxes.items():
            inside_ = (np.abs(steps - [box.x, box.y]) < [box.width / 2 - 0.01, box.height / 2 - 0.01]).all(1)
            assert name in (cause, effect) or not inside_.any(), f"{cause} -> {effect} runs through {name}"


def test_arrows_out_and_in_do_not_share_a_place() -> None:
    ways = _layout(CausalGraph(GRAPHS / "clinic.yaml"))[2]
    out = {(stops[0], cause) for (cause, _), stops in ways.items()}
    into = {(stops[-1], effect) for (_, effect), stops in ways.items()}
    assert not out & into
    assert len({stops[-1] for (cause, effect), stops in ways.items() if effect == "fever" and cause in "zm"}) == 2


def test_roles_have_their_columns() -> None:
    roles, boxes, _, _ = _layout(CausalGraph(GRAPHS / "clinic.yaml"))
    assert roles == {
        "age": "parent, co-parent", "exposure": "parent", "smoker": "co-parent", "medication": "co-parent",
        "infection": "target", "white_cells": "child", "fever": "child", "cough": "child", "ward": "child",
        "billing": "outside the model", "z": "z", "m": "m",
    }  # fmt: skip
    places = {name: box.x for name, box in boxes.items()}
    assert places["age"] == places["exposure"] < places["infection"] < places["fever"] == places["cough"]
    assert places["fever"] < places["ward"] < places["smoker"] == places["z"] == places["m"]


def test_labels_fit_their_nodes_and_stay_text() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    names = ["$x_1$", "a_very_long_name " * 5, "new\nline", "å_b^2", "i"]
    nodes = {"y": "binary", **dict.fromkeys(names, "continuous")}
    graph = CausalGraph({"target": "y", "nodes": nodes, "edges": [["y", name] for name in names]})
    figure = draw_graph(graph)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts}
    assert {"$x_1$", "new line", "å_b^2", "i"} <= shown.keys()
    assert max(map(len, shown)) <= 36
    _, boxes, _, _ = _layout(graph)
    for name, box in boxes.items():
        label = " ".join(name.split())
        extent = shown[label if label in shown else next(text for text in shown if text.endswith("…"))]
        assert extent.width / figure.dpi < box.width - 0.1
        assert extent.height / figure.dpi < box.height
    ends = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(ends, 2))


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_pictures_are_written(suffix: str, start: bytes, tmp_path: Path) -> None:
    done("draw", GRAPHS / "measurement.yaml", "-o", tmp_path / f"g{suffix}")
    assert (tmp_path / f"g{suffix}").read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [f"g{suffix}"]


# files too large to hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_large_file_is_read_in_parts(
    suffix: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / f"t.{suffix}"
    write_table(read_table(made / "t.csv", CausalGraph(made / "g.yaml")), data, False)
    whole, parts = tmp_path / f"whole.{suffix}", tmp_path / f"parts.{suffix}"
    done("predict", made / "model", data, "-o", whole)
    monkeypatch.setattr(cli_tables, "LARGE", 0)
    rows_of_a_part(monkeypatch, 7)
    said = done("predict", made / "model", data, "-o", parts)
    assert "60 rows" in said
    read = pd.read_csv if suffix == "csv" else pd.read_parquet
    pd.testing.assert_frame_equal(read(parts), read(whole), rtol=1e-4)  # type: ignore[operator]
    tiny = ["--epochs", 2, "--hidden", 4, "--layers", 1, "--device", "cpu"]
    said = done("fit", made / "g.yaml", data, "-o", tmp_path / "model", *tiny)
    assert "validation on 9 rows: accuracy" in said
    stored = json.loads((tmp_path / "model" / "usual.json").read_text())
    assert (stored["rows"], stored["held_out"]) == (60, 9)
    done("adapt", tmp_path / "model", data, "--clean", data, "--steps", 10, "-o", tmp_path / "adapted")
    done("predict", tmp_path / "adapted", data, "-o", tmp_path / "labels.csv")


def test_a_large_file_that_is_damaged_further_down_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_tables, "LARGE", 0)
    rows_of_a_part(monkeypatch, 7)
    data = tmp_path / "t.csv"
    frame = read_table(made / "t.csv")
    frame.loc[50, "x"] = "fifty"
    frame.to_csv(data, index=False)
    before = contents(tmp_path)
    assert "50" in refused("predict", made / "model", data, "-o", tmp_path / "p.csv", says=data)
    assert "50" in refused("fit", made / "g.yaml", data, "-o", tmp_path / "m", "--epochs", 1, says="fifty")
    assert "50" in refused("adapt", made / "model", data, "-o", tmp_path / "m", says="fifty")
    assert contents(tmp_path) == before


def test_a_fit_with_checkpoints_goes_on(made: Path, tmp_path: Path) -> None:
    tiny = ["--epochs", 2, "--hidden", 4, "--layers", 1, "--device", "cpu"]
    common = ["fit", made / "g.yaml", made / "t.csv", *tiny, "--checkpoints", tmp_path / "run"]
    done(*common, "-o", tmp_path / "one")
    refused(*common, "-o", tmp_path / "two", says="pass resume=True")
    done(*common, "--resume", "-o", tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    refused(*common[:-2], "--resume", "-o", tmp_path / "three", says="--resume needs --checkpoints", code=2)
