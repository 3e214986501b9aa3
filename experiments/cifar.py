"""Colours: the airplanes and frogs of CIFAR-10, shifted and attacked (the paper's binary task of section 4.1).

Nets, plain and with batch normalisation, Tent and SHOT-IM adapting the latter, and CAMA with the warp mechanism and
with the paper's concatenation, all trained on clean images.  Shifts: up to .3 of a side; what adapts sees one half of
the test images without labels and is scored on the other.  FGSM and PGD move every intensity by at most eps: the
attack before adaptation; the same images after adaptation to such images of the other half ("frozen attack"); and
CAMA attacked anew through the adapted model's own gradients ("adaptive attack").  Clean accuracy is scored before and
after each adaptation.

The images may come from a JPEG copy of CIFAR-10, whose pixels differ slightly from the original; where they do, the
output and the picture say so.  Writes results/cifar.json (tidy rows) and results/cifar.png.

    python experiments/cifar.py             # 10,000 images, 500 attacked; over two hours on one core
    python experiments/cifar.py --methods cama --parts shifts    # a part; the other rows in results/ stay
    python experiments/cifar.py --quick     # 6,000 images, 100 attacked, small nets, one shift and one eps
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from pyro_cama.attacks.gradient import fgsm, pgd
from support import experiment, image_data, images
from support.experiment import Row
from support.image_baselines import CNN, shot_im, tent
from support.images import BY_METHOD, SHIFTS, Lab

CIFAR = {"graph": "cifar_binary", "data": "cifar"}


@dataclass(frozen=True)
class Size:
    """How much is manipulated.

    Attributes:
        shifts: largest shifts, of the side.
        eps: largest moves, of 255; 0 for the same images without an attack.
        adapt, score: images attacked, of either half.
        steps: of PGD.
        samples: draws of z and m in the attack on a CAMA.
    """

    shifts: tuple[float, ...]
    eps: tuple[int, ...]
    adapt: int
    score: int
    steps: int = 20
    samples: int = 1


SIZES = {
    "full": Size((0.1, 0.2, 0.3), (0, 2, 4, 8), 500, 500, samples=2),
    "quick": Size((0.2,), (0, 4), 200, 100, steps=10),
    "smoke": Size((0.2,), (0, 8), 20, 20, steps=2),
}
NETS = ("net", "net_bn")
FITS = {"nets": [*NETS], **{method: [mechanism] for method, mechanism in BY_METHOD.items()}}
ADAPTATIONS: dict[str, Callable[[CNN, Tensor], CNN]] = {"tent": tent, "shot_im": shot_im}
Attack = Callable[..., Tensor]
PARTS = ("shifts", "attacks")
AFTER = "accuracy on clean images"  # once adapted to others


def clean(method: str, **task: Any) -> list[Row]:
    """Clean images, and what adapting to clean images changes."""
    lab = images.open_lab(task, **CIFAR)
    x, y = lab.data.score_x, lab.data.score_y
    if method == "nets":
        found = [_row(lab, name, lab.net(name).accuracy(x, y)) for name in NETS]
        for name, adapt in ADAPTATIONS.items():
            net = adapt(lab.net("net_bn"), lab.data.adapt_x)
            found.append(_row(lab, name, net.accuracy(x, y), adapted_on="clean"))
        return found
    cama = lab.cama(BY_METHOD[method])
    adapted = lab.adapted(cama, lab.data.adapt_x)
    more = _adapted_rows(lab, method, adapted, x, y, adapted_on="clean", tested_on="clean")
    return [_cama_row(lab, method, lab.accuracy(cama, x)), *more]


def shifts(method: str, kind: str, severity: float, **task: Any) -> list[Row]:
    """Images under a shift, and clean ones after adapting to it."""
    lab, found = images.open_lab(task, **CIFAR), list[Row]()
    new, test, y = lab.adapt_x(kind, severity), lab.score_x(kind, severity), lab.data.score_y
    here: dict[str, Any] = {"tested_on": kind, "severity": severity}
    if method == "nets":
        for name in NETS:
            found.append(_row(lab, name, lab.net(name).accuracy(test, y), **here))
        for name, adapt in ADAPTATIONS.items():
            net = adapt(lab.net("net_bn"), new)
            found.append(_row(lab, name, net.accuracy(test, y), adapted_on=kind, **here))
            found.append(_row(lab, name, net.accuracy(lab.data.score_x, y), metric=AFTER, adapted_on=kind, **here))
        return found
    cama = lab.cama(BY_METHOD[method])
    found.append(_cama_row(lab, method, lab.accuracy(cama, test), **here))
    return found + _adapted_rows(lab, method, lab.adapted(cama, new), test, y, adapted_on=kind, **here)


def attacks(method: str, name: str, eps: int, **task: Any) -> list[Row]:
    """Images under an attack, and clean ones after adapting to it; eps of 255."""
    lab, found = images.open_lab(task, **CIFAR), list[Row]()
    size = SIZES[lab.setting.name]
    attack: Attack = fgsm if name == "FGSM" else partial(pgd, steps=size.steps)
    new, new_y = lab.data.adapt_x[: size.adapt], lab.adapt_y[: size.adapt]
    x, y = lab.data.score_x[: size.score], lab.data.score_y[: size.score]
    here: dict[str, Any] = {"tested_on": name, "severity": eps / 255}

    def hostile(classifier: Any, x: Tensor, y: Tensor) -> Tensor:
        options = {} if isinstance(classifier, CNN) else {"samples": size.samples}
        return lab.attacked(attack, classifier, x, y, eps / 255, **options)

    if method == "nets":
        for own in NETS:
            net = lab.net(own)
            found.append(_row(lab, own, net.accuracy(hostile(net, x, y), y), **here))
        source = lab.net("net_bn")
        seen, frozen = hostile(source, new, new_y), hostile(source, x, y)
        for own, adapt in ADAPTATIONS.items():
            net, common = adapt(source, seen), here | {"adapted_on": "frozen attack"}
            found.append(_row(lab, own, net.accuracy(frozen, y), **common))
            found.append(_row(lab, own, net.accuracy(lab.data.score_x, lab.data.score_y), metric=AFTER, **common))
        return found
    cama = lab.cama(BY_METHOD[method])
    frozen = hostile(cama, x, y)
    found.append(_cama_row(lab, method, lab.accuracy(cama, frozen, y), **here))
    adapted = lab.adapted(cama, hostile(cama, new, new_y))
    found += _adapted_rows(lab, method, adapted, frozen, y, adapted_on="frozen attack", **here)
    value = lab.accuracy(adapted, hostile(adapted, x, y), y)
    return [*found, _cama_row(lab, method, value, adapted_on="adaptive attack", **here)]


def _adapted_rows(lab: Lab, method: str, adapted: Any, x: Tensor, y: Tensor, **more: Any) -> list[Row]:
    """An adapted CAMA on images like those adapted to, on clean ones, and whether the change was kept."""

    def note(value: float, metric: str = "accuracy") -> Row:
        return _cama_row(lab, method, value, metric=metric, **more)

    found = [note(lab.accuracy(adapted, x, y)), note(float(adapted.adaptation.accepted), "kept")]
    if more["tested_on"] != "clean":
        found.append(note(lab.accuracy(adapted, lab.data.score_x), AFTER))
    return found


def _cama_row(lab: Lab, method: str, value: float, **more: Any) -> Row:
    return _row(lab, method, value, mechanism=BY_METHOD[method], **more)


def _row(lab: Lab, method: str, value: float, **more: Any) -> Row:
    return experiment.row(
        "cifar", method, value, seed=lab.seed, setting=lab.setting.name, device=lab.setting.device, **more
    )


def main() -> None:
    parser = images.parser(__doc__, FITS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which to measure; all")
    options = parser.parse_args()
    setting = experiment.size(options)
    size, labs = SIZES[setting], [images.lab_of(options, seed) for seed in experiment.seeds(options)]
    note = image_data.load("digits" if setting == "smoke" else "cifar", options.data_dir).note
    if note:
        print(f"note: images {note}")
    fitted = [{"fits": FITS[method], **CIFAR, **lab} for lab in labs for method in options.methods]
    tasks = [{"method": method, **lab} for lab in labs for method in options.methods]
    shifted = [{"kind": kind, "severity": s, **task} for task in tasks for kind in SHIFTS for s in size.shifts]
    attacked = [{"name": name, "eps": eps, **task} for task in tasks for name in ("FGSM", "PGD") for eps in size.eps]
    parts: list[experiment.Part] = [(images.prepare, fitted)]
    parts += [(clean, tasks), (shifts, shifted)] if "shifts" in options.parts else []
    parts += [(attacks, attacked)] if "attacks" in options.parts else []
    same = ("experiment", "method", "mechanism", "tested_on", "seed")
    rows = experiment.run_among(parts, "cifar", options, same, images.published)
    rows = [images.told_apart(row) for row in rows]
    print(f"\ncifar, accuracy ({setting})")
    print(experiment.table(rows, "line", ["tested_on", "severity"]))
    print("\ncifar, accuracy on clean images, once adapted")
    print(experiment.table(rows, "line", ["tested_on", "severity"], AFTER))
    shown = [row for row in rows if row["tested_on"] != "clean"]
    shown += [row | {"tested_on": kind} for row in rows if row["tested_on"] == "clean" for kind in SHIFTS]
    xlabel = "largest shift (of the side), or eps (of the range)\n" + note.replace(": ", ":\n")
    experiment.lines(shown, options.out / "cifar.png", panel="tested_on", wide=2, xlabel=xlabel.strip())


if __name__ == "__main__":
    main()
