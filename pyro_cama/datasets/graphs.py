"""The graphs that come with the package, as the YAML files beside this one."""

from __future__ import annotations

from importlib.resources import files

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
    return CausalGraph.from_yaml((files("pyro_cama.datasets") / f"{name}.yaml").read_text(encoding="utf-8"))
