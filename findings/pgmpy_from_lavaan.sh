#!/usr/bin/env bash
# DAG.from_lavaan of pgmpy leaves out each line it cannot read, and says nothing: arrows, or the whole graph, are not there.
#
# lavaan's formulas label coefficients (Y ~ b*M, as any mediation model does), fix loadings (1*x1), have names with
# underscores or dots, comments after a formula, formulas that go on on the next line, and several on one line.  pgmpy's
# grammar knows letters, digits and + alone, and what it does not match is passed over.  So all arrows into a variable
# vanish because one of its parents has an underscore, and what is identified, tested or adjusted for comes of that graph.
# A line broken after + is read as far as the break.
#
# pgmpy 1.1.2, pyparsing 3.3.3, seen: M ~ X, Y ~ M + X: 3 arrows; the same with labels: 0; with pain_now for Y: 1; with a
# comment after each: 0; broken after "M +": 2; a loading fixed at 1: 0 of 2; warnings 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pgmpy==1.1.2 pyparsing==3.3.3 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import logging
import sys
import warnings
from importlib.metadata import version

from pgmpy.base import DAG

told = []
handler = logging.Handler()
handler.emit = told.append
logging.getLogger().addHandler(handler)
logging.getLogger("pgmpy").addHandler(handler)
models = {
    "plain": "M ~ X\nY ~ M + X",
    "labels": "M ~ a*X\nY ~ b*M + c*X\nindirect := a*b",
    "underscore": "M ~ X\npain_now ~ M + X",
    "comments": "M ~ X  # path a\nY ~ M + X  # paths b and c",
    "broken": "M ~ X\nY ~ M +\n     X",
    "fixed": "F =~ 1*x1 + x2",
}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = {name: len(DAG.from_lavaan(text).edges) for name, text in models.items()}
told += [warning for warning in caught if not issubclass(warning.category, DeprecationWarning)]  # pyparsing's own
print(
    f"pgmpy {version('pgmpy')}: M ~ X, Y ~ M + X: {found['plain']} arrows; the same with labels: {found['labels']}; with "
    f"pain_now for Y: {found['underscore']}; with a comment after each: {found['comments']}; broken after \"M +\": "
    f"{found['broken']}; a loading fixed at 1: {found['fixed']} of 2; warnings {len(told)}"
)
seen = {"plain": 3, "labels": 0, "underscore": 1, "comments": 0, "broken": 2, "fixed": 0}
sys.exit(not (found == seen and not told))
PYTHON
