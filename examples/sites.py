"""Hospitals: one manipulation a site, and a new site that nobody has labels for.

datasets.graph("clinic") says `scope: hospital`: whatever is odd about a hospital's instruments all its patients share.
The model learns from two ordinary hospitals.  Then come records without labels from a third, whose thermometers read
0.9 degrees too high, whose counter finds 1.6 times as many white cells and where four in ten coughs are not written
down; and from a fourth that measures as the first two do.  The patients are simulated, see support/clinic.py.

Prints the accuracy by hospital before and after adapting, and the mean fever: as recorded, as the model reconstructs
it, and as it was.

    python examples/sites.py
"""

import pandas as pd

from pyro_cama import build, datasets
from support.clinic import Hospital, patients
from support.howto import SMOKE

north, south, west = Hospital("north"), Hospital("south"), Hospital("west")
east = Hospital("east", thermometer=0.9, counter=1.6, cough_overlooked=0.4)
people = {place: patients(60 if SMOKE else 400, seed) for seed, place in enumerate((north, south, east, west))}
records = {place: place.measure(them, seed=0) for place, them in people.items()}

# a smaller weight than the default: adaptation lives on densities, and gives the last point of accuracy for them
cama = build(datasets.graph("clinic"))
cama.fit(pd.concat([records[north], records[south]]), conditional_weight=10, max_epochs=3 if SMOKE else 60)

new = pd.concat([records[east], records[west]]).drop(columns="infection")
adapted = cama.adapt(new, steps=10 if SMOKE else 100)
print(f"adaptation {adapted.adaptation}\n")

print("hospital   accuracy  adapted   fever: recorded  reconstructed  true")
for place in (north, east, west):
    table = records[place]
    fevers = [frame["fever"].mean() for frame in (table, adapted.reconstruct(table), people[place])]
    scores = f"{cama.score(table):8.3f} {adapted.score(table):8.3f}"
    print(f"{place.name:<10} {scores} {fevers[0]:17.2f} {fevers[1]:14.2f} {fevers[2]:5.2f}")
