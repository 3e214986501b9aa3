"""All measurements side by side: a table of ratios, results.json and a picture.

    python benchmarks/run.py                    # everything, on a machine with nothing else to do
    python benchmarks/run.py --quick            # few rounds, small models
    python benchmarks/run.py --only children    # one measurement; the other rows of results.json stay
    python benchmarks/run.py --device cuda --out elsewhere.json    # those of tables and images, on a GPU

What is compared, and what came out, is in docs/speed.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cores
import engine_steps
import images
import loading
import recovery
import tabular
import torch
from measure import Row, write

from pyro_cama._files import replacing

MEASUREMENTS: dict[str, Callable[..., list[Row]]] = {
    "import": loading.importing,
    "commands": loading.commands,
    "build": loading.building,
    "tabular": tabular.training,
    "children": tabular.children,
    "classes": tabular.many_classes,
    "images": images.training,
    "image-adaptation": images.adaptation,
    "prediction": images.prediction,
    "memory": images.memory,
    "engine": engine_steps.overhead,
    "cores": cores.used,
    "recovery": recovery.recovery,
}
ON_DEVICE = ("tabular", "children", "classes", "images", "image-adaptation", "prediction")


def line(row: dict[str, Any]) -> str:
    goal = "" if row["goal"] is None else f"{'<=' if row['direction'] == 'min' else '>='} {row['goal']:g}"
    verdict = {None: "", True: "met", False: "MISSED"}[row["met"]]
    spread = "" if row["spread"] is None else f"{row['spread'][0]:.3g} to {row['spread'][1]:.3g}"
    return f"{row['name']:<62}{row['value']:>9.3g} {row['unit']:<4}{spread:>18}{goal:>9}  {verdict}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Every goal's row as a share of its goal, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row["goal"] is not None][::-1]
    shares = [r["value"] / r["goal"] if r["direction"] == "min" else r["goal"] / r["value"] for r in shown]
    figure, axis = pyplot.subplots(figsize=(9, 0.36 * len(shown) + 1), layout="constrained")
    colours = ["tab:green" if row["met"] else "tab:red" for row in shown]
    axis.barh(range(len(shown)), [share - 1 for share in shares], left=1, color=colours)
    axis.set_xscale("log")
    axis.set_yticks(range(len(shown)), [f"{r['name']}: {r['value']:.3g} {r['unit']}" for r in shown], fontsize=8)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xlabel("share of what the goal allows (left of the line: met)")
    with replacing(path) as part:
        figure.savefig(part, dpi=120, format="png")
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument("--device", default="cpu", help=f"cpu; on cuda {', '.join(ON_DEVICE)} are measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    asked = options.only or (MEASUREMENTS if options.device == "cpu" else ON_DEVICE)
    if alone := [name for name in asked if name not in ON_DEVICE and options.device != "cpu"]:
        parser.error(f"--only {' '.join(alone)}: measured on the CPU alone")
    for name in asked:
        where = {"device": options.device} if name in ON_DEVICE else {}
        try:
            found = MEASUREMENTS[name](options.quick, **where)
        except ValueError as error:  # no images
            print(f"{name} left out: {error}", file=sys.stderr)
            continue
        for row in found:
            print(line(row.record()), flush=True)
        rows = write(found, options.out)
    if rows:
        draw(rows, options.out.with_suffix(".png"))
    missed = [row["name"] for row in rows if row["met"] is False]
    print(f"\n{len(missed)} of {sum(row['met'] is not None for row in rows)} goals missed")


if __name__ == "__main__":
    main()
