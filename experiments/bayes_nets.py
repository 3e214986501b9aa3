"""Published Bayesian networks with known graphs: rows sampled from them, then recoded, misreported or rescaled.

child, insurance and hepar2 are categorical: their effects' levels are written down under other names, or now and then
as another level.  ecoli70 is linear Gaussian, its target cut into thirds: scales shift.  The graphs are the networks'
own.  Protocol as in real_tables.py.  Writes results/bayes_nets.json and .png.

    python experiments/bayes_nets.py            # five splits of four networks' rows
    python experiments/bayes_nets.py --quick
"""

from __future__ import annotations

from support import experiment, tables
from support.drift import CASES_OF_NETWORK, NETWORKS


def main() -> None:
    parser = experiment.parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS))
    options = parser.parse_args()
    size = experiment.size(options)
    names = options.networks or {"full": list(NETWORKS), "quick": ["child"], "smoke": ["child"]}[size]
    tasks = [
        {"table": name, "seed": seed, "name": "bayes_net", "size": size,
         "cases": CASES_OF_NETWORK[name][: 1 if options.smoke else None]}
        for name in names
        for seed in experiment.seeds(options)
    ]  # fmt: skip
    rows = experiment.run(tables.run, tasks, "bayes_nets", options)
    tables.report(rows, options.out / "bayes_nets.png")


if __name__ == "__main__":
    main()
