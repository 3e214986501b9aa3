"""Files of Bayesian networks, BIF, Hugin's NET, XMLBIF and GeNIe's XDSL: names, levels and parents, no probabilities.

Sources: Cozman, The Interchange Format for Bayesian Networks, 1998 (BIF, XMLBIF); the Hugin API's manual (NET);
BayesFusion's SMILE manual (XDSL).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pyro_cama._messages import listed
from pyro_cama.graph.directions import DrawnEdge
from pyro_cama.graph.drawn import Drawn
from pyro_cama.graph.graphml import inside, read_xml, tag
from pyro_cama.graph.schema import graph_error

_BIF = re.compile(
    r"(?P<space>\s+|//[^\n]*|/\*.*?\*/)|"
    r'"(?P<text>[^"]*)"'
    r"|(?P<mark>[{}()\[\];,|])|(?P<word>[^\s{}()\[\];,|\"]+)",
    re.S,
)
_NET = re.compile(
    r"(?P<space>\s+|%[^\n]*)|"
    r'"(?P<text>(?:[^"\\]|\\.)*)"'
    r"|(?P<interval>[\[\]][^\s()]*;[^\s()]*[\[\]])|(?P<mark>[{}();|=])|(?P<word>[^\s{}();|\"=%]+)",
    re.S,
)  # aGrUM's states may be intervals, [0;1[


_OF_CHANCE = ("cpt", "deterministic", "noisymax", "noisyadder", "equation")  # XDSL's elements

# braces, and what may hide some: texts in quotes, comments
_BRACES = {
    "BIF": re.compile(r'[{}]|"[^"]*"|//[^\n]*|/\*.*?\*/', re.DOTALL),
    "NET": re.compile(r'[{}]|"(?:[^"\\]|\\.)*"|%[^\n]*', re.DOTALL),
}


class _Token(NamedTuple):
    text: str
    is_mark: bool
    is_quoted: bool
    place: int


class _Tokens:
    """The words and marks of a file, one after the other."""

    def __init__(self, text: str, pattern: re.Pattern[str], source: str, kind: str) -> None:
        self.source, self.kind = source, kind
        self.text, self.pattern, self.at = text, pattern, 0
        self.end = _Token("its end", True, False, len(text))
        self.ahead = self._scan()

    def fault(self, what: str, token: _Token) -> Exception:
        line = self.text.count("\n", 0, token.place) + 1
        return graph_error(self.source, f"is no valid {self.kind} file: line {line}: {what}")

    def _scan(self) -> _Token:
        while self.at < len(self.text):
            place = self.at
            match = self.pattern.match(self.text, place)
            if match is None:
                found = self.text[place : place + 20]
                raise self.fault(f"found {found!r}; expected a name or a mark", _Token("", True, False, place))
            self.at = match.end()
            if match["space"] is None:
                quoted = match["text"] is not None
                return _Token(match["text"] if quoted else match[0], match["mark"] is not None, quoted, place)
        return self.end

    def peek(self) -> _Token:
        return self.ahead

    def next(self) -> _Token:
        token = self.ahead
        self.ahead = self._scan()
        return token

    def accept(self, mark: str) -> bool:
        found = self.ahead.is_mark and self.ahead.text == mark
        if found:
            self.next()
        return found

    def expect(self, mark: str) -> None:
        token = self.peek()
        if not self.accept(mark):
            raise self.fault(f"found {token.text!r}; expected {mark!r}", token)

    def name(self) -> str:
        token = self.next()
        if token.is_mark:
            raise self.fault(f"found {token.text!r}; expected a name", token)
        return token.text

    def names_until(self, closing: str, *between: str) -> list[str]:
        """Names up to a closing mark, whatever of ``between`` stands among them."""
        names = []
        while not self.accept(closing):
            if not any(self.accept(mark) for mark in between):
                names.append(self.name())
        return names

    def skip_block(self) -> None:
        """Passes over what is in braces, most of a file: probabilities."""
        opening = self.peek()
        if not (opening.is_mark and opening.text == "{"):
            raise self.fault(f"found {opening.text!r}; expected '{{'", opening)
        depth = 1
        for match in _BRACES[self.kind].finditer(self.text, self.at):
            depth += {"{": 1, "}": -1}.get(match[0], 0)
            if not depth:
                self.at = match.end()
                self.ahead = self._scan()
                return
        raise self.fault("found its end; expected '}' before", self.end)


def read_bif(text: str, source: str) -> Drawn:
    """Reads the variables of a BIF file and what each is given.

    Raises:
        GraphError: the file is no BIF.
    """
    tokens = _Tokens(text, _BIF, source, "BIF")
    network = _Network(source)
    while tokens.peek() is not tokens.end:
        here = tokens.peek()
        match tokens.name().casefold():
            case "network":
                if not tokens.peek().is_mark:
                    tokens.name()
                tokens.skip_block()
            case "variable":
                network.variable(tokens.name(), _bif_levels(tokens))
            case "probability":
                tokens.expect("(")
                names = tokens.names_until(")", ",", "|")
                if not names:
                    raise tokens.fault("found probability of nothing; expected a variable", here)
                tokens.skip_block()
                network.given(names[0], names[1:])
            case other:
                raise tokens.fault(f"found {other!r}; expected network, variable or probability", here)
    return network.drawn("BIF", "variable NAME { type discrete [ 2 ] { no, yes }; }")


def _bif_levels(tokens: _Tokens) -> list[str]:
    levels: list[str] | None = None
    tokens.expect("{")
    while not tokens.accept("}"):
        here = tokens.peek()
        word = tokens.name()
        if word == "type" and levels is None:
            kind = tokens.name()
            if kind != "discrete":
                raise tokens.fault(f"found type {kind!r}; expected discrete", here)
            tokens.expect("[")
            count = tokens.name()
            tokens.expect("]")
            tokens.expect("{")
            levels = tokens.names_until("}", ",")
            if count != str(len(levels)):
                raise tokens.fault(f"found {len(levels)} levels, {listed(levels)}; expected {count}", here)
            tokens.expect(";")
        elif word == "property":
            while not tokens.accept(";"):
                if tokens.next() is tokens.end:
                    raise tokens.fault("found its end; expected ';' before", here)
        else:
            raise tokens.fault(f"found {word!r}; expected type, once, or property", here)
    if levels is None:
        raise tokens.fault("found a variable without type; expected type discrete [ 2 ] { no, yes }", tokens.peek())
    return levels


def read_net(text: str, source: str) -> Drawn:
    """Reads the nodes of a Hugin NET file and the parents of their potentials.

    Raises:
        GraphError: the file is no NET, Pajek's for instance, or has decisions, utilities or functions.
    """
    if text.lstrip().startswith("*"):
        raise graph_error(
            source, "is no valid NET file: found '*', as in files of Pajek's; expected Hugin's, node NAME { ... }"
        )
    tokens = _Tokens(text, _NET, source, "NET")
    network = _Network(source)
    while tokens.peek() is not tokens.end:
        here = tokens.peek()
        word = tokens.name()
        kind = word if word in ("discrete", "continuous") else ""
        word = tokens.name() if kind else word
        if word in ("net", "class"):
            if not tokens.peek().is_mark:
                tokens.name()
            tokens.skip_block()
        elif word == "node":
            name = tokens.name()
            keys = _net_keys(tokens)
            levels = keys.get("states")
            if kind != "continuous" and levels is None:
                raise tokens.fault(f"node {name!r}: found no states; expected states = (...)", here)
            label = next(iter(keys.get("label", [])), "")
            network.variable(name, None if kind == "continuous" else levels, label)
        elif word == "potential":
            tokens.expect("(")
            names = tokens.names_until(")", "|")
            tokens.skip_block()
            if not names:
                raise tokens.fault("found a potential of nothing; expected a node", here)
            network.given(names[0], names[1:])
        else:
            raise tokens.fault(f"found {word!r}; expected net, node or potential", here)
    return network.drawn("NET", "node NAME { states = (...); }")


def _net_keys(tokens: _Tokens) -> dict[str, list[str]]:
    """The keys of a node, each with the texts of its value."""
    keys: dict[str, list[str]] = {}
    tokens.expect("{")
    while not tokens.accept("}"):
        here = tokens.peek()
        key = tokens.name()
        if key in keys:
            raise tokens.fault(f"found {key!r} twice; expected it once", here)
        tokens.expect("=")
        keys[key] = []
        while not tokens.accept(";"):
            token = tokens.next()
            if token is tokens.end:
                raise tokens.fault("found its end; expected ';' before", token)
            if not token.is_mark:
                keys[key].append(re.sub(r"\\(.)", r"\1", token.text) if token.is_quoted else token.text)
    return keys


def read_xmlbif(raw: bytes, source: str) -> Drawn:
    """Reads the variables of an XMLBIF file and what each is given.

    Raises:
        GraphError: the file is no XMLBIF, or has decisions or utilities.
    """
    root = read_xml(raw, "BIF", source, "XMLBIF")
    network = _Network(source)
    for part in root.iter():
        for variable in inside(part, "VARIABLE"):
            kind = variable.get("TYPE", "nature")
            names = [(name.text or "").strip() for name in inside(variable, "NAME")]
            if kind != "nature" or len(names) != 1 or not names[0]:
                raise graph_error(
                    source, f"found variables of names {listed(names)} and type {kind!r}; expected one name and nature"
                )
            levels = [(level.text or "").strip() for level in inside(variable, "OUTCOME", "VALUE")]
            network.variable(names[0], levels)
        for definition in inside(part, "DEFINITION", "PROBABILITY"):
            child, *more = [(name.text or "").strip() for name in inside(definition, "FOR")] or [""]
            if more or not child:
                raise graph_error(source, f"found a definition for {listed([child, *more])}; expected one variable")
            network.given(child, [(name.text or "").strip() for name in inside(definition, "GIVEN")])
    return network.drawn("XMLBIF", "<VARIABLE>")


def read_xdsl(raw: bytes, source: str) -> Drawn:
    """Reads the chance nodes of GeNIe's XDSL and their parents; a node's name in the diagram is its label.

    Raises:
        GraphError: the file is no XDSL, has decisions or utilities, or nodes that repeat over time.
    """
    root = read_xml(raw, "smile", source, "XDSL")
    if any(tag(part) == "dynamic" for part in root.iter()):
        raise graph_error(source, "found nodes that repeat over time, <dynamic>; expected a network of one moment")
    network, diagram = _Network(source), dict[str | None, str]()
    for part in root.iter():
        diagram |= {part.get("id"): (name.text or "").strip() for name in inside(part, "name")}
    for node in (node for part in inside(root, "nodes") for node in part):
        kind, name = tag(node), node.get("id", "")
        if kind not in _OF_CHANCE or not name:
            expected = f"chance nodes with an id: {', '.join(_OF_CHANCE)}"
            raise graph_error(source, f"found a node {name!r} of kind {kind!r}; expected {expected}")
        levels = None if kind == "equation" else [state.get("id", "") for state in inside(node, "state")]
        network.variable(name, levels, diagram.get(name, ""))
        network.given(name, [parent for given in inside(node, "parents") for parent in (given.text or "").split()])
    return network.drawn("XDSL", "<cpt>")


class _Network:
    """Variables and their parents, in whatever order a file tells of them."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.nodes: dict[str, dict[str, Any]] = {}
        self.parents: dict[str, list[str]] = {}

    def variable(self, name: str, levels: list[str] | None, label: str = "") -> None:
        if name in self.nodes:
            raise graph_error(self.source, f"found variable {name!r} twice; expected it once")
        self.nodes[name] = {"type": "continuous"} if levels is None else {"type": "categorical", "levels": levels}
        if label:
            self.nodes[name]["label"] = label

    def given(self, name: str, parents: list[str]) -> None:
        if name in self.parents:
            raise graph_error(self.source, f"found probabilities of {name!r} twice; expected them once")
        self.parents[name] = parents

    def drawn(self, kind: str, expected: str) -> Drawn:
        if not self.nodes:
            raise graph_error(self.source, f"found no variables; expected a file of {kind}, with {expected}")
        for name, parents in self.parents.items():
            for unknown in (other for other in (name, *parents) if other not in self.nodes):
                raise graph_error(
                    self.source, f"is no valid {kind} file: probabilities of {name!r}: found {unknown!r}, no variable"
                )
        edges = [DrawnEdge(parent, name) for name, parents in self.parents.items() for parent in parents]
        return Drawn(self.nodes, edges)
