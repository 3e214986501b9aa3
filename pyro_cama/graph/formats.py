"""Graphs as text and files: YAML, GML, GraphML and DOT in, YAML out."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx
import yaml

from pyro_cama._messages import listed, shown
from pyro_cama.errors import GraphError
from pyro_cama.graph.schema import FORM, graph_error
from pyro_cama.handlers.threads import exclusive

SUFFIXES = (".yaml", ".yml", ".gml", ".graphml", ".dot", ".gv")
_TAG = "tag:yaml.org,2002:"
_TAGS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}
_LIMIT = 1_000_000
_NETWORKX_OWN = {"name", "node_default", "edge_default"}


def read_file(path: Path) -> object:
    """Reads what a graph file holds, not yet validated.

    Raises:
        GraphError: the file is missing, unreadable or of an unknown format.
        ImportError: a DOT file needs pydot, and it is not installed.
    """
    source = str(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        if "\n" in source:
            raise graph_error(shown(source), "is no file name; expected one; use CausalGraph.from_yaml for YAML text")
        raise graph_error(source, f"found suffix {suffix!r}; expected one of {listed(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise graph_error(source, f"cannot be read ({error.strerror}); expected a graph file") from error
    except ValueError as error:
        raise graph_error(source, f"is not UTF-8 text ({error}); expected a graph file") from error
    if suffix in (".yaml", ".yml"):
        return parse_yaml(text, source)
    if suffix in (".dot", ".gv"):
        return from_networkx(_parse_dot(text, source), source)
    try:
        graph = nx.parse_gml(text) if suffix == ".gml" else nx.parse_graphml(text)
    except (nx.NetworkXException, ParseError, ValueError, KeyError, TypeError) as error:
        raise graph_error(source, f"is no valid {suffix[1:]} file: {error}") from error
    return from_networkx(graph, source)


def parse_yaml(text: str, source: str) -> object:
    """Returns the value of a YAML document, loaded safely.

    Raises:
        GraphError: the text is no YAML, repeats a key, or holds tags of other than plain values.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                raise graph_error(source, f"is empty; expected {FORM}")
            _measure(root, source, {})
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise graph_error(source, f"{line}{error.problem or error.context}; expected valid YAML") from error
    except yaml.YAMLError as error:
        raise graph_error(source, f"{' '.join(str(error).split())}; expected valid YAML") from error
    except RecursionError:
        raise graph_error(source, f"is nested too deeply; expected {FORM}") from None
    except GraphError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML's constructors stumble over tags that do not fit their text, such as `!!int x`.
        raise graph_error(source, f"found a tag unfit for its value ({error}); leave tags out") from error


def _measure(node: yaml.Node, source: str, sizes: dict[int, int]) -> int:
    """The size of a YAML node with all aliases expanded; on the way, what PyYAML lets pass is refused."""
    line = f"line {node.start_mark.line + 1}: "
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise graph_error(source, f"{line}found an anchor that contains itself; expected plain values")
        return sizes[id(node)]
    sizes[id(node)] = 0
    if node.tag in (_TAG + "timestamp", _TAG + "value") and isinstance(node, yaml.ScalarNode):
        raise graph_error(source, f"{line}found {node.value!r}, to YAML no text; expected text, so quote it")
    if node.tag not in _TAGS:
        tag = node.tag.replace(_TAG, "!!")
        raise graph_error(source, f"{line}found the tag {tag!r}; expected plain values without tags")
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            children += [key, value]
            if isinstance(key, yaml.ScalarNode):
                # YAML asks for unique keys, PyYAML silently keeps the last.
                number = key.start_mark.line + 1
                if key.value in first:
                    raise graph_error(
                        source,
                        f"line {number}: found key {key.value!r} again, first in line {first[key.value]}; "
                        "expected it once",
                    )
                first[key.value] = number
    size = 1 + sum(_measure(child, source, sizes) for child in children)
    if size > _LIMIT:
        raise graph_error(source, f"{line}found over {_LIMIT} values; expected fewer, or fewer aliases")
    sizes[id(node)] = size
    return size


def _parse_dot(text: str, source: str) -> nx.Graph[Any]:
    try:
        # Importing pydot makes pyparsing warn where warnings are errors; none of it concerns the user.
        with exclusive(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pydot

            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                graphs = pydot.graph_from_dot_data(text)
    except ImportError as error:
        raise ImportError(f"{source}: DOT files need pydot; run: pip install pyro_cama[dot]") from error
    if not graphs:
        reason = printed.getvalue().strip().splitlines()
        raise graph_error(source, f"is no valid DOT file{': ' + reason[-1].strip() if reason else ''}")
    if len(graphs) > 1 or graphs[0].get_subgraph_list():
        # networkx would silently leave out what stands there.
        raise graph_error(source, "found subgraphs or several graphs; expected one digraph without")
    read: nx.Graph[Any] = nx.nx_pydot.from_pydot(graphs[0])
    own = read.graph
    read.graph = {
        **_unquoted(own.get("graph", {})),
        "node_default": _unquoted(own.get("node", {})),
    }
    for attributes in read.nodes.values():
        attributes.update(_unquoted(attributes))
    return read


def _unquoted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """DOT's attributes without the quotes that pydot keeps."""
    return {
        key: value[1:-1].replace('\\"', '"') if isinstance(value, str) and value[:1] == '"' else value
        for key, value in attributes.items()
    }


def from_networkx(graph: nx.Graph[Any], source: str) -> dict[Any, Any]:
    """Returns a networkx graph in the form of the YAML file, not yet validated.

    Raises:
        GraphError: the graph is undirected, or text in an attribute cannot be read.
    """
    if not graph.is_directed():
        raise graph_error(source, "found an undirected graph; expected edges from cause to effect")
    # Any other attribute of the graph is passed on, to be refused as an unknown key.
    raw = {key: value for key, value in graph.graph.items() if key not in _NETWORKX_OWN}
    if isinstance(raw.get("latents"), str):
        raw["latents"] = parse_yaml(raw["latents"], f"{source}: latents")
    defaults = graph.graph.get("node_default", {})
    raw["nodes"] = {
        name: {
            key: _from_text(key, value, f"{source}: node {name!r}") for key, value in {**defaults, **attributes}.items()
        }
        for name, attributes in graph.nodes(data=True)
    }
    raw["edges"] = [list(edge) for edge in graph.edges()]
    return raw


def _from_text(key: object, value: object, source: str) -> object:
    """dim, levels, shape and channels from the text that GML, GraphML and DOT hold."""
    if not isinstance(value, str) or key not in ("dim", "levels", "shape", "channels"):
        return value
    if value.lstrip().startswith("["):
        return parse_yaml(value, f"{source}, {key}")
    parts = [_number(part.strip()) for part in value.split(",")]
    return parts[0] if key == "dim" and len(parts) == 1 else parts


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() else text


def dump_yaml(raw: Mapping[str, Any]) -> str:
    """Returns the YAML text of a graph, an edge a line."""
    edges = [_arrow(*edge) for edge in raw["edges"]]
    parts: list[tuple[dict[str, Any], bool | None]] = [
        ({"target": raw["target"], "nodes": raw["nodes"]}, None),
        ({"edges": edges}, False),
        ({"latents": raw["latents"]}, None),
    ]

    def dump(allow_unicode: bool) -> str:
        return "".join(
            yaml.safe_dump(part, default_flow_style=flow, sort_keys=False, allow_unicode=allow_unicode, width=110)
            for part, flow in parts
        )

    text = dump(allow_unicode=True)
    # PyYAML writes these line breaks as they are and folds them when it reads.
    return dump(allow_unicode=False) if any(mark in text for mark in "\x85\u2028\u2029") else text


def _arrow(cause: str, effect: str) -> str | list[str]:
    text = f"{cause} -> {effect}"
    return text if [part.strip() for part in text.split("->")] == [cause, effect] else [cause, effect]
