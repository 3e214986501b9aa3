#!/usr/bin/env bash
# pyAgrum writes and reads GeNIe's XDSL, and writes UAI, with a node's parents in the wrong order: the first one runs fastest.
#
# Both formats list a node's parents and then one flat table.  In XDSL the first parent is the most significant place and the
# node itself the least (SMILE manual, "Multidimensional arrays": the leftmost coordinate is the first parent's); in UAI the
# last variable of the scope runs fastest too, the first one slowest.  pyAgrum names the parents A B, but lets A run faster
# than B.  Of one parent that is the same; of two with different tables another distribution, whose columns still sum to one, so
# that nothing complains: pgmpy, whose XDSL is as the manual has it, reads another P(C=on) from pyAgrum's file than pyAgrum, and
# pyAgrum from pgmpy's another than pgmpy.  pyAgrum's own files come back right, since both errors cancel; BIF and XMLBIF are
# right between both.
#
# pyAgrum 3.3.1, pgmpy 1.1.2, seen: P(C=on) 0.453; XDSL by pyAgrum read by pgmpy 0.476, XDSL by pgmpy read by pyAgrum 0.483,
# UAI by pyAgrum as the format says 0.476, XMLBIF by pyAgrum read by pgmpy 0.453
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyagrum==3.3.1 pgmpy==1.1.2 numpy==2.4.6 pandas==3.1.1
"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyagrum as gum
from pgmpy.readwrite import XDSLReader, XDSLWriter, XMLBIFReader

folder = Path(sys.argv[1])
of_a, of_b = np.array([0.3, 0.7]), np.array([0.2, 0.3, 0.5])
on = np.array([[0.1, 0.9, 0.2], [0.3, 0.4, 0.6]])  # P(C=on | A, B)

net = gum.BayesNet("three")
for name, states in (("A", ["yes", "no"]), ("B", ["low", "mid", "high"]), ("C", ["on", "off"])):
    net.add(gum.LabelizedVariable(name, name, states))
net.addArc("A", "C")
net.addArc("B", "C")
net.cpt("A").fillWith(of_a.tolist())
net.cpt("B").fillWith(of_b.tolist())
for i, a in enumerate(("yes", "no")):
    for j, b in enumerate(("low", "mid", "high")):
        net.cpt("C")[{"A": a, "B": b}] = [on[i, j], 1 - on[i, j]]


def by_pgmpy(model):
    """P(C=on) from the tables, by the states' names."""
    a, b, c = (model.get_cpds(name) for name in "ABC")
    return sum(
        a.get_value(A=x) * b.get_value(B=y) * c.get_value(A=x, B=y, C="on")
        for x in ("yes", "no") for y in ("low", "mid", "high")
    )


def by_pyagrum(model):
    return gum.getPosterior(model, target="C")[{"C": "on"}]


for kind in ("xdsl", "uai", "xmlbif"):
    gum.saveBN(net, str(folder / f"by_pyagrum.{kind.replace('xmlbif', 'bifxml')}"))
numbers = (folder / "by_pyagrum.uai").read_text().split()[-12:]
of_uai = np.array(numbers, dtype=float).reshape(2, 3, 2)  # scope A B C, the last fastest
right = XMLBIFReader(path=str(folder / "by_pyagrum.bifxml")).get_model()
XDSLWriter(right).write_xdsl(str(folder / "by_pgmpy.xdsl"))

truth = float(of_a @ on @ of_b)
found = {
    "XDSL by pyAgrum read by pgmpy": by_pgmpy(XDSLReader(path=str(folder / "by_pyagrum.xdsl")).get_model()),
    "XDSL by pgmpy read by pyAgrum": by_pyagrum(gum.loadBN(str(folder / "by_pgmpy.xdsl"))),
    "UAI by pyAgrum as the format says": float(of_a @ of_uai[..., 0] @ of_b),
    "XMLBIF by pyAgrum read by pgmpy": by_pgmpy(right),
}
own = by_pyagrum(gum.loadBN(str(folder / "by_pyagrum.xdsl")))
said = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
print(f"pyAgrum {version('pyagrum')}, pgmpy {version('pgmpy')}: P(C=on) {truth:.3f}; {said}")
*crossed, xmlbif = found.values()
as_told = all(abs(value - truth) > 0.01 for value in crossed) and max(abs(own - truth), abs(xmlbif - truth)) < 1e-3
sys.exit(not as_told)
PYTHON
