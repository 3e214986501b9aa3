"""Rows from another month, place, species or survey: nobody made the shift, and nothing is known about it.

CAMA beside some twenty other ways to adapt, on the pairs of `support/drift_pairs.py`.  Every method adapts on one half
of the new rows, without labels, and is scored on the other, and the other way round; on gas sensors, as is usual there,
it adapts on all of them and is scored on these.  Writes results/real_drift.json and .png; rows of other methods and
pairs that are there already stay.

    pip install '.[peers]'
    python experiments/real_drift.py                                   # five seeds, all pairs and methods
    python experiments/real_drift.py --methods cama                    # CAMA anew, beside the peers as they were
    python experiments/real_drift.py --pairs crabs_blue_orange crabs_orange_blue --methods cama logistic
    python experiments/real_drift.py --part mixes                      # nothing but the class mix changed
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import board, experiment, image_data, mixes
from support.drift_pairs import PAIRS
from support.experiment import Row, Style, line_of
from support.peers import OF_EXTRA, PEERS

QUICK = ("crabs_blue_orange", "penguins_adelie_gentoo", "hawks_immature_adult", "biopsies_first_later", "made_scales")
SMOKE = ("made_scales",)


def chosen(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The pairs, and the peers, that are asked for."""
    size = experiment.size(options)
    pairs = options.pairs or {"full": list(PAIRS), "quick": list(QUICK), "smoke": list(SMOKE)}[size]
    asked = options.methods or ["cama", "peers"]
    every = [name for name in PEERS if size != "smoke" or name not in OF_EXTRA]  # smoke needs no extra
    return pairs, [name for name in every if "peers" in asked or name in asked]


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """New rows, and old ones of other pairs or methods."""

    def key(row: Row) -> tuple[Any, ...]:
        return row["trained_on"], line_of(row).split("_")[0] if line_of(row) in board.CAMA else line_of(row)

    anew = {key(row) for row in new}
    rows = [*(row for row in old if key(row) not in anew), *new]
    order = {name: i for i, name in enumerate(PAIRS)}
    return sorted(rows, key=lambda row: order.get(row["trained_on"], len(order)))


def pairs_part(options: argparse.Namespace) -> None:
    pairs, peers = chosen(options)
    size, seeds = experiment.size(options), list(experiment.seeds(options))
    common = {"size": size, "data_dir": None if options.data_dir is None else str(options.data_dir)}
    parts: list[experiment.Part] = []
    if peers:
        parts.append((board.run_peers, [{"name": name, "seeds": seeds, "methods": peers, **common} for name in pairs]))
    if options.methods is None or "cama" in options.methods:
        tasks = [{"name": name, "seed": seed, "effect": options.effect, **common} for name in pairs for seed in seeds]
        parts.append((board.run_cama, tasks))
    path: Path = options.out / "real_drift.json"
    old = json.loads(path.read_text()) if path.exists() else []
    new = experiment.run_parts(parts, "real_drift_new", options)
    rows = merged(old, new)
    experiment.write(rows, path)
    (options.out / "real_drift_new.json").unlink()
    print(board.report(rows))
    given = {
        "best_peer": Style("best peer of the pair, by its labels", "#a34a4a"),
        "logistic_standardised": Style("logistic regression, re-standardised", "#8a7a1f"),
    }
    experiment.dots(board.drawn(rows), options.out / "real_drift.png", wide=1, given=given)


def mixes_part(options: argparse.Namespace) -> None:
    size = experiment.size(options)
    tables = options.tables or (["wine"] if size == "smoke" else list(mixes.TABLES))
    tasks = [{"table": table, "seed": seed, "size": size} for table in tables for seed in experiment.seeds(options)]
    rows = experiment.run(mixes.run, tasks, "real_drift_mixes", options)
    print(mixes.report(rows))
    rows.sort(key=lambda row: row["severity"])  # without a drift first
    experiment.dots(rows, options.out / "real_drift_mixes.png", panel="trained_on", wide=3)


def main() -> None:
    parser = experiment.parser(__doc__)
    image_data.add_data_dir(parser)
    parser.add_argument("--part", choices=["pairs", "mixes"], default="pairs")
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), metavar="PAIR", help=f"all, of {', '.join(PAIRS)}")
    parser.add_argument(
        "--methods", nargs="+", choices=["cama", "peers", *PEERS], metavar="METHOD",
        help=f"cama and peers, or some of the peers: {', '.join(PEERS)}",
    )  # fmt: skip
    parser.add_argument("--tables", nargs="+", choices=mixes.TABLES, help="of the mixes; all")
    parser.add_argument("--effect", choices=["linear", "deep", "auto"], help="of CAMA's style, if not the graph's")
    options = parser.parse_args()
    (pairs_part if options.part == "pairs" else mixes_part)(options)


if __name__ == "__main__":
    main()
