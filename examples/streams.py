"""A stream of batches: instruments drift, come back and drift elsewhere; the model notices, adapts once, and remembers.

Rows of a random causal model over the graph "measurement", 100 a batch.  In world B the first readings are off, in
world C others; A is the world that the model was fitted to.  The monitor is told nothing: not when the world changes,
not which one it is, and no label.

    python examples/streams.py    # a minute
"""

from pathlib import Path

from pyro_cama import Shift, StructuralModel, build, datasets
from support.howto import SMOKE

OUT = Path("results")
OUT.mkdir(exist_ok=True)
STATE = OUT / "stream.state"
STATE.unlink(missing_ok=True)

raw = datasets.graph("measurement").to_dict()
raw["latents"]["m"] |= {"scope": "dataset", "mechanism": "affine"}
raw["latents"]["z"]["effect"] = "linear"  # fitted and adapted to in seconds
world = StructuralModel(datasets.graph("measurement"), seed=0)
offsets = {"A": {}, "B": {"x1": 2.0, "x4": -2.0, "x9": 2.0}, "C": {"x2": 2.0, "x7": 2.0}}

cama = build(raw).fit(
    world.sample(200 if SMOKE else 2000, seed=1), conditional_weight=0.0, max_epochs=2 if SMOKE else 60
)
held = world.sample(200, seed=2)  # not fitted to: what rows of world A look like; their labels are not looked at

monitor = cama.monitor(held, state=STATE, steps=5 if SMOKE else 100)
print("world  kind          regime  accuracy  without the monitor")
for number, name in enumerate("AB" if SMOKE else "AABBAACCBBA"):
    batch = world.sample(100, seed=100 + number, do={x: Shift(offset=by) for x, by in offsets[name].items()})
    step = monitor.update(batch.drop(columns="y"))
    accuracy = (step.labels == batch["y"]).mean()
    print(f"{name:<6} {step.kind:<13} {step.regime!s:<6} {accuracy:9.2f} {cama.score(batch):9.2f}")

for regime in monitor.regimes:
    if regime.trusted and regime.adaptation is not None:
        moved = monitor.model(regime.number).explain_shift().moved
        print(f"\nregime {regime.number}, {regime.visits} visits: {', '.join(moved)} moved")

later = cama.monitor(held, state=STATE, steps=5 if SMOKE else 100)  # as after a restart
print(f"\n{later!r}")
