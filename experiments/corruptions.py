"""Seventeen manipulations that no model has seen: shifts, turns, noise, blur, fog, scribbles, parts that are missing.

Every kind of `pyro_cama.image_manipulations` at its typical severity.  Nets, their adaptations without labels, and CAMA
with three mechanisms, as it is and adapted: `auto` chooses between pixels that move, blur, greys that change and what
lies over an image, `warp+intensity` knows of the first and third, the paper's concatenation of nothing.  All train on
clean digits, adapt on one half of the test digits and are scored on the other.  Writes results/corruptions.json (tidy
rows) and results/corruptions.png.

    python experiments/corruptions.py             # 60,000 digits, one model of each kind; hours of CPU
    python experiments/corruptions.py --methods cama --seed 1    # a part; the other rows in results/ stay
    python experiments/corruptions.py --quick     # 6,000 digits, small nets, three kinds
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyro_cama.image_manipulations.kinds import KINDS
from support import experiment, images
from support.experiment import Row
from support.image_baselines import ADAPTATIONS
from support.images import Lab

CASES: dict[str, tuple[str, ...]] = {
    "full": tuple(KINDS),
    "quick": ("rotation", "brightness", "gaussian_noise"),
    "smoke": ("rotation", "brightness"),
}
MECHANISMS = {**{method: mechanism for mechanism, method in images.OWN_METHODS.items()}, "cama": "auto"}  # by method
FITS = {**{method: [mechanism] for method, mechanism in MECHANISMS.items()}, "nets": ["net", "net_bn"]}
MEAN = "mean of all kinds"


def nets(kind: str, **task: Any) -> list[Row]:
    """The nets and what adapts them; `clean` is no manipulation, to which nothing adapts."""
    lab, found = images.open_lab(task), []
    severity = _severity(kind)
    test, y = lab.score_x(kind, severity), lab.data.score_y
    for name in ("net", "net_bn"):
        found.append(_row(lab, kind, name, lab.net(name).accuracy(test, y)))
    if severity:
        new, source = lab.adapt_x(kind, severity), lab.net("net_bn")
        for name, adapt in ADAPTATIONS.items():
            found.append(_row(lab, kind, name, adapt(source, new).accuracy(test, y), adapted_on=kind))
    return found


def camas(kind: str, method: str, **task: Any) -> list[Row]:
    """CAMA with one mechanism, as it is and adapted; `clean` as for :func:`nets`."""
    lab = images.open_lab(task)
    mechanism, severity = MECHANISMS[method], _severity(kind)
    cama, test = lab.cama(mechanism), lab.score_x(kind, severity)
    found = [_row(lab, kind, method, lab.accuracy(cama, test), mechanism=mechanism)]
    if severity:
        adapted = lab.adapted(cama, lab.adapt_x(kind, severity))
        assert adapted.adaptation is not None
        more: dict[str, Any] = {"mechanism": mechanism, "adapted_on": kind}
        found.append(_row(lab, kind, method, lab.accuracy(adapted, test), **more))
        found.append(_row(lab, kind, method, float(adapted.adaptation.accepted), metric="kept", **more))
    return found


def _severity(kind: str) -> float:
    return KINDS[kind].typical if kind in KINDS else 0.0


def _row(lab: Lab, kind: str, method: str, value: float, **more: Any) -> Row:
    return experiment.row(
        "corruptions", method, value, tested_on=kind, severity=_severity(kind), seed=lab.seed,
        setting=lab.setting.name, device=lab.setting.device, **more,
    )  # fmt: skip


def main() -> None:
    options = images.parser(__doc__, FITS).parse_args()
    setting = experiment.size(options)
    labs = [images.lab_of(options, seed) for seed in experiment.seeds(options)]
    fitted = [{"fits": FITS[method], **lab} for lab in labs for method in options.methods]
    tasks = [{"kind": kind, **lab} for lab in labs for kind in ("clean", *CASES[setting])]
    adapted = [task | {"method": method} for task in tasks for method in options.methods if method in MECHANISMS]
    parts: list[experiment.Part] = [(images.prepare, fitted), (camas, adapted)]
    if "nets" in options.methods:
        parts.append((nets, tasks))
    same = ("experiment", "method", "mechanism", "seed")
    show(experiment.run_among(parts, "corruptions", options, same, images.published), options.out)


def show(written: list[Row], out: Path) -> None:
    """Prints the tables and draws the picture of rows as they are written."""
    rows = [images.told_apart(row) for row in written]
    means = [r | {"tested_on": MEAN, "severity": "typical"} for r in rows if r["tested_on"] != "clean"]
    for metric in ("accuracy", "kept"):
        print(f"\ncorruptions, {metric}")
        print(experiment.table(rows + means, metric=metric))
    shown = [
        r | {"panel": "what moves pixels" if KINDS[kind].spatial else "what changes pixels"}
        for r in rows
        if (kind := r["tested_on"]) != "clean"
    ]
    shown += [r | {"tested_on": "mean"} for r in shown]
    experiment.dots(
        [r | {"tested_on": r["tested_on"].replace("_", " ")} for r in shown],
        out / "corruptions.png",
        panel="panel",
    )


if __name__ == "__main__":
    main()
