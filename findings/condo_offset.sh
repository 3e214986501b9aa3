#!/usr/bin/env bash
# condo's closed-form ConDoAdapterKLD moves rows to the wrong place as soon as its confounder has two values.
#
# Rows of two batches, one of which reads half and 4 more, both with a confounder (a text of one column, as condo takes it) of
# two equally frequent values: the map back is times 2, minus 8.  With a confounder that is the same for all rows condo finds
# it.  With two values it does not: conditional means are weighted by shares that sum to 1, and then averaged over the values
# (np.mean of weight times mean) where they are to be summed, so that both centres are divided by the number of values; the
# gain is computed from these centres too.  transform_type="affine" starts from it.
#
# condo 1.1.0, seen: one value: gain 2.02, offset -8.18; two values: gain 0.68, offset -0.86; two values, means removed
# before: gain 2.01, offset -8.09
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check condo==1.1.0 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from condo import ConDoAdapterKLD

rng = np.random.default_rng(0)
names = np.array(["a", "b"])
of_new, of_old = rng.integers(0, 2, 2000), rng.integers(0, 2, 2000)
old = rng.normal(size=(2000, 1)) + 3 * of_old[:, None]
new = 0.5 * (rng.normal(size=(2000, 1)) + 3 * of_new[:, None]) + 4


def found(here, there):
    """Gain and offset from new rows, less `here`, to old ones, less `there`, given the confounders."""
    adapter = ConDoAdapterKLD(transform_type="location-scale", verbose=0)
    adapter.fit(new - here, old - there, confounder[0][:, None], confounder[1][:, None])
    gain = float(adapter.m_[0])
    return gain, float(adapter.b_[0]) - gain * here + there


confounder = [np.full(2000, "a"), np.full(2000, "a")]
one = found(0.0, 0.0)
confounder = [names[of_new], names[of_old]]
two = found(0.0, 0.0)
centred = found(*(np.mean([rows[kind == k].mean() for k in "ab"]) for rows, kind in zip((new, old), confounder)))
print(
    f"condo {version('condo')}: one value: gain {one[0]:.2f}, offset {one[1]:.2f}; two values: gain {two[0]:.2f}, "
    f"offset {two[1]:.2f}; two values, means removed before: gain {centred[0]:.2f}, offset {centred[1]:.2f}"
)
right = all(abs(gain - 2) < 0.1 and abs(offset + 8) < 0.4 for gain, offset in (one, centred))
sys.exit(not (right and (abs(two[0] - 2) > 0.5 or abs(two[1] + 8) > 2)))
PYTHON
