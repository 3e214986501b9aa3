"""The paper's Figure 7: trained on clean digits, adapted without labels to moved ones, and scored on other moved ones.

Digits are shifted vertically or horizontally by up to a fraction of their height, or turned by up to some degrees.
CAMA adapts to the kind it is scored on, to the other kind of shift, and to both; with the warp mechanism, with the
paper's concatenation (vertical shifts), and from simulated interventions.  Beside it stand nets, their adaptations, a
CVAE and an oracle trained with labels on digits moved alike.  Writes results/figure7.json (tidy rows) and
results/figure7.png.

    python experiments/figure7.py             # 60,000 digits, one model of each kind; hours on one core
    python experiments/figure7.py --methods cama --seed 1    # a part, adapted to its own kind; other rows stay
    python experiments/figure7.py --quick     # 6,000 digits, small nets, one severity
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor

from pyro_cama import CAMA
from support import experiment, images
from support.experiment import Row
from support.image_baselines import bn_adapt, shot_im, t3a, tent
from support.images import BY_METHOD, FAMILY, Lab

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


class Method(NamedTuple):
    """What is measured of a method.

    Attributes:
        fits: names of the models that it needs.
        clean: its accuracy on clean digits before any adaptation.
        moved: its accuracy on digits that have moved, as it is and adapted; kind and severity are given.
    """

    fits: tuple[str, ...]
    clean: Callable[[Lab], list[Row]]
    moved: Callable[[Lab, str, float], list[Row]]


def fitted(method: str, **task: Any) -> list[Row]:
    """Accuracy of a method on clean digits."""
    return METHODS[method].clean(images.open_lab(task))


def adapted(method: str, kind: str, severity: float, **task: Any) -> list[Row]:
    """Accuracy of a method on digits that have moved."""
    return METHODS[method].moved(images.open_lab(task), kind, severity)


def clean_nets(lab: Lab) -> list[Row]:
    """The nets on clean digits."""
    return [
        _row(lab, "clean", name, 0.0, lab.net(name).accuracy(lab.data.score_x, lab.data.score_y))
        for name in ("net", "net_bn")
    ]


def nets(lab: Lab, kind: str, severity: float) -> list[Row]:
    """The nets, their adaptations and the oracle."""
    found = []
    new, test, y = lab.adapt_x(kind, severity), lab.score_x(kind, severity), lab.data.score_y
    plain, normed = lab.net(), lab.net("net_bn")
    adapts: dict[str, Callable[[Tensor], Any]] = {
        "bn_adapt": lambda x: bn_adapt(normed, x),
        "tent": lambda x: tent(normed, x),
        "shot_im": lambda x: shot_im(normed, x),
        "t3a": lambda x: t3a(normed, x),
    }
    for method, net in {"net": plain, "net_bn": normed, "oracle": lab.net("net_bn", augment={kind: severity})}.items():
        found.append(_row(lab, kind, method, severity, net.accuracy(test, y)))
    for method, adapt in adapts.items():
        found.append(_row(lab, kind, method, severity, adapt(new).accuracy(test, y), adapted_on=kind))
    return found


def cvae(lab: Lab, kind: str, severity: float) -> list[Row]:
    """The CVAE, which has no M."""
    model, test = lab.cvae(), lab.score_x(kind, severity)
    moved = lab.adapted_cvae(model, lab.adapt_x(kind, severity))
    return [
        _row(lab, kind, "cvae", severity, lab.accuracy(model, test)),
        _row(lab, kind, "cvae", severity, lab.accuracy(moved, test), adapted_on=kind),
    ]


def camas(method: str, lab: Lab, kind: str, severity: float) -> list[Row]:
    """CAMA with one mechanism, as it is and adapted to what it is scored on."""
    mechanism, test = BY_METHOD[method], lab.score_x(kind, severity)
    cama = lab.cama(mechanism)
    found = [_row(lab, kind, method, severity, lab.accuracy(cama, test), mechanism=mechanism)]
    moved, rows = _adapted(lab, method, kind, severity, kind)
    clean = lab.accuracy(moved, lab.data.score_x)
    note = partial(_row, lab, kind, method, severity, mechanism=mechanism, adapted_on=kind)
    return [*found, *rows, note(clean, tested_on="clean")]


def crossed(lab: Lab, kind: str, severity: float) -> list[Row]:
    """CAMA adapted to the other kind of shift, and to both."""
    if kind not in OTHER:
        return []
    seen = (OTHER[kind], "both") if severity == 0.3 else (OTHER[kind],)
    return [row for one in seen for row in _adapted(lab, "cama", kind, severity, one)[1]]


def _adapted(lab: Lab, method: str, kind: str, severity: float, seen: str) -> tuple[CAMA, list[Row]]:
    """CAMA adapted to one kind, and its rows on another."""
    mechanism = BY_METHOD[method]
    moved = lab.adapted(lab.cama(mechanism), _unlabelled(lab, seen, severity))
    assert moved.adaptation is not None
    note = partial(_row, lab, kind, method, severity, mechanism=mechanism, adapted_on=seen)
    value = lab.accuracy(moved, lab.score_x(kind, severity))
    return moved, [note(value), note(float(moved.adaptation.accepted), metric="kept")]


def clean_camas(method: str, lab: Lab) -> list[Row]:
    """CAMA with one mechanism on clean digits."""
    mechanism = BY_METHOD[method]
    return [_row(lab, "clean", method, 0.0, lab.accuracy(lab.cama(mechanism), lab.data.score_x), mechanism=mechanism)]


def simulated(lab: Lab, kind: str, severity: float) -> list[Row]:
    """CAMA trained with simulated interventions."""
    cama, test = lab.cama("warp", FAMILY), lab.score_x(kind, severity)
    moved = lab.adapted(cama, lab.adapt_x(kind, severity))
    note = partial(_row, lab, kind, "simulated", severity, mechanism="warp")
    return [
        note(lab.accuracy(cama, test)),
        note(lab.accuracy(moved, test), adapted_on=kind),
        note(lab.accuracy(moved, lab.data.score_x), adapted_on=kind, tested_on="clean"),
    ]


def clean_simulated(lab: Lab) -> list[Row]:
    """CAMA trained with simulated interventions on clean digits, with m inferred and under do(m=0)."""
    cama, note = lab.cama("warp", FAMILY), partial(_row, lab, "clean", "simulated", 0.0, mechanism="warp")
    still = lab.accuracy(cama, lab.data.score_x, do={"m": 0.0})
    return [note(lab.accuracy(cama, lab.data.score_x)), note(still, metric="accuracy do(m=0)")]


METHODS = {
    "nets": Method(("net", "net_bn"), clean_nets, nets),
    "cvae": Method(("warp",), lambda lab: [], cvae),
    "cama": Method(("warp",), partial(clean_camas, "cama"), partial(camas, "cama")),
    "crossed": Method(("warp",), lambda lab: [], crossed),
    "concat": Method(("concat",), partial(clean_camas, "concat"), partial(camas, "concat")),
    "simulated": Method(("simulated",), clean_simulated, simulated),
}


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
    options = images.parser(__doc__, METHODS).parse_args()
    setting = experiment.size(options)
    labs = [images.lab_of(options, seed) for seed in experiment.seeds(options)]
    cases = [(kind, severity) for kind, many in SEVERITIES[setting].items() for severity in many]
    tasks = [{"method": method, **lab} for lab in labs for method in options.methods]
    needed = dict.fromkeys(METHODS[method].fits for method in options.methods)
    fits = [{"fits": names, **lab} for lab in labs for names in needed]
    moved = [
        {"kind": kind, "severity": severity, **task}
        for task in tasks
        for kind, severity in cases
        if task["method"] != "concat" or kind == "vertical_shift"
    ]
    parts: list[experiment.Part] = [(images.prepare, fits), (fitted, tasks), (adapted, moved)]
    same = ("experiment", "method", "mechanism", "trained_on", "tested_on", "adapted_on", "seed")
    written = experiment.run_among(parts, "figure7", options, same, images.published)
    rows = [images.told_apart(row) for row in written]
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
