"""What the scripts of section 4.2's figures rest on (experiments/figure12.py to figure14.py)."""

import figure13
import figure14
import numpy as np
import pytest
import torch

from pyro_cama import CausalGraph
from pyro_cama.attacks.gradient import fgsm
from support.baselines import DiscriminativeNet
from support.measurement import GRAPH, rows_of, variant

RIGHT = CausalGraph(GRAPH)


@pytest.mark.parametrize("wrong", figure14.WRONG["full"])
def test_a_wrong_graph_is_wrong_in_what_it_says(wrong: str) -> None:
    for seed in range(5):
        graph, nodes = figure14.misdeclared(RIGHT, wrong, seed)
        assert set(graph.nodes) == set(RIGHT.nodes)
        if wrong.isdigit():
            assert len(nodes) == int(wrong)
            assert set(graph.blanket.children) == set(RIGHT.blanket.children) - set(nodes)
            assert set(nodes) <= set(graph.blanket.coparents)
            assert graph.m is not None
            assert set(graph.m.children) == set(graph.blanket.children)
        else:
            gone = set(RIGHT.edges) - set(graph.edges)
            assert gone == {nodes}
            assert set(graph.edges) - set(RIGHT.edges) == ({nodes[::-1]} if wrong == "reversed edge" else set())
    assert figure14.misdeclared(RIGHT, "0", 0)[0].edges == RIGHT.edges


def test_shifts_move_what_they_name() -> None:
    rows = rows_of(0, "smoke")
    clean = rows.shifted("test", (), 0.0)
    read = rows.shifted("test", RIGHT.blanket.children, 2.0)
    np.testing.assert_allclose(read[[*RIGHT.blanket.children]] - clean[[*RIGHT.blanket.children]], 2.0)
    assert read.drop(columns=[*RIGHT.blanket.children]).equals(clean.drop(columns=[*RIGHT.blanket.children]))
    causes = rows.shifted("test", RIGHT.blanket.coparents, 2.0)
    np.testing.assert_allclose(causes[[*RIGHT.blanket.coparents]] - clean[[*RIGHT.blanket.coparents]], 2.0)
    assert causes["y"].equals(clean["y"])
    assert all((causes[name] != clean[name]).all() for name in RIGHT.blanket.children), "they go along"
    assert not rows.shifted("adapt", (), 0.0).head(10).equals(clean.head(10)), "other people"


def test_attacks_on_the_net_stay_in_their_columns_and_within_eps() -> None:
    rows = rows_of(0, "smoke")
    net = DiscriminativeNet(0, max_epochs=3).fit(rows.train, "y")
    columns = {*RIGHT.blanket.children, *RIGHT.blanket.coparents}
    test = rows.shifted("test", (), 0.0)
    x, mask, logits, y, table = figure13.net_surface(columns, net, test)
    hostile = table(fgsm(logits, x, y, eps=0.5, mask=mask))
    left = [name for name in test.columns if name not in columns]
    assert hostile[left].equals(test[left])
    moved = torch.tensor(
        (hostile[[*columns]] - test[[*columns]]).to_numpy() / rows.train[[*columns]].std(ddof=0).to_numpy()
    )
    assert float(moved.abs().max()) == pytest.approx(0.5, rel=1e-4)
    assert table(x)[[*columns]].to_numpy() == pytest.approx(test[[*columns]].to_numpy(), abs=1e-5)


def test_variants_keep_the_blanket() -> None:
    for scope, mechanism in (("row", "affine"), ("row", "concat"), ("dataset", "affine")):
        graph = variant(RIGHT, scope, mechanism)
        assert graph.blanket == RIGHT.blanket
        assert graph.m is not None
        assert graph.m.scope == scope
        assert set(graph.m.mechanism.values()) == {mechanism}
