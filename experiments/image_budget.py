"""What computing at prediction buys: accuracy on strongly moved digits over what a prediction costs.

One model, the warp mechanism trained with simulated interventions, reads each image's m from that image alone.  Digits
are shifted vertically by up to half of their height, or turned by up to 60 degrees, and read with more draws of z and m
(`samples`), a wider proposal of m (`widen`), gradient steps of every image's own m (`refine`) and of its z under every
class (`refine_z`).  Cost is measured:
seconds per 1,000 images, on one thread of a CPU; on a machine with other work, `--jobs 1` leaves it less disturbed.

Writes results/image_budget.json (tidy rows) and results/image_budget.png.

    python experiments/image_budget.py            # 1,000 digits each; hours of CPU
    python experiments/image_budget.py --quick    # 100 digits each, small nets
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch

from support import experiment, images
from support.experiment import Row, plt
from support.images import FAMILY

CASES = {"vertical_shift": 0.5, "rotation": 60.0}
COST = "seconds per 1,000 images"


@dataclass(frozen=True)
class Size:
    """How many images, and the budgets."""

    rows: int
    samples: tuple[int, ...] = (1, 4, 16)
    widen: tuple[float, ...] = (1.0, 2.0)
    refine: tuple[int, ...] = (0, 10)
    refine_z: int = 10


SIZES = {
    "full": Size(1000, samples=(1, 4, 16, 32), refine=(0, 10, 25), refine_z=20),
    "quick": Size(100),
    "smoke": Size(20, samples=(1, 4), refine=(0, 2), refine_z=2),
}


def measure(kind: str, severity: float, widen: float, refine: int, refine_z: int, **task: Any) -> list[Row]:
    """Accuracy and cost for every number of samples."""
    lab, found = images.open_lab(task), []
    size, cama = SIZES[lab.setting.name], lab.cama("warp", FAMILY)
    rows, y = lab.rows(lab.score_x(kind, severity)[: size.rows]), lab.data.score_y[: size.rows]
    options: dict[str, Any] = {"widen": widen, "refine": refine, "refine_z": refine_z}
    name = f"widen {widen:g}, refine {refine}" + (f", refine_z {refine_z}" if refine_z else "")
    cama.predict_proba(lab.rows(lab.data.score_x[:10]), samples=1, **options)  # what only a first call costs
    for samples in size.samples:
        began = perf_counter()
        code = torch.as_tensor(cama.predict_proba(rows, samples=samples, **options).argmax(1))
        seconds = (perf_counter() - began) * 1000 / len(y)
        values = {"accuracy": float((code == y).double().mean()), COST: seconds}
        found += [
            experiment.row(
                "image_budget", "simulated", value, metric=metric, mechanism="warp", tested_on=f"{kind} {severity:g}",
                severity=f"samples {samples}, {name}", seed=lab.seed,
                setting=lab.setting.name, device=lab.setting.device,
            )
            for metric, value in values.items()
        ]  # fmt: skip
    return found


def main() -> None:
    options = images.parser(__doc__).parse_args()
    setting = experiment.size(options)
    size, labs = SIZES[setting], [images.lab_of(options, seed) for seed in experiment.seeds(options)]
    fitted = [{"fits": ["simulated"], **lab} for lab in labs]
    tasks = [
        {"kind": kind, "severity": severity, "widen": widen, "refine": refine, "refine_z": refine_z, **lab}
        for lab in labs
        for kind, severity in CASES.items()
        for widen, refine, refine_z in [*((w, r, 0) for r in size.refine for w in size.widen), (1.0, 0, size.refine_z)]
    ]
    rows = experiment.run_parts(
        [(images.prepare, fitted), (measure, tasks)], "image_budget", options, written_as=images.published
    )
    for metric, digits in (("accuracy", 3), (COST, 1)):
        print(f"\nimage_budget, {metric} ({setting}, {size.rows} images)")
        print(experiment.table(rows, "severity", "tested_on", metric, digits=digits))
    _draw(rows, options.out / "image_budget.png")


def _draw(rows: list[Row], path: Path) -> None:
    """Accuracy over cost: a panel for every manipulation, a line for every proposal, along it the samples."""
    frame = pd.DataFrame(rows)
    frame[["samples", "proposal"]] = frame["severity"].str.split(", ", n=1, expand=True)
    mean = frame.pivot_table(
        index=["tested_on", "proposal", "samples"], columns="metric", values="value", sort=False
    ).reset_index()
    names = list(dict.fromkeys(mean["tested_on"]))
    look = dict(zip(dict.fromkeys(mean["proposal"]), experiment.OTHERS * 10, strict=False))
    figure, axes = plt.subplots(1, len(names), figsize=(4.8 * len(names), 4.0), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        for proposal, colour in look.items():
            part = mean[(mean["tested_on"] == name) & (mean["proposal"] == proposal)]
            axis.plot(part[COST], part["accuracy"], marker="o", markersize=4, color=colour, label=proposal)
            for _, point in part.iterrows():
                text = str(point["samples"]).removeprefix("samples ")
                axis.annotate(text, (point[COST], point["accuracy"]), (0, 4), textcoords="offset points", fontsize=7)
        axis.set_title(str(name).replace("_", " "), loc="left", fontsize=11)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.set_xlabel(f"{COST} (beside each point: samples)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e6e6")
    axes[0][0].set_ylabel("accuracy")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
