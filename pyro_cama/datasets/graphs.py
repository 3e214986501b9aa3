"""The graphs that come with the package: the YAML files in ``graphs``, which a wheel holds beside this module."""

from __future__ import annotations

from pathlib import Path

from pyro_cama._messages import one_of
from pyro_cama.graph.causal_graph import CausalGraph

GRAPHS = ("anes96", "breast_cancer", "cifar_binary", "clinic", "digits", "measurement", "mnist", "wine")


def graph(name: str) -> CausalGraph:
    """Reads a graph that comes with the package; ``graph(name).to_yaml()`` is a file to start from.

    Args:
        name: one of ``GRAPHS``: of a table that :func:`load` has (anes96, breast_cancer, digits, wine), of images
            (mnist, cifar_binary), of patients of several hospitals (clinic), or of five parents, ten children and five
            co-parents (measurement), whose rows :func:`pyro_cama.simulate` draws.

    Raises:
        ValueError: there is no graph of this name.

    >>> graph("clinic").blanket.children
    ('white_cells', 'fever', 'cough', 'ward')
    """
    if name not in GRAPHS:
        raise ValueError(f"datasets.graph: found {name!r}; {one_of(name, GRAPHS)}")
    beside = Path(__file__).with_name("graphs")  # in a wheel; in a checkout they stand at its top
    folder = beside if beside.is_dir() else Path(__file__).parents[2] / "graphs"
    return CausalGraph.from_yaml((folder / f"{name}.yaml").read_text(encoding="utf-8"))
