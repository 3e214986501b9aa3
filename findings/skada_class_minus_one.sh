#!/usr/bin/env bash
# A class coded -1 is never learnt and never predicted by skada, without a word: source rows of that class are dropped.
#
# -1, 0, 1 (negative, neutral, positive) is a usual coding, and scikit-learn's classifiers take it.  skada masks the labels
# of target rows with -1, and removes before each fit all rows that have it, source rows among them, whose labels are known.
# The same rows with the same classes coded 0, 1, 2 are all learnt.  With two classes, -1 and 1, the fit fails, saying that
# the data have one class only.
#
# skada 0.6.0, seen: labels -1, 0, 1: predicted [0, 1], accuracy 0.69; labels 0, 1, 2: predicted [0, 1, 2], accuracy 0.98
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check skada==0.6.0 pot==0.9.7.post1 scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import numpy as np
import skada
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
mood = rng.integers(-1, 2, 300)
source = rng.normal(size=(300, 2)) + 3 * np.c_[mood, np.abs(mood)]
target = source + 0.1
domain = np.repeat([1, -2], 300)
found = {}
for first in (-1, 0):
    labels = mood + 1 + first
    pipeline = skada.make_da_pipeline(skada.CORALAdapter(), LogisticRegression())
    pipeline.fit(np.r_[source, target], np.r_[labels, labels], sample_domain=domain)
    predicted = pipeline.predict(target, sample_domain=np.full(300, -2))
    found[first] = (np.unique(predicted).tolist(), round(float((predicted == labels).mean()), 2))
plain = LogisticRegression().fit(source, mood).score(target, mood)
print(
    f"skada {skada.__version__}: labels -1, 0, 1: predicted {found[-1][0]}, accuracy {found[-1][1]}; "
    f"labels 0, 1, 2: predicted {found[0][0]}, accuracy {found[0][1]}; scikit-learn alone on -1, 0, 1: {plain:.2f}"
)
sys.exit(not (found[-1][0] == [0, 1] and found[-1][1] < 0.75 and found[0][0] == [0, 1, 2] and found[0][1] > 0.95))
PYTHON
