#!/usr/bin/env bash
# MDF.concatenate reads a later file's raw counts with the first file's calibration: physical values change without a word.
#
# An MDF channel holds raw counts and a conversion (gain and offset) to physical units, and a sensor that was recalibrated
# between two recordings has another conversion in the second file.  concatenate asks for the same groups and channels only;
# it appends raw samples and keeps the first file's conversion and unit for all of them.  MDF.stack, and each file on its
# own, read rightly, so that the mistake comes in with the join, and looks like a drift of the sensor.
#
# asammdf 8.8.28, seen: first 20.0 to 22.0 degC, second 21.0 to 23.0 degC; second after concatenate 84.0 to 92.0 degC, stacked
# 21.0 to 23.0 degC; a second file in degF: 69.8 to 73.4 degF, after concatenate 69.8 to 73.4 degC
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asammdf==8.8.28 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import numpy as np
from asammdf import MDF, Signal

warnings.simplefilter("error")


def recorded(name, raw, gain, offset, unit):
    """A file with one channel of raw counts and its calibration."""
    signal = Signal(
        samples=np.array(raw, dtype=np.uint16),
        timestamps=np.arange(len(raw), dtype=float),
        name="temperature",
        unit=unit,
        conversion={"a": gain, "b": offset},
    )
    with MDF(version="4.10") as file:
        file.append([signal])
        return str(file.save(f"{sys.argv[1]}/{name}.mf4"))


def said(signal, rows=slice(None)):
    """Least and greatest physical value, with the unit."""
    return f"{signal.samples[rows].min():.1f} to {signal.samples[rows].max():.1f} {signal.unit}"


def alone(path):
    with MDF(path) as file:
        return said(file.get("temperature"))


def joined(*paths):
    """The second file's rows after concatenate, saved and read again."""
    with MDF.concatenate(list(paths)) as file:
        path = str(file.save(f"{sys.argv[1]}/joined.mf4", overwrite=True))
    with MDF(path) as file:
        return said(file.get("temperature"), slice(3, None))


first = recorded("first", [200, 210, 220], 0.1, 0.0, "degC")
second = recorded("second", [840, 880, 920], 0.025, 0.0, "degC")
other_unit = recorded("other_unit", [698, 716, 734], 0.1, 0.0, "degF")
with MDF.stack([first, second]) as file:
    stacked = said(file.get("temperature", group=1))
print(
    f"asammdf {version('asammdf')}: first {alone(first)}, second {alone(second)}; second after concatenate "
    f"{joined(first, second)}, stacked {stacked}; a second file in degF: {alone(other_unit)}, after concatenate "
    f"{joined(first, other_unit)}"
)
right = alone(second) == stacked == "21.0 to 23.0 degC" and alone(other_unit) == "69.8 to 73.4 degF"
wrong = joined(first, second) == "84.0 to 92.0 degC" and joined(first, other_unit) == "69.8 to 73.4 degC"
sys.exit(not (right and wrong))
PYTHON
