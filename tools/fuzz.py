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
import random
import re
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
from click.testing import CliRunner

from pyro_cama import cli
from pyro_cama.cli.files import read_table
from pyro_cama.cli.first_graph import first_graph
from pyro_cama.errors import DataError, GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.drawn import Drawn
from pyro_cama.graph.formats import SUFFIXES, read_file

ROOT = Path(__file__).resolve().parents[1]
SLOW = 5.0  # seconds for one small file
TABLE = pd.DataFrame(
    {"sick": [0, 1, 0], "smoker": ["a", "b", "a"], **{name: [0.5, 2.25, 1.0] for name in ("age", "fever", "pulse")}}
)
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
    """Returns one of the seeds with a few changes: cuts, doublings, words, pieces of other seeds, bytes."""
    data = rng.choice(seeds)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice([1, 2, 5, 20, 200]))
        match rng.randrange(7):
            case 0:
                data = data[:at] + data[end:]
            case 1:
                data = data[:end] + data[at:]
            case 2:
                data = data[:at] + rng.choice(WORDS).encode() + data[at:]
            case 3:
                data = data[:at] + f" {rng.choice(WORDS)} ".encode() + data[end:]
            case 4:
                other = rng.choice(seeds)
                start = rng.randint(0, len(other))
                data = data[:at] + other[start : start + rng.choice([5, 50, 500])] + data[end:]
            case 5:
                pieces = re.split(rb"(\W)", data)
                one, two = rng.randrange(len(pieces)), rng.randrange(len(pieces))
                pieces[one], pieces[two] = pieces[two], pieces[one]
                data = b"".join(pieces)
            case _:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    return data


def graphs(rng: random.Random, folder: Path) -> Iterator[tuple[bytes, Callable[[], str]]]:
    """Damaged graph files, with and without a table and directions."""
    by_suffix: dict[str, list[bytes]] = {}
    for file in sorted((ROOT / "tests" / "corpus" / "graph_files").iterdir()):
        by_suffix.setdefault(file.suffix, []).append(file.read_bytes())
    by_suffix.pop(".xdsl")
    by_suffix[".yaml"] = [file.read_bytes() for file in sorted((ROOT / "graphs").glob("*.yaml"))]
    orients = [(), (), ["age -> sick -> fever", "sick -> pulse", "smoker -> pulse"], ["sick -> age"]]
    while True:
        kind = rng.choice(sorted(by_suffix))
        data = damaged(rng, by_suffix[kind])
        path = folder / f"g{rng.choice(SUFFIXES) if rng.random() < 0.03 else kind}"
        path.write_bytes(data)
        options = {
            "target": rng.choice(["sick", None]),
            "data": rng.choice([None, TABLE]),
            "orient": rng.choice(orients),
        }
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
    commands = [
        "init",
        "check",
        "draw",
        "simulate",
        "predict",
        "evaluate",
        "adapt",
        "explain",
        "report",
        "",
        "--help",
        "fitt",
    ]
    words = [*_ARGUMENTS.split(), "", "y -> x", "x -> y", "\udcff", "\xe9\n"]
    while True:
        call = [rng.choice(commands), *(rng.choice(words) for _ in range(rng.randrange(9)))]
        yield repr(call).encode(), functools.partial(command, call, folder)


def command(call: list[str], folder: Path) -> str:
    """Says what is wrong with what a call of the command line came to, if anything is."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(cli.app, call)
    if result.exit_code not in (0, 1, 2) or "fault of pyro_cama" in result.output or "Traceback" in result.output:
        return f"exit {result.exit_code}: {result.output[-300:]} {result.exception!r}"
    lines = result.stderr.strip().splitlines()
    return f"not one line: {result.stderr}" if result.exit_code and len(lines) != 1 else ""


def tried(check: Callable[[], str]) -> tuple[str, str]:
    """Runs a check; returns the kind of what it finds, and the find."""
    start = time.monotonic()
    try:
        found = check()
        where = re.sub(r"'[^']*'|\d+", "_", found)[:100]
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {last.filename.rpartition('/')[2]}:{last.lineno}", traceback.format_exc()
    took = time.monotonic() - start
    return ("slow", f"{took:.0f} s") if not found and took > SLOW else (where, found)


def main() -> None:
    """Runs one of the three for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["graphs", "tables", "arguments"])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs of finds")
    options = parser.parse_args()
    warnings.simplefilter("error")
    finds: Counter[str] = Counter()
    number = 0
    cases = {"graphs": graphs, "tables": tables, "arguments": arguments}[options.what]
    with tempfile.TemporaryDirectory() as folder:
        end = time.monotonic() + 60 * options.minutes
        for data, check in cases(random.Random(options.seed), Path(folder)):
            if time.monotonic() > end:
                break
            number += 1
            where, found = tried(check)
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
