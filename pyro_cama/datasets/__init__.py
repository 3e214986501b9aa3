"""Small tables to try things on, and graphs of these and others: :func:`load`, :func:`graph`."""

from pyro_cama.datasets.graphs import GRAPHS, graph
from pyro_cama.datasets.tables import TABLES, load

__all__ = ["GRAPHS", "TABLES", "graph", "load"]
