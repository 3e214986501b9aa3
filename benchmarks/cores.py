"""Processor time of fit and adapt where torch may use two cores, over that on one."""

from __future__ import annotations

from typing import Any

import torch
from measure import Row, interleaved

import pyro_cama
from pyro_cama import datasets

WINE = datasets.graph("wine")


def used(quick: bool) -> list[Row]:
    rows = pyro_cama.simulate(WINE, 300, 1)
    cama = pyro_cama.build(WINE, device="cpu").fit(rows, max_epochs=1, progress=False)
    calls = {
        "fit": lambda: cama.copy().fit(rows, max_epochs=3, progress=False),
        "adapt": lambda: cama.adapt(rows, steps=10, restarts=1, progress=False),
    }

    def on(cores: int, call: Any) -> Any:
        def run() -> None:
            torch.set_num_threads(cores)
            call()

        return run

    contenders = {f"{name}, {cores}": on(cores, call) for name, call in calls.items() for cores in (1, 2)}
    try:
        times = interleaved(contenders, 3 if quick else 9, warm=1)
    finally:
        torch.set_num_threads(1)
    return [times.ratio(f"{name}, 2", f"{name}, 1", f"{name} allowed two cores, over one", goal=1.1) for name in calls]
