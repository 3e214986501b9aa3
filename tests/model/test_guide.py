"""The guide: what it makes of entries that are missing."""

from typing import Any

import pytest
import torch

from pyro_cama import build
from pyro_cama.data.batch import Batch
from tests.helpers.tables import ALL_TYPES, all_types_table, graph_of


@pytest.mark.parametrize("name", [*ALL_TYPES])
@pytest.mark.parametrize("absent", [False, True])
def test_no_m_moves_what_was_filled_in(name: str, absent: bool) -> None:
    """Two manipulations that differ in a missing child alone give its z the same posterior."""
    cama = build(graph_of("dataset", **ALL_TYPES), seed=0, hidden=8, device="cpu")
    cama.fit(all_types_table(), max_epochs=0, progress=False)
    one = 0.4 + torch.rand(cama.manipulation.size, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    for group in cama.manipulation.groups:
        if name in group.nodes:
            cama.manipulation.theta(other[None], group, group.component(name)).zero_()
    assert not torch.equal(one, other)
    m = torch.eye(2, cama.graph.require_m().dim)
    cama.manipulation.solve_for(m, torch.stack([one, other]))
    batch = cama.encode(all_types_table(), target="ignore")
    some = torch.tensor([True, False, False, True, False, True])

    def seen(rows: Batch) -> Any:
        with torch.no_grad():
            return [cama.guide.encode(rows, None, value) for value in m]

    known = seen(batch)
    assert not torch.allclose(known[0], known[1], atol=1e-4)
    if absent:
        rows = Batch({n: v for n, v in batch.values.items() if n != name}, {}, None, batch.rows)
        some = torch.zeros(6, dtype=torch.bool)
    else:
        rows = Batch(batch.values, {name: some}, None, batch.rows)
    found = seen(rows)
    torch.testing.assert_close(found[0][~some], found[1][~some], atol=1e-5, rtol=1e-5)
    if not absent:
        assert not torch.allclose(found[0][some], found[1][some], atol=1e-4)
