"""A Pyro model and its guide over one graph, with the encoder between raw tables and their tensors.

The floor that every algorithm of this package stands on: :mod:`pyro_cama.inference`, ``training``, ``adaptation`` and
all above take a :class:`ModelGuidePair`, or just a model and a guide.  :class:`pyro_cama.CAMA` is this pair with a
user's methods.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import pyro
import torch
from torch import nn

from pyro_cama._arguments import expect, expect_whole, whole
from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.open_stream import DataSource, open_stream
from pyro_cama.data.sampling import Target, encoded_parts, sample_rows, with_sites
from pyro_cama.data.tables import Table
from pyro_cama.data.unknown_levels import Unknown, reading_unknown
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.handlers.contexts import one_at_a_time, seeded
from pyro_cama.likelihoods import Likelihood
from pyro_cama.mechanisms.base import Mechanism
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.groups import make_groups, with_style
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.manipulation import Manipulation
from pyro_cama.networks.features import NetworkFactory
from pyro_cama.networks.images import DecoderFactory, EncoderFactory
from pyro_cama.networks.inputs import NodeInputs

BY_NODE = ("mechanisms", "likelihoods", "networks", "encoders", "decoders")  # options of build, mappings by node
_numbers = itertools.count()  # parameters of two models in one process never share a name


@dataclass(frozen=True)
class Settings:
    """How :func:`build` sized the networks; stored with the model."""

    seed: int = 0
    hidden: int = 64
    layers: int = 2

    def __post_init__(self) -> None:
        expect_whole("build", "hidden", self.hidden)
        expect_whole("build", "layers", self.layers, 0)
        fits = whole(self.seed, 0) and self.seed < 2**32
        expect("build", "seed", self.seed, fits, "a whole number from 0 to 4294967295")
        for name in ("seed", "hidden", "layers"):  # of numpy's numbers JSON does not know
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True)
class Extensions:
    """What the caller put in the place of generated parts."""

    model: type[CAMAModel] = CAMAModel
    guide: type[CAMAGuide] = CAMAGuide
    mechanisms: Mapping[str, Mechanism] = field(default_factory=dict)
    likelihoods: Mapping[str, Likelihood] = field(default_factory=dict)
    networks: Mapping[str, NetworkFactory] = field(default_factory=dict)
    encoders: Mapping[str, EncoderFactory] = field(default_factory=dict)
    decoders: Mapping[str, DecoderFactory] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option in BY_NODE:  # the caller's mappings may change later
            object.__setattr__(self, option, dict(getattr(self, option)))

    def expect_fits(self, graph: CausalGraph) -> None:
        """Checks that the parts are for nodes that the graph's model has.

        Raises:
            ValueError: an encoder or decoder of another node than an image, or a part of no node of the model.
        """
        for option in ("encoders", "decoders"):
            flat = [n for n in getattr(self, option) if n in graph.nodes and not graph.nodes[n].is_image]
            if flat:
                raise ValueError(f"build({option}=...): expected nodes of type image, found {sorted(flat)}")
        for option in BY_NODE:
            unknown = set(getattr(self, option)) - set(graph.order)
            if unknown:
                raise ValueError(
                    f"build({option}=...): {sorted(unknown)} not among the target and its blanket {graph.order}"
                )

    def named(self) -> list[str]:
        """Returns what a load must be given again, as ``build`` spells it."""
        found = [f"{key}=..." for key in BY_NODE if getattr(self, key)]
        found += [f"model={self.model.__name__}"] if self.model is not CAMAModel else []
        return found + ([f"guide={self.guide.__name__}"] if self.guide is not CAMAGuide else [])


SAMPLE = 20_000  # rows of a stream that are held in memory where some suffice for all
NUMBERS = 2**28  # in them, at most


def device_named(device: str | torch.device) -> torch.device:
    """Returns the torch device of a name; "auto" takes a GPU where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


class ModelGuidePair:
    """A model, its guide and their encoder; see the module's docstring.

    Attributes:
        graph: the :class:`CausalGraph`.
        settings, extensions: what :func:`pyro_cama.build` was asked for.
        device: where the tensors are.
        model, guide: PyroModules, ordinary Pyro callables; see :mod:`pyro_cama.model.generative_model` for their
            contract.
        modules: both of them, for optimisers and state dicts.
        encoder: the :class:`TableEncoder` between raw units and tensors.
        trained: names of the manipulations that ``do="auto"`` infers, with a q(m | x) that has been trained; the others
            are 0.
        moving: names of the manipulations that an adaptation trains: all, but in a copy that is being adapted by some.
        overlaid: names of images over which something lies in the world that the pair is adapted to: pixels that seem
            hidden are unknown in all that :meth:`encode` returns.
        modes: of the posterior of m, beside the one that the modules stand at: values of
            :meth:`manipulation_parameters`.  Predictions average over all; the first tells everything else.
        usual_evidence: mean log p(x | a, c) of rows held out of the fit, winsorised, in nats a row; NaN where it takes
            draws.
    """

    def __init__(
        self,
        graph: CausalGraph,
        settings: Settings,
        extensions: Extensions,
        device: torch.device,
        encoder: TableEncoder | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.graph = graph = with_style(
            graph, extensions.likelihoods, extensions.mechanisms, custom=extensions.guide is not CAMAGuide
        )
        self.settings = settings
        self.extensions = extensions
        self.device = device
        self.encoder = encoder or TableEncoder(graph)
        self.trained: frozenset[str] = frozenset()
        self.moving = tuple(m.name for m in graph.manipulations)
        self.overlaid: frozenset[str] = frozenset()
        self.modes: tuple[Mapping[str, torch.Tensor], ...] = ()
        self.usual_evidence = math.nan
        name = f"cama{next(_numbers)}"
        # built with local parameters, so that both ways work: our loops' and SVI's through the parameter store
        with self.seeded(), pyro.settings.context(module_local_params=True):
            groups = make_groups(graph, extensions.likelihoods, extensions.mechanisms)
            inputs = NodeInputs(graph)
            sizes = {"hidden": settings.hidden, "layers": settings.layers}
            m = graph.m
            manipulation = Manipulation(m, groups, inputs, **sizes) if m is not None else None
            shared: dict[str, Any] = {**sizes, "sites": len(self.encoder.sites)}
            self.model: CAMAModel = extensions.model(
                graph,
                groups,
                inputs,
                manipulation,
                **shared,
                networks=extensions.networks,
                encoders=extensions.encoders,
                decoders=extensions.decoders,
                name=f"{name}.model",
            )
            self.guide: CAMAGuide = extensions.guide(
                graph,
                groups,
                inputs,
                manipulation,
                **shared,
                encoders=extensions.encoders,
                name=f"{name}.guide",
                model=self.model,
            )
        self.modules = nn.ModuleList([self.model, self.guide]).to(device=device, dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.graph!r}, {'fitted' if self.encoder.fitted else 'not fitted'})"

    @property
    def classes(self) -> tuple[Any, ...]:
        """The target's labels, in the order of the columns of :meth:`CAMA.predict_proba`."""
        return self.graph.nodes[self.graph.target].levels or (0, 1)

    @property
    def manipulation(self) -> Manipulation:
        """NN_pM, of a graph that has a manipulation latent."""
        return self.model.manipulation

    @property
    def m_trained(self) -> bool:
        """Whether ``do="auto"`` infers every manipulation."""
        return bool(self.trained) and self.trained.issuperset(m.name for m in self.graph.manipulations)

    @property
    def moves_by_row(self) -> bool:
        """Whether what is moving is every row's own; what one adaptation moves is so, or shared, all alike."""
        return any(m.per_row for m in self.graph.manipulations if m.name in self.moving)

    @property
    def moved_children(self) -> tuple[str, ...]:
        """The children that what is :attr:`moving` acts on."""
        own = [m for m in self.graph.manipulations if m.name in self.moving]
        return tuple(name for name in self.graph.blanket.children if any(name in m.children for m in own))

    @property
    def minibatches_per_step(self) -> int:
        """Minibatches of one Lightning step: what an image costs hides the step's own cost."""
        return 1 if self.model.has_images else 64

    @property
    def sample_size(self) -> int:
        """Rows of a sample that stands for a stream: 20,000, fewer where a row is large."""
        nodes = [self.graph.nodes[name] for name in self.graph.order]
        return min(SAMPLE, max(1, NUMBERS // sum(math.prod(node.event_shape) for node in nodes)))

    def manipulation_parameters(self, names: Collection[str] | None = None) -> dict[str, nn.Parameter]:
        """Returns exactly what adaptation trains: NN_pM and NN_qM (eq. 8), by name.

        Args:
            names: of the manipulations whose they are; None means :attr:`moving`.
        """
        found: dict[str, nn.Parameter] = {}
        for prefix, root in self._manipulation_modules(names):
            found |= {f"{prefix}.{name}": parameter for name, parameter in root.named_parameters()}
        return found

    def _manipulation_modules(self, names: Collection[str] | None = None) -> list[tuple[str, nn.Module]]:
        """NN_pM and NN_qM of manipulations, each beside its name."""
        names = self.moving if names is None else names
        found = [(f"NN_pM.{name}", self.manipulation.networks[name]) for name in names]
        return found + [(f"NN_qM.{name}", self.guide.posteriors[name]) for name in names]

    @torch.no_grad()
    def load_manipulation(
        self, state: Mapping[str, torch.Tensor], modes: Iterable[Mapping[str, torch.Tensor]] = ()
    ) -> None:
        """Takes values of :meth:`manipulation_parameters`, by name, and those of further modes."""
        for name, parameter in self.manipulation_parameters().items():
            parameter.copy_(state[name])
        self.modes = tuple(modes)

    def each_mode(self) -> Iterator[None]:
        """Stands at every mode of the posterior of m in turn, as the modules do at first, and in the end again.

        Parameters are exchanged, not written to, so that what was computed at one can still be differentiated.
        """
        yield
        if not self.modes:
            return
        places = self._manipulation_places()
        own = {name: getattr(module, key) for name, (module, key) in places.items()}
        try:
            for mode in self.modes:
                for name, (module, key) in places.items():
                    setattr(module, key, nn.Parameter(mode[name], requires_grad=False))
                yield
        finally:
            for name, (module, key) in places.items():
                setattr(module, key, own[name])

    def _manipulation_places(self) -> dict[str, tuple[nn.Module, str]]:
        """Maps every manipulation parameter's name to the module that holds it, and its name there."""
        found = {}
        for prefix, root in self._manipulation_modules([m.name for m in self.graph.manipulations]):
            for name, _ in root.named_parameters():
                path, _, key = name.rpartition(".")
                found[f"{prefix}.{name}"] = (root.get_submodule(path), key)
        return found

    def seeded(self, seed: int | None = None) -> AbstractContextManager[None]:
        """Makes the draws inside a function of a seed, by default the pair's own."""
        return seeded(self.settings.seed if seed is None else seed, self.device)

    @one_at_a_time
    def copy(self, encoder: TableEncoder | None = None) -> Self:
        """Returns an independent copy, its parameters under names of their own.

        Args:
            encoder: one that knows more sites than this pair's; their q(m) starts at the prior's mean.
        """
        twin = self._rebuilt(encoder or self.encoder)
        state = self.modules.state_dict()
        for name, fresh in twin.modules.state_dict().items():
            state[name] = _grown(state[name], fresh)
        begun = {name: value.detach().clone() for name, value in twin.manipulation_parameters().items()}
        twin.modules.load_state_dict(state)
        twin.trained, twin.moving, twin.usual_evidence = self.trained, self.moving, self.usual_evidence
        twin.overlaid = self.overlaid
        twin.modes = tuple({name: _grown(mode[name], fresh) for name, fresh in begun.items()} for mode in self.modes)
        return twin

    def take_encoder(self, encoder: TableEncoder) -> None:
        """Takes another encoder's statistics and sites; new sites need new modules, with the weights of the old."""
        if len(encoder.sites) != len(self.encoder.sites):
            twin = self.copy(encoder)
            self.model, self.guide, self.modules = twin.model, twin.guide, twin.modules
        self.encoder = encoder
        self.model.inputs.set_statistics(encoder.statistics)

    def encoder_with_sites(self, data: DataSource) -> TableEncoder:
        """Returns the encoder, or one that also knows the sites of ``data``, where a column is m's scope.

        Raises:
            DataError: the scope column is missing.
        """
        if self.encoder.scope is None:
            return self.encoder
        stream = open_stream(data, self.graph)
        known = self.encoder.with_sites(data) if stream is None else with_sites(stream, self.encoder)  # type: ignore[arg-type]
        return self.encoder if known.sites == self.encoder.sites else known

    def _rebuilt(self, encoder: TableEncoder) -> Self:
        return type(self)(self.graph, self.settings, self.extensions, self.device, encoder, self.model.like.dtype)

    # rows ------------------------------------------------------------------------------------------------------------

    @one_at_a_time
    def encode(self, data: Table | Batch, target: Target = "use", *, unknown: Unknown = "error") -> Batch:
        """Returns raw rows as tensors on the model's device: what model, guide and the ELBO classes take.

        A Batch has been encoded before, and comes back; so every method that takes a table takes a Batch too.  Pixels
        that something seems to hide are unknown, of the images in :attr:`overlaid`.

        Args:
            data: rows, in raw units or encoded.
            target: what to do about labels, see :meth:`TableEncoder.encode`.
            unknown: what a level is that the graph does not name: an error, or "missing", which a warning says; an
                unknown label stays an error.

        Raises:
            DataError: the pair has not seen data yet, or the table does not fit the graph.
        """
        return self.seen(self.recorded(data, target, unknown=unknown))

    def seen(self, batch: Batch) -> Batch:
        """Returns encoded rows with pixels unknown that something seems to hide, of the images in :attr:`overlaid`."""
        return self.manipulation.without_hidden(batch, self.overlaid) if self.overlaid else batch

    def recorded(self, data: Table | Batch, target: Target = "use", *, unknown: Unknown = "error") -> Batch:
        """Returns the same with every pixel as it was recorded; arguments and errors as :meth:`encode`."""
        self._require_fitted()
        if isinstance(data, Batch):
            batch = data.without(self.graph.target) if target == "ignore" else data
        else:
            with reading_unknown(unknown, "encode"):
                batch = self.encoder.encode(data, target=target)
        return batch.to(self.device, self.model.like.dtype)

    def batches(self, data: DataSource, target: Target) -> Iterator[Batch]:
        """Yields raw rows as :meth:`encode` gives them, those of a stream part by part."""
        stream = open_stream(data, self.graph)
        if stream is None:
            yield self.encode(data, target)  # type: ignore[arg-type]
            return
        self._require_fitted()
        for batch in encoded_parts(stream, self.encoder, target):
            yield self.encode(batch, target)

    def read(self, data: DataSource, target: Target, *, sampled: bool = False) -> Batch:
        """Returns a table's rows encoded, of a stream a uniform sample of :attr:`sample_size` rows.

        Args:
            sampled: of a table in memory too, where it has more rows than that.
        """
        stream = open_stream(data, self.graph)
        if stream is not None:
            drawn = sample_rows(stream, self.encoder, self.sample_size, self.settings.seed, target)
            return self.encode(drawn, target)
        batch = self.encode(data, target)  # type: ignore[arg-type]
        if not sampled or batch.rows <= self.sample_size:
            return batch
        generator = torch.Generator().manual_seed(self.settings.seed)
        some = torch.randperm(batch.rows, generator=generator)[: self.sample_size]
        return batch.select(some.to(self.device))

    def _require_fitted(self) -> None:
        if not self.encoder.fitted:
            raise DataError("this model has not seen data yet: call fit(clean) first, or load a fitted one")


def _grown(known: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """Returns what is known, or, where there are more sites now, what they begin with after that of the known ones."""
    return known if known.shape == fresh.shape else torch.cat([known, fresh[len(known) :]])


PairT = TypeVar("PairT", bound=ModelGuidePair)
