"""The model as a graphical causal model of DoWhy's: the same graph, and the conditionals that were fitted here.

A node's conditional is p(v | pa(v)) under one m, z integrated out: of a linear style exactly, its loadings widening the
node's own scale; a deep one is drawn with every value.  What z does to children together is lost: DoWhy's nodes have
noise of their own each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_cama._messages import listed
from pyro_cama.data.batch import Batch
from pyro_cama.data.columns import read_column, text_of
from pyro_cama.data.values import encode_values
from pyro_cama.errors import GraphError
from pyro_cama.handlers.contexts import seeded
from pyro_cama.handlers.structural import from_noise
from pyro_cama.inference.do import UserDo, do_at_means, encode_do
from pyro_cama.model.causes import Causes
from pyro_cama.model.pair import ModelGuidePair
from pyro_cama.model.plates import side_by_side

Array = NDArray[Any]


def to_dowhy(pair: ModelGuidePair, do: Literal["auto"] | UserDo) -> Any:
    """Returns a ``dowhy.gcm`` model of target and blanket, see :meth:`pyro_cama.CAMA.to_dowhy`."""
    try:
        from dowhy import gcm
        from dowhy.gcm.causal_models import PARENTS_DURING_FIT
    except ImportError as error:
        raise ImportError("to_dowhy needs DoWhy; run: pip install 'pyro_cama[dowhy]'") from error
    graph = pair.graph
    unfit = [name for name in graph.order if graph.nodes[name].event_shape]
    if unfit:
        raise GraphError(f"to_dowhy: found vectors or images, {listed(unfit)}; DoWhy's columns are one number or level")
    m, kinds = _one_m(pair, do), _kinds()
    drawn: nx.DiGraph[str] = nx.DiGraph()
    drawn.add_nodes_from(graph.order)
    drawn.add_edges_from((parent, name) for name in graph.order for parent in graph.parents_of(name))
    invertible = functional = True
    for name in graph.order:
        parents = tuple(sorted(drawn.predecessors(name)))  # the order in which DoWhy hands them over
        conditional = Conditional(pair, name, parents, m)
        mechanism, has_noise, has_inverse = kinds(conditional)
        if parents:
            functional, invertible = functional and has_noise, invertible and has_inverse
        drawn.nodes[name][PARENTS_DURING_FIT] = list(parents)
        drawn.nodes[name]["causal_mechanism"] = mechanism
    if invertible:
        return gcm.InvertibleStructuralCausalModel(drawn)
    return (gcm.StructuralCausalModel if functional else gcm.ProbabilisticCausalModel)(drawn)


def _one_m(pair: ModelGuidePair, do: Literal["auto"] | UserDo) -> Tensor | None:
    """The m of all rows, ``(dim,)``; None without one.

    Raises:
        ValueError: every row or site has an m of its own.
    """
    m = pair.graph.m
    if m is None:
        return None
    values = do_at_means(pair, encode_do(pair, do))
    if any(latent.name not in values or values[latent.name].dim() > 1 for latent in m.each):
        raise ValueError(
            f"to_dowhy: found an m of every {'row' if m.per_row else m.scope}; DoWhy's mechanisms are those of one "
            f"world: pass do={{{m.name!r}: 0.0}}, or the {m.dim} numbers of one m"
        )
    return side_by_side(m, values)


@dataclass(frozen=True, eq=False)
class Conditional:
    """p(v | pa(v)) of one node, in raw units.

    Attributes:
        pair: whose it is.
        name: the node's.
        parents: in the order of the columns of what is handed over.
        m: under which, ``(dim,)``.
    """

    pair: ModelGuidePair
    name: str
    parents: tuple[str, ...]
    m: Tensor | None

    @property
    def deep(self) -> bool:
        """Whether z has to be drawn."""
        group = self.pair.model.group_of[self.name]
        return group.has_z and not group.linear_z

    @torch.no_grad()
    def distribution(self, rows: int, parents: Array | None = None) -> TorchDistribution:
        """Returns the distribution of encoded values, batch shape ``(rows,)``.

        Args:
            rows: how many.
            parents: raw values, ``(rows, parents)``.
        """
        model, group = self.pair.model, self.pair.model.group_of[self.name]
        causes = Causes(model, Batch({}, {}, None, rows))
        for i, parent in enumerate(self.parents):
            assert parents is not None
            causes.values[parent] = self.encoded(parent, parents[:, i])
        with nullcontext() if self.m is None else self.pair.manipulation.calibrated():  # as rows are drawn elsewhere
            if self.m is not None:
                causes.set_m(self.m)
            if self.deep:
                causes.z = model.z_dist().sample((rows,))
            at = group.component(self.name)
            return causes.measured(self._clean(causes, at), group, at).expand((rows,))

    def _clean(self, causes: Causes, at: int | slice) -> TorchDistribution:
        """Its distribution but for m; of a linear style what it does to the spread."""
        clean, group = causes.distribution(self.name), self.pair.model.group_of[self.name]
        if not group.linear_z:
            return clean
        assert isinstance(clean, dist.Normal)
        y = causes.values[self.pair.graph.target].long()
        variance = causes.loadings(group).of_class(y)[..., at, :].square().sum(-1)
        return dist.Normal(clean.loc, (clean.scale.square() + variance).sqrt())

    def encoded(self, name: str, column: Array) -> Tensor:
        """Returns raw values of a node, or its levels as text, as the networks take them, ``(rows,)``."""
        node, like = self.pair.graph.nodes[name], self.pair.model.like
        if node.levels:
            levels = {text_of(level): level for level in node.levels}
            column = np.array([levels.get(text_of(entry), entry) for entry in column], dtype=object)
        elif column.dtype == object:
            column = column.astype(float)
        raw, present = read_column(node, column)
        values = encode_values(node, raw, present, self.pair.encoder.statistics[name]).to(like.device)
        return values.to(like.dtype) if values.is_floating_point() else values

    def decoded(self, values: Tensor) -> Array:
        """Returns encoded values in raw units, levels as text, ``(rows, 1)``."""
        found = self.pair.encoder.decode(self.name, values)
        if self.pair.graph.nodes[self.name].levels:
            found = np.array([text_of(level) for level in found], dtype=object)
        return found[:, None]

    def probabilities(self, parents: Array) -> NDArray[np.float64]:
        """Returns p of every level, ``(rows, levels)``."""
        d: Any = self.distribution(len(parents), parents)
        p = d.probs if isinstance(d, dist.Categorical) else torch.stack([1 - d.probs, d.probs], -1)
        found: NDArray[np.float64] = p.double().cpu().numpy()
        return found / found.sum(1, keepdims=True)

    def sample(self, rows: int, parents: Array | None = None) -> Array:
        """Draws raw values, ``(rows, 1)``."""
        with _seeded_by_numpy():
            return self.decoded(self.distribution(rows, parents).sample())

    def noise(self, rows: int) -> Array:
        """Draws the noise that :meth:`value` maps, ``(rows, 1)``."""
        with _seeded_by_numpy():
            drawn: Array = (
                from_noise(self.distribution(rows, self.usual(rows))).base_dist.sample().double().cpu().numpy()
            )
        return drawn[:, None]

    def value(self, parents: Array, noise: Array) -> Array:
        """Returns raw values given causes and noise, ``(rows, 1)``."""
        given = torch.as_tensor(np.asarray(noise, dtype=float).reshape(-1)).to(self.pair.model.like)
        return self.decoded(from_noise(self.distribution(len(given), parents)).transforms[0](given))

    def noise_of(self, values: Array, parents: Array) -> Array:
        """Returns the noise that raw values have, given their causes, ``(rows, 1)``."""
        given = self.encoded(self.name, np.asarray(values).reshape(-1))
        found: Array = from_noise(self.distribution(len(given), parents)).transforms[0].inv(given).cpu().numpy()
        return found[:, None]

    def usual(self, rows: int = 1) -> Array:
        """Returns some raw values of the parents, ``(rows, parents)``: noise knows no causes."""
        nodes, encoder = self.pair.graph.nodes, self.pair.encoder
        one = [encoder.decode(name, torch.zeros((), dtype=torch.long if nodes[name].levels else None)).item()
               for name in self.parents]  # fmt: skip
        return np.array([one] * rows, dtype=object)


def _seeded_by_numpy() -> AbstractContextManager[None]:
    """Draws of torch that follow numpy's generator, which is the one that DoWhy seeds."""
    return seeded(int(np.random.randint(2**31 - 1)), torch.device("cpu"))


@cache
def _kinds() -> Callable[[Conditional], tuple[Any, bool, bool]]:
    """Returns what makes DoWhy's mechanism of a conditional, and says whether it is noise mapped, and can be inverted.

    Its classes come from DoWhy's, so that they exist where DoWhy does.
    """
    from dowhy.gcm import causal_mechanisms as base
    from dowhy.gcm.ml import ClassificationModel

    class Kept:
        def __init__(self, conditional: Conditional) -> None:
            self.conditional = conditional

        def fit(self, *data: Any, **named: Any) -> None:
            warnings.warn(
                f"{self.conditional.name!r} stays as CAMA fitted it: DoWhy's fit changes nothing here (to compare two "
                "worlds, gcm.distribution_change_of_graphs takes the fitted and the adapted model)",
                UserWarning,
                stacklevel=2,
            )

        def clone(self) -> Any:
            return type(self)(self.conditional)

    class Root(Kept, base.StochasticModel):
        def draw_samples(self, num_samples: int) -> Array:
            return self.conditional.sample(num_samples)

    class Drawn(Kept, base.ConditionalStochasticModel):
        def draw_samples(self, parent_samples: Array) -> Array:
            return self.conditional.sample(len(parent_samples), parent_samples)

    class FromNoise(Kept, base.InvertibleFunctionalCausalModel):
        def draw_noise_samples(self, num_samples: int) -> Array:
            return self.conditional.noise(num_samples)

        def evaluate(self, parent_samples: Array, noise_samples: Array) -> Array:
            return self.conditional.value(parent_samples, noise_samples)

        def estimate_noise(self, target_samples: Array, parent_samples: Array) -> Array:
            return self.conditional.noise_of(target_samples, parent_samples)

    class Levels(Kept, ClassificationModel):
        @property
        def classes(self) -> list[str]:
            node = self.conditional.pair.graph.nodes[self.conditional.name]
            return [text_of(level) for level in node.levels or (0, 1)]

        def predict_probabilities(self, X: Array) -> NDArray[np.float64]:
            return self.conditional.probabilities(X)

        def predict(self, X: Array) -> Array:
            return np.array(self.classes, dtype=object)[self.predict_probabilities(X).argmax(1)][:, None]

    def made(conditional: Conditional) -> tuple[Any, bool, bool]:
        node = conditional.pair.graph.nodes[conditional.name]
        if not conditional.parents:
            return Root(conditional), True, True
        if conditional.deep or node.type == "count":
            return Drawn(conditional), False, False
        if node.levels or node.type == "binary":
            return base.ClassifierFCM(Levels(conditional)), True, False
        known = from_noise(conditional.distribution(1, conditional.usual()))
        mapped = isinstance(known, torch.distributions.TransformedDistribution)
        return (FromNoise(conditional), True, True) if mapped else (Drawn(conditional), False, False)

    return made
