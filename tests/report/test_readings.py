"""Pictures of moved columns: what was measured, what the training rows were like, and the change undone."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_cama import CAMA, build
from pyro_cama.adaptation.explanation import Explanation
from pyro_cama.inference.reconstruction import undone_readings
from pyro_cama.report.readings import MOST, reading_blocks
from tests.inference.test_reconstruction import plant

NODES: dict[str, Any] = {
    "y": "binary",
    "x": "continuous",
    "v": {"type": "continuous", "dim": 2},
    "n": "count",
    "k": {"type": "categorical", "levels": ["<a>", "b$", "c"]},
    "b": "binary",
}


def rows(number: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, number)
    frame = {"y": y, "x": np.exp(y + 0.3 * rng.normal(size=number)), "n": rng.poisson(4 + 9 * y)}
    frame |= {"v": [*(y[:, None] + rng.normal(size=(number, 2)))], "k": np.array(["<a>", "b$", "c"])[(y + 1) % 3]}
    return pd.DataFrame(frame | {"b": rng.integers(0, 2, number), "site": np.where(rng.random(number) < 0.5, "u", "w")})


def fitted(scope: str) -> CAMA:
    latents = {"z": None, "m": {"dim": 2, "scope": scope}}
    graph = {"target": "y", "nodes": NODES, "edges": [["y", name] for name in NODES if name != "y"], "latents": latents}
    return build(graph, hidden=8, layers=1, device="cpu").fit(rows(120, 0), max_epochs=3, progress=False)


def moved(columns: list[str], **more: Any) -> Explanation:
    table = pd.DataFrame({"column": columns, "moved": True, "change": 1.0, "small": 0.25, "reading": "", **more})
    return Explanation(table, pd.DataFrame(), True, "")


@pytest.mark.parametrize("scope", ["dataset", "row", "site"])
def test_every_kind_of_column_has_its_picture(scope: str) -> None:
    cama = fitted(scope)
    plant(cama, torch.tensor([0.5, 0.0]))
    new = cama.encode(rows(60, 1).assign(x=lambda t: 1000 * t["x"]))
    columns = ["x", "v[1]", "n", "k", "b"]
    place = {"site": "u"} if scope == "site" else {}
    for clean in (None, rows(50, 2)):
        blocks = reading_blocks(cama, moved(columns, **place), new, clean)
        where = " at u" if place else ""
        assert [block.caption.split(":")[0] for block in blocks] == [f"{name}{where}" for name in columns]
        assert all("<svg" in block.picture for block in blocks)
    assert "logarithmic axis" in blocks[0].caption
    assert blocks[3].caption.startswith(f"k{where}: share of ")
    medians = [float(np.median(t["x"])) for t in (rows(50, 2), rows(60, 1))]
    said = blocks[0].caption.split("median ")[1]
    assert float(said.split(" before")[0].replace(",", "")) == pytest.approx(medians[0], rel=1e-3)
    if not place:
        assert float(said.split(", ")[1].split(" now")[0].replace(",", "")) == pytest.approx(
            1000 * medians[1], rel=1e-3
        )


def test_corrected_readings_are_the_measured_ones_with_the_mechanism_undone() -> None:
    cama = fitted("dataset")
    m = torch.tensor([1.0, 0.0])
    theta = torch.zeros(cama.manipulation.size)
    group = cama.model.group_of["x"]
    theta[cama.manipulation.slice_of(group)] = torch.tensor([0.4, 1.0, 0.0, 0.0]).repeat(group.width)
    cama.manipulation.solve_for(m[None], theta[None])
    plant(cama, m)
    batch = cama.encode(rows(30, 1))
    line = group.mechanism.line(theta[cama.manipulation.slice_of(group)][:4])
    expected = line.slope * batch.values["x"] + line.offset
    torch.testing.assert_close(undone_readings(cama, batch)["x"], expected.detach(), atol=1e-4, rtol=1e-4)


def test_a_column_of_one_value_and_one_that_is_missing_have_pictures_too() -> None:
    cama = fitted("dataset")
    plant(cama, torch.tensor([0.5, 0.0]))
    new = rows(20, 1).assign(x=3.0, n=np.nan)
    blocks = reading_blocks(cama, moved(["x", "n"]), cama.encode(new), rows(20, 2))
    assert "3 now" in blocks[0].caption
    assert "now" not in blocks[1].caption


def test_of_many_columns_the_first_dozen() -> None:
    names = [f"x{i}" for i in range(MOST + 3)]
    graph = {"target": "y", "nodes": {"y": "binary"} | dict.fromkeys(names, "continuous"),
             "edges": [["y", name] for name in names], "latents": {"z": None, "m": {"scope": "dataset"}}}  # fmt: skip
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"y": [0, 1] * 20} | {name: rng.normal(size=40) for name in names})
    cama = build(graph, hidden=4, device="cpu").fit(table, max_epochs=1, progress=False)
    assert len(reading_blocks(cama, moved(names), cama.encode(table), table)) == MOST
