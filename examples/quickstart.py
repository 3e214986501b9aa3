"""The README's example: half of the instruments go off, and the model follows without a label."""

import argparse
from pathlib import Path

from sklearn.datasets import load_breast_cancer

import pyro_cama

GRAPH = Path(__file__).parents[1] / "graphs" / "breast_cancer.yaml"


def main(fast: bool) -> None:
    bunch = load_breast_cancer(as_frame=True)
    table = bunch.data.assign(diagnosis=bunch.target_names[bunch.target]).sample(frac=1, random_state=0)
    train, later = table[:285], table[285:]
    off = {name: later[name] * 1.2 + train[name].std() for name in bunch.feature_names[:15]}
    drifted = later.assign(**off)

    cama = pyro_cama.build(GRAPH, seed=0).fit(train, max_epochs=5 if fast else 300)
    adapted = cama.adapt(drifted.drop(columns="diagnosis"), steps=10 if fast else 100)
    print(f"clean {cama.score(later):.3f}, drifted {cama.score(drifted):.3f}, adapted {adapted.score(drifted):.3f}")
    print(adapted.adaptation)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="seconds: few epochs")
    parser.add_argument("--out", help="not used: nothing is written")
    main(parser.parse_args().smoke)
