"""Coloured MNIST: a colour that goes with the class in training, and against it in the test rows.

Digits below 5 or not, a quarter of the labels flipped; red or green agrees with the label in .9 and .8 of the two
training halves, and in .1 of the test rows (Arjovsky et al. 2019, *Invariant Risk Minimization*; 14 by 14 pixels, two
channels).  Trusting the colour pays in training and gives about .1 in the test; the shape is worth .75.

The graph says that the label causes the image and, by accident, the colour, a manipulation: p(colour | label) is
learned in training (eq. 4) and cut in predictions (`regime="interventional"`).  The halves are pooled, and no test row
is seen; then unlabelled test rows are adapted to.  Beside it the same without that edge; a net; a net on grey values,
the oracle; and IRM, which is told the halves, with its authors' own options (chosen by them on the test rows).
Accuracies are of test rows that nobody adapted to.  Writes results/coloured_mnist.json (tidy rows) and .png.

    python experiments/coloured_mnist.py            # 40,000 digits, three seeds
    python experiments/coloured_mnist.py --quick    # 4,000 digits, one seed
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyro_cama
from pyro_cama import CAMA
from support import experiment, image_data
from support.experiment import Row

SIDE = 14
AGREES = (0.9, 0.8, 0.1)  # colour and label, in the training halves and in the test rows
FLIPPED = 0.25  # of the labels
ROWS = {"full": (40_000, 10_000), "quick": (4_000, 4_000), "smoke": (120, 80)}  # to train on, to test on
HIDDEN = 128  # of nets and models
STEPS = 501  # of IRM
ADAPTED = 2000  # test rows, without labels
STYLES = {
    "net": "net",
    "irm": "IRM, told the halves",
    "oracle": "net, grey values (oracle)",
    "no edge": "CAMA, no edge",
    "cama": "CAMA",
    "cama_observational": "CAMA, edge kept",
    "cama_adapted": "CAMA, adapted",
}


class Digits(NamedTuple):
    """Coloured images, `(rows, 2, 14, 14)` in [0, 1], and their labels, `(rows,)`."""

    x: Tensor
    y: Tensor

    def table(self) -> dict[str, Any]:
        """As CAMA reads them."""
        return {"image": self.x.numpy(), "small": self.y.numpy()}


def coloured(x: Tensor, digit: Tensor, agrees: float, generator: torch.Generator) -> Digits:
    """Digits in a colour that agrees with the (noisy) label in a share of the rows."""
    y = (digit < 5) ^ (torch.rand(len(x), generator=generator) < FLIPPED)
    red = y ^ (torch.rand(len(x), generator=generator) >= agrees)
    x = x.expand(-1, 2, -1, -1).clone()
    x[red, 1], x[~red, 0] = 0.0, 0.0
    return Digits(x, y.long())


@cache
def worlds(setting: str, seed: int, data_dir: str | None) -> tuple[Digits, Digits, Digits, Digits]:
    """The two training halves, test rows to adapt on, and others to score."""
    if setting == "smoke":
        images = image_data.digits(size=SIDE)
        train_x, test_x = images.train_x, images.test_x
    else:
        images = image_data.load("mnist", data_dir)
        train_x, test_x = (image_data.pixels(x)[:, :, ::2, ::2] for x in (images.train_x, images.test_x))
    generator = torch.Generator().manual_seed(seed)
    rows, tested = ROWS[setting]
    parts = []
    for x, digit, many, shares in (
        (train_x, images.train_y, rows, AGREES[:2]),
        (test_x, images.test_y, tested, AGREES[2:] * 2),
    ):
        order = torch.randperm(len(x), generator=generator)[:many]
        for half, share in zip(order.chunk(2), shares, strict=True):
            parts.append(coloured(x[half], digit[half], share, generator))
    first, second, to_adapt, to_score = parts
    return first, second, to_adapt, to_score


# nets -------------------------------------------------------------------------------------------------------------


def net(halves: tuple[Digits, Digits], seed: int, steps: int, *, irm: bool = False, grey: bool = False) -> nn.Module:
    """A net of two hidden layers, all rows at every step; with the penalty of IRMv1 after 190 of 501 steps.

    Options are those of the authors' program, github.com/facebookresearch/InvariantRiskMinimization, but for its 390
    hidden units.  Without the penalty 200 steps of twice the rate get as far.
    """
    torch.manual_seed(seed)
    linear = [nn.Linear(2 * SIDE**2, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)]
    layers = [linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2]]
    found = nn.Sequential(_Grey() if grey else nn.Identity(), nn.Flatten(), *layers)
    for layer in linear:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(found.parameters(), lr=0.00049 if irm else 0.001)
    for step in range(steps):
        losses, penalties = zip(*(_risk(found, half, irm) for half in halves), strict=True)
        loss = torch.stack(losses).mean() + 0.0011 * sum(p.square().sum() for p in found.parameters())
        weight = (91257.0 if step >= 190 else 1.0) if irm else 0.0
        loss = (loss + weight * torch.stack(penalties).mean()) / max(weight, 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found.eval()


class _Grey(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True).expand(-1, 2, -1, -1)


def _risk(found: nn.Module, rows: Digits, irm: bool) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and its squared slope in a scale of the logits."""
    scale = torch.ones((), requires_grad=True)
    risk = F.binary_cross_entropy_with_logits(found(rows.x)[:, 0] * scale, rows.y.float())
    if not irm:
        return risk, torch.zeros(())
    (slope,) = torch.autograd.grad(risk, scale, create_graph=True)
    return risk, slope.square()


def nets(setting: str, seed: int, data_dir: str | None) -> list[Row]:
    """Accuracies of the nets."""
    *halves, _, score = worlds(setting, seed, data_dir)
    found = []
    ways: dict[str, dict[str, bool]] = {"net": {}, "irm": {"irm": True}, "oracle": {"grey": True}}
    for method, options in ways.items():
        steps = 3 if setting == "smoke" else STEPS if method == "irm" else 200
        trained = net((halves[0], halves[1]), seed, steps, **options)
        for tested_on, rows in (("test", score), ("training rows", halves[0])):
            with torch.no_grad():
                right = ((trained(rows.x)[:, 0] > 0).long() == rows.y).double().mean()
            found.append(_row(setting, seed, method, float(right), tested_on=tested_on))
    return found


# CAMA -------------------------------------------------------------------------------------------------------------


def graph(edge: bool) -> dict[str, Any]:
    """small -> image, and small -> colour where that edge is drawn."""
    return {
        "target": "small",
        "nodes": {"small": "binary", "image": {"type": "image", "shape": [2, SIDE, SIDE], "likelihood": "grey"}},
        "edges": ["small -> image", *(["small -> colour"] if edge else [])],
        "latents": {"z": {"dim": 8}, "colour": {"manipulation": True, "dim": 1, "mechanism": "colour"}},
    }


class _Decoder(nn.Module):
    """Two layers; as fast as the nets are, which convolutions would not be."""

    def __init__(self, node: Any, numbers: int) -> None:
        super().__init__()
        self.inputs, self.shape = HIDDEN, node.shape
        last = nn.Linear(256, numbers * int(np.prod(self.shape)))
        nn.init.constant_(last.bias, -2.0)
        self.layers = nn.Sequential(nn.SiLU(), nn.Linear(self.inputs, 256), nn.SiLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features).unflatten(-1, self.shape)


def _encoder(node: Any, features: int) -> nn.Module:
    inputs = int(np.prod(node.shape))
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 256), nn.SiLU(), nn.Linear(256, features), nn.SiLU())


def fitted(setting: str, seed: int, data_dir: str | None, *, edge: bool) -> CAMA:
    """CAMA trained on both halves, pooled; all of their rows are manipulated."""
    first, second, *_ = worlds(setting, seed, data_dir)
    pooled = Digits(torch.cat([first.x, second.x]), torch.cat([first.y, second.y])).table()
    parts: dict[str, Any] = {"encoders": {"image": _encoder}, "decoders": {"image": _Decoder}}
    cama = pyro_cama.build(graph(edge), seed=seed, hidden=HIDDEN, device="cpu", **parts)
    return cama.fit(
        None, pooled, max_epochs=2 if setting == "smoke" else 12, lr=2e-3, batch_size=128, conditional_weight=100.0,
        conditional_share=1.0, anneal=True, progress=False,
    )  # fmt: skip


def models(setting: str, seed: int, data_dir: str | None, *, edge: bool) -> list[Row]:
    """Accuracies of CAMA; with the edge, that cut and kept, adapted and not."""
    first, _, new, score = worlds(setting, seed, data_dir)
    found = []

    def note(method: str, cama: CAMA, **options: Any) -> None:
        for tested_on, rows in (("test", score), ("training rows", first)):
            found.append(_row(setting, seed, method, cama.score(rows.table(), **options), tested_on=tested_on))

    cama = fitted(setting, seed, data_dir, edge=edge)
    if not edge:
        note("no edge", cama)
        return found
    note("cama", cama)
    note("cama_observational", cama, regime="observational")
    steps = 5 if setting == "smoke" else 100
    adapted = cama.adapt({"image": new.x.numpy()[:ADAPTED]}, steps=steps, progress=False)
    note("cama_adapted", adapted)
    assert adapted.adaptation is not None
    found.append(_row(setting, seed, "cama_adapted", float(adapted.adaptation.accepted), metric="kept"))
    return found


def _row(setting: str, seed: int, method: str, value: float, **more: Any) -> Row:
    return experiment.row("coloured_mnist", method, value, trained_on="both halves", seed=seed, setting=setting, **more)


WAYS: dict[str, Callable[..., list[Row]]] = {
    "edge": partial(models, edge=True),
    "no edge": partial(models, edge=False),
    "nets": nets,
}


def measure(way: str, **task: Any) -> list[Row]:
    """The rows of one of WAYS."""
    return WAYS[way](**task)


# main -------------------------------------------------------------------------------------------------------------


def picture(rows: list[Row], setting: str, data_dir: str | None, path: Any) -> None:
    """Digits of the three worlds above, accuracies below."""
    mean, error = experiment.summary(rows, columns="method")
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), height_ratios=(1, 2), layout="constrained")
    strips = []
    for part in [worlds(setting, 0, data_dir)[i] for i in (0, 1, 3)]:
        shown = torch.cat([*part.x[torch.argsort(part.y[:16])]], -1)  # by label, 0 before 1
        strips.append(torch.cat([shown, torch.zeros(1, *shown.shape[1:])]).movedim(0, -1))
    above.imshow(torch.cat(strips).numpy())
    above.set_yticks([SIDE * (i + 0.5) for i in range(3)], ["train, .9", "train, .8", "test, .1"])
    above.set_xticks([])
    above.set_title("colour agrees with the label in ...; those labelled 5 to 9 stand left", fontsize=9)
    names = [name for name in STYLES if name in mean.columns]
    at = np.arange(len(names))
    for shift, tested_on, colour in ((0.2, "training rows", "#b7c4d6"), (-0.2, "test", "#1b7f5c")):
        values, errors = (frame.loc[tested_on, names].to_numpy(dtype=float) for frame in (mean, error))
        below.barh(at - shift, values, 0.38, xerr=np.nan_to_num(errors), color=colour, label=tested_on)
    below.axvline(1 - FLIPPED, color="#555555", linestyle=":")
    below.text(1 - FLIPPED + 0.01, -0.72, "the shape alone", fontsize=8, va="center")
    below.set_yticks(at, [STYLES[n] for n in names])
    below.set(xlim=(0, 1), ylim=(len(names) - 0.4, -1.0))
    below.set_xlabel("accuracy")
    below.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = experiment.parser(__doc__, seeds=3)
    image_data.add_data_dir(parser)
    options = parser.parse_args()
    setting = experiment.size(options)
    data_dir = None if options.data_dir is None else str(options.data_dir)
    tasks = [
        {"way": way, "setting": setting, "seed": seed, "data_dir": data_dir}
        for seed in experiment.seeds(options)
        for way in WAYS
    ]
    rows = experiment.run(measure, tasks, "coloured_mnist", options)
    print(experiment.table([row for row in rows if row["metric"] == "accuracy"], "method", "tested_on"))
    picture(rows, setting, data_dir, options.out / "coloured_mnist.png")


if __name__ == "__main__":
    main()
