"""The paper's Figure 11: FGSM and PGD on digits, every intensity moved by at most eps and kept within [0, 1].

Nets, plain, with batch normalisation and adversarially trained (PGD, eps .3), beside CAMA with three mechanisms (warp
and intensity, warp alone, the paper's concatenation), all trained on clean digits.  Three rows of CAMA: the attack on
the model as it is, before adaptation; the same images after CAMA adapted without labels to such images, another half,
which the attacker made with their labels ("frozen attack"); and the scored images attacked anew through the adapted
model's own gradients ("adaptive attack", the row to believe).  CAMA's gradients come from few draws of z and m with
common noise and are scored with more; in full, PGD is repeated on some images with new noise in every step and
gradients averaged over draws (expectation over transformation), `PGD, EOT`, beside plain PGD's accuracy on the same
images.  The first two rows are also read with z refined under every class ("accuracy, z refined": an attack misleads
q(z | x, y) first); no attack here goes through that refinement, so there is no adaptive row of it.

Writes results/figure11.json (tidy rows) and results/figure11.png.

    python examples/figure11.py            # 200 attacked digits of either half, 20 steps
    python examples/figure11.py --quick    # 100 attacked digits, 10 steps, eps .1, small nets
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from pyro_cama.attacks import fgsm, pgd
from support import experiment, images
from support.experiment import Row
from support.images import ROBUST, Lab


@dataclass(frozen=True)
class Size:
    """How much is attacked.

    Attributes:
        adapt, score: images, of either half.
        eps: largest moves.
        steps: of PGD.
        samples, read: draws of z and m in the attack on a CAMA, and in reading what came out.
        refine: steps of every image's z, where it is read with z refined.
        eot: images on which PGD is repeated with new noise, and `draws` of it.
    """

    adapt: int
    score: int
    eps: tuple[float, ...]
    steps: int = 20
    samples: int = 1
    read: int = 16
    refine: int = 20
    eot: int = 0
    draws: int = 4


SIZES = {
    "full": Size(200, 200, (0.0, 0.1, 0.2, 0.3), eot=40),
    "quick": Size(200, 100, (0.0, 0.1), steps=10),
    "smoke": Size(20, 20, (0.0, 0.3), steps=2, refine=2, eot=10, draws=2),
}
REFINED = "accuracy, z refined"
METHODS = {"warp+intensity": "intensity", "warp": "cama", "concat": "concat"}
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
    few, accuracy = slice(size.eot), partial(lab.accuracy, samples=size.read)

    def note(value: float, **more: Any) -> None:
        found.append(_row(lab, METHODS[mechanism], eps, value, mechanism=mechanism, **more))

    for name, attack in attacks(size).items():
        if eps == 0 and found:  # no attack is no attack
            return found + [row | {"tested_on": name} for row in found]
        hostile = partial(lab.attacked, attack, eps=eps, samples=size.samples)
        frozen = hostile(cama, x, y)
        adapted = lab.adapted(cama, hostile(cama, new, new_y))
        adaptive = hostile(adapted, x, y)
        for model, adapted_on in ((cama, ""), (adapted, "frozen attack")):
            where = {"tested_on": name, "adapted_on": adapted_on}
            note(accuracy(model, frozen, y), **where)
            note(accuracy(model, frozen, y, refine_z=size.refine), metric=REFINED, **where)
        note(accuracy(adapted, adaptive, y), tested_on=name, adapted_on="adaptive attack")
        seen: dict[str, Any] = {"tested_on": name, "adapted_on": "frozen attack"}
        note(accuracy(adapted, x, y), metric="accuracy on clean images", **seen)
        note(float(adapted.adaptation.accepted), metric="kept", **seen)
        if eps == 0 or name != "PGD" or not size.eot:
            continue
        averaged = partial(attack, draws=size.draws, keep="last")  # the worst of few draws would be a lucky one
        metric = f"accuracy on the first {size.eot}"
        for model, plain, adapted_on in ((cama, frozen, ""), (adapted, adaptive, "adaptive attack")):
            noisy = lab.attacked(averaged, model, x[few], y[few], eps, samples=size.samples, fresh=True)
            more: dict[str, Any] = {"metric": metric, "adapted_on": adapted_on}
            note(accuracy(model, plain[few], y[few]), tested_on=name, **more)
            note(accuracy(model, noisy, y[few]), tested_on="PGD, EOT", **more)
    return found


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
    fits = [["warp+intensity"], ["warp"], ["concat"], ["net_pgd"], ["net", "net_bn"]]
    fitted = [{"fits": f, **lab} for lab in labs for f in fits]
    tasks = [{"eps": eps, **lab} for lab in labs for eps in size.eps]
    adapted = [{"mechanism": mechanism, **task} for mechanism in METHODS for task in tasks]
    parts: list[experiment.Part] = [(images.prepare, fitted), (nets, tasks), (models, adapted)]
    rows = experiment.run_parts(parts, "figure11", options, written_as=images.published)
    for name in attacks(size):
        print(f"\nfigure11, {name}, accuracy ({setting}, {size.score} images)")
        attacked = [r for r in rows if r["tested_on"] == name]
        print(experiment.table(attacked, "line", "severity"))
        print(f"\n{REFINED}")
        print(experiment.table(attacked, "line", "severity", REFINED))
    if size.eot:
        some = f"accuracy on the first {size.eot}"
        print(f"\nfigure11, {some}")
        print(experiment.table(rows, ["line", "tested_on"], "severity", some))
    shown = [row for row in rows if row["tested_on"] in attacks(size)]
    # beside the nets, which have no z
    refined = [r for r in shown if r["metric"] == REFINED or (r["metric"] == "accuracy" and not r["mechanism"])]
    shown += [r | {"tested_on": f"{r['tested_on']}, z refined", "metric": "accuracy"} for r in refined]
    experiment.lines(
        shown, options.out / "figure11.png", panel="tested_on", xlabel="eps (of the range of intensities)", wide=2
    )


if __name__ == "__main__":
    main()
