"""The paper's Figure 11: FGSM and PGD on digits, every intensity moved by at most eps and kept within [0, 1].

Nets, plain, with batch normalisation and adversarially trained (PGD, eps .3), beside CAMA with two mechanisms (warp
and intensity, the paper's concatenation), all trained on clean digits.  Three rows of CAMA: the attack on
the model as it is, before adaptation; the same images after CAMA adapted without labels to such images, another half,
which the attacker made with their labels ("frozen attack"); and the scored images attacked anew through the adapted
model's own gradients ("adaptive attack", the row to believe).  CAMA's gradients come from few draws of z and m with
common noise and are scored with more; in full, PGD is repeated on some images with new noise in every step and
gradients averaged over draws (expectation over transformation), `PGD, EOT`, beside plain PGD's accuracy on the same
images.

The first two rows are read with more care too: with a power of the likelihood ("accuracy, coarsened": the model is
surer of such images than it can be), and with z refined under every class besides ("accuracy, coarsened, z refined": an
attack misleads q(z | x, y) first).  The power is the smallest that costs clean training images no more than half a
point.  Attacks "through the reading" know of that care and differentiate through it: the rows to believe of it, on the
first images only, for what they cost.

Writes results/figure11.json (tidy rows) and results/figure11.png.

    python experiments/figure11.py            # 200 attacked digits of either half, 20 steps; 60 through the reading
    python experiments/figure11.py --quick    # 100 attacked digits, 10 steps, eps .1, small nets
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from pyro_cama import CAMA
from pyro_cama.attacks.gradient import fgsm, pgd
from support import experiment, images
from support.experiment import Row
from support.images import OWN_METHODS, ROBUST, Lab


@dataclass(frozen=True)
class Size:
    """How much is attacked.

    Attributes:
        adapt, score: images, of either half.
        eps: largest moves.
        steps: of PGD.
        samples, read: draws of z and m in the attack on a CAMA, and in reading what came out.
        refine: steps of every image's z, where it is read with z refined.
        chosen_on: clean training images on which the power is chosen.
        few: images on which attacks go through the reading, and on which PGD is repeated with `draws` of new noise.
    """

    adapt: int
    score: int
    eps: tuple[float, ...]
    steps: int = 20
    samples: int = 1
    read: int = 16
    refine: int = 20
    chosen_on: int = 2000
    few: int = 0
    draws: int = 4


SIZES = {
    "full": Size(200, 200, (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), few=60),
    "quick": Size(200, 100, (0.0, 0.1), steps=10, chosen_on=500),
    "smoke": Size(20, 20, (0.0, 0.3), steps=2, refine=2, few=10, draws=2),
}
POWERS = (0.0625, 0.125, 0.25, 0.5, 1.0)
COARSE, REFINED = "accuracy, coarsened", "accuracy, coarsened, z refined"
THROUGH = "{} through the reading"
Attack = Callable[..., Tensor]


def nets(eps: float, **task: Any) -> list[Row]:
    """The nets, each under attacks of its own."""
    lab, found = images.open_lab(task), []
    size = SIZES[lab.setting.name]
    x, y = lab.data.score_x[: size.score], lab.data.score_y[: size.score]
    methods = {"net": lab.net(), "net_bn": lab.net("net_bn"), "net_pgd": lab.net(eps=ROBUST)}
    for name, attack in attacks(size).items():
        for method, net in methods.items():
            hostile = lab.attacked(attack, net, x, y, eps)
            trained_on = "PGD" if method == "net_pgd" else "clean"
            found.append(_row(lab, method, eps, net.accuracy(hostile, y), tested_on=name, trained_on=trained_on))
    return found


def models(mechanism: str, eps: float, **task: Any) -> list[Row]:
    """CAMA attacked, then adapted, then attacked again."""
    lab, found = images.open_lab(task), []
    size, cama = SIZES[lab.setting.name], lab.cama(mechanism)
    new, new_y = lab.data.adapt_x[: size.adapt], lab.adapt_y[: size.adapt]
    x, y = lab.data.score_x[: size.score], lab.data.score_y[: size.score]
    few, accuracy = slice(size.few), partial(lab.accuracy, samples=size.read)
    power = chosen_power(lab, cama)
    careful: dict[str, dict[str, Any]] = {COARSE: {"power": power}, REFINED: {"power": power, "refine_z": size.refine}}

    def note(value: float, **more: Any) -> None:
        found.append(_row(lab, OWN_METHODS[mechanism], eps, value, mechanism=mechanism, **more))

    note(power, metric="power")
    for name, attack in attacks(size).items():
        if eps == 0 and len(found) > 1:  # no attack is no attack
            return found + [row | {"tested_on": name} for row in found[1:]]
        hostile = partial(lab.attacked, attack, eps=eps, samples=size.samples)
        frozen = hostile(cama, x, y)
        adapted = lab.adapted(cama, hostile(cama, new, new_y))
        adaptive = hostile(adapted, x, y)
        for model, adapted_on in ((cama, ""), (adapted, "frozen attack")):
            where = {"tested_on": name, "adapted_on": adapted_on}
            note(accuracy(model, frozen, y), **where)
            for metric, options in careful.items():
                note(accuracy(model, frozen, y, **options), metric=metric, **where)
        note(accuracy(adapted, adaptive, y), tested_on=name, adapted_on="adaptive attack")
        seen: dict[str, Any] = {"tested_on": name, "adapted_on": "frozen attack"}
        note(accuracy(adapted, x, y), metric="accuracy on clean images", **seen)
        assert adapted.adaptation is not None
        note(float(adapted.adaptation.accepted), metric="kept", **seen)
        if eps == 0 or not size.few:
            continue
        for metric, options in careful.items():
            value = 0.0
            for model, adapted_on in ((cama, ""), (adapted, "adaptive attack")):
                if model is cama or adapted.adaptation.accepted:  # else it reads, and is attacked, as it was
                    # four draws: a z is refined for the mean of m
                    known = lab.attacked(attack, model, x[few], y[few], eps, samples=4 * size.samples, **options)
                    value = accuracy(model, known, y[few], **options)
                note(value, metric=metric, tested_on=THROUGH.format(name), adapted_on=adapted_on)
        if name != "PGD":
            continue
        averaged = partial(attack, draws=size.draws, keep="last")  # the worst of few draws would be a lucky one
        metric = f"accuracy on the first {size.few}"
        for model, plain, adapted_on in ((cama, frozen, ""), (adapted, adaptive, "adaptive attack")):
            noisy = lab.attacked(averaged, model, x[few], y[few], eps, samples=size.samples, fresh=True)
            more: dict[str, Any] = {"metric": metric, "adapted_on": adapted_on}
            note(accuracy(model, plain[few], y[few]), tested_on=name, **more)
            note(accuracy(model, noisy, y[few]), tested_on="PGD, EOT", **more)
    return found


def chosen_power(lab: Lab, cama: CAMA) -> float:
    """The smallest power with which clean training images are read at most half a point worse."""
    some = slice(SIZES[lab.setting.name].chosen_on)
    read = partial(lab.accuracy, cama, lab.data.train_x[some], lab.data.train_y[some])
    least = read() - 0.005
    return next(power for power in POWERS if power == 1 or read(power=power) >= least)


def attacks(size: Size) -> dict[str, Attack]:
    """Attacks by name; linf is their norm."""
    return {"FGSM": fgsm, "PGD": partial(pgd, steps=size.steps)}


def _row(lab: Lab, method: str, eps: float, value: float, **more: Any) -> Row:
    return experiment.row(
        "figure11", method, value, severity=eps, seed=lab.seed, setting=lab.setting.name, device=lab.setting.device,
        **more,
    )  # fmt: skip


def main() -> None:
    options = images.parser(__doc__).parse_args()
    setting = experiment.size(options)
    size, labs = SIZES[setting], [images.lab_of(options, seed) for seed in experiment.seeds(options)]
    fits = [["warp+intensity"], ["concat"], ["net_pgd"], ["net", "net_bn"]]
    fitted = [{"fits": f, **lab} for lab in labs for f in fits]
    tasks = [{"eps": eps, **lab} for lab in labs for eps in size.eps]
    adapted = [{"mechanism": mechanism, **task} for mechanism in OWN_METHODS for task in tasks]
    parts: list[experiment.Part] = [(images.prepare, fitted), (nets, tasks), (models, adapted)]
    rows = experiment.run_parts(parts, "figure11", options, written_as=images.published)
    for name in attacks(size):
        print(f"\nfigure11, {name}, accuracy ({setting}, {size.score} images)")
        attacked = [r for r in rows if r["tested_on"] == name]
        print(experiment.table(attacked, "line", "severity"))
        for metric in (COARSE, REFINED):
            print(f"\n{metric}")
            print(experiment.table(attacked, "line", "severity", metric))
            if size.few:
                print(f"\n{metric}, {THROUGH.format(name)}, the first {size.few}")
                known = [r for r in rows if r["tested_on"] == THROUGH.format(name)]
                print(experiment.table(known, "line", "severity", metric))
    if size.few:
        some = f"accuracy on the first {size.few}"
        print(f"\nfigure11, {some}")
        print(experiment.table(rows, ["line", "tested_on"], "severity", some))
    experiment.lines(
        list(panels(rows, tuple(attacks(size)))), options.out / "figure11.png",
        panel="tested_on", xlabel="eps (of the range of intensities)", wide=3,
    )  # fmt: skip


def panels(rows: Sequence[Row], names: Sequence[str]) -> Iterator[Row]:
    """A row of panels for every attack: read plainly, read with care, and read so where the attack knows of it."""
    for name in names:
        mine = [row for row in rows if row["tested_on"] == name]
        plain = [row for row in mine if row["metric"] == "accuracy"]
        nets = [row for row in plain if not row["mechanism"]]  # they have no z
        careful = [row for row in mine if row["metric"] == REFINED]
        known = [row for row in rows if row["tested_on"] == THROUGH.format(name) and row["metric"] == REFINED]
        yield from plain
        for title, more in (("coarsened, z refined", careful), ("through that reading", known)):
            yield from (row | {"tested_on": f"{name}, {title}", "metric": "accuracy"} for row in [*nets, *more] if more)


if __name__ == "__main__":
    main()
