"""Tables and graphs that come with the package belong together."""

import sys

import pytest

from pyro_cama import datasets
from tests.helpers.paths import GRAPHS


@pytest.mark.parametrize("name", datasets.TABLES)
def test_a_table_has_the_columns_of_its_graph_and_labels_that_are_its_levels(name: str) -> None:
    table, graph = datasets.load(name), datasets.graph(name)
    assert set(table.columns) == set(graph.order)
    assert datasets.TABLES[name] == graph.target
    assert set(table[graph.target]) == {str(level) for level in graph.nodes[graph.target].levels or ()}


def test_every_graph_is_listed() -> None:
    there = {path.stem for path in GRAPHS.glob("*.yaml")}
    assert there == set(datasets.GRAPHS)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"datasets\.load: found 'Wine'; expected one of .*did you mean 'wine'\?"):
        datasets.load("Wine")
    with pytest.raises(ValueError, match=r"datasets\.graph: found 'clinics'; .*did you mean 'clinic'\?"):
        datasets.graph("clinics")


def test_without_statsmodels_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'pyro_cama\[statsmodels\]'"):
        datasets.load("anes96")
