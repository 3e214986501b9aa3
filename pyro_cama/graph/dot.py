"""DOT, the language of Graphviz, and dagitty's, which is near it: ``dag { a -> b }``.

Graphviz's grammar is at https://graphviz.org/doc/info/lang.html, dagitty's at https://www.dagitty.net/manual-3.x.pdf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pyro_cama.graph.directions import DrawnEdge, Mark
from pyro_cama.graph.drawn import Drawn
from pyro_cama.graph.schema import graph_error

_DAGITTY = ("dag", "pdag", "mag", "pag")
_COMMON = r"""
    (?P<space> [\ \t\r\n\ufeff]+ | //[^\n]* | /\*.*?\*/ | ^\#[^\n]*)
  | (?P<quoted> "(?:[^"\\]|\\.)*")
  | (?P<mark> [{}\[\];,=:+])"""
_LETTERS = "A-Za-z_0-9\x80-\ufefe\uff00-\U0010ffff"  # Graphviz's names may hold any character beyond ASCII
_TOKENS = {
    False: re.compile(
        _COMMON + rf"| (?P<edge> -> | --) | (?P<word> -?(?:\d+\.?\d*|\.\d+) | [{_LETTERS}]+) | (?P<html> <)",
        re.VERBOSE | re.DOTALL | re.MULTILINE | re.ASCII,
    ),
    True: re.compile(
        _COMMON + rf"| (?P<edge> <->|@->|<-@|@-@|@--|--@|->|<-|-- ) | (?P<word> [{_LETTERS}.]+)",
        re.VERBOSE | re.DOTALL | re.MULTILINE,
    ),
}
_ENDS: dict[str, Mark] = {"<": "arrow", ">": "arrow", "@": "circle", "-": "none"}
_ARROWS = re.compile(r"[olr]{0,2}(normal|diamond|box|tee)|[lr]?vee|open|halfopen|empty|ediamond")
_COMPASS = ("n", "ne", "e", "se", "s", "sw", "w", "nw", "c", "_")
_DEPTH = 100  # of braces


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


@dataclass
class _Scope:
    """What new nodes and edges start from: a subgraph has a copy, and what it changes ends with it."""

    node: dict[str, Any] = field(default_factory=dict)
    edge: dict[str, Any] = field(default_factory=dict)

    def inner(self) -> _Scope:
        return _Scope(dict(self.node), dict(self.edge))


def is_dagitty(text: str) -> bool:
    """Returns whether a text begins as dagitty's do."""
    first = re.match(r"(?:\s|//[^\n]*|/\*.*?\*/|#[^\n]*)*(\w+)", text, re.S)
    return first is not None and first[1].lower() in _DAGITTY


def read_dot(text: str, source: str) -> Drawn:
    """Reads the one graph of a DOT or dagitty text.

    Defaults (``node [...]``) hold from where they stand, within their braces; what is in subgraphs is in the graph.

    Raises:
        GraphError: the text is no DOT, holds several graphs, or an edge has a port or an arrow that says nothing here.
    """
    return _Parser(text, source).graph()


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.dagitty = is_dagitty(text)
        self.tokens = self._tokens(text)
        self.place = 0
        self.drawn = Drawn()
        self.edges: list[tuple[str, str, str, dict[str, Any], int]] = []

    def fault(self, what: str, line: int) -> Exception:
        kind = "dagitty text" if self.dagitty else "DOT file"
        return graph_error(self.source, f"is no valid {kind}: line {line}: {what}")

    def _tokens(self, text: str) -> list[_Token]:
        tokens: list[_Token] = []
        place, line = 0, 1
        while place < len(text):
            match = _TOKENS[self.dagitty].match(text, place)
            kind = str(match.lastgroup) if match else ""
            end = match.end() if match else place
            if kind == "html":
                end = _end_of_html(text, place)
            if end <= place:
                found = repr(text[place : place + 20].splitlines()[0])
                raise self.fault(f"found {found}; expected a name, a brace or an arrow", line)
            part = text[place:end]
            if kind == "word" and re.match(rf"[{_LETTERS}.]", text[end : end + 1]):
                whole = re.compile(rf"[-{_LETTERS}.]+").match(text, place)
                raise self.fault(f"found {whole and whole[0]}, to Graphviz two names; quote it, if it is one", line)
            if kind == "quoted":
                tokens.append(_Token("name", _unquoted(part), line))
            elif kind != "space":
                tokens.append(_Token(kind, part, line))
            line += part.count("\n")
            place = end
        return [*tokens, _Token("end", "the end", line)]

    def peek(self, *texts: str, ahead: int = 0) -> bool:
        token = self.tokens[min(self.place + ahead, len(self.tokens) - 1)]
        return token.kind in ("mark", "word") and token.text.lower() in texts

    def next(self) -> _Token:
        token = self.tokens[self.place]
        self.place = min(self.place + 1, len(self.tokens) - 1)
        return token

    def accept(self, *texts: str) -> bool:
        found = self.peek(*texts)
        if found:
            self.next()
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            token = self.tokens[self.place]
            raise self.fault(f"found {token.text!r}; expected {text!r}", token.line)

    def name(self) -> _Token:
        token = self.next()
        if token.kind == "html":
            raise self.fault("found a text in HTML as a name; expected plain text", token.line)
        if token.kind not in ("name", "word") or (
            token.kind == "word" and token.text.lower() in ("node", "edge", "graph", "digraph", "subgraph", "strict")
        ):
            hint = "; quote it if it is one" if token.kind == "word" else ""
            raise self.fault(f"found {token.text!r}; expected a name{hint}", token.line)
        text = token.text
        while token.kind == "name" and self.peek("+") and self.tokens[self.place + 1].kind == "name":
            self.next()
            text += self.next().text
        return _Token(token.kind, text, token.line)

    def graph(self) -> Drawn:
        strict = self.accept("strict")
        if not self.accept("graph", "digraph", *(_DAGITTY if self.dagitty else ())):
            token = self.tokens[self.place]
            raise self.fault(f"found {token.text!r}; expected 'digraph' (or dagitty's 'dag')", token.line)
        if not self.peek("{"):
            self.name()
        self.block(_Scope(), {}, self.drawn.attributes, 1)
        token = self.tokens[self.place]
        if token.kind != "end":
            several = "; several graphs are no one graph" if self.peek("graph", "digraph", "strict") else ""
            raise self.fault(f"found {token.text!r} after the graph; expected its end{several}", token.line)
        if strict:
            merged: dict[tuple[str, str, str], tuple[str, str, str, dict[str, Any], int]] = {}
            for first, op, second, keys, line in self.edges:
                earlier = merged.get((first, op, second))
                merged[first, op, second] = (first, op, second, {**(earlier[3] if earlier else {}), **keys}, line)
            self.edges = list(merged.values())
        self.drawn.edges = [self.edge(*edge) for edge in self.edges]
        for node, keys in self.drawn.nodes.items():
            if isinstance(keys.get("label"), str):
                keys["label"] = _label(keys["label"], node)
        return self.drawn

    def block(self, scope: _Scope, members: dict[str, None], attributes: dict[str, Any], depth: int) -> None:
        """A list of statements in braces; adds the nodes in it to ``members``."""
        if depth > _DEPTH:
            raise self.fault("is nested too deeply", self.tokens[self.place].line)
        self.expect("{")
        while not self.accept("}"):
            self.statement(scope, members, attributes, depth)
            while self.accept(";"):
                pass

    def statement(self, scope: _Scope, members: dict[str, None], attributes: dict[str, Any], depth: int) -> None:
        token = self.tokens[self.place]
        if self.peek("graph", "node", "edge") and self.peek("[", ahead=1):
            defaults = {"graph": attributes, "node": scope.node, "edge": scope.edge}[self.next().text.lower()]
            defaults.update(self.attributes())
            return
        if token.kind in ("name", "word") and self.peek("=", ahead=1):
            key = self.name().text
            self.next()
            attributes[key] = self.value()
            return
        chain = [self.endpoint(scope, members, depth)]
        arrows = []
        while self.tokens[self.place].kind == "edge":
            arrows.append(self.next())
            chain.append(self.endpoint(scope, members, depth))
        keys = self.attributes()
        for before, arrow, after in zip(chain, arrows, chain[1:], strict=False):
            self.edges += [(a, arrow.text, b, {**scope.edge, **keys}, arrow.line) for a in before for b in after]
        if not arrows and (token.kind == "name" or (token.kind == "word" and token.text.lower() != "subgraph")):
            for node in chain[0]:
                self.drawn.nodes[node].update(keys)

    def endpoint(self, scope: _Scope, members: dict[str, None], depth: int) -> list[str]:
        """The nodes that an edge may start from or end at: one, several with commas, or those of a subgraph."""
        if not self.peek("{", "subgraph"):
            nodes = [self.node(scope, members)]
            while self.accept(","):
                nodes.append(self.node(scope, members))
            return nodes
        if self.accept("subgraph") and not self.peek("{"):
            self.name()
        inner: dict[str, None] = {}
        attributes: dict[str, Any] = {}
        line = self.tokens[self.place].line
        self.block(scope.inner(), inner, attributes, depth + 1)
        for key in ("target", "latents"):
            if key in attributes:
                raise self.fault(f"found {key} inside of a subgraph; expected it outside", line)
        members.update(inner)
        return list(inner)

    def node(self, scope: _Scope, members: dict[str, None]) -> str:
        token = self.name()
        name = token.text
        while self.accept(":"):
            port = self.name().text
            if port not in _COMPASS:
                raise self.fault(
                    f"found {name}:{port}, the node {name!r} at its port {port!r}; expected a name without ports: "
                    f'quote it, as in "{name}:{port}", if that is it',
                    token.line,
                )
        self.drawn.nodes.setdefault(name, dict(scope.node))
        members[name] = None
        return name

    def attributes(self) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        while self.accept("["):
            while not self.accept("]"):
                key = self.name()
                given = self.accept("=")
                if not given and not self.dagitty:
                    raise self.fault(f"found the key {key.text!r} without '='; expected key=value", key.line)
                keys[key.text] = self.value() if given else "true"
                self.accept(";", ",")
        return keys

    def value(self) -> str:
        return self.next().text if self.tokens[self.place].kind == "html" else self.name().text

    def edge(self, first: str, op: str, second: str, keys: dict[str, Any], line: int) -> DrawnEdge:
        """An edge with the marks at its ends, after its operator, dir, arrowhead and arrowtail."""
        if self.dagitty:
            return DrawnEdge(first, second, _ENDS[op[0]], _ENDS[op[-1]])
        towards = str(keys.get("dir") or ("forward" if op == "->" else "none"))
        if towards not in ("forward", "back", "both", "none"):
            raise self.fault(f"found dir={towards}; expected forward, back, both or none", line)
        at_first: Mark = self.mark(keys.get("arrowtail"), line) if towards in ("back", "both") else "none"
        at_second: Mark = self.mark(keys.get("arrowhead"), line) if towards in ("forward", "both") else "none"
        return DrawnEdge(first, second, at_first, at_second)

    def mark(self, shape: str | None, line: int) -> Mark:
        if shape == "none":
            return "none"
        if shape in ("dot", "odot"):
            return "circle"
        if not shape or _ARROWS.fullmatch(shape):
            return "arrow"
        raise self.fault(f"found an edge that ends in {shape!r}; expected normal, none or odot", line)


def _end_of_html(text: str, start: int) -> int:
    """Where a text in angle brackets ends, ``start`` if nowhere."""
    depth = 0
    for match in re.compile("[<>]").finditer(text, start):
        depth += 1 if match[0] == "<" else -1
        if not depth:
            return match.end()
    return start


def _unquoted(text: str) -> str:
    """A quoted name as Graphviz understands it: an escaped quote is one, an escaped line break none."""
    return re.sub(r'\\(["\\]|\r?\n)', lambda found: {'"': '"', "\\": r"\\"}.get(found[1], ""), text[1:-1])


def _label(label: str, node: str) -> str:
    """A label as it is shown: ``\\N`` is the node's name, ``\\n`` a line break; one in HTML says nothing."""

    def seen(found: re.Match[str]) -> str:
        return {"N": node, "n": "\n", "l": "\n", "r": "\n"}.get(found[1], found[1])

    return "" if label.startswith("<") else re.sub(r"\\(.)", seen, label, flags=re.S).strip("\n")
