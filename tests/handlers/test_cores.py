"""fit and adapt of small tables run on one core, and the caller's number of them is back whatever happens."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pyro_cama import CAMA, build
from pyro_cama.handlers.contexts import one_core
from tests.helpers.training import GRAPH, fitted, table

IMAGES: dict[str, Any] = {
    "target": "y",
    "nodes": {"y": "binary", "x": {"type": "image", "shape": [1, 8, 8], "channels": 4}},
    "edges": ["y -> x"],
}


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained() -> CAMA:
    return fitted(max_epochs=1)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What torch may use while something is optimised; nothing is."""
    found: list[int] = []

    def looks(*_: Any, **__: Any) -> None:
        found.append(torch.get_num_threads())
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_cama.training.fit.optimise", looks)
    monkeypatch.setattr("pyro_cama.adaptation.drawn.optimise", looks)
    return found


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_number_of_cores_comes_back(error: type[BaseException]) -> None:
    def fails() -> None:
        with one_core(), one_core():
            found.append(torch.get_num_threads())
            raise error

    found: list[int] = []
    with pytest.raises(error):
        fails()
    assert found == [1]
    assert torch.get_num_threads() == 3


def test_in_another_thread_it_is_that_threads_own() -> None:
    found: list[int] = []

    def work() -> None:
        torch.set_num_threads(2)
        with one_core():
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (found, torch.get_num_threads()) == ([1, 2], 3)


def test_steps_on_tables_take_one_unless_large(trained: CAMA, seen: list[int]) -> None:
    rows = table(40)
    cases: list[dict[str, Any]] = [{}, {"batch_size": 10**6}, {"samples": 10**6}]
    for large in cases:
        with pytest.raises(KeyboardInterrupt):
            build(GRAPH, hidden=8, device="cpu").fit(rows, progress=False, **large)
        with pytest.raises(KeyboardInterrupt):
            trained.adapt(rows, progress=False, **large)
    assert (seen, torch.get_num_threads()) == ([1, 1, 3, 3, 3, 3], 3)


def test_images_take_what_the_caller_allows(seen: list[int]) -> None:
    pictures = {"y": [0, 1] * 20, "x": torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
    with pytest.raises(KeyboardInterrupt):
        build(IMAGES, hidden=8, device="cpu").fit(pictures, progress=False)
    assert (seen, torch.get_num_threads()) == ([3], 3)
