"""The latents of a graph: what a file leaves out of z and m, which latents fit the graph, and back to the file's form.

``z`` and ``m`` name the two roles, style and manipulation; a latent of another name may stand in either.  There is one
style at most, and there may be several manipulations, each with its own scope, children and mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyro_cama._messages import listed, one_of, shown
from pyro_cama.graph.nodes import Blanket, Latent, Node
from pyro_cama.graph.schema import LatentSpec, graph_error

_STYLE, _MANIPULATION = "z", "m"
_DIM = {_STYLE: 8, _MANIPULATION: 4}
_MECHANISM = {
    "continuous": "affine",
    "count": "rate",
    "categorical": "confusion",
    "binary": "confusion",
    "image": "warp",
}


def resolve_latents(
    declared: Mapping[str, LatentSpec | None],
    nodes: Mapping[str, Node],
    target: str,
    blanket: Blanket,
    source: str,
) -> tuple[Latent | None, tuple[Latent, ...]]:
    """Returns the style of a graph, None where it was dropped, and its manipulations in the order written.

    Args:
        declared: the latents by name as the graph file has them; None drops z or m, and one left out has its defaults.
        nodes: the observed variables by name.
        target: the node to predict, among ``nodes``.
        blanket: its Markov blanket, whose children are what a latent may cause.
        source: where the graph comes from, for messages.

    Raises:
        GraphError: two styles, or a latent whose name, children, scope, mechanism or affects does not fit the graph or
            the other manipulations; all faults are listed.
    """
    faults: list[str] = []
    chosen = _role_by_name(declared, faults)
    for name, role in chosen.items():
        if name in nodes:
            rename = "{style: {}, z: null}" if role == _STYLE else "{drift: {manipulation: true}, m: null}"
            faults.append(
                f"latent {name!r}: found a node of the same name; expected another: rename the latent, "
                f"as in latents: {rename}"
            )
    styles, manipulations = list[Latent](), list[Latent]()
    for name, role in chosen.items():
        spec = declared.get(name) or LatentSpec()
        faults += _faults(name, role, spec, nodes, target, blanket)
        (styles if role == _STYLE else manipulations).append(_latent(name, role, spec, nodes, blanket.children))
    faults += _faults_together(manipulations)
    if faults:
        raise graph_error(source, faults)
    return (styles[0] if styles else None), tuple(manipulations)


def taken_together(manipulations: Sequence[Latent]) -> Latent | None:
    """Returns all manipulations of a graph as one: of one, itself; None of none.

    Its value holds theirs side by side.  Where any of them is every row's own, it is too.
    """
    if len(manipulations) < 2:
        return manipulations[0] if manipulations else None
    shared = [latent.scope for latent in manipulations if not latent.per_row]
    children = tuple(dict.fromkeys(child for latent in manipulations for child in latent.children))
    mechanism: dict[str, str] = {}
    for latent in manipulations:
        for child, name in latent.mechanism.items():
            mechanism[child] = f"{mechanism[child]}, {name}" if child in mechanism else name
    return Latent(
        name="+".join(latent.name for latent in manipulations),
        dim=sum(latent.dim for latent in manipulations),
        children=children,
        manipulation=True,
        scope=shared[0] if len(shared) == len(manipulations) else "row",
        mechanism=mechanism,
        affects={child: affects for latent in manipulations for child, affects in latent.affects.items()},
        groups={group: columns for latent in manipulations for group, columns in latent.groups.items()},
        parts=tuple(manipulations),
    )


def _faults_together(manipulations: Sequence[Latent]) -> list[str]:
    """What does not fit among several manipulations, as sentences."""
    faults: list[str] = []
    affects: dict[str, tuple[str, str]] = {}
    groups: dict[str, str] = {}
    scopes: dict[str, str] = {}
    for latent in manipulations:
        where = f"latent {latent.name!r}: "
        if not latent.per_row:
            other = next((scope for scope in scopes if scope != latent.scope), None)
            if other is not None:
                faults.append(
                    f"{where}found scope {latent.scope!r}, and {other!r} of {scopes[other]!r}; "
                    "expected one shared scope, beside 'row'"
                )
            scopes.setdefault(latent.scope, latent.name)
        for child, value in latent.affects.items():
            of, before = affects.setdefault(child, (latent.name, value))
            if before != value:
                faults.append(
                    f"{where}affects: found {value!r} of {child!r}, and {before!r} in {of!r}; expected the same in both"
                )
        for group in latent.groups:
            if group in groups:
                faults.append(f"{where}groups: found {group!r}, as in {groups[group]!r}; expected another name")
            groups[group] = latent.name
        if "concat" in latent.mechanism.values() and len(manipulations) > 1:
            faults.append(
                f"{where}found mechanism 'concat' in a graph of several manipulations; expected one with parameters, "
                "which can follow another"
            )
    return faults


def _role_by_name(declared: Mapping[str, LatentSpec | None], faults: list[str]) -> dict[str, str]:
    """The role of every latent that is not dropped; adds to ``faults`` what two styles contend for."""
    chosen: dict[str, str] = {}
    for name, latent in declared.items():
        where = f"latent {name!r}: "
        if latent is None:
            if name not in _DIM:
                faults.append(f"{where}found null; expected a mapping: only z and m can be dropped")
            continue
        manipulation = name == _MANIPULATION if latent.manipulation is None else latent.manipulation
        role = _MANIPULATION if manipulation else _STYLE
        if name in _DIM and name != role:
            kind = "always" if name == _MANIPULATION else "never"
            faults.append(
                f"{where}found manipulation: {str(manipulation).lower()}; "
                f"expected another name: {name} is {kind} a manipulation"
            )
        elif role == _STYLE and role in chosen.values():
            first = next(name for name, other in chosen.items() if other == role)
            faults.append(
                f"{where}found a second latent with manipulation: false, beside {first!r}; expected at most one: join "
                "them, raising dim"
            )
        else:
            chosen[name] = role
    for role in _DIM:
        if role not in declared and role not in chosen.values():
            chosen = {role: role, **chosen} if role == _STYLE else {**chosen, role: role}
    return chosen


def _faults(
    name: str, role: str, spec: LatentSpec, nodes: Mapping[str, Node], target: str, blanket: Blanket
) -> list[str]:
    """What does not fit the graph in one latent, as sentences."""
    faults = []
    where = f"latent {name!r}: "
    known = blanket.children
    named = known if spec.children is None else spec.children
    for child in named:
        if child not in known:
            faults.append(
                f"{where}children: found {child!r}, {_role_of_node(child, nodes, target, blanket)}; "
                f"{one_of(child, known)}"
            )
    if len(set(named)) < len(named):
        faults.append(f"{where}children: found {shown(named)}; expected each child once")
    if role == _STYLE:
        for key in ("mechanism", "affects", "groups"):
            if getattr(spec, key) is not None:
                faults.append(f"{where}found key {key!r}; expected it for a manipulation only")
        if spec.scope != "row":
            faults.append(f"{where}found scope {spec.scope!r}; expected it for a manipulation only")
        if spec.loadings is not None and spec.effect == "deep":
            faults.append(
                f"{where}found loadings, of which a deep effect has none; expected effect 'linear' or 'auto' too"
            )
        if spec.effect == "linear" and not any(_may_be_linear(nodes[child]) for child in set(named) & set(known)):
            faults.append(
                f"{where}found effect 'linear' and no continuous child of likelihood normal among {shown(named)}; "
                "expected some: leave the effect out"
            )
    else:
        for key in ("effect", "loadings"):
            if getattr(spec, key) is not None:
                faults.append(f"{where}found key {key!r}; expected it for a style only")
    if role != _STYLE and spec.scope in nodes and spec.scope not in ("row", "dataset"):
        node = nodes[spec.scope]
        if node.name == target or not node.is_discrete:
            kind = "the target" if node.name == target else f"a node of type {node.type}"
            faults.append(
                f"{where}found scope {spec.scope!r}, {kind}; "
                "expected 'row', 'dataset' or a column that tells the sites apart without labels"
            )
    children = [child for child in known if child in named]
    for key, given in (("mechanism", spec.mechanism), ("affects", spec.affects)):
        for child in given if isinstance(given, dict) else ():
            if child not in children:
                faults.append(f"{where}{key}: found {child!r}; {one_of(child, children)}")
    if role == _MANIPULATION:
        faults += _group_faults(where, spec, nodes, children)
    return faults


def _group_faults(where: str, spec: LatentSpec, nodes: Mapping[str, Node], children: Sequence[str]) -> list[str]:
    """What is wrong with the groups of a manipulation."""
    faults: list[str] = []
    mechanism = _by_child(spec.mechanism, {child: _MECHANISM[nodes[child].type] for child in children})
    taken: dict[str, str] = {}
    for group, columns in (spec.groups or {}).items():
        at = f"{where}groups: {group!r}: "
        known = [column for column in columns if column in children]
        faults += [f"{at}found {column!r}; {one_of(column, children)}" for column in columns if column not in children]
        for column in known:
            if column in taken:
                twice = "twice" if taken[column] == group else f"in {taken[column]!r} too"
                faults.append(f"{at}found {column!r} {twice}; expected each child in one group, once")
            taken[column] = group
        if images := [column for column in known if nodes[column].is_image]:
            faults.append(f"{at}found {images[0]!r}, an image; expected columns of numbers or levels")
        alike = {(nodes[column].type, nodes[column].classes, mechanism[column]) for column in known}
        if len(alike) > 1:
            kinds = listed(dict.fromkeys(f"{kind} by {by}" for kind, _, by in sorted(alike)))
            faults.append(f"{at}found columns that move in different ways, {kinds}; expected one type and mechanism")
    if spec.groups and spec.scope == "row":
        faults.append(
            f"{where}found groups in scope 'row'; expected 'dataset' or a column: in a row's own m nothing is shared"
        )
    return faults


def _may_be_linear(node: Node) -> bool:
    """Whether a style may act linearly on a node's mean."""
    return node.type == "continuous" and node.likelihood in (None, "normal")


def _role_of_node(name: str, nodes: Mapping[str, Node], target: str, blanket: Blanket) -> str:
    if name not in nodes:
        return "no node"
    roles = [
        role
        for role, names in (
            ("the target", (target,)),
            ("a parent of the target", blanket.parents),
            ("a co-parent", blanket.coparents),
        )
        if name in names
    ]
    return " and ".join(roles) or "a node outside the target's Markov blanket"


def _latent(name: str, role: str, spec: LatentSpec, nodes: Mapping[str, Node], known: tuple[str, ...]) -> Latent:
    """The latent with the defaults of its role in what ``spec`` leaves out."""
    named = known if spec.children is None else spec.children
    children = tuple(child for child in known if child in named)
    dim = spec.dim or _DIM[role]
    if role == _STYLE:
        return Latent(
            name=name,
            dim=dim,
            children=children,
            scope=spec.scope,
            effect=spec.effect or "auto",
            loadings=spec.loadings or "shared",
        )
    return Latent(
        name=name,
        dim=dim,
        children=children,
        manipulation=True,
        scope=spec.scope,
        mechanism=_by_child(spec.mechanism, {child: _MECHANISM[nodes[child].type] for child in children}),
        affects=_by_child(spec.affects, dict.fromkeys(children, "quantity")),
        groups={group: tuple(columns) for group, columns in (spec.groups or {}).items()},
    )


def declared_latents(
    z: Latent | None, manipulations: Sequence[Latent], target: str
) -> dict[str, dict[str, Any] | None]:
    """Returns the latents in the form of the graph file, nothing left to defaults."""
    declared: dict[str, dict[str, Any] | None] = {}
    for role, latents in ((_STYLE, [] if z is None else [z]), (_MANIPULATION, list(manipulations))):
        if all(latent.name != role for latent in latents):
            declared[role] = None
        declared |= {latent.name: _declared(latent) for latent in latents}
    for latent in manipulations:
        if latent.confounder is not None:
            declared[latent.confounder] = {"causes": [target, latent.name]}
    return declared


def _declared(latent: Latent) -> dict[str, Any]:
    """What the graph file says of a latent."""
    entry: dict[str, Any] = {"dim": latent.dim, "children": list(latent.children)}
    if not latent.manipulation:
        return entry | {"effect": latent.effect} | ({} if latent.effect == "deep" else {"loadings": latent.loadings})
    entry |= {
        "manipulation": True,
        "scope": latent.scope,
        "mechanism": _folded(latent.mechanism),
        "affects": _folded(latent.affects),
    }
    if latent.groups:
        entry["groups"] = {group: list(columns) for group, columns in latent.groups.items()}
    if latent.parents:
        entry["parents"] = list(latent.parents)
    return entry


def _by_child(given: Mapping[str, str] | str | None, default: dict[str, str]) -> dict[str, str]:
    if isinstance(given, str):
        return dict.fromkeys(default, given)
    return {child: (given or {}).get(child, value) for child, value in default.items()}


def _folded(by_child: dict[str, str]) -> str | dict[str, str]:
    """One value for all children where they agree."""
    values = set(by_child.values())
    return values.pop() if len(values) == 1 else dict(by_child)
