"""YAML: graph files in and out, and values as one line of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from pyro_cama.errors import GraphError
from pyro_cama.graph.schema import FORM, graph_error

_TAG = "tag:yaml.org,2002:"
_TAGS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}
_LIMIT = 1_000_000
_REWRITTEN = "\x85\u2028\u2029\ufeff"  # PyYAML writes these as they are, and reads them as something else
_SPECIAL = re.compile('\\\\["\\\\]|[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]')


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
    return dump(allow_unicode=False) if any(mark in text for mark in _REWRITTEN) else text


def _arrow(cause: str, effect: str) -> str | list[str]:
    text = f"{cause} -> {effect}"
    return text if [part.strip() for part in text.split("->")] == [cause, effect] else [cause, effect]


def on_one_line(value: Any) -> str:
    """Returns a value as one line of YAML, as a person would write it.

    >>> on_one_line({"type": "binary", "levels": ["no", "yes"]})
    "{type: binary, levels: ['no', 'yes']}"
    """

    def dump(**style: Any) -> str:
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, **style)

    text = dump(allow_unicode=True)
    if any(mark in text for mark in _REWRITTEN):
        text = dump()
    text = text.removesuffix("...\n").rstrip("\n")
    return dump(default_style='"').rstrip("\n") if "\n" in text else text


def quoted_text(value: Any) -> str:
    """Returns a value as YAML that is left whole by writers of GML, GraphML and DOT, some of which escape poorly.

    >>> quoted_text({"z": None, "levels": ["no", 1, 'a "b"']})
    '{"z": null, "levels": ["no", 1, "a \\\\u0022b\\\\u0022"]}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted_text(key)}: {quoted_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(quoted_text, value)) + "]"
    if not isinstance(value, str):
        return on_one_line(value)
    # a quote after a backslash ends the text for some of them
    text = _SPECIAL.sub(lambda found: f"\\u{ord(found[0][-1]):04x}", json.dumps(value, ensure_ascii=False)[1:-1])
    return f'"{text}"'
