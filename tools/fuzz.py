"""Damages files and calls at random, and looks for tracebacks from inside, slow reads and silent misreadings.

    python tools/fuzz.py graphs --minutes 20        # graph files, from tests/corpus/graph_files
    python tools/fuzz.py tables --minutes 5         # CSV files, through `init` and `predict`'s reader
    python tools/fuzz.py arguments --minutes 5      # the command line's

Every find is printed once with the input that made it, and kept in --keep; it belongs into the tests' corpus when it is mended.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

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
WORDS = [
    "digraph", "graph", "node", "edge", "subgraph", "strict", "dag", "->", "--", "<-", "<->", "@->", "{", "}", "[", "]", "=",
    ";", ",", ":", '"', "\\", "/*", "*/", "//", "#", "<", ">", "&", "&amp;", "&#0;", "&lt;", "<!--", "-->", "<![CDATA[", "]]>",
    "target", "target=true", "latents", "type=binary", "levels", "shape", "dim", "dir=back", "dir=none", "arrowhead=odot",
    "\\N", "label", "id", "directed 1", "<graph>", "<node id='x'/>", "directed='false'", "yfiles", "\x00", "\ufeff", "\u2028",
    "\x85", "é", "日本", "1e999", "-0", "9" * 30, "NaN", "null", "~", "{z: null}", "[1, 2]", "variable", "probability", "(", ")",
    "|", "table", "default", "type discrete [ 2 ] { a, b };", "potential", "states", "Graph Nodes:", "Graph Edges:", "1. a --> b",
]  # fmt: skip


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


def graphs(rng: random.Random, folder: Path) -> Iterator[Callable[[], tuple[bytes, str]]]:
    """Damaged graph files, in their own or another format's name, with and without a table and directions."""
    by_suffix: dict[str, list[bytes]] = {}
    for file in sorted((ROOT / "tests" / "corpus" / "graph_files").iterdir()):
        by_suffix.setdefault(file.suffix, []).append(file.read_bytes())
    by_suffix.pop(".xdsl")
    by_suffix[".yaml"] = [file.read_bytes() for file in sorted((ROOT / "graphs").glob("*.yaml"))]
    while True:
        kind = rng.choice(sorted(by_suffix))
        data = damaged(rng, by_suffix[kind])
        path = folder / f"g{rng.choice(SUFFIXES) if rng.random() < 0.03 else kind}"
        path.write_bytes(data)

        def one(path: Path = path, data: bytes = data) -> tuple[bytes, str]:
            orient = rng.choice([(), (), ["age -> sick -> fever", "sick -> pulse", "smoker -> pulse"], ["sick -> age"]])
            table = rng.choice([None, TABLE])
            with contextlib.suppress(GraphError):
                same_as_networkx(path)
            try:
                graph = CausalGraph(path, target=rng.choice(["sick", None]), data=table, orient=orient)
            except GraphError as error:
                if not str(error).startswith(f"{path}"):
                    return data, f"an error that does not name its file: {error}"
                return data, ""
            again = CausalGraph.from_yaml(graph.to_yaml())
            return data, "" if again == graph else "a graph that to_yaml does not keep"

        yield one


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


def tables(rng: random.Random, folder: Path) -> Iterator[Callable[[], tuple[bytes, str]]]:
    """Damaged CSV files, without and with a graph."""
    names = "sick,age,site,v[0],v[1],n"
    rows = [f"{i % 2},{i / 3},s{i % 3},{i},{-i}.5,{i * i}" for i in range(30)]
    seeds = [text.encode() for text in ("\n".join([names, *rows]), "\r\n".join([names, *rows]), names, "")]
    graph = CausalGraph(
        {
            "target": "sick",
            "nodes": {"sick": "binary", "age": "continuous", "v": {"type": "continuous", "dim": 2}, "n": "count"},
            "edges": ["sick -> age", "sick -> v", "sick -> n"],
            "latents": {"m": {"scope": "site"}},
        }
    )
    marks = [
        "NA",
        "?",
        "-999",
        "1e400",
        "1,5",
        '"',
        '""',
        "\r",
        "\n\n",
        ";",
        "\t",
        "inf",
        "nan",
        "True",
        "01",
        "sick",
        "v[0]",
    ]
    while True:
        data = damaged(rng, seeds)
        for _ in range(rng.randrange(3)):
            at = rng.randint(0, len(data))
            data = data[:at] + rng.choice(marks).encode() + data[at:]
        path = folder / "t.csv"
        path.write_bytes(data)

        def one(data: bytes = data) -> tuple[bytes, str]:
            for given in (None, graph):
                try:
                    table = read_table(path, given)
                    if given is None:
                        first_graph(table, "sick", str(path))
                except DataError as error:
                    if str(path) not in str(error):
                        return data, f"an error that does not name its file: {error}"
            return data, ""

        yield one


def arguments(rng: random.Random, folder: Path) -> Iterator[Callable[[], tuple[bytes, str]]]:
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
    words = [
        "g.yaml", "d.dot", "t.csv", "empty", ".", "none.csv", "none/x.yaml", "--target", "y", "x", "z", "", "--graph", "--orient",
        "y -> x", "x -> y", "->", "-n", "0", "5", "-1", "1e3", "--seed", "nan", "4294967296", "--shift", "x=1", "x=", "=1", "x=inf",
        "-o", "out.csv", "out.png", "out.yaml", "out", "--force", "--help", "--", "-", "--samples", "--power", "\udcff", "é\n",
    ]  # fmt: skip
    while True:
        call = [rng.choice(commands), *(rng.choice(words) for _ in range(rng.randrange(9)))]

        def one(call: list[str] = call) -> tuple[bytes, str]:
            with contextlib.chdir(folder):
                result = CliRunner().invoke(cli.app, call)
            said = result.output
            if result.exit_code not in (0, 1, 2) or "fault of pyro_cama" in said or "Traceback" in said:
                return repr(call).encode(), f"exit {result.exit_code}: {said[-300:]}"
            if result.exit_code and len(result.stderr.strip().splitlines()) != 1:
                return repr(call).encode(), f"not one line: {result.stderr}"
            return repr(call).encode(), ""

        yield one


def main() -> None:
    """Runs one of the three for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["graphs", "tables", "arguments"])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs of finds")
    options = parser.parse_args()
    warnings.simplefilter("error")
    rng = random.Random(options.seed)
    finds: Counter[str] = Counter()
    tried = 0
    with tempfile.TemporaryDirectory() as name:
        end = time.monotonic() + 60 * options.minutes
        for one in {"graphs": graphs, "tables": tables, "arguments": arguments}[options.what](rng, Path(name)):
            if time.monotonic() > end:
                break
            start = time.monotonic()
            tried += 1
            data = one.__defaults__[-1] if one.__defaults__ else b""  # type: ignore[attr-defined]
            try:
                data, found = one()
                where = re.sub(r"'[^']*'|\d+", "_", found)[:100]
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{type(error).__name__} at {last.filename.rpartition('/')[2]}:{last.lineno}"
                found = traceback.format_exc()
            took = time.monotonic() - start
            if not found and took > SLOW:
                found = where = f"{took:.0f} s for {len(data)} bytes"
            if found:
                finds[where] += 1
                if finds[where] == 1:
                    print(f"--- {where}\n{found}\n{data!r}"[:4000], flush=True)
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / f"{len(finds)}").write_bytes(
                            data if isinstance(data, bytes) else repr(data).encode()
                        )
    print(f"{tried} tried, {sum(finds.values())} finds of {len(finds)} kinds: {dict(finds)}")


if __name__ == "__main__":
    main()
