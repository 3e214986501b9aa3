"""Graphs of pgmpy's models: they are networkx', and types come from a table."""

import pandas as pd
import pytest

import pyro_cama

models = pytest.importorskip("pgmpy.models")


@pytest.mark.filterwarnings("ignore")
def test_a_discrete_network_is_a_graph() -> None:
    network = models.DiscreteBayesianNetwork([("age", "sick"), ("sick", "fever"), ("season", "fever")])
    table = pd.DataFrame(
        {"age": ["old", "young"] * 4, "sick": ["no", "yes"] * 4, "fever": ["no", "yes", "high", "no"] * 2,
         "season": ["summer", "winter"] * 4}
    )  # fmt: skip
    graph = pyro_cama.CausalGraph(network, target="sick", data=table)
    assert graph.blanket.parents == ("age",)
    assert graph.blanket.children == ("fever",)
    assert graph.blanket.coparents == ("season",)
    assert set(graph.nodes["fever"].levels or ()) == {"no", "yes", "high"}
