"""Damages files and calls at random, and looks for tracebacks from inside, slow reads and silent misreadings.

    python tools/fuzz.py graphs --minutes 20        # graph files, from tests/corpus/graph_files
    python tools/fuzz.py tables --minutes 5         # CSV files, through `init` and `predict`'s reader
    python tools/fuzz.py arguments --minutes 5      # the command line's

Every find is printed once with the input that made it, which is kept in --keep; mended, it is a case for the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import logging
import random
import re
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import yaml
from click.testing import CliRunner

from pyro_cama import cli
from pyro_cama.cli.files import read_table
from pyro_cama.cli.first_graph import first_graph
from pyro_cama.errors import DataError, GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.drawn import Drawn
from pyro_cama.graph.formats import SUFFIXES, read_file

ROOT = Path(__file__).resolve().parents[1]
SLOW = {"graphs": 5.0, "tables": 5.0, "arguments": 60.0}  # seconds
NAMES = [
    "age",
    "fever",
    "pulse",
    "white cells",
    'a "quoted"',
    "é",
    "cancer",
    "xray",
    "smoke",
    "pollution",
    "0",
    "1",
    "2",
]
TABLE = pd.DataFrame({"sick": [0, 1, 0], "smoker": ["a", "b", "a"], **{name: [0.5, 2.25, 1.0] for name in NAMES}})
GRAPH = CausalGraph(
    {
        "target": "sick",
        "nodes": {"sick": "binary", "age": "continuous", "v": {"type": "continuous", "dim": 2}, "n": "count"},
        "edges": ["sick -> age", "sick -> v", "sick -> n"],
        "latents": {"m": {"scope": "site"}},
    }
)
_PLAIN = r"""
digraph graph node edge subgraph strict dag -> -- <- <-> @-> { } [ ] = ; , : + " \ /* */ // # < > &
&amp; &#0; <!-- --> <![CDATA[ ]]> target target=true latents type=binary levels shape dim dir=back
dir=none arrowhead=odot \N label id <graph> <node/> directed='false' yfiles 1e999 -0
999999999999999999999999 NaN null ~ {z:null} [1,2] variable probability ( ) | table default
potential states
"""
WORDS = [
    *_PLAIN.split(),
    "\x00",
    "\ufeff",
    "\xe9",
    "\u65e5\u672c",
    "\u2028",
    "\x85",
    "directed 1",
    "Graph Nodes:",
    "Graph Edges:",
    "1. a --> b",
    "type discrete [ 2 ] { a, b };",
]
_ARGUMENTS = """
g.yaml d.dot t.csv empty . none.csv none/x.yaml --target y x z --graph --orient -> -n 0 5 -1 1e3
--seed nan 4294967296 --shift x=1 x= =1 x=inf -o out.csv out.png out.yaml out --force --help -- -
--samples --power
"""


def damaged(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Returns one of the seeds with a few changes: words cut, doubled, changed, bytes, pieces of others."""
    data = rng.choice(seeds)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        words = re.findall(rb"\w+|\s+|.", data, re.DOTALL) or [b""]
        at = rng.randrange(len(words))
        match rng.randrange(8):
            case 0:
                del words[at : at + rng.choice([1, 1, 3, 10])]
            case 1:
                words[at:at] = words[at : at + rng.choice([1, 1, 3, 10])]
            case 2 | 3:
                other = rng.randrange(len(words))
                words[at], words[other] = words[other], words[at]
            case 4:
                words.insert(at, rng.choice(WORDS).encode())
            case 5:
                words[at] = rng.choice(WORDS).encode()
            case 6:
                other_seed = rng.choice(seeds)
                start = rng.randint(0, len(other_seed))
                words.insert(at, other_seed[start : start + rng.choice([5, 50, 500])])
            case _:
                words[at] = bytes([rng.randrange(256)])
        data = b"".join(words)
    return data


def graphs(rng: random.Random, folder: Path) -> Iterator[tuple[bytes, Callable[[], str]]]:
    """Damaged graph files, with and without a table and directions."""
    listed = yaml.safe_load((ROOT / "tests" / "corpus" / "graph_files.yaml").read_text(encoding="utf-8"))["files"]
    files: dict[str, list[dict[str, Any]]] = {}
    for entry in listed:
        path = ROOT / "tests" / "corpus" / "graph_files" / entry["file"]
        files.setdefault(path.suffix, []).append({**entry, "raw": path.read_bytes()})
    del files[".xdsl"]
    graphs = sorted((ROOT / "graphs").glob("*.yaml"))
    files[".yaml"] = [{"target": None, "raw": path.read_bytes()} for path in graphs]
    while True:
        suffix = rng.choice(sorted(files))
        entry = rng.choice(files[suffix])
        data = damaged(rng, [entry["raw"]] * 5 + [other["raw"] for other in files[suffix]])
        path = folder / f"g{rng.choice(SUFFIXES) if rng.random() < 0.02 else suffix}"
        path.write_bytes(data)
        options: dict[str, Any] = {"target": entry.get("target", "sick"), "orient": entry.get("orient", ())}
        if suffix != ".yaml" and rng.random() < 0.8:
            options["data"] = TABLE
        yield data, functools.partial(read_graph_file, path, options)


def read_graph_file(path: Path, options: dict[str, Any]) -> str:
    """Says what is wrong with the way in which a graph file is read, if anything is."""
    with contextlib.suppress(GraphError):
        same_as_networkx(path)
    try:
        graph = CausalGraph(path, **options)
    except GraphError as error:
        return "" if str(error).startswith(str(path)) else f"an error that does not name its file: {error}"
    return "" if CausalGraph.from_yaml(graph.to_yaml()) == graph else "a graph that to_yaml does not keep"


def same_as_networkx(path: Path) -> None:
    """Compares ids, edges and directions of a GML or GraphML file that networkx reads too.

    Raises:
        AssertionError: they differ.
    """
    if path.suffix not in (".gml", ".graphml"):
        return
    drawn = read_file(path)
    assert isinstance(drawn, Drawn)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = nx.parse_gml(text, label="id") if path.suffix == ".gml" else nx.parse_graphml(text)
    except Exception:  # whatever it stumbles over
        return
    if any(word in text for word in ("yFiles", "yworks", "directed 0", "isGroup", "<!--", "yfiles")):
        return  # arrows and groups, which networkx passes over
    assert set(drawn.nodes) == {str(node) for node in other}, "other nodes than networkx"
    ends = {(str(a), str(b)) for a, b in other.edges()}
    ends |= set() if other.is_directed() else {(b, a) for a, b in ends}
    assert {(edge.first, edge.second) for edge in drawn.edges} <= ends, "other edges than networkx"


def tables(rng: random.Random, folder: Path) -> Iterator[tuple[bytes, Callable[[], str]]]:
    """Damaged CSV files, without and with a graph."""
    names = "sick,age,site,v[0],v[1],n"
    rows = [f"{i % 2},{i / 3},s{i % 3},{i},{-i}.5,{i * i}" for i in range(30)]
    seeds = [text.encode() for text in ("\n".join([names, *rows]), "\r\n".join([names, *rows]), names)]
    marks = ["NA", "?", "-999", "1e400", "1,5", '"', '""', "\r", "\n\n", ";", "\t", "inf", "True", "01", "sick", "v[0]"]
    for number in itertools.count():
        data = damaged(rng, seeds)
        for _ in range(rng.randrange(3)):
            at = rng.randint(0, len(data))
            data = data[:at] + rng.choice(marks).encode() + data[at:]
        path = folder / "t.csv"
        path.write_bytes(data)
        yield data, functools.partial(read_table_file, path, GRAPH if number % 2 else None)


def read_table_file(path: Path, graph: CausalGraph | None) -> str:
    """Says what is wrong with the way in which a table is read, if anything is."""
    try:
        table = read_table(path, graph)
        if graph is None:
            first_graph(table, "sick", str(path))
    except DataError as error:
        return "" if str(path) in str(error) else f"an error that does not name its file: {error}"
    return ""


def arguments(rng: random.Random, folder: Path) -> Iterator[tuple[bytes, Callable[[], str]]]:
    """Calls of the command line with arguments of all kinds, right and wrong ones."""
    (folder / "g.yaml").write_text("{target: y, nodes: {y: binary, x: continuous}, edges: [y -> x]}")
    (folder / "d.dot").write_text("digraph { y -> x }")
    (folder / "t.csv").write_text("y,x\n" + "\n".join(f"{i % 2},{i / 7}" for i in range(20)))
    (folder / "empty").write_text("")
    (folder / "typed.dot").write_text("digraph { target=y; y [type=binary]; x [type=count]; y -> x }")
    calls = [
        "check g.yaml",
        "check typed.dot",
        "init t.csv --target y",
        "init t.csv --target y --graph d.dot --orient y->x -o o.yaml",
        "simulate g.yaml -n 5 --seed 1 --shift x=1 -o o.csv",
        "predict model t.csv -o o.csv --samples 2",
        "evaluate model t.csv",
        "adapt model t.csv -o out",
        "fit g.yaml t.csv -o out --epochs 0",
        "report model t.csv -o o.html",
        "draw g.yaml -o o.txt",
    ]
    words = [*_ARGUMENTS.split(), "", "y -> x", "\udcff", "\xe9\n"]
    while True:
        call = rng.choice(calls).split()
        for _ in range(rng.choice([0, 1, 1, 2, 4])):
            at = rng.randint(0, len(call))
            call[at : at + rng.randrange(2)] = [rng.choice(words)]
        yield repr(call).encode(), functools.partial(command, call, folder)


def command(call: list[str], folder: Path) -> str:
    """Says what is wrong with what a call of the command line came to, if anything is."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(cli.app, call)
    for made in folder.glob("o*"):
        made.unlink() if made.is_file() else shutil.rmtree(made)
    if result.exit_code not in (0, 1, 2) or "fault of pyro_cama" in result.output or "Traceback" in result.output:
        return f"exit {result.exit_code}: {result.output[-300:]} {result.exception!r}"
    lines = result.stderr.strip().splitlines()
    return f"not one line: {result.stderr}" if result.exit_code and len(lines) != 1 else ""


def tried(check: Callable[[], str], slow: float) -> tuple[str, str]:
    """Runs a check; returns the kind of what it finds, and the find."""
    start = time.monotonic()
    try:
        found = check()
        where = re.sub(r"'[^']*'|\d+", "_", found)[:100]
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {last.filename.rpartition('/')[2]}:{last.lineno}", traceback.format_exc()
    took = time.monotonic() - start
    return ("slow", f"{took:.0f} s") if not found and took > slow else (where, found)


def main() -> None:
    """Runs one of the three for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["graphs", "tables", "arguments"])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs of finds")
    options = parser.parse_args()
    warnings.simplefilter("error")
    logging.disable()
    finds: Counter[str] = Counter()
    number = 0
    cases = {"graphs": graphs, "tables": tables, "arguments": arguments}[options.what]
    with tempfile.TemporaryDirectory() as folder:
        end = time.monotonic() + 60 * options.minutes
        for data, check in cases(random.Random(options.seed), Path(folder)):
            if time.monotonic() > end:
                break
            number += 1
            where, found = tried(check, SLOW[options.what])
            if found and not finds[where]:
                print(f"--- {where}\n{found}\n{data!r}"[:4000], flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / str(len(finds))).write_bytes(data)
            if found:
                finds[where] += 1
    print(f"{number} tried, {sum(finds.values())} finds of {len(finds)} kinds: {dict(finds)}")


if __name__ == "__main__":
    main()
