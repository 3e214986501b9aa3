"""Hospitals: one manipulation a site, and a new site that nobody has labels for.

graphs/clinic.yaml says `scope: hospital`: whatever is odd about a hospital's instruments is shared by its patients.
The model learns from two ordinary hospitals.  Then come records without labels from a third, whose thermometers read
0.9 degrees too high, whose counter finds 1.6 times as many white cells and where four in ten coughs are not written
down; and from a fourth that measures as the first two do.  The patients are simulated, see support/clinic.py.

Prints the accuracy by hospital before and after adapting, and the mean fever: as recorded, as the model reconstructs
it, and as it was.

    python examples/sites.py
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pyro_cama import build
from support.clinic import Hospital, patients

GRAPH = Path(__file__).parents[1] / "graphs" / "clinic.yaml"
NORTH, SOUTH, WEST = Hospital("north"), Hospital("south"), Hospital("west")
EAST = Hospital("east", thermometer=0.9, counter=1.6, cough_overlooked=0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds: few patients, epochs and steps")
    parser.add_argument("--out", type=Path, help="not used: nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = 60 if options.smoke else 400
    fit: dict[str, Any] = {"max_epochs": 3} if options.smoke else {"max_epochs": 60}
    adapt: dict[str, Any] = {"steps": 10, "restarts": 1, "folds": 2} if options.smoke else {}

    people = {hospital: patients(rows, seed) for seed, hospital in enumerate((NORTH, SOUTH, EAST, WEST))}
    records = {hospital: hospital.measure(them, seed=0) for hospital, them in people.items()}
    known = pd.concat([records[NORTH], records[SOUTH]])
    # a smaller weight than the default: adaptation lives on densities, and gives the last point of accuracy for them
    cama = build(GRAPH).fit(known, conditional_weight=10, **fit)

    new = pd.concat([records[EAST], records[WEST]]).drop(columns="infection")
    adapted = cama.adapt(new, **adapt)
    print(f"adaptation {adapted.adaptation}\n")
    print("hospital   accuracy  adapted   fever: recorded  reconstructed  true")
    for hospital in (NORTH, EAST, WEST):
        table = records[hospital]
        fevers = [frame["fever"].mean() for frame in (table, adapted.reconstruct(table), people[hospital])]
        scores = f"{cama.score(table):8.3f} {adapted.score(table):8.3f}"
        print(f"{hospital.name:<10} {scores} {fevers[0]:17.2f} {fevers[1]:14.2f} {fevers[2]:5.2f}")


if __name__ == "__main__":
    main()
