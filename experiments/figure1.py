"""The paper's Figure 1: a net that saw one kind of shift while it trained, tested on that kind and on the other.

Plain nets, trained on clean digits, or on those beside digits shifted vertically or horizontally by up to half of a
side.  Writes results/figure1.json (tidy rows) and results/figure1.png.

    python experiments/figure1.py             # 60,000 digits, three seeds of each net
    python experiments/figure1.py --quick     # 6,000 digits, smaller nets
"""

from __future__ import annotations

from typing import Any

from support import experiment, images
from support.experiment import Row, Style
from support.images import SHIFTS

SEVERITIES: dict[str, tuple[float, ...]] = {
    "full": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "quick": (0.0, 0.1, 0.3, 0.5),
    "smoke": (0.0, 0.3),
}
LINES = {
    "clean": Style("clean digits", "#4f6bd0"),
    "vertical_shift": Style("beside digits shifted vertically", "#1b7f5c"),
    "horizontal_shift": Style("beside digits shifted horizontally", "#c58b4b"),
}


def scores(trained_on: str, **task: Any) -> list[Row]:
    """Accuracy of a net under both kinds of shift."""
    lab = images.open_lab(task)
    net = lab.net(augment=None if trained_on == "clean" else images.beside_clean(trained_on))
    return [
        experiment.row(
            "figure1", "net", net.accuracy(lab.score_x(kind, severity), lab.data.score_y), trained_on=trained_on,
            tested_on=kind, severity=severity, seed=lab.seed, setting=lab.setting.name, device=lab.setting.device,
        )
        for kind in SHIFTS
        for severity in SEVERITIES[lab.setting.name]
    ]  # fmt: skip


def main() -> None:
    options = images.parser(__doc__, seeds=3).parse_args()
    setting = experiment.size(options)
    labs = [images.lab_of(options, seed) for seed in experiment.seeds(options)]
    # every net serves one task only, which fits it
    tasks = [{"trained_on": trained_on, **lab} for lab in labs for trained_on in LINES]
    rows = experiment.run(scores, tasks, "figure1", options, written_as=images.published)
    for kind in SHIFTS:
        print(f"\nfigure1, {kind}, accuracy by what the net was trained on ({setting})")
        print(experiment.table([r for r in rows if r["tested_on"] == kind], "severity", "trained_on"))
    experiment.lines(
        rows, options.out / "figure1.png", line="trained_on", panel="tested_on", given=LINES,
        xlabel="largest shift (of the side)",
    )  # fmt: skip


if __name__ == "__main__":
    main()
