"""Every mechanism of the library holds the contract that `pyro_cama.testing` states, on every type that it serves."""

import pytest

from pyro_cama import Mechanism, Node
from pyro_cama.likelihoods import IMAGE_LIKELIHOODS, LIKELIHOODS
from pyro_cama.mechanisms import MECHANISMS
from pyro_cama.mechanisms.registry import mechanism_named
from pyro_cama.testing import check_mechanism

NODES = {
    "continuous": Node("x", "continuous"),
    "vector": Node("x", "continuous", dim=3),
    "count": Node("x", "count"),
    "binary": Node("x", "binary", levels=("no", "yes")),
    "three levels": Node("x", "categorical", levels=(0, 1, 2)),
    "five levels": Node("x", "categorical", levels=tuple("abcde")),
    "digit": Node("x", "image", shape=(1, 28, 28)),
    "oblong photograph": Node("x", "image", shape=(3, 16, 20)),
    "few pixels": Node("x", "image", shape=(2, 5, 7)),
}
COMPOSED = ("warp+intensity", "warp+blur+intensity", "intensity+field+warp", "warp+field", "intensity+intensity",
            "warp+colour+intensity", "warp+noise", "noise+blur")  # fmt: skip
CASES = [
    (name, scope, kind, likelihood)
    for name in (*MECHANISMS, *COMPOSED)
    for scope in ("row", "dataset")
    for kind, node in NODES.items()
    for likelihood, one in (IMAGE_LIKELIHOODS if node.type == "image" else LIKELIHOODS).items()
    if node.type in one.types and node.type in mechanism_named(name, scope, "").types
    if scope == "row" or mechanism_named(name, "row", "") != mechanism_named(name, scope, "")
]


@pytest.mark.parametrize(("name", "scope", "kind", "likelihood"), CASES)
def test_the_contract_holds(name: str, scope: str, kind: str, likelihood: str) -> None:
    node = NODES[kind]
    known = IMAGE_LIKELIHOODS if node.type == "image" else LIKELIHOODS
    check_mechanism(mechanism_named(name, scope, "here"), node, known[likelihood])


def test_every_mechanism_and_every_type_is_among_the_cases() -> None:
    assert {name for name, *_ in CASES} == {*MECHANISMS, *COMPOSED}
    assert {kind for _, _, kind, _ in CASES} == set(NODES)


@pytest.mark.parametrize("name", MECHANISMS)
def test_abilities_are_declared_on_the_class(name: str) -> None:
    cls = type(MECHANISMS[name])
    for ability, method in (("guesses", "guess_from_moments"), ("simulates", "simulate")):
        assert getattr(cls, ability) == (getattr(cls, method) is not getattr(Mechanism, method))
