"""What a graph may be read from: files of many tools, networkx graphs, mappings."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from pyro_cama._messages import shown
from pyro_cama.graph.bif import read_bif, read_net, read_xdsl, read_xmlbif
from pyro_cama.graph.directions import DrawnEdge, Mark, Orient
from pyro_cama.graph.dot import is_dagitty, read_dot
from pyro_cama.graph.drawn import Drawn, form, untyped
from pyro_cama.graph.gml import read_gml
from pyro_cama.graph.graphml import read_graphml
from pyro_cama.graph.schema import graph_error
from pyro_cama.graph.tetrad import is_tetrad, read_tetrad
from pyro_cama.graph.yaml_text import parse_yaml

if TYPE_CHECKING:
    import pandas as pd


def read_text(text: str, source: str) -> Drawn:
    """Reads what TETRAD, causal-learn or dagitty have written as plain text.

    Raises:
        GraphError: it is none of theirs.
    """
    if is_tetrad(text):
        return read_tetrad(text, source)
    if is_dagitty(text):
        return read_dot(text, source)
    raise graph_error(
        source, "is no graph of dagitty's, 'dag { ... }', nor of TETRAD's, 'Graph Nodes: ...'; expected one"
    )


_YAML = (".yaml", ".yml")
_READERS: dict[str, Callable[[str, str], Drawn]] = {
    ".gml": read_gml,
    ".dot": read_dot,
    ".gv": read_dot,
    ".dagitty": read_dot,
    ".txt": read_text,
    ".bif": read_bif,
    ".net": read_net,
}
_XML = {
    ".graphml": read_graphml,
    ".xmlbif": read_xmlbif,
    ".bifxml": read_xmlbif,
    ".xml": read_xmlbif,
    ".xdsl": read_xdsl,
}  # these say their encoding themselves
SUFFIXES = (*_YAML, *_READERS, *_XML)


def read_graph(
    source: str | os.PathLike[str] | Mapping[str, Any] | nx.Graph[Any],
    *,
    target: str | None = None,
    data: pd.DataFrame | Mapping[str, Any] | None = None,
    orient: Orient = (),
    latents: Mapping[str, Any] | None = None,
    suffix: str | None = None,
) -> tuple[Any, str]:
    """Reads a graph from whatever holds one; returns it in the form of the YAML file, not yet validated, and its name.

    Args:
        source: a file, a networkx graph or a mapping in the form of the YAML file.
        target: replaces the target that the source names.
        data: a table; nodes without a type have that of their column.
        orient: directions of edges that have none.
        latents: replaces those that the source names.
        suffix: says the format of a file, whatever its name.

    Raises:
        GraphError: the file is missing, unreadable or of an unknown format; see :mod:`pyro_cama.graph.drawn`.
    """
    found: Any
    if isinstance(source, nx.Graph):
        name, found = "<networkx graph>", from_networkx(source)
    elif isinstance(source, Mapping):
        name, found = "<dict>", dict(source)
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        found = read_file(Path(name), suffix)
    else:
        raise graph_error(
            f"<{type(source).__name__}>",
            f"found {shown(source)}; expected a file, a mapping, a networkx.DiGraph or a CausalGraph",
        )
    table = None if data is None else _table(data, name)
    columns = [] if table is None else [str(column) for column in table.columns]
    raw = form(found, name, target=target, columns=columns, orient=orient) if isinstance(found, Drawn) else found
    if not isinstance(raw, Mapping):
        return raw, name
    if orient and not isinstance(found, Drawn):
        raise graph_error(
            name, f"orient: found {shown(orient)}, but edges of this form have their direction; expected none"
        )
    raw = dict(raw)
    raw |= {} if target is None else {"target": target}
    raw |= {} if latents is None else {"latents": latents}
    if table is not None:
        from pyro_cama.graph.column_types import with_types

        return with_types(raw, table, name), name
    if isinstance(found, Drawn):
        untyped(raw, name)
    return raw, name


def _table(data: object, name: str) -> pd.DataFrame:
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data
    if not isinstance(data, Mapping):
        raise graph_error(name, f"data: found {shown(data)}; expected a pandas.DataFrame")
    try:
        return pd.DataFrame(dict(data))
    except ValueError as error:  # columns of different lengths
        raise graph_error(name, f"data: is no table ({error}); expected a pandas.DataFrame") from error


def read_file(path: Path, suffix: str | None = None) -> object:
    """Reads what a graph file holds: a :class:`Drawn` graph, or of YAML whatever it is.

    Raises:
        GraphError: the file is missing, unreadable, not of its format, or of an unknown one.
    """
    source = str(path)
    packed = path.suffix.lower() == ".gz"
    suffix = suffix or (Path(path.stem) if packed else path).suffix.lower()
    if suffix not in SUFFIXES:
        if "\n" in source:
            raise graph_error(shown(source), "is no file name; expected one; use CausalGraph.from_yaml for YAML text")
        raise graph_error(source, f"found suffix {suffix!r}; expected one of {', '.join(map(repr, SUFFIXES))}")
    if suffix in _XML:
        return _XML[suffix](_bytes(path), source)
    text = read_plain_text(path)
    return parse_yaml(text, source) if suffix in _YAML else _READERS[suffix](text, source)


def read_plain_text(path: Path) -> str:
    """Returns the text of a file, plain or gzipped.

    Raises:
        GraphError: it is missing, unreadable or not UTF-8.
    """
    raw = _bytes(path)
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except ValueError as error:
        raise graph_error(str(path), f"is not UTF-8 text ({error}); expected a graph file") from error


def _bytes(path: Path) -> bytes:
    source = str(path)
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise graph_error(source, f"is neither text nor gzipped text ({error}); expected a graph file") from error
    except OSError as error:
        raise graph_error(source, f"cannot be read ({error.strerror}); expected a graph file") from error
    except ValueError as error:  # a null character in the name
        raise graph_error(shown(source), f"is no file name ({error}); expected one") from error


def from_networkx(graph: nx.Graph[Any]) -> Drawn:
    """Returns a networkx graph as drawn: an undirected one has no arrows."""
    defaults = graph.graph.get("node_default", {})
    end: Mark = "arrow" if graph.is_directed() else "none"
    return Drawn(
        nodes={name: {**defaults, **keys} for name, keys in graph.nodes(data=True)},
        edges=[DrawnEdge(cause, effect, "none", end) for cause, effect in graph.edges()],
        attributes=dict(graph.graph),
    )
