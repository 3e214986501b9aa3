"""Two manipulations at once, each by its name: what was done is read off under its own name, and one is undone alone.

Tables: every site has a calibration of its own, columns' gains and offsets, and every row is knocked, a shift of some
columns together.  MNIST: every image has a pose of its own, and an exposure.  Beside the model with two names stands
one whose m is everything at once (scope row).  Writes results/several_manipulations.json and .png.

    python experiments/several_manipulations.py            # three seeds, an hour on one core
    python experiments/several_manipulations.py --quick    # one seed, small images
    python experiments/several_manipulations.py --parts images --seed 1 --seeds 2    # the other rows stay
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA
from pyro_cama.mechanisms.intensity import Intensity
from pyro_cama.mechanisms.warp import Warp
from pyro_cama.model.plates import side_by_side
from support import experiment, image_data
from support.experiment import Row, Style
from support.images import IMAGE

NAME = "several_manipulations"
COLUMNS = tuple("abcdefgh")
KNOCKED = np.array([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 0.0, 0.0])  # what a knock of 1 does to the columns
SITES = 3
SIZES = {  # rows a table has; images to train on and to adapt to, epochs, units, channels
    "smoke": (120, 60, 1, 8, 4),
    "quick": (600, 4000, 10, 128, 16),
    "full": (1500, 10_000, 20, 256, 32),
}


# tables --------------------------------------------------------------------------------------------------------------


def on_tables(seed: int, setting: str) -> list[Row]:
    """Calibrations of sites and knocks of rows, found without labels."""
    rows = SIZES[setting][0]
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 0.7, (2, len(COLUMNS)))
    mixing = rng.normal(0, 0.4, (2, len(COLUMNS)))

    def draw(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        y = rng.integers(0, 2, n)
        return means[y] + rng.normal(size=(n, 2)) @ mixing + 0.7 * rng.normal(size=(n, len(COLUMNS))), y

    def table(x: Any, y: Any, site: Any) -> pd.DataFrame:
        return pd.DataFrame(x, columns=list(COLUMNS)).assign(y=y, site=site)

    clean, y = draw(rows)
    train = table(clean, y, "home")
    knocks_seen = rng.normal(0, 1.5, rows)  # labelled rows that were knocked, at home
    other, other_y = draw(rows)
    knocked = table(other + knocks_seen[:, None] * KNOCKED, other_y, "bench")

    gains = np.exp(rng.normal(0, 0.35, (SITES, len(COLUMNS))))
    offsets = rng.normal(0, 1.0, (SITES, len(COLUMNS)))
    site = rng.integers(0, SITES, 2 * rows)
    x, new_y = draw(2 * rows)
    knocks = rng.normal(0, 1.5, len(x))
    new = table((x * gains[site] + offsets[site]) + knocks[:, None] * KNOCKED, new_y, [f"site {s}" for s in site])
    adapt_to, score_on = new.iloc[:rows], new.iloc[rows:]

    found: list[Row] = []

    def note(method: str, metric: str, value: float, **more: Any) -> None:
        found.append(
            experiment.row(NAME, method, value, metric=metric, tested_on="tables", seed=seed, setting=setting, **more)
        )

    for method in ("two names", "one m"):
        cama = pyro_cama.build(_table_graph(method == "two names"), seed=seed, device="cpu")
        cama.fit(train, knocked, max_epochs=60 if setting != "smoke" else 2, progress=False)
        adapted = cama.adapt(adapt_to.drop(columns="y"), progress=False)
        note(method, "accuracy", cama.score(score_on))
        note(method, "accuracy", adapted.score(score_on), adapted_on="sites")
        if method == "two names":
            told, done = _knocks_told(adapted, score_on), knocks[rows:]
            shifts = _shifts_told(adapted)
            note(method, "knock, as done", _correlation(told, done), adapted_on="sites")
            note(method, "calibration, as done", _correlation(shifts, offsets + (gains - 1) * means.mean(0)))
            note(method, "knock told of calibration", _correlation(told, offsets[site[rows:]].mean(1)))
            by_rows = shifts[site[rows:]] @ (KNOCKED / (KNOCKED**2).sum())
            note(method, "calibration told of knock", _correlation(by_rows, done))
            undone = adapted.reconstruct(score_on.drop(columns="y"), do={"calibration": 0.0})
            left = undone[list(COLUMNS)].to_numpy() - x[rows:]
            note(method, "knock left where calibration is undone", _correlation(left @ KNOCKED, done))
    return found


def _table_graph(two: bool) -> dict[str, Any]:
    latents: dict[str, Any] = {"z": {"dim": 2}, "m": {"dim": 4}}
    if two:
        latents |= {
            "m": None,
            "calibration": {"manipulation": True, "dim": 8, "scope": "site"},
            "knock": {"manipulation": True, "dim": 1, "scope": "row"},
        }
    nodes = {"y": "binary", **dict.fromkeys(COLUMNS, "continuous")}
    return {"target": "y", "nodes": nodes, "edges": [f"y -> {c}" for c in COLUMNS], "latents": latents}


def _knocks_told(cama: CAMA, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Every row's shift along the knock, as its own m has it."""
    batch = cama.encode(rows, target="ignore")
    theta = _theta(cama, batch, {"knock"})
    offset = theta.unflatten(-1, (len(COLUMNS), -1))[..., 5].numpy()  # after the calibration's four: gain, offset
    unit = np.array([float(cama.encoder.statistics[c]["sd"]) for c in COLUMNS])
    return np.asarray(offset * unit @ KNOCKED)


def _shifts_told(cama: CAMA) -> np.ndarray[Any, Any]:
    """How far every site's calibration moves the mean reading of every column, ``(sites, columns)``."""
    parameters = cama.explain_shift().parameters
    own = parameters[(parameters["manipulation"] == "calibration") & (parameters["parameter"] == "shift at the mean")]
    wide = own.pivot(index="site", columns="column", values="estimate")
    return wide.loc[[f"site {s}" for s in range(SITES)], list(COLUMNS)].to_numpy()


def _theta(cama: CAMA, batch: Any, names: set[str]) -> Tensor:
    """theta of every row at the means of q, of these manipulations alone."""
    m = cama.graph.require_m()
    with torch.no_grad():
        values = {one.name: torch.zeros(one.dim) for one in m.each}
        for one, q in zip(m.each, cama.guide.m_dists(batch, names), strict=True):
            if q is not None:
                values[one.name] = q.mean
        return cama.manipulation.structured(side_by_side(m, values))


def _correlation(told: Any, done: Any) -> float:
    return float(np.corrcoef(np.ravel(told), np.ravel(done))[0, 1])


# images --------------------------------------------------------------------------------------------------------------


def on_images(seed: int, setting: str, data_dir: str | None) -> list[Row]:
    """Poses and exposures of digits, learnt from simulated ones, then adapted to."""
    _, train, epochs, hidden, channels = SIZES[setting]
    images = image_data.load("digits" if setting == "smoke" else "mnist", data_dir)
    order = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(seed))[:train]
    x, y = image_data.pixels(images.train_x[order]), images.train_y[order]
    new, new_y = image_data.pixels(images.test_x[: train // 2]), images.test_y[: train // 2]
    node = pyro_cama.datasets.graph("mnist").nodes[IMAGE]
    torch.manual_seed(seed)
    pose, exposure = (how.simulate((len(new),), node, 1.0) for how in (Warp(), Intensity()))
    moved = Intensity().push(Warp().push(new, pose), exposure).clamp(0.0, 1.0)
    half = len(new) // 2
    found: list[Row] = []

    def note(method: str, metric: str, value: float, **more: Any) -> None:
        found.append(
            experiment.row(NAME, method, value, metric=metric, tested_on="MNIST", seed=seed, setting=setting, **more)
        )

    for method in ("two names", "one m"):
        cama = pyro_cama.build(_image_graph(method == "two names", x, channels), seed=seed, hidden=hidden, device="cpu")
        cama.fit(
            {IMAGE: x.numpy(), "digit": y.tolist()}, interventions=1.0, max_epochs=epochs, batch_size=128, lr=2e-3,
            anneal=True, progress=False,
        )  # fmt: skip
        rows = {IMAGE: moved[half:].numpy(), "digit": new_y[half:].tolist()}
        note(method, "accuracy", cama.score(rows))
        if method != "two names":
            continue
        batch = cama.encode(rows, target="ignore")
        theta = {name: _theta(cama, batch, {name}) for name in ("pose", "exposure")}
        told = {"pose": _grid(theta["pose"][:, :6]), "exposure": _greys(theta["exposure"][:, 6:])}
        done = {"pose": _grid(pose[half:]), "exposure": _greys(exposure[half:])}
        for name, other in (("pose", "exposure"), ("exposure", "pose")):
            own = [_correlation(told[name][:, i], done[name][:, i]) for i in range(told[name].shape[1])]
            cross = np.abs(np.corrcoef(told[name].T, done[other].T)[: len(own), len(own) :])
            note(method, f"{name}, as done", float(np.mean(own)))
            note(method, f"{name} told of the other", float(cross.mean()))
            note(method, f"{name} told of the other, at most", float(cross.max()))
        note(
            method,
            "right, down, as done",
            float(np.mean([_correlation(theta["pose"][:, i], pose[half:, i]) for i in (0, 1)])),
        )
        back = cama.reconstruct({IMAGE: moved[half : half + 500].numpy()}, do={"exposure": 0.0}, samples=4)[IMAGE]
        undone = cama.encode({IMAGE: np.stack(list(back))})
        for name in ("pose", "exposure"):
            left = _theta(cama, undone, {name})
            left_of = _grid(left[:, :6]) if name == "pose" else _greys(left[:, 6:])
            kept = [_correlation(left_of[:, i], done[name][:500, i]) for i in range(left_of.shape[1])]
            where = "exposure is undone" if name == "pose" else "it is undone"
            note(method, f"{name} left where {where}", float(np.mean(kept)))
    return found


def _grid(theta: Tensor) -> np.ndarray[Any, Any]:
    """Where the pixels of a small grid in the middle of the image come from, ``(rows, points of x and y)``."""
    ramp = torch.linspace(-1, 1, 28)
    axes = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij")).flip(0)[:, None]  # right, down
    moved = [Warp().push(axis.expand(len(theta), 1, 28, 28), theta)[:, 0, 10:19:4, 10:19:4] for axis in axes]
    return torch.cat([one.flatten(1) for one in moved], 1).numpy()


def _greys(theta: Tensor) -> np.ndarray[Any, Any]:
    """What black, grey and white are recorded as, ``(rows, 3)``."""
    scale = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3).expand(len(theta), 1, 1, 3)
    return Intensity().push(scale, theta).clamp(0.0, 1.0)[:, 0, 0].numpy()


def _image_graph(two: bool, x: Tensor, channels: int) -> dict[str, Any]:
    raw: dict[str, Any] = pyro_cama.datasets.graph("mnist").to_dict()
    raw["nodes"][IMAGE] |= {"channels": channels, "shape": list(x.shape[1:])}
    raw["latents"]["m"] |= {"mechanism": "warp+intensity", "dim": 8}
    if two:
        raw["latents"]["m"] = None
        common = {"manipulation": True, "children": [IMAGE], "scope": "row"}
        raw["latents"]["pose"] = {**common, "mechanism": "warp", "dim": 6}
        raw["latents"]["exposure"] = {**common, "mechanism": "intensity", "dim": 2}
    return raw


UNDONE = "exposure left where it is undone"
LINES = {
    "own": Style("correlation that should be 1: under a name is told what was done under it", "#1b7f5c", strong=True),
    "other": Style("that should be 0, as large as it is: what was done under the other, or is undone", "#c58b4b"),
    "accuracy": Style("accuracy", "#5b4b3a"),
}


def drawn(rows: list[Row]) -> list[Row]:
    """Rows as the picture shows them."""
    found = []
    for row in rows:
        data, metric = row["tested_on"], row["metric"]
        if metric == "accuracy":
            case = row["method"] + (", adapted" if row["adapted_on"] else "")
            found.append(row | {"case": case, "panel": f"{data}: accuracy", "line": "accuracy"})
        elif "squared error" not in metric and row["value"] is not None:
            line = "other" if "told of" in metric or metric == UNDONE else "own"
            value = abs(row["value"]) if line == "other" else row["value"]
            found.append(row | {"case": metric, "panel": f"{data}: correlations", "line": line, "value": value})
    return [row | {"metric": " "} for row in found]


def main() -> None:
    parser = experiment.parser(__doc__, seeds=3)
    image_data.add_data_dir(parser)
    parser.add_argument("--parts", nargs="+", choices=["tables", "images"], default=["tables", "images"])
    options = parser.parse_args()
    setting = experiment.size(options)
    seeds = experiment.seeds(options)
    parts: list[experiment.Part] = []
    if "tables" in options.parts:
        parts.append((on_tables, [{"seed": seed, "setting": setting} for seed in seeds]))
    if "images" in options.parts:
        data_dir = str(options.data_dir or "") or None
        parts.append((on_images, [{"seed": seed, "setting": setting, "data_dir": data_dir} for seed in seeds]))
    rows = experiment.run_among(parts, NAME, options, same=("tested_on", "seed"))
    path = options.out / f"{NAME}.png"
    experiment.dots(drawn(rows), path, case="case", panel="panel", metric=" ", given=LINES)
    for metric in dict.fromkeys(row["metric"] for row in rows):
        print(f"\n{metric}")
        print(experiment.table(rows, index=["tested_on", "method"], columns="adapted_on", metric=metric))


if __name__ == "__main__":
    main()
