"""The paper's Figure 7: trained on clean digits, adapted without labels to moved ones, and scored on other moved ones.

Digits are shifted vertically or horizontally by up to a fraction of their height, or turned by up to some degrees.
CAMA adapts to the kind it is scored on, to the other kind of shift, and to both; with the warp mechanism, with the
paper's concatenation (vertical shifts), and from simulated interventions.  Beside it stand nets, their adaptations, a
CVAE and an oracle trained with labels on digits moved alike.  Writes results/figure7.json (tidy rows) and
results/figure7.png.

    python experiments/figure7.py             # 60,000 digits, one model of each kind; an hour and a half on one core
    python experiments/figure7.py --quick     # 6,000 digits, small nets, one severity
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from torch import Tensor

from support import experiment, images
from support.experiment import Row
from support.image_baselines import bn_adapt, shot_im, t3a, tent
from support.images import FAMILY, Lab

SEVERITIES: dict[str, dict[str, tuple[float, ...]]] = {
    "full": {
        "vertical_shift": (0.1, 0.2, 0.3, 0.4, 0.5),
        "horizontal_shift": (0.1, 0.3, 0.5),
        "rotation": (30.0, 45.0, 60.0),
    },
    "quick": {"vertical_shift": (0.3,), "horizontal_shift": (0.3,)},
    "smoke": {"vertical_shift": (0.2,)},
}
OTHER = {"vertical_shift": "horizontal_shift", "horizontal_shift": "vertical_shift"}
Note = Callable[..., None]


def clean(**task: Any) -> list[Row]:
    """Accuracy on clean digits before any adaptation."""
    lab, found = images.open_lab(task), []

    def note(method: str, value: float, **more: Any) -> None:
        found.append(_row(lab, "clean", method, 0.0, value, **more))

    for name in ("net", "net_bn"):
        note(name, lab.net(name).accuracy(lab.data.score_x, lab.data.score_y))
    note("cama", lab.accuracy(lab.cama(), lab.data.score_x), mechanism="warp")
    note("concat", lab.accuracy(lab.cama("concat"), lab.data.score_x), mechanism="concat")
    simulated = lab.cama("warp", FAMILY)
    note("simulated", lab.accuracy(simulated, lab.data.score_x), mechanism="warp")
    note(
        "simulated",
        lab.accuracy(simulated, lab.data.score_x, do={"m": 0.0}),
        mechanism="warp",
        metric="accuracy do(m=0)",
    )
    return found


def nets(kind: str, severity: float, **task: Any) -> list[Row]:
    """The nets, their adaptations and the oracle."""
    lab, found = images.open_lab(task), []
    new, test, y = lab.adapt_x(kind, severity), lab.score_x(kind, severity), lab.data.score_y
    plain, normed = lab.net(), lab.net("net_bn")
    adapted: dict[str, Callable[[Tensor], Any]] = {
        "bn_adapt": lambda x: bn_adapt(normed, x),
        "tent": lambda x: tent(normed, x),
        "shot_im": lambda x: shot_im(normed, x),
        "t3a": lambda x: t3a(normed, x),
    }
    for method, net in {"net": plain, "net_bn": normed, "oracle": lab.net("net_bn", augment={kind: severity})}.items():
        found.append(_row(lab, kind, method, severity, net.accuracy(test, y)))
    for method, adapt in adapted.items():
        found.append(_row(lab, kind, method, severity, adapt(new).accuracy(test, y), adapted_on=kind))
    return found


def models(kind: str, severity: float, **task: Any) -> list[Row]:
    """CAMA by mechanism and by what it was adapted to, and the CVAE."""
    lab, found = images.open_lab(task), []
    test = lab.score_x(kind, severity)

    def note(method: str, value: float, **more: Any) -> None:
        found.append(_row(lab, kind, method, severity, value, **more))

    cvae = lab.cvae()
    note("cvae", lab.accuracy(cvae, test))
    note("cvae", lab.accuracy(lab.adapted_cvae(cvae, lab.adapt_x(kind, severity)), test), adapted_on=kind)
    for mechanism in ("warp", "concat") if kind == "vertical_shift" else ("warp",):
        cama, method = lab.cama(mechanism), "cama" if mechanism == "warp" else "concat"
        note(method, lab.accuracy(cama, test), mechanism=mechanism)
        for seen in _seen(kind, severity, mechanism):
            adapted = lab.adapted(cama, _unlabelled(lab, seen, severity))
            more: dict[str, Any] = {"mechanism": mechanism, "adapted_on": seen}
            note(method, lab.accuracy(adapted, test), **more)
            assert adapted.adaptation is not None
            note(method, float(adapted.adaptation.accepted), metric="kept", **more)
            if seen == kind:
                note(method, lab.accuracy(adapted, lab.data.score_x), **more | {"tested_on": "clean"})
    simulated = lab.cama("warp", FAMILY)
    note("simulated", lab.accuracy(simulated, test), mechanism="warp")
    adapted = lab.adapted(simulated, lab.adapt_x(kind, severity))
    more = {"mechanism": "warp", "adapted_on": kind}
    note("simulated", lab.accuracy(adapted, test), **more)
    note("simulated", lab.accuracy(adapted, lab.data.score_x), **more | {"tested_on": "clean"})
    return found


def _seen(kind: str, severity: float, mechanism: str) -> tuple[str, ...]:
    """What is adapted to."""
    other = OTHER.get(kind)
    if not other or mechanism != "warp":
        return (kind,)
    return (kind, other, "both") if severity == 0.3 else (kind, other)


def _unlabelled(lab: Lab, kind: str, severity: float) -> Tensor:
    """Images to adapt on; `both` is half of each."""
    if kind != "both":
        return lab.adapt_x(kind, severity)
    one, two = (lab.adapt_x(k, severity) for k in OTHER)
    one = one.clone()
    one[1::2] = two[1::2]
    return one


def _row(lab: Lab, kind: str, method: str, severity: float, value: float, **more: Any) -> Row:
    more.setdefault("tested_on", kind)
    return experiment.row(
        "figure7", method, value, severity=severity, seed=lab.seed, setting=lab.setting.name,
        device=lab.setting.device, **more,
    )  # fmt: skip


def main() -> None:
    options = images.parser(__doc__).parse_args()
    setting = experiment.size(options)
    labs = [images.lab_of(options, seed) for seed in experiment.seeds(options)]
    fits = [["warp"], ["concat"], ["simulated"], ["net", "net_bn"]]
    cases = [(kind, severity) for kind, many in SEVERITIES[setting].items() for severity in many]
    tasks = [{"kind": kind, "severity": severity, **lab} for lab in labs for kind, severity in cases]
    fitted = [{"fits": f, **lab} for lab in labs for f in fits]
    parts: list[experiment.Part] = [(images.prepare, fitted), (clean, labs), (nets, tasks), (models, tasks)]
    rows = experiment.run_parts(parts, "figure7", options, written_as=images.published)
    shown = [r for r in rows if r["adapted_on"] in ("", r["tested_on"]) and r["tested_on"] != "clean"]
    for kind in SEVERITIES[setting]:
        print(f"\nfigure7, {kind}, accuracy ({setting})")
        print(experiment.table([r for r in shown if r["tested_on"] == kind], "severity"))
    cross = [r for r in rows if r["method"] == "cama" and r["tested_on"] in OTHER and r["adapted_on"]]
    if cross:
        print("\nCAMA (warp), adapted on one kind of shift and scored on another, accuracy")
        print(_cross(cross))
    experiment.lines(
        shown, options.out / "figure7.png", panel="tested_on", xlabel="largest shift (of the side), or turn (degrees)"
    )


def _cross(rows: list[Row]) -> str:
    frame = pd.DataFrame(rows).query("metric == 'accuracy'")
    return str(frame.pivot_table(index=["tested_on", "adapted_on"], columns="severity", values="value").round(3))


if __name__ == "__main__":
    main()
