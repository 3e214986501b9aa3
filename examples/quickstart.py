"""The README's example: half of the instruments go off, and the model follows without a label.

python examples/quickstart.py    # five seconds
"""

import pyro_cama
from pyro_cama import datasets
from support.howto import SMOKE

table = datasets.load("breast_cancer").sample(frac=1, random_state=0)
train, later = table[:285], table[285:]
off = {name: later[name] * 1.2 + train[name].std() for name in table.columns[:15]}
drifted = later.assign(**off)  # half of the instruments are off

cama = pyro_cama.build(datasets.graph("breast_cancer"), seed=0).fit(train, max_epochs=5 if SMOKE else 300)
adapted = cama.adapt(drifted.drop(columns="diagnosis"), steps=10 if SMOKE else 100)
print(f"clean {cama.score(later):.3f}, drifted {cama.score(drifted):.3f}, adapted {adapted.score(drifted):.3f}")
print(adapted.adaptation)
print(str(adapted.explain_shift()).splitlines()[0])
