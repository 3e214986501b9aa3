"""Random causal graphs of every tabular kind, and rows for them: what several test files draw from."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from pyro_cama import CAMA, build
from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder

# words that Python modules, Pyro's plates and torch's containers use themselves
AWKWARD = (
    "rows", "rows_", "samples", "classes", "sites", "type", "keys", "a.b", "forward", "mean radius", " ", "z", "m",
    "x", "networks", "graph", "manipulation", "target", "values", "missing flags", "weight", "0", "é", "$$$", "self",
    "y__CF",
)  # fmt: skip
names = st.one_of(st.sampled_from(AWKWARD), st.text(min_size=1, max_size=5))
LIKELIHOODS = {"continuous": ["normal", "heteroscedastic", "student_t"], "count": ["poisson", "negative_binomial"]}
MECHANISM = {"continuous": "affine", "count": "rate", "categorical": "confusion", "binary": "confusion"}
# latents of other names, so that any name is free for a node
Z, M, SECOND = "hidden style", "hidden drift", "hidden shock"


@st.composite
def specs(draw: st.DrawFn, max_nodes: int = 12, likelihoods: bool = True) -> dict[str, Any]:
    """A graph as a mapping; the target is any node but the last in causal order."""
    size = draw(st.integers(2, max_nodes))
    order = draw(st.lists(names, min_size=size, max_size=size, unique=True))
    rng = draw(st.randoms(use_true_random=False))
    target = order[rng.randrange(len(order) - 1)]
    density = rng.uniform(0.1, 0.9)
    edges = [[a, b] for a, b in itertools.combinations(order, 2) if rng.random() < density]
    effect = [target, order[order.index(target) + 1]]
    if effect not in edges:
        edges.append(effect)
    rng.shuffle(edges)

    def node(name: str) -> dict[str, Any]:
        kind = rng.choice(["categorical", "binary"] if name == target else [*MECHANISM])
        keys: dict[str, Any] = {"type": kind}
        if kind == "categorical":
            keys["levels"] = ["p", "q", "r", "s"][: rng.randint(2, 4)]
        if kind in LIKELIHOODS and rng.random() < 0.4:
            keys["dim"] = rng.randint(1, 3)
        if kind in LIKELIHOODS and likelihoods and rng.random() < 0.4:
            keys["likelihood"] = rng.choice(LIKELIHOODS[kind])
        return keys

    nodes = {name: node(name) for name in rng.sample(order, len(order))}
    children = [b for a, b in edges if a == target]

    def some() -> list[str]:
        return rng.sample(children, rng.randint(1, len(children)))

    moved = some()
    latents: dict[str, Any] = {
        "z": None,
        "m": None,
        Z: {"dim": rng.randint(1, 3), "children": some(), "effect": rng.choice(["deep", "auto"])},
        M: {
            "manipulation": True,
            "dim": rng.randint(1, 3),
            "children": moved,
            "scope": rng.choice(["row", "dataset", "hidden site"]),
            "mechanism": {n: rng.choice([MECHANISM[nodes[n]["type"]], "concat"]) for n in moved},
            "affects": {n: rng.choice(["quantity", "measurement"]) for n in moved},
        },
    }
    for latent in (Z, M):
        if rng.random() < 0.1:
            del latents[latent]
    if M in latents and rng.random() < 0.3:
        second = _second(latents[M], some(), nodes, rng)
        others = {} if second is None else {SECOND: second}
        latents = {**latents, **others} if rng.random() < 0.5 else {**others, **latents}
    return {"target": target, "nodes": nodes, "edges": edges, "latents": latents}


def _second(first: dict[str, Any], children: list[str], nodes: dict[str, Any], rng: Any) -> dict[str, Any] | None:
    """Another manipulation beside the first, of children that it may follow there; None where there are none."""
    first["mechanism"] = {name: MECHANISM[nodes[name]["type"]] for name in first["children"]}
    children = [n for n in children if n not in first["children"] or nodes[n]["type"] in LIKELIHOODS]
    scopes = ["row", "dataset", "hidden site"] if first["scope"] == "row" else ["row", first["scope"]]
    return (
        {
            "manipulation": True,
            "dim": rng.randint(1, 3),
            "children": children,
            "scope": rng.choice(scopes),
            "affects": {n: first["affects"].get(n) or rng.choice(["quantity", "measurement"]) for n in children},
        }
        if children
        else None
    )


def small(spec: dict[str, Any], sites: int = 0, **options: Any) -> CAMA:
    """A small model of a graph, which knows some sites if its manipulation has a scope column."""
    cama = build(spec, **{"hidden": 4, "layers": 1, **options})
    if sites and cama.graph.site_column is not None:
        encoder = TableEncoder(cama.graph)
        encoder.sites = tuple(range(sites))
        cama = cama.copy(encoder)
    return cama


def rows_of(cama: CAMA, rows: int, missing: Callable[[], bool] = lambda: False) -> Batch:
    """Rows drawn from the model; ``missing`` says of every node in turn whether it lacks some values."""
    site = None if cama.graph.site_column is None else torch.randint(-1, cama.model.sites, (rows,))
    with torch.no_grad():
        drawn = cama.model(Batch({}, {}, site, rows))
    observed: dict[str, torch.Tensor] = {}
    for name in cama.graph.order:
        if missing():
            observed[name] = torch.rand(rows) < 0.5
    return Batch({name: value.detach() for name, value in drawn.items()}, observed, site, rows)


def any_encoder(cama: CAMA) -> TableEncoder:
    """One fitted to rows that have every level and some spread."""
    generator = np.random.default_rng(0)
    table: dict[str, Any] = {}
    for name in cama.graph.order:
        node = cama.graph.nodes[name]
        if node.levels:
            table[name] = [node.levels[i % len(node.levels)] for i in range(24)]
        else:
            table[name] = generator.poisson(4.0, (24, *node.event_shape)).astype(float)
    if cama.graph.site_column is not None:
        table[cama.graph.site_column] = ["s", "t"] * 12
    return TableEncoder(cama.graph).fit(table)
