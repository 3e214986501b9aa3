import gzip
import sys

import numpy as np
import pandas as pd
import pytest

from pyro_cama import CausalGraph, GraphError
from pyro_cama.bayes_nets import example_network, sample_bif

BIF = """network unknown {
}
variable smoke {
  type discrete [ 2 ] { yes, no };
}
variable cancer {
  type discrete [ 2 ] { yes, no };
}
variable xray {
  type discrete [ 3 ] { clear, faint, dense };
}
probability ( smoke ) {
  table 0.3, 0.7;
}
probability ( cancer | smoke ) {
  (yes) 0.4, 0.6;
  (no) 0.1, 0.9;
}
probability ( xray | cancer ) {
  (yes) 0.1, 0.2, 0.7;
  (no) 0.7, 0.2, 0.1;
}
"""


@pytest.fixture
def bif(tmp_path):
    path = tmp_path / "cancer.bif"
    path.write_text(BIF)
    return path


def test_a_graph_from_bif(bif):
    graph = CausalGraph.from_bif(bif, "cancer")
    assert graph.edges == (("smoke", "cancer"), ("cancer", "xray"))
    assert {name: node.type for name, node in graph.nodes.items()} == dict.fromkeys(graph.nodes, "categorical")
    assert graph.nodes["xray"].levels == ("clear", "faint", "dense")
    assert (graph.blanket.parents, graph.blanket.children) == (("smoke",), ("xray",))
    assert graph.source == str(bif)
    assert CausalGraph(graph.to_dict()) == graph


def test_latents_are_passed_on(bif):
    graph = CausalGraph.from_bif(bif, "cancer", latents={"z": None, "m": {"dim": 2}})
    assert graph.z is None
    assert graph.m.dim == 2


def test_gzip_and_plain_are_one(bif, tmp_path):
    packed = tmp_path / "cancer.bif.gz"
    packed.write_bytes(gzip.compress(BIF.encode()))
    assert CausalGraph.from_bif(packed, "cancer") == CausalGraph.from_bif(bif, "cancer")
    pd.testing.assert_frame_equal(sample_bif(packed, 20, 1), sample_bif(bif, 20, 1))


def test_rows_follow_the_tables(bif):
    rows = sample_bif(bif, 20_000, seed=0)
    assert list(rows) == ["smoke", "cancer", "xray"]
    assert rows["smoke"].eq("yes").mean() == pytest.approx(0.3, abs=0.02)
    assert rows.loc[rows["cancer"] == "yes", "xray"].eq("dense").mean() == pytest.approx(0.7, abs=0.02)


def test_rows_are_the_seeds_and_no_state_is_left(bif):
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    first = sample_bif(bif, 50, seed=1)
    assert (np.random.get_state()[1] == before).all()
    pd.testing.assert_frame_equal(first, sample_bif(bif, 50, seed=1))
    assert not first.equals(sample_bif(bif, 50, seed=2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no variables"),
        ("target: y", "line 1: found 'target:'; expected network"),
        (BIF.replace("( xray | cancer )", "( xray | tumour )"), "no valid BIF"),
        (BIF.replace("  type discrete [ 3 ]", "  discrete [ 3 ]"), "no valid BIF"),
    ],
)
def test_what_is_no_bif(tmp_path, text, message):
    path = tmp_path / "bad.bif"
    path.write_text(text)
    with pytest.raises(GraphError, match=message) as caught:
        CausalGraph.from_bif(path, "cancer")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_need_probabilities_that_fit(tmp_path):
    path = tmp_path / "bad.bif"
    path.write_text(BIF.replace("0.7, 0.2, 0.1", "0.7, 0.2, 0.5"))
    assert CausalGraph.from_bif(path, "cancer").edges == (("smoke", "cancer"), ("cancer", "xray"))
    with pytest.raises(GraphError, match="no valid BIF"):
        sample_bif(path, 1)


def test_unreadable_files(tmp_path):
    with pytest.raises(GraphError, match=r"none.bif: cannot be read \(No such file"):
        CausalGraph.from_bif(tmp_path / "none.bif", "cancer")
    broken = tmp_path / "broken.bif.gz"
    for raw in (gzip.compress(BIF.encode())[:40], b"\x1f\x8bxx", b"\xff\xfe\xff"):
        broken.write_bytes(raw)
        with pytest.raises(GraphError, match=r"neither text nor gzipped|not UTF-8"):
            sample_bif(broken, 1)


def test_faulty_targets(bif):
    with pytest.raises(GraphError, match=r"'cancr', no node; expected one of 'smoke', .* did you mean 'cancer'"):
        CausalGraph.from_bif(bif, "cancr")
    with pytest.raises(GraphError, match="target 'xray': found no children"):
        CausalGraph.from_bif(bif, "xray")
    with pytest.raises(ValueError, match="at least 1"):
        sample_bif(bif, 0)


@pytest.mark.parametrize(("name", "target", "nodes"), [("child", "Disease", 20), ("insurance", "Accident", 27)])
def test_categorical_examples(name, target, nodes):
    graph, sampler = example_network(name, target)
    rows = sampler(200, 0)
    assert rows.shape == (200, nodes)
    assert set(rows) == set(graph.nodes)
    assert all(rows[column].isin(graph.nodes[column].levels).all() for column in rows)
    pd.testing.assert_frame_equal(rows, sampler(200, 0))


def test_hepar2():
    graph, sampler = example_network("hepar2", "Cirrhosis", latents={"z": None})
    assert len(graph.nodes) == 70
    assert graph.z is None
    assert len(sampler(10, 0)) == 10


def test_the_gaussian_example():
    graph, sampler = example_network("ecoli70", "lacY")
    assert graph.nodes["lacY"].levels == ("low", "middle", "high")
    assert {node.type for node in graph.nodes.values()} == {"categorical", "continuous"}
    rows = sampler(6000, 0)
    assert rows.shape == (6000, 46)
    assert rows["lacY"].value_counts(normalize=True).to_numpy() == pytest.approx([1 / 3] * 3, abs=0.03)
    pd.testing.assert_frame_equal(rows, sampler(6000, 0))


def test_unknown_examples():
    with pytest.raises(GraphError, match=r"expected one of 'child', .* did you mean 'child'"):
        example_network("Child", "Disease")
    for name in ("child", "ecoli70"):
        with pytest.raises(GraphError, match="no node; expected one of"):
            example_network(name, "nothing")


def test_without_pgmpy(bif, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "pgmpy"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pgmpy", None)
    assert CausalGraph.from_bif(bif, "cancer").target == "cancer", "a graph alone needs no pgmpy"
    for call in (lambda: sample_bif(bif, 1), lambda: example_network("child", "Disease")):
        with pytest.raises(ImportError, match=r"pip install 'pyro_cama\[pgmpy\]'"):
            call()
