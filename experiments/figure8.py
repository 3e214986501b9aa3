"""The paper's Figure 8: how many of the shifted digits does CAMA need to adapt?

Trained on clean digits, adapted without labels to a share of the 5,000 shifted ones, and scored on other 5,000; with
the warp mechanism and the paper's concatenation.  A seed draws which digits are taken; the model stays.  Writes
results/figure8.json (tidy rows: `severity` is the share in per cent, 0 is not adapted) and results/figure8.png.
Metrics are

- accuracy: of what `adapt` gives, which is the model as it was where the change cannot be trusted;
- accuracy, always kept: of the change whatever the guard says;
- kept: whether the guard keeps it;
- share of the gain: in accuracy over the model as it was, of that with all digits; null where that is below `LEAST`.

    python experiments/figure8.py             # 60,000 digits, three draws of the shares
    python experiments/figure8.py --quick     # 6,000 digits, 500 to adapt on
"""

from __future__ import annotations

import math
from typing import Any

import torch

from support import experiment, images
from support.experiment import Row, Style
from support.images import MECHANISMS, SHIFTS

SEVERITY = 0.3
LEAST = 0.02  # a gain below this has no shares to speak of
SHARES: dict[str, tuple[float, ...]] = {
    "full": (0.0, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0),
    "quick": (0.0, 5.0, 100.0),
    "smoke": (0.0, 50.0, 100.0),
}
LINES = {"warp": Style("CAMA, warp", "#1b7f5c", strong=True), "concat": Style("CAMA, paper's concat", "#8ca252")}


def scores(kind: str, mechanism: str, share: float, draw: int, **task: Any) -> list[Row]:
    """Accuracy after adapting to a share of the images, in per cent."""
    lab, found = images.open_lab(task), []
    cama, test = lab.cama(mechanism), lab.score_x(kind, SEVERITY)

    def note(value: float, metric: str = "accuracy") -> None:
        found.append(
            experiment.row(
                "figure8", MECHANISMS[mechanism], value, metric=metric, mechanism=mechanism,
                adapted_on=kind if share else "", tested_on=kind, severity=share, seed=draw,
                setting=lab.setting.name, device=lab.setting.device,
            )
        )  # fmt: skip

    if not share:
        note(lab.accuracy(cama, test))
        return found
    new = lab.adapt_x(kind, SEVERITY)
    order = torch.randperm(len(new), generator=torch.Generator().manual_seed(draw))
    adapted = lab.adapted(cama, new[order[: round(share / 100 * len(new))]], keep="always")
    assert adapted.adaptation is not None
    always, kept = lab.accuracy(adapted, test), adapted.adaptation.accepted
    note(always if kept else lab.accuracy(cama, test))  # a change that is not kept leaves every prediction as it was
    note(always, "accuracy, always kept")
    note(float(kept), "kept")
    return found


def shares_of_gain(rows: list[Row]) -> list[Row]:
    """Of every adaptation of :func:`scores`, in tidy rows of their own."""
    scored = [r for r in rows if r["metric"] == "accuracy"]
    at = {(r["method"], r["tested_on"], r["seed"], r["severity"]): r["value"] for r in scored}
    found = []
    for row in scored:
        case = (row["method"], row["tested_on"], row["seed"])
        none, whole = at[*case, 0.0], at[*case, 100.0]
        share = (row["value"] - none) / (whole - none) if whole - none >= LEAST else math.nan
        found.append(row | {"metric": "share of the gain", "value": share if math.isfinite(share) else None})
    return found


def main() -> None:
    options = images.parser(__doc__, seeds=3).parse_args()
    setting = experiment.size(options)
    lab = images.lab_of(options, options.seed)
    fitted = [{"fits": [m], **lab} for m in MECHANISMS]
    tasks = [
        {"kind": kind, "mechanism": mechanism, "share": share, "draw": draw, **lab}
        for kind in SHIFTS[:1]
        for mechanism in MECHANISMS
        for share in SHARES[setting]
        for draw in experiment.seeds(options)
    ]
    rows = experiment.run_parts([(images.prepare, fitted), (scores, tasks)], "figure8", options)
    rows += shares_of_gain(rows)
    experiment.write([images.published(row) for row in rows], options.out / "figure8.json")
    shown = [r | {"share": f"{r['severity']:g} %"} for r in rows]
    for metric in ("accuracy", "accuracy, always kept", "kept", "share of the gain"):
        known = [r for r in shown if r["metric"] == metric and r["value"] is not None]
        if known:
            print(f"\nfigure8, shifts of {SEVERITY}, {metric} ({setting})")
            print(experiment.table(known, ["tested_on", "share"], "mechanism", metric))
    experiment.lines(
        shown, options.out / "figure8.png", x="share", line="mechanism", panel="tested_on", given=LINES,
        xlabel="share of the shifted digits that it adapts to",
    )  # fmt: skip


if __name__ == "__main__":
    main()
