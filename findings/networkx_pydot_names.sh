#!/usr/bin/env bash
# A node with a colon in its name leaves its attributes with another node on the way through pydot; edges in subgraphs and
# later defaults are lost on the way back.
#
# Columns such as "age:sex" (interactions) or "hp:0001250" (ontology terms) are valid networkx nodes.  to_pydot writes them
# unquoted, where a colon begins a port: read again there is a node "x" that was not there and has the attributes, while
# "x:y" has its edges and no attributes.  from_pydot in turn reads edges of the outermost graph alone, though Graphviz draws
# those of subgraphs too, and takes the first of several "node [...]" statements for all nodes, where DOT's scoping lets each
# hold for the nodes after it.
#
# networkx 3.6.1, pydot 4.0.1, seen: a -> x:y, x:y of type count: nodes {'a': {}, 'x': {'type': 'count'}, 'x:y': {}};
# edges of subgraph s { a -> b } c -> d: [('c', 'd')]; default of all nodes {'type': 'count'}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check networkx==3.6.1 pydot==4.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import networkx as nx
import pydot

warnings.simplefilter("ignore", DeprecationWarning)
graph = nx.DiGraph([("a", "x:y")])
graph.nodes["x:y"]["type"] = "count"
back = nx.nx_pydot.from_pydot(pydot.graph_from_dot_data(nx.nx_pydot.to_pydot(graph).to_string())[0])
nodes = {name: dict(back.nodes[name]) for name in sorted(back)}
(inside,) = pydot.graph_from_dot_data("digraph { subgraph s { a -> b } c -> d }")
edges = sorted(edge[:2] for edge in nx.nx_pydot.from_pydot(inside).edges)
(scoped,) = pydot.graph_from_dot_data('digraph { node [type=count]; a; node [type=binary]; b; a -> b }')
defaults = nx.nx_pydot.from_pydot(scoped).graph.get("node")
print(f"networkx {nx.__version__}, pydot {pydot.__version__}: nodes {nodes}, edges {edges}, default of all nodes {defaults}")
as_seen = nodes == {"a": {}, "x": {"type": "count"}, "x:y": {}} and edges == [("c", "d")] and defaults == {"type": "count"}
sys.exit(not as_seen)
PYTHON
