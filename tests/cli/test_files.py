"""Files of the command line: nothing written over, nothing half written, tables that read as they were written."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pyro_cama
from pyro_cama import CAMA, CausalGraph, _files
from pyro_cama.cli import files as cli_tables
from pyro_cama.cli.files import read_table, write_table
from tests.helpers.command_line import GRAPH, contents, done, refused, run
from tests.helpers.patches import rows_of_a_part

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

    monkeypatch.setattr(_files, "exchange", lambda *_: False)  # as where there is none
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
    for name in ("x", "n"):
        assert back[name].tolist() == rows[name].tolist()  # to the last bit
    for name in ("y", "k"):
        assert back[name].tolist() == [str(level) for level in rows[name]]
    assert np.stack(list(back["v"])).tolist() == np.stack(list(rows["v"])).tolist()


@pytest.mark.parametrize("kind", ["index", "commas", "doubled"])
def test_the_commonest_files_serve_every_command(kind: str, made: Path, tmp_path: Path) -> None:
    lines = (made / "t.csv").read_text().splitlines()
    text = {
        "index": pd.read_csv(made / "t.csv").to_csv(),
        "commas": ",\n".join(lines) + ",\n",
        "doubled": "\n".join(f"{line},{'u,u' if i == 0 else '1,2'}" for i, line in enumerate(lines)),
    }[kind]
    data, tiny = tmp_path / "t.csv", ["--epochs", 0, "--hidden", 4, "--layers", 0, "--device", "cpu"]
    data.write_text(text)
    done("init", data, "--target", "y", "-o", tmp_path / "g.yaml")
    said = run("fit", tmp_path / "g.yaml", data, "-o", tmp_path / "m", *tiny).stderr
    what = "'u', which is there 2 times" if kind == "doubled" else "a column without a name"
    assert said == f"Note: {data}: ignored: {what}\n"
    done("predict", tmp_path / "m", data, "-o", tmp_path / "p.csv")
    done("evaluate", tmp_path / "m", data)
    done("adapt", tmp_path / "m", data, "--steps", 1, "--folds", 1, "-o", tmp_path / "a")
    done("report", tmp_path / "m", data, "--steps", 1, "-o", tmp_path / "r.html")
    done("predict", made / "model", data, "-o", tmp_path / "q.csv")
    done("predict", made / "model", made / "t.csv", "-o", tmp_path / "plain.csv")
    assert (tmp_path / "q.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()


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
