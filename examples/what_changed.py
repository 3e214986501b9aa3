"""Is the graph right, and what changed?  diagnose before trusting a model, explain_shift after adapting it.

Rows of a random causal model over the graph "measurement", and a graph with one child misdeclared beside the right one.
Then three instruments go wrong: one reads 1.5 sd too high, one with another gain, one is wired the wrong way round.
Pictures go to results/diagnosis.png and results/shift.png.

    python examples/what_changed.py    # about four minutes
"""

from pathlib import Path

from pyro_cama import Shift, StructuralModel, build, datasets
from pyro_cama.data import TableEncoder
from support.howto import SMOKE

OUT = Path("results")
OUT.mkdir(exist_ok=True)

rows, epochs = (300, 2) if SMOKE else (4000, 30)
graph = datasets.graph("measurement")
world = StructuralModel(graph, seed=0)
train = world.sample(rows, seed=1)

wrong = graph.to_dict()
wrong["edges"] = [edge for edge in wrong["edges"] if edge not in (["y", "x2"], ["c1", "x2"])]
for latent in ("z", "m"):
    wrong["latents"][latent].pop("children", None)
doubtful = build(wrong)
doubtful.take_encoder(TableEncoder(doubtful.graph).fit(train))  # the tests below need no trained model
diagnosis = doubtful.diagnose(train, draws=0, progress=False)
print("A graph in which nobody drew y -> x2:\n")
print(diagnosis)
diagnosis.plot(OUT / "diagnosis.png")

cama = build(graph)
cama.fit(train, conditional_weight=0.0, max_epochs=epochs, batch_size=256, lr=6e-3, anneal=True)
later = world.sample(rows // 4, seed=2, do={"x3": Shift(offset=1.5), "x6": Shift(gain=0.5), "x9": Shift(gain=-1.0)})
adapted = cama.adapt(later.drop(columns="y"), restarts=2, folds=3)
print(f"\nThree instruments go wrong: accuracy {cama.score(later):.3f}, adapted {adapted.score(later):.3f}\n")
print(adapted.explain_shift())
adapted.explain_shift().plot(OUT / "shift.png")
