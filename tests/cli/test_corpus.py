"""A corpus of malformed graphs and tables: each is one clear line, in every command that reads it."""

from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from tests.helpers.command_line import contents, refused
from tests.helpers.paths import CORPUS

SHORT = {
    "N": "target: y, nodes: {y: binary, x: continuous}",
    "E": "edges: [y -> x]",
    "H": "y,x,n,k,v[0],v[1]",
    "R": "a,0.5,3,0,1,2\nb,1.5,4,1,2,3",
}


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
