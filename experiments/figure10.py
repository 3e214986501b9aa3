"""The paper's Figure 10: CAMA trained on clean digits beside labelled ones of one kind of shift, tested on both kinds.

Training digits are shifted vertically, or horizontally, by up to half of a side.  CAMA, with the warp mechanism and
with the paper's concatenation, is scored as it is and after it adapted without labels to the kind it is scored on;
beside it stands a plain net trained on such digits.  CAMA sees one shifted twin of every digit, the net shifts anew in
every batch.  Writes results/figure10.json (tidy rows) and results/figure10.png.

    python experiments/figure10.py             # 60,000 digits, one model of each kind; many hours of CPU
    python experiments/figure10.py --quick     # 6,000 digits, small nets, vertical beside the clean, one severity
"""

from __future__ import annotations

from typing import Any

from pyro_cama import CAMA
from support import experiment, images
from support.experiment import Row
from support.image_baselines import CNN
from support.images import LARGEST, SHIFTS, Lab

SEVERITIES: dict[str, tuple[float, ...]] = {
    "full": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "quick": (0.0, 0.3),
    "smoke": (0.0, 0.2),
}
METHODS = {"net": "", "concat": "concat", "cama": "warp"}  # and their mechanisms


def fit(method: str, trained_on: str, **task: Any) -> list[Row]:
    """Fits and keeps a model; the tasks that follow find it."""
    model_of(images.open_lab(task), method, trained_on)
    return []


def model_of(lab: Lab, method: str, trained_on: str) -> CNN | CAMA:
    """What was trained on one kind of shift beside the clean digits."""
    if method == "net":
        return lab.net(augment=images.beside_clean(trained_on))
    return lab.cama(METHODS[method], None, **{trained_on: LARGEST})


def scores(method: str, trained_on: str, kind: str, severity: float, **task: Any) -> list[Row]:
    """Accuracy as it is, and CAMA's adapted to the kind it is tested on; nothing adapts to severity 0."""
    lab, found = images.open_lab(task), []
    model, test = model_of(lab, method, trained_on), lab.score_x(kind, severity)

    def note(value: float, metric: str = "accuracy", adapted_on: str = "") -> None:
        found.append(
            experiment.row(
                "figure10", method, value, metric=metric, mechanism=METHODS[method], trained_on=trained_on,
                adapted_on=adapted_on, tested_on=kind, severity=severity, seed=lab.seed, setting=lab.setting.name,
                device=lab.setting.device,
            )
        )  # fmt: skip

    if isinstance(model, CNN):
        note(model.accuracy(test, lab.data.score_y))
        return found
    note(lab.accuracy(model, test))
    if severity:
        adapted = lab.adapted(model, lab.adapt_x(kind, severity))
        assert adapted.adaptation is not None
        note(lab.accuracy(adapted, test), adapted_on=kind)
        note(float(adapted.adaptation.accepted), "kept", kind)
    return found


def main() -> None:
    options = images.parser(__doc__).parse_args()
    setting = experiment.size(options)
    models = [
        {"method": method, "trained_on": trained_on, **images.lab_of(options, seed)}
        for seed in experiment.seeds(options)
        for trained_on in (SHIFTS[:1] if setting != "full" else SHIFTS)
        for method in METHODS
    ]
    tasks = [m | {"kind": kind, "severity": s} for m in models for kind in SHIFTS for s in SEVERITIES[setting]]
    rows = experiment.run_parts([(fit, models), (scores, tasks)], "figure10", options, written_as=images.published)
    shown = [r | {"case": f"{r['tested_on']}, trained with {r['trained_on']}"} for r in rows]
    for case in dict.fromkeys(r["case"] for r in shown):
        print(f"\nfigure10, tested on {case}, accuracy ({setting})")
        print(experiment.table([r for r in shown if r["case"] == case], "severity"))
    experiment.lines(shown, options.out / "figure10.png", panel="case", wide=2, xlabel="largest shift (of the side)")


if __name__ == "__main__":
    main()
