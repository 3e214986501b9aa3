"""Every likelihood of the library holds the contract that `pyro_cama.testing` states; choosing one for a node."""

from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_cama import GraphError, Likelihood, Node
from pyro_cama.likelihoods import (
    DEFAULTS,
    IMAGE_LIKELIHOODS,
    LIKELIHOODS,
    MIN_PROBABILITY,
    MIN_SCALE,
    HeteroscedasticNormal,
    Normal,
    PixelBernoulli,
    likelihood_of,
)
from pyro_cama.testing import check_likelihood

NODES = {
    "continuous": Node("x", "continuous"),
    "count": Node("x", "count"),
    "binary": Node("x", "binary", levels=("no", "yes")),
    "categorical": Node("x", "categorical", levels=tuple("abcde")),
    "image": Node("x", "image", shape=(3, 5, 7)),
}
CASES = [
    (kind, name)
    for kind, node in NODES.items()
    for name, likelihood in (IMAGE_LIKELIHOODS if kind == "image" else LIKELIHOODS).items()
    if kind in likelihood.types
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_contract_holds(kind: str, name: str) -> None:
    known = IMAGE_LIKELIHOODS if kind == "image" else LIKELIHOODS
    check_likelihood(known[name], NODES[kind])


def test_every_likelihood_and_every_type_is_among_the_cases() -> None:
    assert len(CASES) == len(LIKELIHOODS) + len(IMAGE_LIKELIHOODS)
    assert {kind for kind, _ in CASES} == set(NODES) == set(DEFAULTS)


@pytest.mark.parametrize("kind", NODES)
def test_a_node_gets_the_likelihood_chosen_for_it_else_the_one_it_names_else_its_types(kind: str) -> None:
    known = IMAGE_LIKELIHOODS if kind == "image" else LIKELIHOODS
    assert likelihood_of(NODES[kind]) is known[DEFAULTS[kind]]
    for name in (name for case, name in CASES if case == kind):
        chosen = known[name]
        assert likelihood_of(Node("x", NODES[kind].type, likelihood=name)) is chosen
        assert likelihood_of(NODES[kind], {"x": chosen}) is chosen
        assert likelihood_of(NODES[kind], {"other": chosen}) is known[DEFAULTS[kind]]


def test_likelihoods_that_do_not_fit_are_errors() -> None:
    with pytest.raises(GraphError, match=r"node 'x': unknown likelihood 'norml', .*; did you mean 'normal'\?"):
        likelihood_of(Node("x", "continuous", likelihood="norml"))
    with pytest.raises(
        GraphError, match=r"node 'x': unknown likelihood 'poisson', expected one of \['bernoulli', 'grey', 'normal'\]"
    ):
        likelihood_of(Node("x", "image", shape=(1, 2, 2), likelihood="poisson"))
    with pytest.raises(GraphError, match=r"node 'x' is count; Normal serves continuous"):
        likelihood_of(NODES["count"], {"x": Normal()})


def test_scales_and_probabilities_are_kept_off_their_ends() -> None:
    low = torch.tensor([0.0, -1e4])
    assert float(Normal().distribution(low).stddev) == pytest.approx(MIN_SCALE)
    pixels = PixelBernoulli().distribution(torch.tensor([[-1e4], [1e4]]))
    torch.testing.assert_close(pixels.mean, torch.tensor([MIN_PROBABILITY, 1 - MIN_PROBABILITY]))


def test_equal_likelihoods_are_equal_and_others_are_not() -> None:
    class Scaled(Normal):
        def __init__(self, by: float) -> None:
            self.by = by

    assert Normal() == Normal()
    assert hash(Normal()) == hash(Normal())
    assert Normal() != HeteroscedasticNormal()
    assert Scaled(2.0) == Scaled(2.0) != Scaled(1.0)
    assert hash(Scaled(2.0)) == hash(Scaled(2.0))


def test_a_forgotten_method_or_declaration_is_an_error() -> None:
    """When the class is defined, or when abc refuses to make an object of it."""

    class Half(Likelihood):
        types = ("continuous",)

        def size(self, node: Node) -> int:
            return 1

    with pytest.raises(TypeError, match=r"abstract class Half .*distribution"):
        Half()  # type: ignore[abstract]
    methods: dict[str, Any] = {"size": Half.size, "distribution": lambda self, params: dist.Gumbel(params[..., 0], 1.0)}
    with pytest.raises(
        TypeError, match=r"Own: found types = \(\); expected a tuple of the node types that it serves, some"
    ):
        type("Own", (Likelihood,), methods)
    with pytest.raises(
        TypeError, match=r"Own: found types = 'count'; expected a tuple .* of continuous, categorical, bin"
    ):
        type("Own", (Likelihood,), {**methods, "types": "count"})
    with pytest.raises(TypeError, match=r"Own gets its distribution from Own, and a joined that does not ask for it"):
        type("Own", (Normal,), methods)


def test_joined_asks_the_distribution_where_a_subclass_says_so() -> None:
    class Wide(Normal):
        joined = Likelihood.joined

        def distribution(self, params: Tensor) -> Any:
            return dist.Normal(params[..., 0], params[..., 1].exp())

    found: Any = Wide().joined(torch.zeros(4, 1), torch.ones(4, 1))
    torch.testing.assert_close(found.scale, torch.ones(4).exp())
