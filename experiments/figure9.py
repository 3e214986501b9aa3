"""The paper's Figure 9: what do(m=0) makes of shifted digits, and what one digit's m makes of another.

CAMA, with the warp mechanism and with the paper's concatenation, is trained on clean digits and adapted without labels
to digits shifted vertically by up to .3 of their height (the change is kept, trusted or not; `kept` says which).  From
other shifted digits it infers digit, style z and m.  Then

- do(m=0) should put the digit back where the clean one is: how far apart their centres of mass are, and whether a net
  trained on clean digits reads it as it reads the clean one;
- with the m of a partner the digit should move as the partner was moved (a counterfactual of which the truth is known);
- the digit should be told by z, the shift by m: cross-validated accuracy of logistic regression, R² of ridge
  regression, from the means of q(m | x) and of q(z | x, y, m) given the predicted class.

Writes results/figure9.json (tidy rows) and results/figure9.png.

    python experiments/figure9.py             # 60,000 digits; hours, less where figure7 and figure10 left models
    python experiments/figure9.py --quick     # 6,000 digits, small nets
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pyro_cama import CAMA
from pyro_cama.image_manipulations.kinds import manipulate
from pyro_cama.model.causes import Causes
from pyro_cama.model.plates import class_values
from support import experiment, images
from support.experiment import METHODS, Row, plt
from support.images import IMAGE, LARGEST, MECHANISMS, Lab

KIND, SEVERITY = "vertical_shift", 0.3
NEAR = 1.5  # pixels between centres of mass that are one place
TRAINED_ON = {"full": ("clean",), "quick": ("clean",), "smoke": ("clean", KIND)}
CHUNK = 200  # images reconstructed at once
Pictures = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Inferred:
    """What a model reads from images.

    Attributes:
        code: the most probable class, ``(rows,)``.
        m, z: means of q(m | x) and of q(z | x, y, m) at that class and m, ``(rows, dim)``.
    """

    code: Tensor
    m: Tensor
    z: Tensor


@torch.no_grad()
def inferred(lab: Lab, cama: CAMA, x: Tensor) -> Inferred:
    """y, m and z of images."""
    batch = cama.encode(lab.rows(x))
    code = torch.as_tensor(cama.predict_proba(lab.rows(x), samples=lab.setting.samples).argmax(1))
    m = cama.guide.m_dist(batch).mean
    return Inferred(code, m, cama.guide.z_dist(batch, _encoded(cama, code), m).mean)


@torch.no_grad()
def drawn(lab: Lab, cama: CAMA, what: Inferred, m: Tensor) -> Tensor:
    """The mean image of these y and z under do(m), ``(rows, C, H, W)``."""
    blank = cama.encode(lab.rows(torch.zeros(len(m), *lab.data.score_x.shape[1:])))  # says how many, and of what site
    causes = Causes(cama.model, blank, what.z)
    causes.set_m(m)
    causes.values[cama.graph.target] = _encoded(cama, what.code)
    mean: Tensor = cama.model.node_dist(IMAGE, causes).mean
    return mean.cpu()


def _encoded(cama: CAMA, code: Tensor) -> Tensor:
    return class_values(cama.graph, cama.model.like)[code.to(cama.device), 0]


def clean_again(lab: Lab, cama: CAMA, x: Tensor) -> Tensor:
    """Images under do(m=0); y and z averaged over their posterior."""
    parts = []
    for part in x.split(CHUNK):
        frame = cama.reconstruct(lab.rows(part), do={"m": 0.0}, samples=lab.setting.samples)
        parts.append(torch.as_tensor(np.stack(frame[IMAGE].to_list()), dtype=x.dtype))
    return torch.cat(parts)


def centre(x: Tensor) -> Tensor:
    """Centres of mass of images ``(rows, C, H, W)``: row and column in pixels, ``(rows, 2)``."""
    mass = x.sum(1)
    total = mass.sum((1, 2)).clamp_min(1e-6)
    rows, columns = (torch.arange(side, dtype=x.dtype) for side in mass.shape[1:])
    return torch.stack([(mass.sum(2) * rows).sum(1) / total, (mass.sum(1) * columns).sum(1) / total], 1)


def probed(features: Tensor, y: Tensor, amount: Tensor) -> tuple[float, float]:
    """How well a linear map of features tells the class (accuracy) and the shift (R²), five-fold cross-validated."""
    x, folds = features.cpu().numpy(), KFold(5, shuffle=True, random_state=0)
    digit = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    shift = make_pipeline(StandardScaler(), Ridge())
    return (
        float(cross_val_score(digit, x, y.numpy(), cv=folds).mean()),
        float(cross_val_score(shift, x, amount.numpy(), cv=folds, scoring="r2").mean()),
    )


def measure(mechanism: str, trained_on: str, out: str, **task: Any) -> list[Row]:
    """All numbers of one model; its part of the picture goes to a file in `out`."""
    lab, found = images.open_lab(task), []
    clean, y, net = lab.data.score_x, lab.data.score_y, lab.net()
    amount = _amounts(len(clean), 2000 + lab.seed)
    partner = torch.arange(len(clean)).bitwise_xor(1).clamp_max(len(clean) - 1)  # 0 and 1, 2 and 3, ...
    shifted = manipulate(clean, KIND, amount=amount)
    truth = manipulate(clean, KIND, amount=amount[partner])
    cama, kept = _model(lab, mechanism, trained_on)
    what = inferred(lab, cama, shifted)
    restored, swapped = clean_again(lab, cama, shifted), drawn(lab, cama, what, what.m[partner.to(what.m.device)])
    read = net.predict_proba(clean).argmax(1)
    adapted_on = KIND if trained_on == "clean" else ""

    def note(method: str, metric: str, value: float, **more: Any) -> None:
        found.append(
            experiment.row(
                "figure9", method, value, metric=metric, tested_on=KIND, severity=SEVERITY, seed=lab.seed,
                setting=lab.setting.name, device=lab.setting.device, trained_on=trained_on, **more,
            )
        )  # fmt: skip

    def placed(method: str, name: str, x: Tensor, goal: Tensor, **more: Any) -> None:
        distance = (centre(x) - centre(goal)).norm(dim=1)
        note(method, f"{name}: centre within {NEAR} px", float((distance <= NEAR).float().mean()), **more)
        note(method, f"{name}: distance of centres in px", float(distance.mean()), **more)

    def same_label(method: str, x: Tensor, **more: Any) -> None:
        note(method, "do(m=0): same label", float((net.predict_proba(x).argmax(1) == read).float().mean()), **more)

    method, more = MECHANISMS[mechanism], {"mechanism": mechanism, "adapted_on": adapted_on}
    if mechanism == "warp":  # once: what the shifted image itself has
        placed("input", "do(m=0)", shifted, clean)
        same_label("input", shifted)
        placed("input", "m of another", shifted, truth)
    placed(method, "do(m=0)", restored, clean, **more)
    same_label(method, restored, **more)
    placed(method, "m of another", swapped, truth, **more)
    for name, features in (("m", what.m), ("z", what.z)):
        digit, shift = probed(features, y, amount)
        note(method, f"digit from {name}: accuracy", digit, **more)
        note(method, f"shift from {name}: R²", shift, **more)
    note(method, "accuracy", float((what.code == y).float().mean()), **more)
    if kept is not None:
        note(method, "kept", float(kept), **more)

    # one of each class; neighbours are partners here
    few = torch.stack([(y == code).nonzero()[0, 0] for code in y.unique()])
    neighbour = few[torch.arange(len(few)).bitwise_xor(1).clamp_max(len(few) - 1)]
    part = Inferred(what.code[few], what.m[few.to(what.m.device)], what.z[few.to(what.z.device)])
    exchanged = drawn(lab, cama, part, what.m[neighbour.to(what.m.device)])
    moved = manipulate(clean[few], KIND, amount=amount[neighbour])
    shown = {
        "clean": clean[few],
        "shifted": shifted[few],
        "restored": restored[few],
        "moved": moved,
        "swapped": exchanged,
    }
    file = _file(Path(out), mechanism, trained_on, lab.seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: x.numpy() for name, x in shown.items()}
    np.savez(file, **arrays)
    return found


def _model(lab: Lab, mechanism: str, trained_on: str) -> tuple[CAMA, bool | None]:
    """The model, and whether its adaptation was trusted; None where there was none."""
    if trained_on != "clean":
        return lab.cama(mechanism, vertical_shift=LARGEST), None
    adapted = lab.adapted(lab.cama(mechanism), lab.adapt_x(KIND, SEVERITY), keep="always")
    assert adapted.adaptation is not None
    return adapted, adapted.adaptation.accepted


def _amounts(rows: int, seed: int) -> Tensor:
    """Shifts, uniform on ±SEVERITY, in heights of the image."""
    generator = torch.Generator().manual_seed(seed)
    return SEVERITY * (2 * torch.rand(rows, dtype=torch.float64, generator=generator) - 1)


def _file(out: Path, mechanism: str, trained_on: str, seed: int) -> Path:
    return out / f"figure9_{mechanism}_{trained_on}_{seed}.npz"


def main() -> None:
    options = images.parser(__doc__).parse_args()
    setting = experiment.size(options)
    labs = [images.lab_of(options, seed) for seed in experiment.seeds(options)]
    fits = [["warp"], ["concat"], ["net"]]
    fitted = [{"fits": f, **lab} for lab in labs for f in fits]
    models = [(mechanism, trained_on) for trained_on in TRAINED_ON[setting] for mechanism in MECHANISMS]
    tasks = [
        {"mechanism": mechanism, "trained_on": trained_on, "out": str(options.out), **lab}
        for lab in labs
        for mechanism, trained_on in models
    ]
    rows = experiment.run_parts(
        [(images.prepare, fitted), (measure, tasks)], "figure9", options, written_as=images.published
    )
    for trained_on in TRAINED_ON[setting]:
        print(f"\nfigure9, trained on {trained_on}, {KIND} {SEVERITY:g} ({setting})")
        print(_table([row for row in rows if row["trained_on"] == trained_on]))
    seed = labs[0]["seed"]
    parts = {}
    for mechanism, trained_on in models:
        with np.load(_file(options.out, mechanism, trained_on, seed)) as file:
            parts[mechanism, trained_on] = dict(file)
    _draw(parts, options.out / "figure9.png")
    for task in tasks:
        _file(options.out, task["mechanism"], task["trained_on"], task["seed"]).unlink()


def _table(rows: list[Row]) -> str:
    frame = pd.DataFrame(rows).assign(line=[experiment.line_of(row) for row in rows])
    found = frame.pivot_table(index="metric", columns="line", values="value", sort=False)
    return found.rename(columns={name: style.label for name, style in METHODS.items()}).round(3).to_string(na_rep="")


def _draw(parts: Mapping[tuple[str, str], Pictures], path: Path) -> None:
    """A row of images each; the digits are the same in all of them."""
    first = next(iter(parts.values()))
    rows = {"clean (not seen)": first["clean"], "shifted (seen)": first["shifted"]}
    for goal, name, title in (("", "restored", "do(m=0)"), ("moved", "swapped", "neighbour's m")):
        if goal:
            rows["clean, neighbour's shift (not seen)"] = first[goal]
        for (mechanism, trained_on), part in parts.items():
            rows[f"{title}: {mechanism}, {'adapted' if trained_on == 'clean' else 'trained on shifts'}"] = part[name]
    tiles = [np.pad(x[:, 0], ((0, 0), (1, 1), (1, 1)), constant_values=0.5) for x in rows.values()]
    sheet = np.concatenate([np.concatenate(list(tile), 1) for tile in tiles])
    height, across = tiles[0].shape[1], len(tiles[0])
    figure, axis = plt.subplots(figsize=(3.5 + 0.6 * across, 0.6 * len(rows)), layout="constrained")
    axis.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([(i + 0.5) * height - 0.5 for i in range(len(rows))], list(rows), fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
