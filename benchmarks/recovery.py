"""How long it takes to win back 90 % of the accuracy that moved digits lost: MNIST, a small model, one thread."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from measure import Row

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SEVERITY = 0.3  # of the side, uniform, up and down


def recovery(quick: bool) -> list[Row]:
    """Trained on 6,000 clean digits; `adapt` sees 500 moved ones without labels and is scored on 500 others.

    The steps are the fewest of a series whose adaptation wins back 90 % of the loss; the time is that of the whole
    call, guard included.  One thread: two are slower on networks as small as these.

    Raises:
        ValueError: MNIST is not here.
    """
    sys.path.append(str(EXPERIMENTS))
    from support.images import Lab, Setting

    if quick:
        setting = Setting("bench", "digits", 300, 40, 2, 2, 2, 16, 4, 10, 1)
    else:
        setting = Setting("bench", "mnist", 6000, 500, 8, 4, 4, 128, 16, 80, 4)
    name = "time to win back 90 % of what shift .3 costs"
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(setting, Path(folder))
        cama = lab.cama()
        new, other = lab.adapt_x("vertical_shift", SEVERITY), lab.score_x("vertical_shift", SEVERITY)
        clean, moved = lab.accuracy(cama, lab.data.score_x), lab.accuracy(cama, other)
        wanted = moved + 0.9 * (clean - moved)
        for steps in (20, 30, 40, 50, 60, 80, 100, 200, 400):
            began, spent = time.perf_counter(), time.process_time()
            adapted = lab.adapted(cama, new, steps=steps)
            seconds, spent = time.perf_counter() - began, time.process_time() - spent
            reached = lab.accuracy(adapted, other)
            if reached >= wanted:
                break
        about = (
            f"clean {clean:.3f}, moved {moved:.3f}, adapted {reached:.3f} after {steps} steps; wanted {wanted:.3f}; "
            f"{spent:.1f} s of processor time"
        )
        return [Row(name, seconds if reached >= wanted else float("inf"), "s", 15.0, profile=about)]
