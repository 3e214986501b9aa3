"""The README's example: half of the instruments go off, and the model follows without a label.

python examples/quickstart.py
"""

from sklearn.datasets import load_breast_cancer

import pyro_cama
from support.howto import GRAPHS, SMOKE

bunch = load_breast_cancer(as_frame=True)
table = bunch.data.assign(diagnosis=bunch.target_names[bunch.target]).sample(frac=1, random_state=0)
train, later = table[:285], table[285:]
off = {name: later[name] * 1.2 + train[name].std() for name in bunch.feature_names[:15]}
drifted = later.assign(**off)

cama = pyro_cama.build(GRAPHS / "breast_cancer.yaml", seed=0).fit(train, max_epochs=5 if SMOKE else 300)
adapted = cama.adapt(drifted.drop(columns="diagnosis"), steps=10 if SMOKE else 100)
print(f"clean {cama.score(later):.3f}, drifted {cama.score(drifted):.3f}, adapted {adapted.score(drifted):.3f}")
print(adapted.adaptation)
