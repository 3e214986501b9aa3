"""Digits of other writers, scanned and prepared by others: MNIST to USPS, and scikit-learn's digits to MNIST.

Nobody made the shift.  A model learns from labelled images of one set, adapts without labels to one half of another
set, and is scored on the other half.  Beside CAMA stand Figure 7's nets and their adaptations, on the same images, of
clean training and of the simulated interventions that CAMA is trained on.  Writes results/image_drift.json (tidy rows:
`severity` is how the images were brought to one frame, see `support/image_pairs.py`) and results/image_drift.png.

    python experiments/image_drift.py             # three seeds, an hour and a half on one core
    python experiments/image_drift.py --quick     # 4,000 digits, small networks
    python experiments/image_drift.py --preparations centred enlarged --mechanisms warp --seeds 1 --out elsewhere
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pyro_cama
from pyro_cama import CAMA, CausalGraph, datasets
from pyro_cama.mechanisms.image import ImageMechanism
from pyro_cama.mechanisms.registry import mechanism_named
from support import experiment, image_data, image_pairs
from support.experiment import Row, Style
from support.image_baselines import CNN, bn_adapt, shot_im, tent
from support.image_data import Protocol
from support.images import IMAGE

MECHANISMS = ("warp+intensity", "warp+blur+intensity")
SCALE = 1.0  # of simulated interventions: a sixth of a side, 29 degrees, sizes by 25 %, gains by 50 %
CLEAN, SIMULATED = "clean", "simulated interventions"


@dataclass(frozen=True)
class Size:
    """How large it all is.

    Attributes:
        train, new: images at most to train on, and to adapt to and to score, each.
        seen, seen_by_nets: images in all epochs together.
        hidden, channels: of networks.
        steps: of an adaptation.
        samples: draws of a prediction.
    """

    train: int
    new: int
    seen: int
    seen_by_nets: int
    hidden: int = 256
    channels: int = 32
    steps: int = 200
    samples: int = 16


SIZES = {
    "smoke": Size(100, 40, 200, 200, 16, 4, 10, 1),
    "quick": Size(4000, 500, 24_000, 20_000, 128, 16, 80, 4),
    "full": Size(10_000, 4000, 200_000, 100_000),
}


def nets(pair: str, preparation: str, trained_on: str, mechanism: str, **task: Any) -> list[Row]:
    """The nets as they are, and adapted."""
    size, data, note, found = _opened(pair, preparation, trained_on, mechanism, task)
    epochs = max(1, round(size.seen_by_nets / len(data.train_x)))
    augment = partial(intervened, named(mechanism)) if trained_on == SIMULATED else None
    plain, normed = (
        CNN(channels=size.channels, batch_norm=norm, epochs=epochs, seed=task["seed"], augment=augment).fit(
            data.train_x, data.train_y
        )
        for norm in (False, True)
    )
    note("cnn", plain.accuracy(data.score_x, data.score_y))
    note("cnn_bn", normed.accuracy(data.score_x, data.score_y))
    for name, adapt in {"bn_adapt": bn_adapt, "tent": tent, "shot_im": shot_im}.items():
        note(name, adapt(normed, data.adapt_x).accuracy(data.score_x, data.score_y), adapted_on=pair)
    return found


def models(pair: str, preparation: str, trained_on: str, mechanism: str, **task: Any) -> list[Row]:
    """CAMA as it is, and adapted: what `adapt` gives, and whether its guard kept the change.

    Adapted without the training images beside the new ones: q(m | x) knows them, and they draw it back to m = 0.
    """
    size, data, note, found = _opened(pair, preparation, trained_on, mechanism, task)
    cama = pyro_cama.build(causal_graph(data, size.channels, mechanism), seed=task["seed"], hidden=size.hidden)
    cama.fit(
        rows(data.train_x, data.train_y), interventions=SCALE if trained_on == SIMULATED else None,
        max_epochs=max(2, round(size.seen / len(data.train_x))), batch_size=128, lr=2e-3, anneal=True, progress=False,
    )  # fmt: skip

    def accuracy(model: CAMA, **options: Any) -> float:
        p = torch.as_tensor(model.predict_proba(rows(data.score_x), samples=size.samples, **options))
        return float((p.argmax(1) == data.score_y).float().mean())

    note("cama", accuracy(cama))
    note("cama", accuracy(cama, do={"m": 0.0}), metric="accuracy do(m=0)")
    adapted = cama.adapt(rows(data.adapt_x), steps=size.steps, progress=False)
    note("cama", accuracy(adapted), adapted_on=pair)
    assert adapted.adaptation is not None
    note("cama", float(adapted.adaptation.accepted), adapted_on=pair, metric="kept")
    return found


Note = Callable[..., None]


def _opened(
    pair: str, preparation: str, trained_on: str, mechanism: str, task: dict[str, Any]
) -> tuple[Size, Protocol, Note, list[Row]]:
    """Size and images of a task, and what notes a row into a list."""
    size, found = SIZES[task["setting"]], []
    data = image_pairs.split(pair, preparation, task["data_dir"], size.train, size.new)

    def note(method: str, value: float, **more: Any) -> None:
        found.append(
            experiment.row(
                "image_drift", method, value, mechanism=mechanism, severity=preparation, trained_on=trained_on,
                tested_on=pair, seed=task["seed"], setting=task["setting"], **more,
            )
        )  # fmt: skip

    return size, data, note, found


def causal_graph(data: Protocol, channels: int, mechanism: str) -> CausalGraph:
    """`graphs/mnist.yaml` with images of this size, a mechanism, and an m that has as many directions as that needs."""
    raw = datasets.graph("mnist").to_dict()
    raw["nodes"][IMAGE] |= {"shape": list(data.train_x.shape[1:]), "channels": channels}
    raw["latents"]["m"] |= {"mechanism": mechanism, "dim": max(8, named(mechanism).numbers or 0)}
    return CausalGraph(raw)


def rows(x: Tensor, y: Tensor | None = None) -> dict[str, Any]:
    """Images and labels as a CAMA takes them."""
    return {IMAGE: x.numpy()} | ({} if y is None else {"digit": y.tolist()})


def named(mechanism: str) -> ImageMechanism:
    """A mechanism of images by its name."""
    found = mechanism_named(mechanism, "row", "image_drift")
    assert isinstance(found, ImageMechanism)
    return found


def intervened(mechanism: ImageMechanism, x: Tensor, seed: int) -> Tensor:
    """Every other image as it is, and those between after an intervention such as CAMA's training simulates."""
    node = datasets.graph("mnist").nodes[IMAGE]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        theta = mechanism.simulate((len(x),), node, SCALE)
    theta[::2] = 0.0
    return mechanism.push(x, theta).clamp(0.0, 1.0)


NAMES = {
    "cnn": "net",
    "cnn_bn": "net, batch norm",
    "bn_adapt": "BN-adapt",
    "tent": "Tent",
    "shot_im": "SHOT-IM",
    "cama": "CAMA",
}
LINES = {
    "as trained": Style("as trained", "#9aa0a6"),
    "adapted": Style("adapted without labels", "#1b7f5c", strong=True),
}


def drawn(found: list[Row]) -> list[Row]:
    """Rows as the figure shows them: a method and its training, adapted or not."""
    ending = {CLEAN: "", SIMULATED: ", simulated"}
    return [
        row | {
            "case": f"{NAMES[row['method']]}{ending[row['trained_on']]} {row['mechanism']}".strip(),
            "line": "adapted" if row["adapted_on"] else "as trained",
            "panel": f"{image_pairs.PAIRS.get(row['tested_on'], row['tested_on'])}, {row['severity']}",
        }
        for row in found
    ]  # fmt: skip


def main() -> None:
    parser = experiment.parser(__doc__, seeds=3)
    image_data.add_data_dir(parser)
    parser.add_argument("--preparations", nargs="+", choices=list(image_pairs.PREPARATIONS), default=["cut"])
    parser.add_argument("--pairs", nargs="+", choices=list(image_pairs.PAIRS))
    parser.add_argument("--mechanisms", nargs="+", help=f"of CAMA, and simulated; {' and '.join(MECHANISMS)}")
    parser.add_argument(
        "--trained", nargs="+", choices=[CLEAN, SIMULATED], default=[SIMULATED], help="what CAMA is trained on"
    )
    options = parser.parse_args()
    setting = experiment.size(options)
    pairs = options.pairs or (["optdigits_optdigits"] if setting == "smoke" else list(image_pairs.PAIRS))
    mechanisms = options.mechanisms or MECHANISMS[: None if setting == "full" else 1]
    common = {"setting": setting, "data_dir": str(options.data_dir or "") or None}

    def tasks(trained: Sequence[tuple[str, str]]) -> list[experiment.Task]:
        return [
            {"pair": pair, "preparation": preparation, "trained_on": name, "mechanism": how, "seed": seed} | common
            for seed in experiment.seeds(options)
            for preparation in options.preparations
            for name, how in trained
            for pair in pairs
        ]

    simulated = [(SIMULATED, mechanism) for mechanism in mechanisms]
    trained = [(name, mechanism) for name in options.trained for mechanism in mechanisms]
    parts: list[experiment.Part] = [(nets, tasks([(CLEAN, ""), *simulated])), (models, tasks(trained))]
    found = experiment.run_parts(parts, "image_drift", options)
    seen = drawn(found)
    print(f"\nimage_drift, accuracy ({setting})\n{experiment.table(seen, 'case', ['panel', 'line'])}")
    experiment.dots(seen, options.out / "image_drift.png", case="case", panel="panel", given=LINES)


if __name__ == "__main__":
    main()
