#!/usr/bin/env bash
# networkx reads arrows into GraphML of yEd that are not drawn, and leaves out a file's second graph.
#
# yEd writes edgedefault="directed" whatever is drawn, and says at every edge which ends have arrowheads
# (y:Arrows).  A partially directed graph drawn in yEd has edges whose ends are both "none".  read_graphml passes over
# y:Arrows, so that such an edge becomes a directed one, from its first end to its second, without a warning.  A file may also
# hold several <graph> elements; the first is returned and nothing says that there were others.
#
# networkx 3.6.1, seen: edges [('a', 'b'), ('b', 'c')], attributes of b - c {}, nodes of the second graph: none
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check networkx==3.6.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import warnings

import networkx as nx

warnings.simplefilter("error")
EDGE = """<edge id="{0}{1}" source="{0}" target="{1}"><data key="e"><y:PolyLineEdge>
<y:LineStyle color="#000000" type="line" width="1.0"/><y:Arrows source="none" target="{2}"/>
</y:PolyLineEdge></data></edge>"""
TEXT = f"""<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:y="http://www.yworks.com/xml/graphml">
<key for="edge" id="e" yfiles.type="edgegraphics"/>
<graph edgedefault="directed" id="G"><node id="a"/><node id="b"/><node id="c"/>
{EDGE.format("a", "b", "standard")}{EDGE.format("b", "c", "none")}</graph>
<graph edgedefault="directed" id="H"><node id="d"/></graph>
</graphml>"""
path = f"{sys.argv[1]}/drawn.graphml"
with open(path, "w", encoding="utf-8") as file:
    file.write(TEXT)
graph = nx.read_graphml(path)
found = sorted(graph.edges), dict(graph.edges["b", "c"]), "d" in graph
print(f"networkx {nx.__version__}: edges {found[0]}, attributes of b - c {found[1]}, second graph read: {found[2]}")
edges, attributes, second = found
sys.exit(not (edges == [("a", "b"), ("b", "c")] and "none" not in str(attributes) and not second))
PYTHON
