"""The paper's Figure 13: adversarial attacks on measurements, restricted to the children and co-parents.

FGSM and PGD move every such column by up to eps training standard deviations, against each method's own gradients
(trees have none: they get the net's rows).  Three rows of every method: the attack before adaptation ("frozen"); the
same rows, adapted to without labels; and an attacker who knows of the adaptation and attacks what it leads to, round
after round, of which the worst round is reported.  Rows adapted to are not those scored.

Writes results/figure13.json (tidy rows) and results/figure13.png.

    python experiments/figure13.py            # five random models, about ten minutes on two cores
    python experiments/figure13.py --quick    # one model, one eps
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pyro_cama import CAMA, CausalGraph
from pyro_cama.attacks.gradient import fgsm, pgd
from pyro_cama.attacks.tables import AttackableTable
from support import experiment
from support.baselines import Classifier, DiscriminativeNet, boosting, logistic
from support.experiment import Row
from support.measurement import GRAPH, SCORE, adapt_options, fitted_cama, fitted_cvae, fitted_net, rows_of, variant

ROWS = {"full": (200, 250), "quick": (150, 200), "smoke": (30, 30)}  # adapted to, scored
STEPS = {"full": 8, "quick": 5, "smoke": 2}
ROUNDS = {"full": 1, "quick": 1, "smoke": 1}
Attack = Callable[..., Tensor]


@dataclass(frozen=True)
class Method:
    """How a method is attacked, adapted and scored.

    Attributes:
        name, mechanism: of its rows.
        surface: from a fitted classifier and labelled rows to what an attack needs: x, mask, logits, y, and a function
            from x back to a table.
        fitted: the classifier.
        adapt: from unlabelled rows to an adapted classifier; None where there is no such thing.
        score: accuracy of a classifier on rows.
    """

    name: str
    surface: Callable[[Any, pd.DataFrame], tuple[Tensor, Tensor, Callable[[Tensor], Tensor], Tensor, Any]]
    fitted: Any
    adapt: Callable[[pd.DataFrame], Any] | None
    score: Callable[[Any, pd.DataFrame], float]
    mechanism: str = ""


def net_surface(columns: set[str], net: DiscriminativeNet, frame: pd.DataFrame) -> Any:
    x, names = net.encode(frame), list(net.encoding.levels)
    mask = torch.tensor([name in columns for name in names]).expand_as(x)
    y = torch.as_tensor([list(net.labels).index(label) for label in frame["y"]])

    def table(moved: Tensor) -> pd.DataFrame:
        raw = ((moved - net.offset) / net.gain).double() * net.sd + net.mean
        return frame.assign(**{name: raw[:, i].numpy() for i, name in enumerate(names) if name in columns})

    return x, mask, net.logits, y, table


def cama_surface(cama: CAMA, frame: pd.DataFrame) -> Any:
    part = AttackableTable(cama, frame, **SCORE)
    assert part.y is not None
    return part.x, part.mask, part.logits, part.y, part.table


def attacked(method: Method, classifier: Any, frame: pd.DataFrame, attack: Attack, eps: float) -> pd.DataFrame:
    """Rows that the attack makes of these against a classifier."""
    if eps == 0:
        return frame
    x, mask, logits, y, table = method.surface(classifier, frame)
    return table(attack(logits, x, y, eps=eps, mask=mask))


def task(seed: int, setting: str, eps: tuple[float, ...]) -> list[Row]:
    rows = rows_of(seed, setting)
    graph = CausalGraph(GRAPH)
    columns = {*graph.blanket.children, *graph.blanket.coparents}
    unlabelled, test = (
        rows.shifted(part, (), 0.0).head(n) for part, n in zip(("adapt", "test"), ROWS[setting], strict=True)
    )
    net = fitted_net(rows.train, seed, setting)
    cvae = fitted_cvae(graph, rows.train, seed, setting)
    surface, accuracy = partial(net_surface, columns), lambda classifier, frame: classifier.accuracy(frame)
    score: Any = lambda cama, frame: cama.score(frame, **SCORE)  # noqa: E731
    methods = [
        Method("net", surface, net, None, accuracy),
        Method("tent", surface, net, net.adapt_tent, accuracy),
        Method("shot_im", surface, net, net.adapt_shot_im, accuracy),
        Method("coral", surface, net, net.adapt_coral, accuracy),
        Method("cvae", lambda c, frame: cama_surface(c.cama, frame), cvae, cvae.adapt, accuracy),
    ]
    for scope in ("dataset", "row"):
        cama = fitted_cama(variant(graph, scope, "affine"), rows.train, seed, setting)
        clean = rows.train if scope == "row" else None
        adapt = partial(cama.adapt, clean=clean, progress=False, **adapt_options(setting))
        methods.append(Method("cama", cama_surface, cama, adapt, score, f"affine, {scope}"))
    transferred: list[tuple[str, Classifier]] = [
        ("boosting", boosting(seed).fit(rows.train, "y")), ("logistic", logistic().fit(rows.train, "y")),
    ]  # fmt: skip
    found: list[Row] = []
    attacks: dict[str, Attack] = {"fgsm": fgsm, "pgd": partial(pgd, steps=STEPS[setting])}
    for name, attack in attacks.items():
        for size in eps:
            if size == 0 and name != "fgsm":  # no attack is no attack
                found += [row | {"tested_on": name} for row in found if row["severity"] == 0]
                continue
            common: dict[str, Any] = {"tested_on": name, "severity": size, "seed": seed, "setting": setting}
            for method in methods:
                found += _rows(method, unlabelled, test, attack, size, ROUNDS[setting], common)
            hostile = attacked(methods[0], net, test, attack, size)
            for other, classifier in transferred:
                found.append(experiment.row("figure13", other, classifier.accuracy(hostile), **common))
    return found


def _rows(
    method: Method, unlabelled: pd.DataFrame, test: pd.DataFrame, attack: Attack, eps: float, rounds: int,
    common: dict[str, Any],
) -> list[Row]:  # fmt: skip
    def note(value: float, adapted_on: str = "") -> Row:
        more = common | {"adapted_on": adapted_on, "mechanism": method.mechanism}
        return experiment.row("figure13", method.name, value, **more)

    hostile = [attacked(method, method.fitted, frame, attack, eps) for frame in (unlabelled, test)]
    found = [note(method.score(method.fitted, hostile[1]))]
    if method.adapt is None:
        return found
    adapted = method.adapt(hostile[0].drop(columns="y"))
    found.append(note(method.score(adapted, hostile[1]), "frozen attack"))
    if eps and common["tested_on"] == "pgd" and method.name in ("cama", "shot_im") and "row" not in method.mechanism:
        worst = found[-1]["value"]
        for _ in range(rounds):
            hostile = [attacked(method, adapted, frame, attack, eps) for frame in (unlabelled, test)]
            adapted = method.adapt(hostile[0].drop(columns="y"))
            worst = min(worst, method.score(adapted, hostile[1]))
        found.append(note(worst, "adaptive attack"))
    return found


def main() -> None:
    options = experiment.parser(__doc__).parse_args()
    setting = experiment.size(options)
    eps = {"full": (0.0, 0.1, 0.3), "quick": (0.0, 0.4), "smoke": (0.4,)}[setting]
    tasks = [{"seed": seed, "setting": setting, "eps": eps} for seed in experiment.seeds(options)]
    rows = experiment.run(task, tasks, "figure13", options)
    for name in ("fgsm", "pgd"):
        print(f"\nfigure13, {name}, accuracy ({setting}, {len(tasks)} random models)")
        mine = [r | {"line": _line(r)} for r in rows if r["tested_on"] == name]
        print(experiment.table(mine, "line", "severity"))
    drawn = [
        r | {"experiment": f"{r['tested_on'].upper()}, frozen attack"}
        for r in rows
        if "row" not in r["mechanism"]
        and r["adapted_on"] != "adaptive attack"
        and (r["adapted_on"] or r["method"] not in ("tent", "shot_im", "coral"))  # before adapting they are the net
    ]
    experiment.lines(drawn, options.out / "figure13.png", xlabel="eps (training standard deviations)")


def _line(row: Row) -> str:
    scope = row["mechanism"].removeprefix("affine, ")
    name = row["method"] + (f" ({scope})" if scope else "")
    return f"{name}, {row['adapted_on']}" if row["adapted_on"] else name


if __name__ == "__main__":
    main()
