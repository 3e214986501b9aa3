#!/usr/bin/env bash
# pgmpy's UAIWriter writes a node's table with the node's own state slowest, under a scope that names the node last.
#
# In UAI a table lists the variables of its scope, and its numbers run through them with the last one fastest; of a Bayesian
# network the child stands last, so that neighbouring numbers are one distribution and sum to one.  pgmpy names the parents in
# reverse, then the child, as the format has it, but writes TabularCPD's values row by row, which is child first: what any
# other program reads are no distributions.  Its own UAIReader makes the same turn back, so that a round trip does not show it,
# and takes a file that has the format's order for another network without a word.
#
# pgmpy 1.1.2, seen: P(C | A, B) in the scope ['B', 'A', 'C'] is [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4];
# neighbours sum to [0.3, 0.7, 1.1, 1.7, 1.3, 0.9]; P(C=0 | A=0, B=1) 0.2, read back 0.2 from
# this file, and 0.9 from one in the format's order
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pgmpy==1.1.2 numpy==2.4.6 pandas==3.1.1 2>/dev/null
"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pgmpy.factors.discrete import TabularCPD
from pgmpy.models import DiscreteBayesianNetwork
from pgmpy.readwrite import UAIReader, UAIWriter

path = Path(sys.argv[1]) / "three.uai"
on = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
model = DiscreteBayesianNetwork([("A", "C"), ("B", "C")])
model.add_cpds(
    TabularCPD("A", 2, [[0.3], [0.7]]),
    TabularCPD("B", 3, [[0.2], [0.3], [0.5]]),
    TabularCPD("C", 2, [on, [1 - p for p in on]], ["A", "B"], [2, 3]),
)
UAIWriter(model).write_uai(str(path))
kind, many, sizes, _, *scopes = path.read_text().split("\n\n")[0].splitlines()
names = "ACB"  # numbered so by pgmpy: 2, 2 and 3 states
scope = [names[int(i)] for i in scopes[-1].split()[1:]]
table = np.array(path.read_text().split()[-12:], dtype=float)
sums = table.reshape(6, 2).sum(1)


def read_back():
    return float(UAIReader(path=str(path)).get_model().get_cpds("var_1").get_value(var_1=0, var_0=0, var_2=1))


back = read_back()
ordered = np.array([on, [1 - p for p in on]]).reshape(2, 2, 3).transpose(2, 1, 0).ravel()  # B, A, C
path.write_text(path.read_text().replace(" ".join(map(str, table)), " ".join(map(str, ordered))))
other = read_back()
print(
    f"pgmpy {version('pgmpy')}: P(C | A, B) in the scope {scope} is {table.tolist()}; neighbours sum to "
    f"{sums.round(1).tolist()}; P(C=0 | A=0, B=1) {on[1]}, read back {back} from this file, and "
    f"{other} from one in the format's order"
)
as_told = sizes.split() == ["2", "2", "3"] and scope[-1] == "C" and abs(sums - 1).max() > 0.5
sys.exit(not (as_told and abs(back - on[1]) < 1e-9 and abs(other - on[1]) > 0.05))
PYTHON
