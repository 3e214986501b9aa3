"""The public class: build a model from a graph, fit it, predict by Bayes' rule, adapt it without labels."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx
import numpy as np
import pandas as pd
import pyro
import torch
from numpy.typing import NDArray
from pyro import poutine
from torch import Tensor, nn

from pyro_cama.budget import Budget, weights_within
from pyro_cama.data import Batch, Table, TableEncoder
from pyro_cama.distributions import Likelihood
from pyro_cama.elbo import (
    LogWeights,
    class_log_probs,
    intervene,
    log_weights,
    marginal,
    mean_bound,
    shared_term,
)
from pyro_cama.engine import History, fast
from pyro_cama.errors import DataError, GraphError, expect, expect_options, number, whole
from pyro_cama.fitting import Data, Options, fit, plan, unfitted_on_error
from pyro_cama.graph import CausalGraph
from pyro_cama.groups import make_groups
from pyro_cama.guide import CAMAGuide
from pyro_cama.image_manipulations import KINDS, expect_kinds
from pyro_cama.image_networks import DecoderFactory, EncoderFactory
from pyro_cama.manipulation import Manipulation
from pyro_cama.mechanisms import Mechanism
from pyro_cama.model import CAMAModel, Causes
from pyro_cama.networks import NetworkFactory, NodeInputs
from pyro_cama.noise import NoCommonNoise, common_noise
from pyro_cama.schema import shown
from pyro_cama.streams import encoded_parts, open_stream
from pyro_cama.training import Scale, manipulation_of

if TYPE_CHECKING:
    from pyro_cama.diagnose import Diagnosis
    from pyro_cama.explain import Explanation
    from pyro_cama.lightning_module import Training, TrainingData

Do = Mapping[str, Any] | None
BY_NODE = ("mechanisms", "likelihoods", "networks", "encoders", "decoders")  # options of build, mappings by node
_names = itertools.count()  # parameters of two models in one process never share a name


@dataclass(frozen=True)
class Settings:
    """How :func:`build` sized the networks; stored with the model."""

    seed: int = 0
    hidden: int = 64
    layers: int = 2


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

    def named(self) -> list[str]:
        """What a load must be given again, as ``build`` spells it."""
        found = [f"{key}=..." for key in BY_NODE if getattr(self, key)]
        found += [f"model={self.model.__name__}"] if self.model is not CAMAModel else []
        return found + ([f"guide={self.guide.__name__}"] if self.guide is not CAMAGuide else [])


def build(
    graph: str | Path | Mapping[str, Any] | nx.DiGraph[Any] | CausalGraph,
    *,
    seed: int = 0,
    hidden: int = 64,
    layers: int = 2,
    model: type[CAMAModel] = CAMAModel,
    guide: type[CAMAGuide] = CAMAGuide,
    mechanisms: Mapping[str, Mechanism] | None = None,
    likelihoods: Mapping[str, Likelihood] | None = None,
    networks: Mapping[str, NetworkFactory] | None = None,
    encoders: Mapping[str, EncoderFactory] | None = None,
    decoders: Mapping[str, DecoderFactory] | None = None,
    device: str | torch.device = "auto",
) -> CAMA:
    """A deep CAMA model, its factorisation and guide generated from the Markov blanket of the graph's target.

    Args:
        graph: a path (YAML, GML, GraphML, DOT), a dict, a networkx graph with node attributes, or a CausalGraph.
        seed: of the initial weights, and of all that ``fit``, ``adapt`` and ``predict`` draw.
        hidden: units of every hidden layer.
        layers: hidden layers of the deep networks; 0 makes every map linear.
        model, guide: subclasses to use.
        mechanisms, likelihoods: objects by node name.
        networks: by the name of a cause, a function from (inputs, outputs) to the module that makes its features.
        encoders, decoders: by the name of an image, what reads and what draws it; see
            :mod:`pyro_cama.image_networks` for the two functions' arguments.
        device: "auto" takes a GPU where there is one.

    Raises:
        GraphError: the graph is not one that CAMA can serve; says where and what to do.

    >>> cama = build({"target": "y", "nodes": {"y": {"type": "binary"}, "x": "continuous"}, "edges": ["y -> x"]})
    >>> cama.graph.blanket.children
    ('x',)
    """
    causal = graph if isinstance(graph, CausalGraph) else CausalGraph(graph)
    expect("build", "hidden", hidden, whole(hidden, 1), "a whole number of at least 1")
    expect("build", "layers", layers, whole(layers, 0), "a whole number of at least 0")
    expect("build", "seed", seed, whole(seed, 0) and seed < 2**32, "a whole number from 0 to 4294967295")
    reserved = {"_INPUT", "_RETURN"} & set(causal.nodes)
    if reserved:
        raise GraphError(f"node {sorted(reserved)[0]!r}: Pyro's traces use this name themselves; rename the column")
    by_node = (mechanisms, likelihoods, networks, encoders, decoders)
    extensions = Extensions(model, guide, *(dict(option or {}) for option in by_node))  # type: ignore[arg-type]
    for option in ("encoders", "decoders"):
        flat = [n for n in getattr(extensions, option) if n in causal.nodes and causal.nodes[n].type != "image"]
        if flat:
            raise ValueError(f"build({option}=...): expected nodes of type image, found {sorted(flat)}")
    for option in BY_NODE:
        unknown = set(getattr(extensions, option)) - set(causal.order)
        if unknown:
            raise ValueError(
                f"build({option}=...): {sorted(unknown)} not among the target and its blanket {causal.order}"
            )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return CAMA(causal, Settings(int(seed), int(hidden), int(layers)), extensions, torch.device(device))


class CAMA:
    """A deep causal manipulation augmented model over one graph.

    Attributes:
        graph: the :class:`CausalGraph`.
        model, guide: PyroModules, ordinary Pyro callables; see :mod:`pyro_cama.model` for their contract.
        encoder: the :class:`TableEncoder` between raw units and tensors, fitted by :meth:`fit`.
        history: what the last :meth:`fit` did.
        adaptation: the :class:`~pyro_cama.judge.Adaptation` that made this copy, None on an unadapted model.
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
        self.graph = graph
        self.settings = settings
        self.extensions = extensions
        self.device = device
        self.encoder = encoder or TableEncoder(graph)
        self.history: History | None = None
        self.adaptation: Any = None
        self.m_trained = False  # until then q(m | x) means nothing
        name = f"cama{next(_names)}"
        cuda = [device] if device.type == "cuda" else []
        # built with local parameters, so that both ways work: our loops' and SVI's through the parameter store
        with torch.random.fork_rng(devices=cuda), pyro.settings.context(module_local_params=True):
            torch.manual_seed(settings.seed)
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
                graph, groups, inputs, manipulation, **shared, encoders=extensions.encoders, name=f"{name}.guide"
            )
        self.modules = nn.ModuleList([self.model, self.guide]).to(device=device, dtype=dtype)

    # what it is ------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        state = "adapted" if self.adaptation is not None else "fitted" if self.encoder.fitted else "not fitted"
        return f"CAMA({self.graph!r}, {state})"

    @property
    def classes(self) -> tuple[Any, ...]:
        """The target's labels, in the order of the columns of :meth:`predict_proba`."""
        return self.graph.nodes[self.graph.target].levels or (0, 1)

    def manipulation_parameters(self) -> dict[str, nn.Parameter]:
        """Exactly what :meth:`adapt` trains: NN_pM and NN_qM (eq. 8), by name."""
        if self.graph.m is None:
            return {}
        found = {f"NN_pM.{n}": p for n, p in manipulation_of(self.model).network.named_parameters()}
        q: Any = self.guide._modules["networks"]["m"]  # type: ignore[index]
        return found | {f"NN_qM.{n}": p for n, p in q.named_parameters()}

    def summary(self) -> str:
        """Roles, factorisation and the number of parameters in each part, as text."""
        blanket = self.graph.blanket
        lines = [
            f"target      {self.graph.target}: {', '.join(map(str, self.classes))}",
            f"parents     {', '.join(blanket.parents) or '-'}",
            f"children    {', '.join(blanket.children)}",
            f"co-parents  {', '.join(blanket.coparents) or '-'}",
        ]
        m = self.graph.m
        if m is not None:
            acts = ", ".join(f"{n} ({m.mechanism[n]})" for n in m.children)
            lines.append(f"manipulable {acts}; scope {m.scope}")
        lines += ["", self.graph.factorisation(), ""]
        adapts = {id(p) for p in self.manipulation_parameters().values()}
        parts: dict[str, list[int]] = {}
        seen: set[int] = set()
        for owner, module in (("model", self.model), ("guide", self.guide)):
            for name, parameter in module.named_parameters():
                if id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                part = f"{owner} {name.removeprefix('networks.').split('.')[0]}" + (
                    " *" if id(parameter) in adapts else ""
                )
                parts.setdefault(part, []).append(parameter.numel())
        lines += [f"{part:<24}{sum(sizes):>9,} parameters" for part, sizes in parts.items()]
        return "\n".join([*lines, "* trained by adapt()"])

    # training --------------------------------------------------------------------------------------------------------

    def fit(
        self,
        clean: Data,
        manipulated: Data | None = None,
        interventions: float | Mapping[str, Scale] | None = None,
        *,
        max_epochs: int | None = None,
        batch_size: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        conditional_weight: float = 30.0,
        conditional_share: float | None = None,
        mixing: float = 0.5,
        samples: int = 1,
        validation: float = 0.15,
        patience: int = 40,
        anneal: bool = False,
        progress: bool = True,
        checkpoints: str | Path | None = None,
        resume: bool = False,
        checkpoint_seconds: float = 30.0,
        trainer_kwargs: dict[str, Any] | None = None,
    ) -> CAMA:
        """Trains on clean labelled rows with do(m=0) (eq. 3), and on manipulated ones with m inferred (eqs. 4, 5).

        Args:
            clean: labelled rows in raw units; some labels may be missing (eq. 7 serves those rows).  Files,
                folders and loaders are read in parts, once an epoch; see :func:`pyro_cama.streams.open_stream`.
            manipulated: labelled rows under unknown manipulations; 20,000 of what is read in parts.
            interventions: simulate manipulations of clean rows while training, and learn q(m | x) from them: a scale,
                or one a child (1.0 is offsets of one training standard deviation, say).  An image's may be severities
                of manipulations, ``{"vertical_shift": 0.3, "rotation": 30}``, of which every row gets one: see
                :mod:`pyro_cama.image_manipulations`.  Scope row only.
            max_epochs: passes over the rows: 300, of images 20.
            conditional_weight: w of the conditional term w log p(y | x); 0 is the paper's own objective.  Graphs with
                images train the first half of the epochs without it.
            conditional_share: of the rows of a minibatch that this term is estimated on: 1, of images a quarter, since
                it draws the image of every class.
            mixing: lambda of eq. 5.
            samples: draws of the latents per row and step.
            validation: fraction of the clean rows held out, stratified, for early stopping; never above 2,000 rows.
            patience: epochs without improvement before stopping; the best weights are kept.
            anneal: lets the learning rate fall to zero over ``max_epochs``, along a half cosine; with thousands of rows
                and 30 to 60 epochs it takes the place of a long wait for early stopping.
            checkpoints: a folder for ``last.ckpt``, from which a fit that was killed goes on, and for what is logged.
            resume: go on from the checkpoint there, if there is one; the weights end up as if nothing had happened.
            checkpoint_seconds: least time between two checkpoints.
            trainer_kwargs: passed to ``lightning.pytorch.Trainer``: devices, strategy, precision, gradient_clip_val,
                callbacks, logger (also "csv", the default with checkpoints, or "tensorboard") and so on.  With several
                devices ``batch_size`` is of all of them together.

        A second call goes on from the first: with its weights, and with its units, sites and class frequencies, even if
        the rows have others. Where they do, build anew.

        Raises:
            DataError: the table does not fit the graph; names column, rows and remedy.
            FileExistsError, ValueError: there is a checkpoint and no ``resume``, or it is of another fit.
        """
        options = Options(
            max_epochs=max_epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay,
            conditional_weight=conditional_weight, conditional_share=conditional_share, mixing=mixing,
            samples=samples, validation=validation, patience=patience, anneal=anneal,
        )  # fmt: skip
        fit(
            self, clean, manipulated, self._scales(interventions), options, progress=progress, checkpoints=checkpoints,
            resume=resume, checkpoint_seconds=checkpoint_seconds, trainer_kwargs=trainer_kwargs,
        )  # fmt: skip
        return self

    def lightning(
        self,
        clean: Data,
        manipulated: Data | None = None,
        interventions: float | Mapping[str, Scale] | None = None,
        *,
        progress: bool = True,
        **options: Any,
    ) -> tuple[Training, TrainingData]:
        """What :meth:`fit` hands to Lightning, for a Trainer of one's own.

        The module logs ``loss``, ``validation_loss`` and ``validation_accuracy`` after every epoch; it trains the
        weights of this very model.  When the Trainer is done, ``module.finish()`` does what is left of a fit.
        Options as :meth:`fit`.

        >>> cama = build({"target": "y", "nodes": {"y": {"type": "binary"}, "x": "continuous"}, "edges": ["y -> x"]})
        >>> rows = {"y": [0, 1] * 50, "x": [0.1 * (i % 7) + i % 2 for i in range(100)]}
        >>> module, data = cama.lightning(rows, max_epochs=2, progress=False)
        >>> module.epochs
        2

        Then ``Trainer(max_epochs=module.epochs).fit(module, data)`` and ``module.finish()``.
        """
        from pyro_cama.lightning_module import Training, TrainingData

        expect_options("lightning", options, Options)
        chosen = Options(**options)
        with unfitted_on_error(self):
            made = plan(self, clean, manipulated, self._scales(interventions), chosen, progress=progress)
        module = Training(
            made.stages, self.modules, made.parameters, weight_decay=chosen.weight_decay, patience=chosen.patience,
            anneal=chosen.anneal, seed=self.settings.seed, progress=progress, after=made.finish,
        )  # fmt: skip
        return module, TrainingData(made.minibatches)

    def adapt(self, new_data: Data, clean: Data | None = None, **options: Any) -> CAMA:
        """Adapts NN_pM and NN_qM to unlabelled rows from a changed world (eq. 8).

        Options as :func:`pyro_cama.adaptation.adapt`.

        Returns:
            An adapted copy, ``self`` untouched; ``copy.adaptation`` says whether the change was kept, and why.
        """
        from pyro_cama.adaptation import adapt

        return adapt(self, new_data, clean, **options)

    def explain_shift(self, *, level: float = 0.95) -> Explanation:
        """What :meth:`adapt` found: which children moved, by how much, in raw units with intervals.

        See :func:`pyro_cama.explain.explain_shift`; call it on the copy that ``adapt`` returned.
        """
        from pyro_cama.explain import explain_shift

        return explain_shift(self, level=level)

    def diagnose(self, data: Table, **options: Any) -> Diagnosis:
        """Whether the graph and the fitted densities fit clean labelled rows: suspects, edges, badly fitted nodes.

        Needs ``pip install pyro_cama[pgmpy]``; options as :func:`pyro_cama.diagnose.diagnose`.
        """
        from pyro_cama.diagnose import diagnose

        return diagnose(self, data, **options)

    # answers ---------------------------------------------------------------------------------------------------------

    @torch.inference_mode(False)  # z and m are refined along gradients
    def predict_proba(
        self,
        data: Data,
        do: Literal["auto"] | Do = "auto",
        class_prior: Literal["train", "estimate"] | NDArray[np.float64] = "train",
        *,
        samples: int = 16,
        m_samples: int = 4,
        widen: float = 1.0,
        refine: int = 0,
        refine_z: int = 0,
        power: float = 1.0,
    ) -> NDArray[np.float64]:
        """p(y | x, a, c) by Bayes' rule, eq. 6, ``(rows, classes)``; deterministic, and each row's own.

        NaN where a reading is so far from the training rows that no density can be told.

        Args:
            do: "auto" is do(m=0) until q(m | x) has been trained, the inferred m after; None infers m; or a value of m
                by its name: a number, ``(dim,)``, in scope row also ``(rows, dim)``, a value of every row, and where
                a column is the scope ``(sites, dim)``, in the order of ``encoder.sites``.
            class_prior: "train", new class proportions ``(classes,)``, or "estimate" to find those of ``data`` by EM
                (Saerens et al. 2002), which then do depend on the rows together.
            samples: draws of z.
            m_samples: draws of a shared m; in scope row each draw of z has its own m.
            widen, refine: in scope row, where m is inferred: a factor on the scale of q(m | x), and gradient steps of
                every row's own m before it is drawn.  They help where q(m | x) is poor, and hurt where it is good and
                draws are few; see :mod:`pyro_cama.budget`.
            refine_z: gradient steps of every row's z, under every class by itself, before it is drawn; in any scope.
                They help where q(z | x, y) is: rows unlike any that were trained on, such as attacked images.  z then
                suits the mean of m and not each draw of it, so leave ``samples`` at 4 or more.
            power: of p(x | y, z, m, a, c), above 0 and at most 1.  Below 1 a row says less than the model believes: a
                guard against rows that no m and no z explain, and against probabilities that are too sure.

        Raises:
            DataError: the table does not fit the graph.
            ValueError: an argument out of range; of ``do`` also a value of every row that lacks rows or has too many.
        """
        stream = open_stream(data, self.graph)
        source = self.encode(data, "ignore") if stream is None else stream  # type: ignore[arg-type]
        given = self._do(do, source.rows if isinstance(source, Batch) else None)
        budget = Budget.checked(
            "predict", self.graph, given, samples=samples, m_samples=m_samples, widen=widen, refine=refine,
            refine_z=refine_z, power=power,
        )  # fmt: skip
        parts, start = [], 0
        for batch in self.batches(source, "ignore"):
            own = self._do_of(given, torch.arange(start, start + batch.rows, device=self.device))
            parts.append(self._class_log_probs(batch, own, budget))
            start += batch.rows
        self._expect_rows(given, start)  # the rows of a stream are counted by now
        log_p = torch.cat(parts, 1)
        ratio = self._log_prior_ratio(class_prior, log_p)
        if ratio is not None:
            log_p = torch.log_softmax(log_p + ratio[:, None], 0)
        probabilities: NDArray[np.float64] = log_p.T.double().exp().cpu().numpy()
        return probabilities / probabilities.sum(1, keepdims=True)

    def predict(self, data: Data, do: Literal["auto"] | Do = "auto", **options: Any) -> NDArray[Any]:
        """The most probable label of every row, as the YAML names it, ``(rows,)``; options as :meth:`predict_proba`.

        None for a row without probabilities: a reading is too far from the training rows for any.
        """
        found = self.predict_proba(data, do, **options)
        labels, told = self.encoder.labels(found.argmax(1)), np.isfinite(found).all(1)
        if not told.all():
            labels = labels.astype(object)
            labels[~told] = None
        return labels

    def score(self, data: Data, do: Literal["auto"] | Do = "auto", **options: Any) -> float:
        """Accuracy on rows that hold the target; a row without probabilities is a wrong one."""
        y = torch.cat([batch.values[self.graph.target].long().cpu() for batch in self.batches(data, "require")])
        found = self.predict_proba(data, do, **options)
        return float(((found.argmax(1) == y.numpy()) & np.isfinite(found).all(1)).mean())

    def elbo(self, data: Table | Batch, do: Literal["clean"] | Do = "clean", *, samples: int = 16) -> Tensor:
        """A lower bound on log p(x, y | a, c) of every row, ``(rows,)``, in nats and training standard deviations.

        Eq. 3 under ``do={"m": 0.0}`` (the default), eq. 4 under ``do=None``, eq. 7 for rows without a label.
        """
        expect("elbo", "samples", samples, whole(samples, 1), "a whole number of at least 1")
        batch = self.encode(data)
        given = self._do(self._clean() if isinstance(do, str) and do == "clean" else do, batch.rows)
        site = torch.zeros(batch.rows, dtype=torch.long, device=self.device) if batch.site is None else batch.site
        counts = torch.bincount(site[site >= 0], minlength=self.model.sites)
        found = []
        with torch.no_grad(), fast(), common_noise(self.settings.seed):
            for rows in self._parts(batch, samples):
                part = batch.select(rows)
                weights = self.log_weights(part, do=self._do_of(given, rows), samples=samples, classes=True)
                bound = mean_bound(weights)
                total = marginal(bound)
                y = part.values.get(self.graph.target)
                if y is not None:
                    known = part.observed.get(self.graph.target, torch.ones_like(y, dtype=torch.bool))
                    total = torch.where(known, bound.gather(0, y.long()[None])[0], total)
                found.append((total + shared_term(weights, part.site, counts)).cpu())
        return torch.cat(found)

    def log_weights(self, batch: Batch, **options: Any) -> LogWeights:
        """The log-weights of encoded rows; options as :func:`pyro_cama.elbo.log_weights`."""
        return log_weights(self.model, self.guide, batch, **options)

    def sample(self, n: int, do: Do = None, *, seed: int = 0) -> pd.DataFrame:
        """Rows from the model, in raw units.

        Args:
            do: interventions, by node (in raw units or as a level's name) or latent; descendants alone change.
        """
        expect("sample", "n", n, whole(n, 1), "a whole number of at least 1")
        expect("sample", "seed", seed, whole(seed, 0), "a whole number of at least 0")
        m = self.graph.m
        given: dict[str, Any] = {}
        if do is not None and not isinstance(do, Mapping):
            raise ValueError(f"sample(do=...): expected a mapping of node or latent to value, found {shown(do)}")
        for name, value in (do or {}).items():
            given[name] = self._do({name: value}, n)[name] if m and name == m.name else self._encode_value(name, value)  # type: ignore[index]
        program = intervene(self.model, {k: v for k, v in given.items() if m and k == m.name})
        nodes = {k: v for k, v in given.items() if not (m and k == m.name)}
        if nodes:
            program = poutine.do(program, data=nodes)
        with torch.no_grad(), self._seeded(seed), pyro.validation_enabled(False):
            values = program(rows=n)
        frame = {}
        for name in self.graph.order:
            node = self.graph.nodes[name]
            decoded = self.encoder.decode(name, values[name].expand(n, *node.event_shape))
            frame[name] = list(decoded) if node.event_shape else decoded
        return pd.DataFrame(frame)

    def reconstruct(self, data: Table, do: Literal["clean"] | Do = "clean", *, samples: int = 16) -> pd.DataFrame:
        """The children as they would have been under ``do`` (default: not manipulated), in raw units.

        m, y and z are inferred from the rows as measured; then m takes the value of ``do``.  Means for numbers, the
        most probable level for discrete children.
        """
        expect("reconstruct", "samples", samples, whole(samples, 1), "a whole number of at least 1")
        batch = self.encode(data, target="ignore")
        seen = self._do("auto")
        given = self._do(self._clean() if isinstance(do, str) and do == "clean" else do, batch.rows)
        frames = [
            self._reconstructed(batch.select(rows), self._do_of(seen, rows), self._do_of(given, rows), samples)
            for rows in self._parts(batch, samples)
        ]
        return pd.concat(frames, ignore_index=True)

    def _reconstructed(self, batch: Batch, seen: Do, given: Do, samples: int) -> pd.DataFrame:
        """The children of a part of the rows; see :meth:`reconstruct`."""
        m = self.graph.m
        with torch.no_grad(), fast(), common_noise(self.settings.seed):
            weights = self.log_weights(batch, do=seen, samples=samples, classes=True)
            # mixed over samples as well as classes: the weights are each draw's share of the posterior
            share = torch.softmax(weights.w.flatten(0, 1), 0)
            guide = poutine.trace(intervene(self.guide, seen)).get_trace(batch, samples=samples, classes=True)
            z = guide.nodes[self.graph.z.name]["value"] if self.graph.z else None
            causes = Causes(self.model, batch, z, samples)
            if m is not None:
                inferred: dict[str, Any] = {m.name: guide.nodes[m.name]["value"]} if m.name in guide.nodes else {}
                causes.set_m({**inferred, **(seen or {}), **(given or {})}[m.name])
            causes.values.update(batch.values)
            causes.values[self.graph.target] = self.guide.target_value(batch, True)  # type: ignore[assignment]
            frame: dict[str, Any] = {}
            for name in self.graph.blanket.children:
                node = self.graph.nodes[name]
                d = self.model.node_dist(name, causes)
                mean = d.probs if node.type == "categorical" else d.mean
                mean = mean.expand(samples, len(self.classes), batch.rows, *mean.shape[d.batch_shape.__len__() :])
                flat = mean.flatten(0, 1)
                mixed = (share.reshape(*share.shape, *[1] * (flat.dim() - 2)) * flat).sum(0)
                if node.type == "categorical":
                    mixed = mixed.argmax(-1)
                elif node.type == "binary":
                    mixed = (mixed > 0.5).to(mixed)
                decoded = self.encoder.decode(name, mixed)
                frame[name] = decoded if decoded.ndim == 1 else list(decoded)
                if name not in batch.values:
                    causes.values[name] = mixed
        return pd.DataFrame(frame)

    # storage ---------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes graph.yaml, settings.json and tensors.safetensors to a new folder, all or nothing."""
        from pyro_cama.storage import save

        return save(self, folder, overwrite=overwrite)

    def export(self, folder: str | Path, **options: Any) -> Path:
        """Writes :meth:`predict_proba` as a ``torch.export`` program, for serving without Pyro.

        Options as :func:`pyro_cama.export.export`.
        """
        from pyro_cama.export import export

        return export(self, folder, **options)

    def copy(self, encoder: TableEncoder | None = None) -> CAMA:
        """An independent copy, its parameters under names of their own.

        Args:
            encoder: one that knows more sites than this model's; their q(m) starts at the prior's mean.
        """
        encoder = encoder or self.encoder
        twin = CAMA(self.graph, self.settings, self.extensions, self.device, encoder, self.model.like.dtype)
        state = self.modules.state_dict()
        for name, fresh in twin.modules.state_dict().items():
            if fresh.shape != state[name].shape:  # q(m) of sites: the known ones first
                fresh[: len(state[name])] = state[name]
                state[name] = fresh
        twin.modules.load_state_dict(state)
        twin.history, twin.adaptation, twin.m_trained = self.history, self.adaptation, self.m_trained
        return twin

    # inside ----------------------------------------------------------------------------------------------------------

    def encode(self, data: Table | Batch, target: Literal["require", "use", "ignore"] = "use") -> Batch:
        """Raw rows as tensors on the model's device: what model, guide and the ELBO classes take.

        A Batch has been encoded before, and comes back; so every method that takes a table takes a Batch too.
        """
        self._require_fitted()
        if isinstance(data, Batch):
            batch = data.without(self.graph.target) if target == "ignore" else data
        else:
            batch = self.encoder.encode(data, target=target)
        return batch.to(self.device, self.model.like.dtype)

    def _require_fitted(self) -> None:
        if not self.encoder.fitted:
            raise DataError("this model has not seen data yet: call fit(clean) first, or load a fitted one")

    def batches(self, data: Data, target: Literal["require", "use", "ignore"]) -> Iterator[Batch]:
        """Raw rows as :meth:`encode` gives them, those of a stream part by part."""
        stream = open_stream(data, self.graph)
        if stream is None:
            yield self.encode(data, target)  # type: ignore[arg-type]
            return
        self._require_fitted()
        for batch in encoded_parts(stream, self.encoder, target):
            yield self.encode(batch, target)

    def _take_encoder(self, encoder: TableEncoder) -> None:
        if len(encoder.sites) != len(self.encoder.sites):
            twin = CAMA(self.graph, self.settings, self.extensions, self.device, encoder, self.model.like.dtype)
            self.model, self.guide, self.modules = twin.model, twin.guide, twin.modules
        self.encoder = encoder
        inputs: Any = self.model._modules["networks"]["inputs"]  # type: ignore[index]
        inputs.set_statistics(encoder.statistics)

    def _class_log_probs(self, batch: Batch, do: dict[str, Tensor] | None, budget: Budget) -> Tensor:
        """log p(y | x, a, c), ``(classes, rows)``, in chunks of bounded memory."""
        chunk = self._chunk(self._draws(do, budget))
        if batch.site is not None and do is None and bool((batch.site < 0).any()):
            warnings.warn(
                "rows of a site the model was never adapted to are read with m = 0", UserWarning, stacklevel=4
            )

        def one(rows: Tensor) -> Tensor:
            return self._log_probs_of(batch.select(rows), rows, do, budget)

        everything = torch.arange(batch.rows, device=self.device)
        with torch.no_grad(), fast():
            try:
                with common_noise(self.settings.seed, strict=True):
                    return torch.cat([one(rows) for rows in everything.split(chunk)], 1)
            except NoCommonNoise:
                parts = []
                for rows in everything.split(1):  # one row at a time, from one seed: still each row's own
                    with self._seeded():
                        parts.append(one(rows))
                return torch.cat(parts, 1)

    def _draws(self, do: dict[str, Tensor] | None, budget: Budget) -> int:
        """Draws of the latents a row: ``samples`` of z for each of ``m_samples`` of a shared m that is not given."""
        m = self.graph.m
        shared = m is not None and m.scope != "row" and m.name not in (do or {})
        return budget.samples * budget.m_samples if shared else budget.samples

    def _chunk(self, draws: int) -> int:
        """How many rows at a time keep the widest tensor of a prediction within what caches hold; see docs/speed.md."""
        images = [8 * g.width for g in self.model.groups if g.image]  # a decoder's widest layers
        widest = max(self.settings.hidden, *(g.width * g.size for g in self.model.groups), *images)
        numbers = 2**25 if self.device.type == "cuda" else 2**23 if images else 2**21
        return max(1, numbers // (draws * len(self.classes) * widest))

    def _parts(self, batch: Batch, draws: int) -> tuple[Tensor, ...]:
        """Row numbers in parts of bounded memory."""
        return torch.arange(batch.rows, device=self.device).split(self._chunk(draws))

    def _do_of(self, do: dict[str, Tensor] | None, rows: Tensor) -> dict[str, Tensor] | None:
        """``do`` for some rows, in ascending order: a value of every row, or one for all.

        Raises:
            ValueError: fewer values than rows.
        """
        for name, value in self._by_row(do).items():
            if int(rows[-1]) >= len(value):
                raise ValueError(f"do: {name!r} has {_rows(len(value))}; the table has more")
        return {**do, **{name: value[rows] for name, value in self._by_row(do).items()}} if do else None

    def _by_row(self, do: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """The part of ``do`` that is a value of every row."""
        by_row = self.graph.m is not None and self.graph.m.scope == "row"
        return {name: value for name, value in (do or {}).items() if by_row and value.dim() > 1}

    def _expect_rows(self, do: dict[str, Tensor] | None, rows: int) -> None:
        for name, value in self._by_row(do).items():
            if len(value) != rows:
                raise ValueError(f"do: {name!r} has {_rows(len(value))}; the table has {rows}")

    def _log_probs_of(self, part: Batch, rows: Tensor, do: dict[str, Tensor] | None, budget: Budget) -> Tensor:
        """log p(y | x, a, c) of ``part``, rows number ``rows`` of those that ``do`` is for, ``(classes, rows)``."""
        weights = weights_within(self, part, self._do_of(do, rows), self._draws(do, budget), budget)
        return class_log_probs(weights, m_samples=budget.m_samples)

    def _log_prior_ratio(self, class_prior: Any, log_p: Tensor) -> Tensor | None:
        train = self.encoder.statistics[self.graph.target]["frequencies"].to(log_p)
        if isinstance(class_prior, str):
            if class_prior == "train":
                return None
            if class_prior != "estimate":
                raise ValueError(f"class_prior: expected 'train', 'estimate' or proportions, found {class_prior!r}")
            return _log_ratio(estimate_proportions(log_p, train), train)
        new = torch.as_tensor(np.asarray(class_prior, dtype=float)).to(log_p)
        if (
            new.shape != train.shape
            or bool((new < 0).any())
            or not torch.isclose(new.sum(), new.new_ones(()), atol=1e-4)
        ):
            raise ValueError(
                f"class_prior: expected {len(train)} proportions that sum to 1, for {list(self.classes)}; "
                f"found {np.asarray(class_prior).tolist()}"
            )
        return _log_ratio(new, train)

    def _do(self, do: Literal["auto"] | Do, rows: int | None = None) -> dict[str, Tensor] | None:
        """``do`` as tensors: ``(dim,)``, ``(rows, dim)`` in scope row, ``(sites, dim)`` where a column is the scope.

        Args:
            rows: of the table; None where they are not counted yet.

        Raises:
            ValueError: no such latent, or a value that does not fit it or the rows.
        """
        m = self.graph.m
        if isinstance(do, str) and do == "auto":
            do = None if self.m_trained or m is None else {m.name: 0.0}
        if do is not None and not isinstance(do, Mapping):
            raise ValueError(f"do: expected 'auto', None or a mapping such as {{'m': 0.0}}, found {shown(do)}")
        if not do:
            return None
        unknown = [name for name in do if m is None or name != m.name]
        if unknown:
            expected = f"{m.name!r}" if m else "no latent: this graph has no manipulation"
            raise ValueError(
                f"do: {unknown} is not the manipulation latent; expected {expected} (nodes: use sample(do=...))"
            )
        assert m is not None
        try:
            value = torch.as_tensor(do[m.name], dtype=self.model.like.dtype, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"do: {m.name!r} takes a number or {m.dim} of them, found {do[m.name]!r}") from None
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"do: {m.name!r} has to be finite, found {do[m.name]!r}")
        if value.dim() == 0:
            value = value.expand(m.dim)
        if value.shape[-1] != m.dim or value.dim() > 2:
            raise ValueError(f"do: {m.name!r} has {m.dim} dimensions, found a value of shape {tuple(value.shape)}")
        if value.dim() > 1 and m.scope != "row":
            sites = 1 if m.scope == "dataset" else self.model.sites
            if len(value) != sites:
                more = "" if m.scope == "dataset" else f" or ({sites}, {m.dim}), one for every {m.scope!r}"
                raise ValueError(
                    f"do: {m.name!r} has {_rows(len(value))}; scope {m.scope!r} has no value of every row: expected "
                    f"a number or ({m.dim},), one for all{more}"
                )
        given = {m.name: value}
        if rows is not None:
            self._expect_rows(given, rows)
        return given

    def _clean(self) -> Do:
        """do(m=0)."""
        return None if self.graph.m is None else {self.graph.m.name: 0.0}

    def _encode_value(self, name: str, value: Any) -> Tensor:
        if name not in self.graph.order:
            raise ValueError(f"do: {name!r} is neither the manipulation latent nor a node of {list(self.graph.order)}")
        return self.encoder.encode_value(name, value).to(self.device)

    def _scales(self, interventions: float | Mapping[str, Scale] | None) -> dict[str, Scale]:
        """Simulated interventions by child.

        Raises:
            ValueError: the graph or the manipulation's scope does not allow them.
        """
        positive = number(interventions) and interventions > 0
        fits = positive or interventions is None or isinstance(interventions, Mapping)
        expected = "a finite number above 0, or a mapping of node to number, of an image also to severities by kind"
        expect("fit", "interventions", interventions, fits, expected)
        if not interventions:
            return {}
        m = self.graph.m
        if m is None:
            raise ValueError("fit(interventions=...): this graph has no manipulation latent (m is null)")
        if m.scope != "row":
            raise ValueError(
                f"fit(interventions=...) trains q(m | x) of single rows; {m.name!r} has scope {m.scope!r}, whose "
                "posterior is found by adapt(); declare scope: row, or leave interventions out"
            )
        acting = [n for g in manipulation_of(self.model).groups if g.theta_size for n in g.nodes]
        if isinstance(interventions, Mapping):
            kinds = {n for n, scale in interventions.items() if isinstance(scale, Mapping)} & set(m.children)
            # kinds of manipulations need no theta
            unknown = [n for n in interventions if n not in acting and n not in kinds]
            if unknown:
                images = [n for n in m.children if self.graph.nodes[n].type == "image"]
                nested = bool(images) and set(unknown) <= {*KINDS}
                hint = f"; did you mean {{{images[0]!r}: {dict(interventions)}}}?" if nested else ""
                raise ValueError(
                    f"fit(interventions=...): {unknown} cannot be intervened on; expected some of {acting}{hint}"
                )
            scales: dict[str, Scale] = {}
            for name, scale in interventions.items():
                if isinstance(scale, Mapping):
                    if self.graph.nodes[name].type != "image":
                        raise ValueError(
                            f"fit(interventions=...): {name!r} is {self.graph.nodes[name].type}; expected a number, "
                            "since kinds of manipulations are an image's"
                        )
                    expect_kinds(scale, "fit(interventions=...)")
                    scales[name] = dict(scale)
                else:
                    expected = "a finite number above 0"
                    if self.graph.nodes[name].type == "image":
                        expected += ", or severities by kind as {'rotation': 30}"
                    expect("fit", f"interventions[{name!r}]", scale, number(scale) and scale > 0, expected)
                    scales[name] = float(scale)
            return scales
        if not acting:
            raise ValueError("fit(interventions=...): every mechanism is concat, which cannot simulate interventions")
        return dict.fromkeys(acting, float(interventions))

    def _seeded(self, seed: int | None = None) -> Any:
        return _Seeded(self.settings.seed if seed is None else seed, self.device)


def _rows(n: int) -> str:
    return f"{n} row{'' if n == 1 else 's'}"


def estimate_proportions(log_p: Tensor, train: Tensor, steps: int = 200) -> Tensor:
    """Class proportions of unlabelled rows by EM, from p(y | x) under the training ones (Saerens et al. 2002).

    Args:
        log_p: ``(classes, rows)``; rows without probabilities (NaN) have no part in it.
        train: ``(classes,)``.
    """
    log_p = log_p[:, ~log_p.isnan().any(0)]
    if not log_p.shape[1]:
        return train
    new = train
    for _ in range(steps):
        posterior = torch.softmax(log_p + _log_ratio(new, train)[:, None], 0)
        new = posterior.mean(1)
    return new.clamp_min(1e-6)


def _log_ratio(new: Tensor, train: Tensor) -> Tensor:
    """log of new over training proportions, ``(classes,)``; 0 for a class that no training row had."""
    return torch.where(train > 0, (new / train.clamp_min(1e-12)).clamp_min(1e-12).log(), torch.zeros_like(train))


class _Seeded:
    """Draws inside are a function of the seed, and leave the caller's random state as it was."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        self._seed = seed

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *raised: Any) -> None:
        self._fork.__exit__(*raised)
