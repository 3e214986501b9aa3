"""The graph: what it accepts and refuses, its blanket against d-separation, its way through every format."""

# ruff: noqa: E501 (the tables below hold a fault a line)

import contextlib
import copy
import itertools
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cama.errors import DataError, GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from tests.helpers.paths import GRAPHS, ROOT

DESIGN = """
target: diagnosis
nodes:
  age:        {type: continuous}
  smoker:     {type: categorical, levels: ["no", "yes"]}
  diagnosis:  {type: categorical, levels: [benign, malignant]}
  radius:     {type: continuous}
  scan:       {type: image, shape: [1, 28, 28]}
edges:
  - age -> diagnosis
  - diagnosis -> radius
  - [diagnosis, scan]
  - smoker -> radius
latents:
  z: {dim: 8}
  m: {dim: 4, manipulation: true, children: [radius, scan], scope: row, mechanism: {radius: affine, scan: warp}}
"""


def spec(**changes: Any) -> dict[str, Any]:
    """A small valid graph, with changes; a change to ... takes the key out."""
    raw: dict[str, Any] = {
        "target": "y",
        "nodes": {
            "a": "continuous",
            "c": "binary",
            "y": "binary",
            "x1": "continuous",
            "x2": "count",
            "o": "count",
        },
        "edges": ["a -> y -> x1", "y -> x2", "c -> x2", "x1 -> o"],
    }
    return {key: value for key, value in {**raw, **changes}.items() if value is not ...}


def node(**keys: Any) -> dict[str, Any]:
    """The small graph with the keys of node x1 replaced."""
    return spec(nodes={**spec()["nodes"], "x1": keys})


# Random graphs: any name, any type, any edges along the order of declaration shuffled.

RESERVED = {"z", "m"}
awkward = st.sampled_from(
    [
        "type", "keys", "a.b", "mean radius", "no", "yes", "1", "1e3", "~", "null", "<<", "=", "a -> b", "->", " a ",
        "- x", "# x", "x: y", "2020-01-01", "é", "日本", "'", '"', "\\", "\n", "\t", "{a}", "[a]", "&a", "*a", "!a", "%", "@",
        "self", "forward", "__class__", "target", "Z", "x" * 200, "\x00", "\ufeff", "\x85", "\u2028", "a\r\nb",
    ]
)  # fmt: skip
names = st.one_of(st.text(min_size=1, max_size=8), awkward).filter(lambda name: name not in RESERVED)
number = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
size = st.integers(1, 5)


@st.composite
def levels(draw: st.DrawFn, low: int, high: int) -> list[Any]:
    return draw(st.lists(st.one_of(st.text(), awkward, number), min_size=low, max_size=high, unique=True))


@st.composite
def node_specs(draw: st.DrawFn, discrete: bool = False) -> dict[str, Any]:
    kinds = ["categorical", "binary"] if discrete else ["continuous", "count", "image", "categorical", "binary"]
    keys: dict[str, Any] = {"type": draw(st.sampled_from(kinds))}
    match keys["type"]:
        case "categorical":
            keys["levels"] = draw(levels(2, 4))
        case "binary":
            keys["levels"] = draw(st.one_of(st.none(), levels(2, 2), st.just([False, True])))
        case "image":
            keys["shape"] = draw(st.lists(size, min_size=3, max_size=3))
        case _:
            keys["dim"] = draw(st.one_of(st.none(), size))
    keys["likelihood"] = draw(st.one_of(st.none(), names))
    return keys


@st.composite
def graph_specs(draw: st.DrawFn) -> dict[str, Any]:
    """A graph of up to 12 nodes; the target is any node but the last in causal order."""
    order = draw(st.lists(names, min_size=2, max_size=12, unique=True))
    place = draw(st.integers(0, len(order) - 2))
    rng = draw(st.randoms(use_true_random=False))
    density = draw(st.floats(0.1, 0.9))
    edges = [[a, b] for a, b in itertools.combinations(order, 2) if rng.random() < density]
    effect = [order[place], order[place + 1]]
    if effect not in edges:
        edges.append(effect)
    rng.shuffle(edges)
    declared = list(order)
    rng.shuffle(declared)
    nodes = {name: draw(node_specs(discrete=name == order[place])) for name in declared}
    raw = {"target": order[place], "nodes": nodes, "edges": edges}
    children = [b for a, b in edges if a == order[place]]
    some = st.lists(st.sampled_from(children), min_size=1, unique=True)
    latents: dict[str, Any] = {}
    match draw(st.sampled_from(["default", "null", "some", "renamed"])):
        case "null":
            latents = {"z": None, "m": None}
        case "some":
            latents["z"] = {"dim": draw(size), "children": draw(some)}
            named = draw(some)
            by_child = st.dictionaries(st.sampled_from(named), names)
            affects = st.dictionaries(st.sampled_from(named), st.sampled_from(["quantity", "measurement"]))
            latents["m"] = {
                "children": named,
                "scope": draw(names.filter(lambda name: name not in declared)),
                "mechanism": draw(st.one_of(names, by_child)),
                "affects": draw(affects),
            }
        case "renamed":
            free = names.filter(lambda name: name not in declared)
            style, drift = draw(st.lists(free, min_size=2, max_size=2, unique=True))
            latents = {style: {}, drift: {"manipulation": True, "dim": draw(size)}}
    if latents:
        raw["latents"] = latents
    return raw


@settings(max_examples=200)
@given(graph_specs())
def test_blanket_is_what_d_separation_says(raw: dict[str, Any]) -> None:
    graph = CausalGraph(raw)
    blanket = set(graph.blanket.parents) | set(graph.blanket.children) | set(graph.blanket.coparents)
    assert set(graph.order) == blanket | {graph.target}
    everything: nx.DiGraph[str] = nx.DiGraph([tuple(edge) for edge in raw["edges"]])
    everything.add_nodes_from(raw["nodes"])
    rest = set(everything) - set(graph.order)
    if rest:
        assert nx.is_d_separator(everything, {graph.target}, rest, blanket)
    for name in blanket:
        assert not nx.is_d_separator(everything, {graph.target}, rest | {name}, blanket - {name})
    causes = {child: {a for a, b in raw["edges"] if b == child} for child in raw["nodes"]}
    assert set(graph.blanket.parents) == causes[graph.target]
    place = {name: i for i, name in enumerate(graph.order)}
    for name in graph.order:
        assert graph.parents_of(name) == tuple(cause for cause in graph.order if cause in causes[name])
        assert all(place[cause] < place[name] for cause in graph.parents_of(name))


@settings(max_examples=200)
@given(graph_specs())
def test_round_trips(raw: dict[str, Any]) -> None:
    graph = CausalGraph(raw)
    copies = [
        CausalGraph.from_yaml(graph.to_yaml()),
        CausalGraph(graph.to_networkx()),
        CausalGraph(graph.to_dict()),
        CausalGraph(graph),
        copy.deepcopy(graph),
        pickle.loads(pickle.dumps(graph)),
    ]
    for other in copies:
        assert other == graph
        assert hash(other) == hash(graph)
        assert other.order == graph.order
        # 1, 1.0 and True are equal, but not the same level.
        assert repr(other.to_dict()) == repr(graph.to_dict())


@settings(max_examples=50)
@given(graph_specs(), st.randoms(use_true_random=False))
def test_order_of_edges_does_not_matter(raw: dict[str, Any], rng: random.Random) -> None:
    edges = list(raw["edges"])
    rng.shuffle(edges)
    assert CausalGraph(raw) == CausalGraph({**raw, "edges": edges})


scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 40), st.floats(), st.text(max_size=5))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.one_of(st.text(max_size=3), scalars), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=200)
@given(st.data())
def test_any_wrong_value_is_a_graph_error(data: st.DataObject) -> None:
    raw = CausalGraph(GRAPHS / "clinic.yaml").to_dict()
    inner: Any = raw
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inner[key], dict | list) or not inner[key] or data.draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = data.draw(values)
    try:
        graph = CausalGraph(raw)
    except GraphError:
        return
    assert CausalGraph.from_yaml(graph.to_yaml()) == graph


@settings(max_examples=200)
@given(
    place=st.integers(0, 1500),
    cut=st.integers(0, 12),
    put=st.one_of(st.text(max_size=4), st.text("{}[]:,&*!-'\"#|> \n\t0x1", max_size=6), st.sampled_from(["!!int ", "&a ", "*a"])),
)  # fmt: skip
def test_any_damage_to_a_file_is_a_graph_error(place: int, cut: int, put: str) -> None:
    text = (GRAPHS / "clinic.yaml").read_text()
    text = text[:place] + put + text[place + cut :]
    with contextlib.suppress(GraphError):
        CausalGraph.from_yaml(text)


# What is accepted.


def test_the_documented_graph() -> None:
    graph = CausalGraph.from_yaml(DESIGN)
    assert graph.target == "diagnosis"
    assert graph.blanket.parents == ("age",)
    assert graph.blanket.children == ("radius", "scan")
    assert graph.blanket.coparents == ("smoker",)
    assert graph.order == ("age", "smoker", "diagnosis", "radius", "scan")
    assert graph.parents_of("radius") == ("smoker", "diagnosis")
    assert graph.nodes["smoker"].levels == ("no", "yes")
    assert graph.nodes["smoker"].classes == 2
    assert graph.nodes["age"].classes == 0
    assert graph.nodes["scan"].shape == (1, 28, 28)
    assert graph.z is not None
    assert (graph.z.dim, graph.z.children, graph.z.scope) == (8, ("radius", "scan"), "row")
    assert graph.z.mechanism == graph.z.affects == {}
    assert graph.m is not None
    assert graph.m.mechanism == {"radius": "affine", "scan": "warp"}
    assert graph.m.affects == {"radius": "quantity", "scan": "quantity"}
    assert graph.factorisation() == (
        "p(age) p(smoker) p(z) p(m) p(diagnosis | age) p(radius | diagnosis, smoker, z, m) p(scan | diagnosis, z, m)"
    )
    assert repr(graph) == (
        "<CausalGraph: target 'diagnosis'; parents 'age'; children 'radius', 'scan'; coparents 'smoker'; "
        "latents 'z', 'm'>"
    )


def test_the_module_docstring_shows_a_valid_graph() -> None:
    import pyro_cama.graph

    text = str(pyro_cama.graph.__doc__).split("::\n", 1)[1].split("\n\nThe keys of a node")[0]
    assert CausalGraph.from_yaml(text).factorisation() == CausalGraph.from_yaml(DESIGN).factorisation()


def test_ties_in_the_order_follow_the_declaration() -> None:
    nodes = {"x2": "count", "y": "binary", "x1": "count", "c": "count"}
    graph = CausalGraph({"target": "y", "nodes": nodes, "edges": ["c -> x1", "y -> x1", "y -> x2"]})
    assert graph.order == ("y", "x2", "c", "x1")
    assert graph.nodes["y"].levels == (0, 1)
    assert list(graph.nodes) == list(nodes)
    assert graph.edges == (("y", "x2"), ("y", "x1"), ("c", "x1"))


def test_a_node_may_be_parent_and_coparent() -> None:
    graph = CausalGraph(spec(edges=["a -> y -> x1", "a -> x1", "x1 -> x2", "y -> x2"]))
    assert graph.blanket.parents == graph.blanket.coparents == ("a",)
    assert graph.blanket.children == ("x1", "x2")
    assert graph.parents_of("x2") == ("y", "x1")


def test_a_coparent_may_descend_from_a_child() -> None:
    graph = CausalGraph(spec(edges=["y -> x1 -> o", "o -> x2", "y -> x2"]))
    assert graph.blanket.coparents == ("o",)
    assert graph.order == ("y", "x1", "o", "x2")
    assert graph.factorisation() == "p(z) p(m) p(y) p(x1 | y, z, m) p(o | x1) p(x2 | y, o, z, m)"


def test_nodes_outside_the_blanket_are_left_out() -> None:
    graph = CausalGraph(spec())
    assert "o" in graph.nodes
    assert "o" not in graph.order
    assert graph.parents_of("o") == ("x1",)
    with pytest.raises(GraphError, match=r"no node; expected one of .*did you mean 'x1'"):
        graph.parents_of("X1")


def test_forms_of_edges_agree() -> None:
    chains = CausalGraph(spec(edges=["a->y ->x1 -> o", "y -> x2", ["c", "x2"]]))
    assert chains == CausalGraph(spec(edges=[("x1", "o"), ("a", "y"), ("y", "x1"), ("y", "x2"), ("c", "x2")]))


def test_a_name_with_an_arrow_takes_the_list_form() -> None:
    graph = CausalGraph({"target": "y", "nodes": {"y": "binary", "a -> b": "count"}, "edges": [["y", "a -> b"]]})
    assert graph.blanket.children == ("a -> b",)
    assert CausalGraph.from_yaml(graph.to_yaml()) == graph


def test_default_latents() -> None:
    graph = CausalGraph(spec(nodes={**spec()["nodes"], "x1": {"type": "image", "shape": [3, 2, 1]}}))
    assert graph.z is not None
    assert graph.m is not None
    assert (graph.z.dim, graph.z.children, graph.z.manipulation) == (8, ("x1", "x2"), False)
    assert (graph.m.dim, graph.m.children, graph.m.manipulation) == (4, ("x1", "x2"), True)
    assert graph.m.scope == "row"
    assert graph.m.mechanism == {"x1": "warp", "x2": "rate"}


def test_latents_dropped_renamed_and_by_default() -> None:
    def latents(**given: Any) -> tuple[str | None, str | None]:
        graph = CausalGraph(spec(latents=given))
        return graph.z.name if graph.z else None, graph.m.name if graph.m else None

    assert latents() == ("z", "m")
    assert latents(z=None) == (None, "m")
    assert latents(m=None) == ("z", None)
    assert latents(z=None, m=None) == (None, None)
    assert latents(style={}) == ("style", "m")
    assert latents(style={"dim": 2}, z=None) == ("style", "m")
    assert latents(drift={"manipulation": True}) == ("z", "drift")
    assert latents(m={"dim": 2}) == ("z", "m")
    assert latents(z={"manipulation": False}, m={"manipulation": True}) == ("z", "m")


def test_nodes_may_be_called_z_and_m_when_the_latents_are_not() -> None:
    raw = {
        "target": "m",
        "nodes": {"m": "binary", "z": "count"},
        "edges": ["m -> z"],
        "latents": {"style": {}, "drift": {"manipulation": True}},
    }
    graph = CausalGraph(raw)
    assert graph.factorisation() == "p(style) p(drift) p(m) p(z | m, style, drift)"
    assert CausalGraph.from_yaml(graph.to_yaml()) == graph


def test_mechanism_and_affects_for_all_or_by_child() -> None:
    one = CausalGraph(spec(latents={"m": {"mechanism": "concat", "affects": "measurement", "scope": "site"}})).m
    some = CausalGraph(spec(latents={"m": {"mechanism": {"x2": "concat"}, "affects": {"x1": "measurement"}}})).m
    assert one is not None
    assert some is not None
    assert one.mechanism == {"x1": "concat", "x2": "concat"}
    assert one.affects == {"x1": "measurement", "x2": "measurement"}
    assert one.scope == "site"
    assert some.mechanism == {"x1": "affine", "x2": "concat"}
    assert some.affects == {"x1": "measurement", "x2": "quantity"}


def test_a_scope_column_may_be_a_node() -> None:
    m = CausalGraph(spec(latents={"m": {"scope": "c"}})).m
    assert m is not None
    assert m.scope == "c"
    nodes = {"y": "binary", "row": "continuous"}
    m = CausalGraph({"target": "y", "nodes": nodes, "edges": ["y -> row"]}).m
    assert m is not None
    assert m.scope == "row"


def test_numpy_values_are_plain_values() -> None:
    nodes = {
        "y": {"type": "categorical", "levels": np.array([3, 1])},
        "x": {"type": "count", "dim": np.int64(2)},
    }
    graph = CausalGraph({"target": np.str_("y"), "nodes": nodes, "edges": np.array([["y", "x"]])})
    assert repr(graph.nodes["y"].levels) == "(3, 1)"
    assert graph.nodes["x"].dim == 2


def test_anchors_and_merges_are_yaml_and_work() -> None:
    graph = CausalGraph.from_yaml(
        "target: y\nnodes: {y: binary, a: &n {type: count, dim: 2}, b: *n, c: {<<: *n, dim: 3}}\n"
        "edges: [y -> a, y -> b, y -> c]\n"
    )
    assert [graph.nodes[name].dim for name in "abc"] == [2, 2, 3]


def test_target_may_be_replaced() -> None:
    graph = CausalGraph(spec(edges=["c -> y -> x1"]), target="c")
    assert graph.blanket.children == ("y",)
    assert CausalGraph(nx.DiGraph(graph.to_networkx(), latents={}), target="y").target == "y"


def test_equality_and_hash() -> None:
    graph = CausalGraph(spec())
    assert graph == CausalGraph(spec())
    assert len({graph, CausalGraph(spec())}) == 1
    assert graph != CausalGraph(spec(latents={"m": {"scope": "dataset"}}))
    assert graph != CausalGraph(spec(latents={"m": {"mechanism": "concat"}}))
    assert graph != "graph"


def test_both_errors_are_value_errors() -> None:
    assert issubclass(GraphError, ValueError)
    assert issubclass(DataError, ValueError)


def test_no_torch_is_imported() -> None:
    # Only the modules themselves: the package's __init__ re-exports what needs torch.
    program = (
        "import sys, types, pathlib; package = types.ModuleType('pyro_cama');"
        f"package.__path__ = [{str(ROOT / 'pyro_cama')!r}]; sys.modules['pyro_cama'] = package;"
        "import pyro_cama.graph; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# The graphs that come with the package.


@pytest.mark.parametrize("path", sorted(GRAPHS.glob("*.yaml")), ids=lambda path: path.stem)
def test_graphs_of_the_repository(path: Path) -> None:
    graph = CausalGraph(path)
    assert graph.source == str(path)
    assert CausalGraph(str(path)) == graph
    assert CausalGraph.from_yaml(graph.to_yaml()) == graph
    assert all(len(line) <= 120 for line in path.read_text().splitlines())


@pytest.mark.parametrize("name", ["breast_cancer", "wine"])
def test_graphs_fit_the_tables_of_scikit_learn(name: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    table = getattr(datasets, f"load_{name}")()
    graph = CausalGraph(GRAPHS / f"{name}.yaml")
    assert list(graph.blanket.children) == list(table.feature_names)
    assert graph.nodes[graph.target].levels == tuple(table.target_names)
    assert graph.m is not None
    assert graph.z is not None
    assert (graph.z.dim, graph.m.dim, graph.m.scope) == (8, 4, "dataset")


def test_the_clinic() -> None:
    graph = CausalGraph(GRAPHS / "clinic.yaml")
    assert graph.blanket.parents == ("age", "exposure")
    assert graph.blanket.children == ("white_cells", "fever", "cough", "ward")
    assert graph.blanket.coparents == ("age", "smoker", "medication")
    assert graph.parents_of("ward") == ("age", "infection", "fever")
    assert "billing" not in graph.order
    assert graph.m is not None
    assert graph.m.scope == "hospital"
    assert graph.m.affects["fever"] == "measurement"


# Files.


def test_yaml_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = CausalGraph(spec())
    path = tmp_path / "graph.yaml"
    assert graph.to_yaml(path) == path.read_text()
    assert CausalGraph(path) == graph

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        CausalGraph.from_yaml(DESIGN).to_yaml(path)
    assert CausalGraph(path) == graph
    assert [file.name for file in tmp_path.iterdir()] == ["graph.yaml"]


@pytest.mark.parametrize("suffix", ["gml", "graphml", "dot"])
@pytest.mark.parametrize("name", ["clinic", "wine", "breast_cancer"])
def test_what_networkx_writes_of_it(name: str, suffix: str, tmp_path: Path) -> None:
    graph = CausalGraph(GRAPHS / f"{name}.yaml")
    path = tmp_path / f"graph.{suffix}"
    writer = nx.nx_pydot.write_dot if suffix == "dot" else getattr(nx, f"write_{suffix}")
    writer(graph.to_networkx(), path)
    assert CausalGraph(path) == graph


DOT = r"""
digraph clinic {
    target = "the disease"; latents = "{z: {dim: 3}, m: {scope: \"my site\"}}";
    node [type=continuous];
    "the disease" [type="categorical", levels="no, yes"];
    "x.1" [type="count", dim="3"];
    scan [type=image, shape="1,28,28"];
    scored [type=binary, levels="[1.5, 2.5]"];
    sick [type=binary, levels="1,2"];
    age -> "the disease" -> "x.1" -> scan [weight=2];
    "the disease" -> scan; "the disease" -> scored; "the disease" -> sick;
}
"""


@pytest.mark.parametrize("suffix", ["dot", "gv"])
def test_dot_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"graph.{suffix}"
    path.write_text(DOT)
    graph = CausalGraph(path)
    assert graph.target == "the disease"
    assert graph.nodes["age"].type == "continuous"
    assert graph.nodes["the disease"].levels == ("no", "yes")
    assert graph.nodes["x.1"].dim == 3
    assert graph.nodes["scan"].shape == (1, 28, 28)
    assert graph.nodes["scored"].levels == (1.5, 2.5)
    assert graph.nodes["sick"].levels == (1, 2)
    assert graph.blanket.children == ("x.1", "scan", "scored", "sick")
    assert graph.z is not None
    assert graph.z.dim == 3
    assert graph.m is not None
    assert graph.m.scope == "my site"
    assert CausalGraph.from_yaml(graph.to_yaml()) == graph


@pytest.mark.parametrize(
    ("file", "content", "fragments"),
    [
        ("g.yaml", "target: y\nnodes: {y: binary\nedges: []\n", ["g.yaml: line 3, column ", "expected valid YAML"]),
        ("g.yaml", "target: y\n\tnodes: x\n", ["g.yaml: line 2, column 1", "valid YAML"]),
        ("g.yaml", "target: \x01", ["special characters", "valid YAML"]),
        ("g.yaml", "", ["g.yaml: is empty; expected a mapping with the keys target, nodes and edges"]),
        ("g.yaml", "# nothing\n", ["is empty"]),
        ("g.yaml", "{}", ["is empty"]),
        ("g.yaml", "null", ["found None; expected a mapping"]),
        ("g.yaml", "- a\n- b\n", ["found ['a', 'b']; expected a mapping"]),
        ("g.yaml", "hello", ["found 'hello'; expected a mapping"]),
        ("g.yaml", "a: 1\n---\nb: 2\n", ["line 2", "another document"]),
        ("g.yaml", "a: !!python/object/apply:os.getcwd []\n", ["line 1: found the tag '!!python/object/apply:os.getcwd'"]),
        ("g.yaml", "a: !mine 1\n", ["line 1: found the tag '!mine'"]),
        ("g.yaml", "a: !!int x\n", ["found a tag unfit for its value", "leave tags out"]),
        ("g.yaml", "target: y\nnodes:\n  y: binary\n  x: count\n  y: count\n", ["line 5: found key 'y' again, first in line 3"]),
        ("g.yaml", "target: y\ntarget: x\n", ["line 2: found key 'target' again, first in line 1"]),
        ("g.yaml", "target: y\nnodes: {y: {type: categorical, levels: [2020-01-01, b]}}\n", ["line 2: found '2020-01-01'", "quote it"]),
        ("g.yaml", "a: &a [*a]\n", ["line 1: found an anchor that contains itself"]),
        ("g.yaml", "[" * 5000, ["nested too deeply"]),
        ("g.yaml", b"\xff\xfe\xfa", ["is not UTF-8 text"]),
        ("g.gml", "garbage [", ["g.gml: is no valid gml file"]),
        ("g.gml", "graph [ node [ id 0 label \"a\" ] node [ id 1 ] edge [ source 0 target 1 ] ]", ["no direction in 'a --- 1'"]),
        ("g.gml", "graph [ directed 1 node [ id 0 label \"y\" type \"binary\" ] node [ id 0 ] ]", ["found two nodes of id 0"]),
        ("g.gml", "graph [ directed 1 targt \"y\" node [ id 0 label \"y\" type \"binary\" ] ]", ["unknown key 'targt'", "did you mean 'target'"]),
        ("g.graphml", "<a", ["g.graphml: is no valid graphml file"]),
        ("g.graphml", "<a/>", ["is no valid graphml file"]),
        ("g.dot", "digraph { a -> ", ["g.dot: is no valid DOT file: line 1: found 'the end'; expected a name"]),
        ("g.dot", "graph { a -- b }", ["edges: found no direction in 'a --- b'", "orient=['a -> b']", "--orient 'a -> b'"]),
        ("g.dot", "digraph { a -> b }", ["missing key 'target'", "found no types of nodes", "init TABLE --graph FILE"]),
        ("g.dot", "digraph { a -> b } digraph { b -> c }", ["several graphs"]),
        ("g.dot", "digraph { target=y; y [type=binary, level=\"a,b\"]; y -> x; x [type=count] }", ["node 'y': found unknown key 'level'", "did you mean 'levels'"]),
        ("g.dot", "digraph { target=y; y [type=binary, levels=\"[a\"]; y -> x; x [type=count] }", ["node 'y', levels: line 1"]),
        ("g.json", "{}", ["found suffix '.json'; expected one of '.yaml'"]),
        ("g", "{}", ["found suffix ''"]),
    ],
)  # fmt: skip
def test_faulty_files(file: str, content: str | bytes, fragments: list[str], tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GraphError) as caught:
        CausalGraph(path)
    for fragment in [str(path), *fragments]:
        assert fragment in str(caught.value)


def test_missing_files_and_other_sources(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        CausalGraph(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(GraphError, match=r"folder\.yaml: cannot be read"):
        CausalGraph(tmp_path / "folder.yaml")
    with pytest.raises(GraphError, match=r"is no file name.*from_yaml"):
        CausalGraph(DESIGN)
    with pytest.raises(GraphError, match=r"<list>: found \['a'\]; expected a file, a mapping"):
        CausalGraph(["a"])  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="no direction in 'a --- b'"):
        CausalGraph(nx.Graph([("a", "b")]))
    with pytest.raises(GraphError, match="node 0: found 0; expected text"):
        CausalGraph(nx.DiGraph([(0, 1)]), target="0", data={"0": [0, 1], "1": [0.5, 1.5]})
    several: nx.MultiDiGraph[str] = nx.MultiDiGraph([("y", "x"), ("y", "x")], target="y")
    nx.set_node_attributes(several, {"y": "binary", "x": "count"}, "type")
    with pytest.raises(GraphError, match=r"edge 2 \(y -> x\): found again, as in edge 1"):
        CausalGraph(several)


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(GraphError, match="found over 1000000 values"):
        CausalGraph.from_yaml("\n".join(lines))


# What is refused, and in which words.

FAULTS: list[tuple[dict[Any, Any] | str, list[str]]] = [
    # keys
    (spec(targt="y", target=...), ["2 faults", "found unknown key 'targt'", "did you mean 'target'?", "missing key 'target'"]),
    (spec(title="x"), ["found unknown key 'title'; expected one of 'target', 'nodes', 'edges', 'latents'"]),
    (dict([*spec().items(), (1, 2)]), ["found unknown key 1"]),
    (spec(nodes=...), ["missing key 'nodes'; expected a mapping of node to type"]),
    (spec(nodes={}), ["nodes: found {}; expected a mapping of node to type"]),
    (spec(nodes=["a", "b"]), ["nodes: found ['a', 'b']; expected a mapping"]),
    (spec(nodes=None), ["nodes: found None; expected a mapping"]),
    (spec(edges=None), ["edges: found None; expected a list of edges 'a -> b'"]),
    (spec(edges="a -> y"), ["edges: found 'a -> y'; expected a list of edges"]),
    (spec(latents=None), ["latents: found None; expected a mapping such as {z: {dim: 8}, m: null}"]),
    # target
    (spec(target="Y1"), ["target: found 'Y1', no node", "expected one of 'a', 'c', 'y'", "did you mean 'y"]),
    (spec(target=True), ["target: found True; expected the name of a categorical or binary node", "quote it"]),
    (spec(target=None), ["target: found None; expected the name of"]),
    (spec(target="a"), ["target 'a': found type continuous; expected categorical or binary"]),
    (spec(edges=["a -> y"]), ["target 'y': found no children, only the parents 'a'", "un-manipulated", "discriminative model"]),
    (spec(edges=...), ["target 'y': found no children;"]),
    # nodes
    (spec(nodes={"y": None}), ["node 'y': found None; expected a type, as in {type: continuous}"]),
    (spec(nodes={"y": 3}), ["node 'y': found 3; expected a type"]),
    (spec(nodes={"y": "binry"}), ["node 'y': type: found 'binry'", "did you mean 'binary'?"]),
    (node(type="continous"), ["node 'x1': type: found 'continous'; expected one of", "did you mean 'continuous'?"]),
    (node(type=1), ["node 'x1': type: found 1; expected one of 'continuous'"]),
    (node(typ="count"), ["node 'x1': found unknown key 'typ'", "did you mean 'type'?", "missing key 'type'"]),
    (node(type="count", role="child"), ["found unknown key 'role'; expected one of 'type', 'dim'"]),
    (node(type="continuous", levels=[1, 2]), ["node 'x1': found key 'levels'; expected, for type continuous, only dim and likelihood"]),
    (node(type="binary", dim=2), ["found key 'dim'; expected, for type binary, only levels and likelihood"]),
    (node(type="count", shape=[1, 2, 3]), ["found key 'shape'; expected, for type count, only dim"]),
    (node(type="image"), ["node 'x1': missing key 'shape'", "[1, 28, 28]"]),
    (node(type="image", shape=[28, 28]), ["node 'x1': shape: found [28, 28]; expected [channels, height, width]"]),
    (node(type="image", shape=[1, 0, 28]), ["node 'x1': shape: found [1, 0, 28]; expected"]),
    (node(type="image", shape=[1, 28.0, 28]), ["node 'x1': shape: found [1, 28.0, 28]"]),
    (node(type="image", shape=[1, 2, 3], dim=3), ["for type image, only shape"]),
    (node(type="count", dim=0), ["node 'x1': dim: found 0; expected a whole number of at least 1"]),
    (node(type="count", dim="3"), ["dim: found '3'; expected a whole number"]),
    (node(type="count", dim=True), ["dim: found True; expected a whole number"]),
    (node(type="count", dim=[2, 2]), ["dim: found [2, 2]; expected a whole number"]),
    (node(type="count", likelihood=3), ["likelihood: found 3; expected the name of a likelihood"]),
    (node(type="categorical"), ["node 'x1': missing key 'levels'; expected the categories, as in levels: [benign, malignant]"]),
    (node(type="categorical", levels=["a"]), ["node 'x1': levels: found ['a']; expected at least two"]),
    (node(type="categorical", levels=[]), ["levels: found []; expected at least two"]),
    (node(type="categorical", levels=["a", "b", "a"]), ["levels: found ['a', 'b', 'a']; expected each level once"]),
    (node(type="categorical", levels="ab"), ["levels: found 'ab'; expected a list of texts or numbers"]),
    (node(type="categorical", levels=["a", None]), ["levels: found ['a', None]; expected a list of texts or numbers"]),
    (node(type="categorical", levels=[["a"], "b"]), ["levels: found [['a'], 'b']; expected a list"]),
    (node(type="categorical", levels=[1.0, float("nan")]), ["levels: found [1.0, nan]; expected no infinity and no NaN"]),
    (node(type="binary", levels=[1, 2, 3]), ["levels: found [1, 2, 3]; expected exactly two; use type categorical"]),
    (node(type="binary", levels=[1, True]), ["expected each level once"]),
    (spec(nodes={"": "count"}), ["node '': found ''; expected a name"]),
    ("target: y\nnodes: {y: binary, x: {type: categorical, levels: [no, yes]}}\nedges: [y -> x]",
     ["<yaml>: node 'x': levels: found [False, True]; expected text: YAML reads unquoted yes", "so quote it", "use type binary"]),
    ("target: y\nnodes: {y: binary, yes: count}\nedges: [y -> yes]", ["node True: found True; expected text: YAML reads unquoted yes"]),
    ("target: y\nnodes: {y: binary, 1: count}\nedges: [[y, 1]]", ["node 1: found 1; expected text: quote it, as in '1'", "edge 1: found 1; expected text: quote it"]),
    ("target: y\nnodes: {y: binary, ~: count}\nedges: []", ["node None: found None; expected text"]),
    ("target: y\nnodes: {y: binary, age: }\nedges: [y -> age]", ["node 'age': found None; expected a type, as in {type: continuous}"]),
    ("target: y\nnodes: {y: binary, [1]: count}\nedges: []", ["line 2", "unhashable key"]),
    # edges
    (spec(edges=["a -> why"]), ["edge 1 (a -> why): found 'why', no node; expected one of 'a', 'c'"]),
    (spec(edges=["y -> x1", "y -> X2"]), ["edge 2 (y -> X2): found 'X2', no node", "did you mean 'x2'?"]),
    (spec(edges=["y -> x1", "x1 -> x1"]), ["edge 2 (x1 -> x1): found a node that causes itself"]),
    (spec(edges=["y -> x1", ["y", "x1"]]), ["edge 2 (y -> x1): found again, as in edge 1; expected each edge once"]),
    (spec(edges=["y -> x1 -> o", "x1 -> o"]), ["edge 2 (x1 -> o): found again, as in edge 1"]),
    (spec(edges=["q -> y", "y -> r", "y -> y"]), ["3 faults", "\n  - edge 1 (q -> y)", "\n  - edge 2 (y -> r)", "\n  - edge 3"]),
    (spec(edges=["y x1"]), ["edge 1: found 'y x1'; expected 'a -> b', 'a -> b -> c' or [a, b]"]),
    (spec(edges=["y ->"]), ["edge 1: found 'y ->'; expected 'a -> b'"]),
    (spec(edges=["y -> x1", ["y", "x1", "o"]]), ["edge 2: found a list of 3, ['y', 'x1', 'o']; expected two, [cause, effect]", "'a -> b -> c'"]),
    (spec(edges=[["y"]]), ["edge 1: found a list of 1"]),
    (spec(edges=[["y", True]]), ["edge 1: found True; expected text: YAML reads unquoted"]),
    (spec(edges=[{"y": "x1"}]), ["edge 1: found {'y': 'x1'}; expected 'a -> b'"]),
    (spec(edges=[3]), ["edge 1: found 3; expected 'a -> b'"]),
    (spec(edges=["y -> x1 -> x2 -> x1"]), ["edges: found the cycle x1 -> x2 -> x1; expected none"]),
    (spec(edges=["y -> x1", "a -> c -> o -> a"]), ["edges: found the cycle a -> c -> o -> a;"]),
    # latents
    (spec(latents={"z": {"dim": 0}}), ["latent 'z': dim: found 0; expected a whole number of at least 1"]),
    (spec(latents={"z": 8}), ["latent 'z': found 8; expected a mapping such as {dim: 4}, or null to drop it"]),
    (spec(latents={"z": {"dims": 8}}), ["latent 'z': found unknown key 'dims'", "did you mean 'dim'?"]),
    (spec(latents={"style": None}), ["latent 'style': found null", "only z and m can be dropped"]),
    (spec(latents={True: {}}), ["latent True: found True; expected text"]),
    (spec(latents={"style": {}, "z": {}}), ["latent 'z': found a second latent with manipulation: false, beside 'style'"]),
    (spec(latents={"m": {"manipulation": False}}), ["latent 'm': found manipulation: false; expected another name: m is always a manipulation"]),
    (spec(latents={"z": {"manipulation": True}}), ["latent 'z': found manipulation: true; expected another name: z is never"]),
    (spec(latents={"m": {"manipulation": "yes"}}), ["latent 'm': manipulation: found 'yes'; expected true or false"]),
    (spec(latents={"x1": {}}), ["latent 'x1': found a node of the same name", "{style: {}, z: null}"]),
    (spec(nodes={**spec()["nodes"], "z": "count"}), ["latent 'z': found a node of the same name", "latents: {style: {}, z: null}"]),
    (spec(nodes={**spec()["nodes"], "m": "count"}), ["latent 'm': found a node", "latents: {drift: {manipulation: true}, m: null}"]),
    (spec(latents={"m": {"children": ["a"]}}), ["latent 'm': children: found 'a', a parent of the target; expected one of 'x1', 'x2'"]),
    (spec(latents={"m": {"children": ["c"]}}), ["children: found 'c', a co-parent; expected"]),
    (spec(latents={"m": {"children": ["y"]}}), ["children: found 'y', the target; expected"]),
    (spec(latents={"m": {"children": ["o"]}}), ["children: found 'o', a node outside the target's Markov blanket; expected"]),
    (spec(latents={"m": {"children": ["x_1"]}}), ["children: found 'x_1', no node; expected", "did you mean 'x1'?"]),
    (spec(edges=["a -> y -> x1", "a -> x1"], latents={"z": {"children": ["a"]}}), ["found 'a', a parent of the target and a co-parent"]),
    (spec(latents={"z": {"children": []}}), ["latent 'z': children: found []; expected a list of at least one of the target's children"]),
    (spec(latents={"z": {"children": "x1"}}), ["children: found 'x1'; expected a list"]),
    (spec(latents={"z": {"children": ["x1", "x1"]}}), ["children: found ['x1', 'x1']; expected each child once"]),
    (spec(latents={"z": {"mechanism": "affine"}}), ["latent 'z': found key 'mechanism'; expected it for a manipulation only"]),
    (spec(latents={"z": {"affects": "quantity"}}), ["latent 'z': found key 'affects'; expected it for a manipulation only"]),
    (spec(latents={"z": {"scope": "dataset"}}), ["latent 'z': found scope 'dataset'; expected it for a manipulation only"]),
    (spec(latents={"m": {"scope": None}}), ["latent 'm': scope: found None; expected 'row', 'dataset' or the name of a column"]),
    (spec(latents={"m": {"scope": "y"}}), ["found scope 'y', the target; expected 'row'"]),
    (spec(latents={"m": {"scope": "a"}}), ["found scope 'a', a node of type continuous; expected 'row'"]),
    (spec(latents={"m": {"mechanism": 3}}), ["latent 'm': mechanism: found 3; expected the name of a mechanism, or a mapping"]),
    (spec(latents={"m": {"mechanism": {"x1": None}}}), ["mechanism: found {'x1': None}; expected the name of a mechanism"]),
    (spec(latents={"m": {"mechanism": {"X1": "affine"}}}), ["mechanism: found 'X1'; expected one of 'x1', 'x2'; did you mean 'x1'?"]),
    (spec(latents={"m": {"children": ["x1"], "mechanism": {"x2": "rate"}}}), ["mechanism: found 'x2'; expected one of 'x1'"]),
    (spec(latents={"m": {"affects": "measurment"}}), ["<dict>: latent 'm': affects: found 'measurment'; expected one of", "did you mean 'measurement'?"]),
    (spec(latents={"m": {"affects": {"x1": "both"}}}), ["affects: found {'x1': 'both'}; expected 'quantity' or 'measurement'"]),
    (spec(latents={"m": {"affects": {"a": "quantity"}}}), ["affects: found 'a'; expected one of 'x1', 'x2'"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "fragments"), FAULTS, ids=[fragments[0][:50] for _, fragments in FAULTS])
def test_faulty_graphs(source: dict[Any, Any] | str, fragments: list[str]) -> None:
    read: Any = CausalGraph.from_yaml if isinstance(source, str) else CausalGraph
    with pytest.raises(GraphError) as caught:
        read(source)
    message = str(caught.value)
    assert message.startswith("<yaml>: " if isinstance(source, str) else "<dict>: ")
    for fragment in fragments:
        assert fragment in message
    assert "pydantic" not in message
