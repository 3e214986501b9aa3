"""Is the graph right, and what changed?  diagnose before trusting a model, explain_shift after adapting it.

Rows of a random causal model over graphs/measurement.yaml, and a graph with one child misdeclared beside the right one.
Then three instruments go wrong: one reads 1.5 sd too high, one with another gain, one is wired the wrong way round.
Pictures go to diagnosis.png and shift.png in the folder given by --out.

    python examples/what_changed.py    # about two minutes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyro_cama
from pyro_cama import CausalGraph, Shift, StructuralModel

GRAPH = Path(__file__).parents[1] / "graphs" / "measurement.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="few rows and epochs: does it run?")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    rows, epochs = (300, 2) if options.smoke else (4000, 30)

    world = StructuralModel(GRAPH, seed=0)
    train = world.sample(rows, seed=1)
    graph = CausalGraph(GRAPH)

    wrong = graph.to_dict()
    wrong["edges"] = [edge for edge in wrong["edges"] if edge not in (["y", "x2"], ["c1", "x2"])]
    wrong["latents"]["m"].pop("children", None)
    wrong["latents"]["z"].pop("children", None)
    doubtful = pyro_cama.build(wrong).fit(train, max_epochs=0, progress=False)
    diagnosis = doubtful.diagnose(train, draws=0, progress=False)
    print("A graph in which nobody drew y -> x2:\n")
    print(diagnosis)
    options.out.mkdir(parents=True, exist_ok=True)
    diagnosis.plot(options.out / "diagnosis.png")

    cama = pyro_cama.build(graph)
    cama.fit(train, conditional_weight=0.0, max_epochs=epochs, batch_size=256, lr=6e-3, anneal=True)
    later = world.sample(rows // 4, seed=2, do={"x3": Shift(offset=1.5), "x6": Shift(gain=0.5), "x9": Shift(gain=-1.0)})
    adapted = cama.adapt(later.drop(columns="y"), restarts=2, folds=3)
    print(f"\nThree instruments go wrong: accuracy {cama.score(later):.3f}, adapted {adapted.score(later):.3f}\n")
    print(adapted.explain_shift())
    adapted.explain_shift().plot(options.out / "shift.png")


if __name__ == "__main__":
    main()
