import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import pyro_cama
from pyro_cama import CausalGraph, DataError
from pyro_cama.bayes_nets import example_network
from pyro_cama.diagnosis.independence import holm_adjusted, separable

LEVELS = ["k0", "k1", "k2"]
EDGES = ["a1 -> y", "a2 -> y", "y -> x1", "y -> x2", "y -> x3", "c1 -> x1", "c2 -> x2", "c2 -> x3", "x1 -> x3"]


def graph(edges=EDGES, drop=(), add=(), **nodes):
    names = {"a1": "continuous", "a2": "continuous", "y": {"type": "categorical", "levels": LEVELS}}
    names |= dict.fromkeys(("c1", "c2", "x1", "x2", "x3"), "continuous") | nodes
    edges = [edge for edge in edges if edge not in drop] + list(add)
    return CausalGraph({"target": "y", "nodes": names, "edges": edges, "latents": {"z": {"dim": 2, "effect": "deep"}}})


def rows(n=1500, seed=0):
    """Rows of the graph above: nonlinear, a hidden z behind the children, variances that differ by class."""
    rng = np.random.default_rng(seed)
    a1, a2, c1, c2, z = rng.normal(size=(5, n))
    logits = np.stack([np.zeros(n), 2 * np.sin(2 * a1) + a1, 2 * a2 - a1 * a2 - a1], 1) + rng.gumbel(size=(n, 3))
    y = logits.argmax(1)
    noise = rng.normal(size=(3, n)) * np.array([0.5, 0.7, 1.0])[y]
    x1 = np.array([-1.0, 0.5, 1.0])[y] + np.tanh(2 * c1) + 0.5 * z + noise[0]
    x2 = np.array([1.0, 0.0, -1.0])[y] * (1 + 0.3 * c2**2) + 0.5 * z**2 + noise[1]
    x3 = np.array([0.5, -1.0, 0.5])[y] + c2 + np.tanh(x1) - 0.5 * z + noise[2]
    labels = np.array(LEVELS)[y]
    return pd.DataFrame({"a1": a1, "a2": a2, "y": labels, "c1": c1, "c2": c2, "x1": x1, "x2": x2, "x3": x3})


def diagnosed(causal, table, **options):
    cama = pyro_cama.build(causal, hidden=8).fit(table, max_epochs=0, progress=False)
    return cama.diagnose(table, **{"draws": 0, "progress": False, **options})


def test_the_right_graph_is_silent():
    found = [diagnosed(graph(), rows(seed=seed)) for seed in range(4)]
    assert [diagnosis.suspects for diagnosis in found].count(()) >= 3  # a false alarm in twenty is what alpha allows
    edges = found[0].edges
    assert (edges.loc[edges["declared"], "verdict"] == "seen").all()
    assert set(edges.loc[~edges["declared"], "verdict"]) == {"independent, as declared"}
    assert "No sign of a misdeclared edge" in str(found[0])
    assert found[0].untested == (("c1", "x3"), ("x1", "x2"), ("x2", "x3"))
    assert found[0].nodes.loc["c2", "role"] == "co-parent"
    assert found[0].nodes["verdict"].eq("no objection").all()


def test_a_child_declared_a_coparent():
    wrong = graph(drop=["y -> x1"], add=["x1 -> x2"])
    diagnosis = diagnosed(wrong, rows())
    assert diagnosis.suspects == ("x1",)
    assert "x1 is declared a co-parent, yet depends on y (p < 1e-12" in str(diagnosis)
    assert "An edge y -> x1 is missing" in str(diagnosis)
    assert diagnosis.nodes.loc["x1", "verdict"] == "looks misdeclared"
    assert {"x1"} < set(diagnosis.violations["from"]) | set(diagnosis.violations["to"])


def test_a_child_declared_a_parent():
    wrong = graph(drop=["y -> x2"], add=["x2 -> y"])
    diagnosis = diagnosed(wrong, rows())
    assert diagnosis.suspects == ("x2",)
    assert "x2 is declared a parent, yet depends on a2, a1, which the graph rules out" in str(diagnosis)
    assert "is it a child of y?" in str(diagnosis)


def test_a_missing_edge_names_both_ends():
    table = rows()
    diagnosis = diagnosed(graph(), table.assign(a2=table["a1"].abs() + table["a2"]))  # no trend
    assert diagnosis.suspects == ("a1", "a2")
    assert list(zip(diagnosis.violations["from"], diagnosis.violations["to"], strict=True)) == [("a1", "a2")]
    assert str(diagnosis).count("depends on") == 1
    assert "an edge between the two is missing" in str(diagnosis)


def test_an_edge_too_many_is_a_note_only():
    diagnosis = diagnosed(graph(add=["c1 -> x2"]), rows())
    assert diagnosis.suspects == ()
    edges = diagnosis.edges.set_index(["from", "to"])
    assert edges.loc[("c1", "x2"), "verdict"] == "not seen in these rows"
    assert "Declared edges not seen in these rows (no fault): c1 -> x2." in str(diagnosis)


def mixed(n=2000, seed=0):
    table = rows(n, seed)
    rng = np.random.default_rng(seed + 100)
    table["x1"] = rng.poisson(np.exp(0.4 * table["x1"].clip(-3, 3)))
    table["x3"] = list(np.stack([table["x3"], 0.5 * table["x3"] + rng.normal(size=n)], 1))
    table["c1"] = (table["c1"] > 0).map({False: "no", True: "yes"})
    table["x2"] = pd.cut(table["x2"], [-np.inf, -0.5, 0.5, np.inf], labels=["lo", "mid", "hi"]).astype(str)
    for name in ("a1", "x1", "c1", "y", "x2"):
        table[name] = table[name].astype(object).where(rng.uniform(size=n) > 0.05, None)
    return table


MIXED = {
    "x1": "count",
    "x2": {"type": "categorical", "levels": ["lo", "mid", "hi"]},
    "x3": {"type": "continuous", "dim": 2},
    "c1": {"type": "binary", "levels": ["no", "yes"]},
}
# rows() draws x1 before it is made a count, so z and c1 reach x3 past it
REACH = ["c1 -> x3"]


def test_mixed_types_with_missing_entries():
    table = mixed()
    right = diagnosed(graph(add=REACH, **MIXED), table)
    assert right.suspects == ()
    assert set(right.edges["test"]) == {"G", "GCM"}
    assert right.edges["rows"].between(1500, 2000).all()
    wrong = diagnosed(graph(drop=["y -> x2"], add=[*REACH, "x2 -> x1"], **MIXED), table)
    assert wrong.suspects == ("x2",)
    assert diagnosed(graph(drop=["c1 -> x1"], add=REACH, **MIXED), table).suspects == ("c1", "x1")


def test_categorical_networks():
    causal, sampler = example_network("child", "LungParench")
    table = sampler(3000, 0)
    assert diagnosed(causal, table).suspects == ()
    raw = causal.to_dict()
    raw["edges"].remove(["LungParench", "Grunting"])
    raw["edges"].append(["Grunting", "HypoxiaInO2"])
    raw["latents"] = {}
    assert diagnosed(CausalGraph(raw), table).suspects == ("Grunting",)


def test_what_separates_is_observed():
    pairs, untested = separable(graph())
    assert ("a1", "x1", ("y",)) in pairs
    assert ("c1", "x3") in untested  # given x1 between them, z would join them
    outside = graph(add=["g -> a1", "g -> a2"], g="continuous")
    assert ("a1", "a2") in separable(outside)[1]  # g causes both, and is no part of the model


def test_holm():
    adjusted = holm_adjusted(np.array([0.04, np.nan, 0.01, 0.03]))
    assert adjusted == pytest.approx([0.06, np.nan, 0.03, 0.06], nan_ok=True)


def test_densities_tell_fitted_from_unfitted():
    table = rows(800)
    cama = pyro_cama.build(graph(), hidden=16).fit(table, max_epochs=0, progress=False)
    before = cama.diagnose(table, progress=False)
    assert {"x1", "x2"} <= set(before.misfits) <= set(cama.graph.blanket.children)
    assert before.suspects == ()
    assert "that is the model's fit, not the graph" in str(before)
    after = cama.fit(table, max_epochs=30, progress=False, lr=5e-3, conditional_weight=0).diagnose(
        table, progress=False
    )
    assert after.misfits == ()
    assert after.nodes["figure"].between(0, 1).all()
    pd.testing.assert_frame_equal(after.nodes, cama.diagnose(table, progress=False).nodes)


def test_the_plot(tmp_path):
    diagnosis = diagnosed(graph(drop=["y -> x1"], add=["x1 -> x2"]), rows(600))
    axes = diagnosis.plot(tmp_path / "graph.png")
    assert (tmp_path / "graph.png").stat().st_size > 5000
    assert len(axes) == 1, "the matrix alone: no density was looked at"
    looked = replace(diagnosis, nodes=diagnosis.nodes.assign(figure=0.1, allowed=0.2))
    assert len(looked.plot(tmp_path / "both.png")) == 2


def test_the_smallest_graph_has_nothing_to_test():
    causal = CausalGraph({"target": "y", "nodes": {"y": "binary", "x": "continuous"}, "edges": ["y -> x"]})
    y = np.arange(100) % 2
    diagnosis = diagnosed(causal, pd.DataFrame({"y": y, "x": y + np.random.default_rng(0).normal(size=100)}))
    assert len(diagnosis.edges) == 1
    assert str(diagnosis).startswith("0 implied independences tested")


def test_constant_and_determined_columns_make_no_noise():
    table = rows(300)
    table = table.assign(a1=1.0, x3=table["x1"])
    diagnosis = diagnosed(graph(), table)
    assert np.isnan(diagnosis.edges.set_index(["from", "to"]).loc[("a1", "y"), "p"])
    assert "not testable in these rows" in set(diagnosis.edges["verdict"])


def test_errors():
    table = rows(200)
    cama = pyro_cama.build(graph(), hidden=8)
    with pytest.raises(DataError, match="call fit"):
        cama.diagnose(table)
    cama.fit(table, max_epochs=0, progress=False)
    with pytest.raises(DataError, match="target column 'y': found none"):
        cama.diagnose(table.drop(columns="y"))
    with pytest.raises(DataError, match="found 30 labelled rows; expected at least 50"):
        cama.diagnose(table.assign(y=table["y"].where(table.index < 30)))
    for options in ({"alpha": 0}, {"alpha": 1.0}, {"draws": 5}, {"max_rows": 10}):
        with pytest.raises(ValueError, match=rf"diagnose\({next(iter(options))}="):
            cama.diagnose(table, **options)


def test_rows_beyond_the_most_are_left_out():
    diagnosis = diagnosed(graph(), rows(400), max_rows=200)
    assert diagnosis.edges["rows"].eq(200).all()


def test_without_pgmpy_the_extra_is_named(monkeypatch):
    table = rows(200)
    cama = pyro_cama.build(graph(), hidden=8).fit(table, max_epochs=0, progress=False)
    patched = ["pgmpy", *(name for name in sys.modules if name.split(".")[0] == "pgmpy")]
    for name in patched:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'pyro_cama\[pgmpy\]'"):
        cama.diagnose(table)


def test_an_edge_that_cannot_be_tested_is_not_said_to_be_unseen():
    found = diagnosed(graph(), rows(400))
    edges = found.edges.assign(p=np.where(found.edges["declared"], np.nan, found.edges["p"]))
    text = str(replace(found, edges=edges))
    assert "Declared edges that cannot be tested: " in text
    assert "not seen in these rows" not in text


def test_a_hundred_rows_test_numbers():
    """A normal's products are uneven, and their mean is normal all the same."""
    wrong = graph(drop=["y -> x1"], add=["x1 -> x2"])
    found = [diagnosed(wrong, rows(100, seed)) for seed in range(4)]
    assert sum("x1" in diagnosis.suspects for diagnosis in found) >= 3
    right = [diagnosed(graph(), rows(100, seed)) for seed in range(4)]
    assert sum(diagnosis.suspects == () for diagnosis in right) >= 3
    assert right[0].edges["p"].notna().all()


def test_what_rows_cannot_test_is_told():
    table = rows(60)
    table["y"] = np.where(table.index < 3, "k1", "k0")  # a level so rare that nothing is known of it
    diagnosis = diagnosed(graph(), table)
    free = diagnosis.edges[~diagnosis.edges["declared"]]
    left = int(free["p"].isna().sum())
    assert left
    text = str(diagnosis)
    assert text.startswith(f"{len(free) - left} implied independences tested")
    assert "Independences that these rows are too few to test, or tell nothing of: " in text
    assert "c1 and y" in text or "y and c1" in text
