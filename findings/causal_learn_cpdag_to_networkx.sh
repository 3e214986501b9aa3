#!/usr/bin/env bash
# A CPDAG of causal-learn becomes a DAG on its way to networkx: undirected edges come out as arrows.
#
# causal-learn writes DOT by GraphUtils.to_pydot, and networkx reads DOT by from_pydot (causal-learn's own object it cannot
# read: node names are integers there).  What causal-learn knows of an edge's ends it writes as arrowtail and arrowhead ("none" at both ends of an undirected edge).  networkx keeps those as
# attributes of a directed edge, so that descendants, d-separation and topological orders all count it as an arrow: an
# equivalence class of graphs is read as one of them, by the order of the columns.
#
# causal-learn 0.1.4.3, networkx 3.6.1, pydot 4.0.1, seen: X1 - X2 undirected; as networkx: 0 -> 1, descendants of 0 {1}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check causal-learn==0.1.4.3 networkx==3.6.1 pydot==4.0.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import networkx as nx
import numpy as np
import pydot
from causallearn.search.ConstraintBased.PC import pc
from causallearn.utils.GraphUtils import GraphUtils

generator = np.random.default_rng(0)
x = generator.normal(size=500)
rows = np.column_stack([x, x + 0.5 * generator.normal(size=500)])
found = pc(rows, show_progress=False).G
(edge,) = found.get_graph_edges()
(drawn,) = pydot.graph_from_dot_data(GraphUtils.to_pydot(found).to_string())
graph = nx.nx_pydot.from_pydot(drawn)
arrows = [tuple(sorted(pair[:2])) for pair in graph.edges]
below = {node: sorted(nx.descendants(graph, node)) for node in sorted(graph) if nx.descendants(graph, node)}
print(f"{edge}; as networkx: directed {graph.is_directed()}, edges {arrows}, descendants {below}")
sys.exit(not ("---" in str(edge) and graph.is_directed() and len(arrows) == 1 and len(below) == 1))
PYTHON
