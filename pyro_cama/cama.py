"""The public class: build a model from a graph, fit it, predict by Bayes' rule, adapt it without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_cama._arguments import expect_options, whole
from pyro_cama._notebook import model_html
from pyro_cama.data.batch import Batch
from pyro_cama.data.encoder import TableEncoder
from pyro_cama.data.open_stream import DataSource, open_stream
from pyro_cama.data.tables import Table
from pyro_cama.data.unknown_levels import Unknown, reading_unknown
from pyro_cama.errors import GraphError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.handlers.contexts import one_at_a_time, one_core
from pyro_cama.handlers.interventions import Regime
from pyro_cama.inference.chunks import chunk_size
from pyro_cama.inference.class_posterior import class_posterior, most_probable, most_probable_labels
from pyro_cama.inference.class_prior import ClassPrior
from pyro_cama.inference.do import UserDo
from pyro_cama.inference.evidence import elbo
from pyro_cama.inference.generation import sample
from pyro_cama.inference.log_weights import LogWeights, log_weights
from pyro_cama.inference.program import as_program
from pyro_cama.inference.reconstruction import reconstruct
from pyro_cama.likelihoods import Likelihood
from pyro_cama.mechanisms.base import Mechanism
from pyro_cama.model.generative_model import CAMAModel
from pyro_cama.model.guide import CAMAGuide
from pyro_cama.model.pair import Extensions, ModelGuidePair, Settings, device_named
from pyro_cama.model.summary import summary
from pyro_cama.networks.features import NetworkFactory
from pyro_cama.networks.images import DecoderFactory, EncoderFactory
from pyro_cama.training.fit import fit, lightning_parts
from pyro_cama.training.options import FitOptions
from pyro_cama.training.simulated_interventions import Scale
from pyro_cama.training.stages import History

if TYPE_CHECKING:
    import networkx as nx

    from pyro_cama.adaptation.explanation import Explanation
    from pyro_cama.adaptation.result import Adaptation
    from pyro_cama.diagnosis.result import Diagnosis
    from pyro_cama.stream.monitor import Monitor
    from pyro_cama.training.lightning_module import Training, TrainingData


@one_at_a_time
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
    """Builds a deep CAMA model, factorisation and guide generated from the Markov blanket of the graph's target.

    Args:
        graph: a path (YAML, or what :class:`CausalGraph` reads), a dict, a networkx graph, or a CausalGraph.
        seed: of the initial weights, and of all that ``fit``, ``adapt`` and ``predict`` draw.
        hidden: units of every hidden layer.
        layers: hidden layers of the deep networks; 0 makes every map linear.
        model, guide: subclasses to use.
        mechanisms, likelihoods: objects by node name.
        networks: by the name of a cause, a function from (inputs, outputs) to the module that makes its features.
        encoders, decoders: by the name of an image, what reads and what draws it; see
            :mod:`pyro_cama.networks.images` for the two functions' arguments.
        device: "auto" takes a GPU where there is one.

    Raises:
        GraphError: the graph is not one that CAMA can serve; says where and what to do.

    >>> cama = build({"target": "y", "nodes": {"y": {"type": "binary"}, "x": "continuous"}, "edges": ["y -> x"]})
    >>> cama.graph.blanket.children
    ('x',)
    """
    causal = graph if isinstance(graph, CausalGraph) else CausalGraph(graph)
    settings = Settings(seed, hidden, layers)
    reserved = {"_INPUT", "_RETURN"} & set(causal.nodes)
    if reserved:
        raise GraphError(f"node {sorted(reserved)[0]!r}: Pyro's traces use this name themselves; rename the column")
    extensions = Extensions(
        model, guide, mechanisms or {}, likelihoods or {}, networks or {}, encoders or {}, decoders or {}
    )
    extensions.expect_fits(causal)
    return CAMA(causal, settings, extensions, device_named(device))


@one_at_a_time
def load(folder: str | Path, *, device: str | torch.device = "auto", **extensions: Any) -> CAMA:
    """Reads a saved model.

    Args:
        folder: as :meth:`CAMA.save` wrote it.
        device: "auto" takes a GPU where there is one.
        extensions: ``guide=``, ``model=``, ``mechanisms=``, ``likelihoods=``, ``networks=``, ``encoders=``,
            ``decoders=`` as ``build`` was given them; code is never loaded from a folder.

    Raises:
        DataError: a file is missing, damaged or of a newer format, or an extension is not given; says which.
    """
    from pyro_cama.persistence.storage import read

    cama, adaptation = read(CAMA, folder, device=device, **extensions)
    cama.adaptation = adaptation
    return cama


class CAMA(ModelGuidePair):
    """A deep causal manipulation augmented model over one graph; :func:`build` makes one.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 300)
        >>> rows = pd.DataFrame({"y": y, "x": 4.0 * y + rng.normal(size=300)})
        >>> graph = {"target": "y", "nodes": {"y": {"type": "binary"}, "x": "continuous"}, "edges": ["y -> x"]}
        >>> cama = build(graph, hidden=8).fit(rows, max_epochs=10, lr=0.01, progress=False)
        >>> cama.predict_proba(rows[["x"]]).shape
        (300, 2)
        >>> cama.score(rows) > 0.9
        True

    Attributes:
        graph: the :class:`CausalGraph`.
        model, guide: PyroModules, ordinary Pyro callables; see :mod:`pyro_cama.model.generative_model` for their
            contract.
        encoder: the :class:`TableEncoder` between raw units and tensors, fitted by :meth:`fit`.
        history: what the last :meth:`fit` did.
        adaptation: the :class:`~pyro_cama.adaptation.result.Adaptation` that made this copy, None on an unadapted
            model.
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
        super().__init__(graph, settings, extensions, device, encoder, dtype)
        self.history: History | None = None
        self.adaptation: Adaptation | None = None

    # what it is ------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        state = "adapted" if self.adaptation is not None else "fitted" if self.encoder.fitted else "not fitted"
        return f"CAMA({self.graph!r}, {state})"

    def _repr_html_(self) -> str:
        return model_html(self, self.history, self.adaptation)

    def summary(self) -> str:
        """Returns roles, factorisation and the number of parameters in each part, as text."""
        return summary(self)

    def copy(self, encoder: TableEncoder | None = None) -> Self:
        """Returns an independent copy, its parameters under names of their own.

        Args:
            encoder: one that knows more sites than this model's; their q(m) starts at the prior's mean.
        """
        twin = super().copy(encoder)
        twin.history, twin.adaptation = self.history, self.adaptation
        return twin

    # training --------------------------------------------------------------------------------------------------------

    @one_at_a_time
    def fit(
        self,
        clean: DataSource | None,
        manipulated: DataSource | None = None,
        interventions: float | Mapping[str, Scale] | None = None,
        *,
        max_epochs: int | None = None,
        batch_size: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        conditional_weight: float = 30.0,
        conditional_share: float | None = None,
        conditional_power: float = 1.0,
        density_epochs: int | None = None,
        unknown_pixels: float = 0.5,
        mixing: float = 0.5,
        samples: int = 1,
        validation: float = 0.15,
        patience: int = 40,
        anneal: bool = False,
        paired: bool = False,
        progress: bool = True,
        checkpoints: str | Path | None = None,
        resume: bool = False,
        checkpoint_seconds: float = 30.0,
        trainer_kwargs: dict[str, Any] | None = None,
    ) -> CAMA:
        """Trains on clean labelled rows with do(m=0) (eq. 3), and on manipulated ones with m inferred (eqs. 4, 5).

        Args:
            clean: labelled rows in raw units; some labels may be missing (eq. 7 serves those rows).  Files, folders
                and loaders are read in parts, once an epoch; see :func:`pyro_cama.data.open_stream.open_stream`.  None
                where every row is manipulated: then eq. 4 alone is maximised, in scope row, and do(m=0) is a mechanism
                at rest that no row has shown.
            manipulated: labelled rows under unknown manipulations; 20,000 of what is read in parts.  In scope row
                q(m | x) learns from them and from clean rows alike; in scope dataset their m is theirs alone, and
                ``do=None`` reads them; of a scope column they need sites of their own.  An m that goes with the class
                does so in them: p(m | y) is learned here alone.
            interventions: simulate manipulations of clean rows while training, and learn q(m | x) from them: a scale,
                or one a child (1.0 is offsets of one training standard deviation, say).  What such a child causes
                follows, unless m ``affects`` its measurement.  An image's may be severities of manipulations,
                ``{"vertical_shift": 0.3, "rotation": 30}``, of which every row gets one: see
                :mod:`pyro_cama.image_manipulations`.  Scope row only.
            max_epochs: passes over the rows: 300, of images 20.  Before these, networks that read manipulations off
                images train asleep (:mod:`pyro_cama.training.asleep`), on 400,000 images, or as many as six times
                the epochs show.
            conditional_weight: w of the conditional term w log p(y | x); 0 is the paper's own objective.  Graphs with
                images train the first half of the epochs without it, or ``density_epochs``.
            conditional_share: of the rows of a minibatch that this term is estimated on: 1, of images a quarter, since
                it draws the image of every class.
            conditional_power: of the children's densities in this term, for a prediction with that ``power``.  A
                draw of z moves a photograph's log p(x | y, z) by tens of nats, in which p(y | x) is lost.
            density_epochs: the epochs without this term with which graphs with images begin; None is half of all.
            unknown_pixels: share of the clean rows that train with a part of an image taken for unknown, as what leaves
                the frame or is hidden will be; of images on which a mechanism acts that moves or hides pixels.
            mixing: lambda of eq. 5.
            samples: draws of the latents per row and step.
            validation: fraction of the clean rows held out, stratified, for early stopping; never above 2,000 rows.
                Their loss gives log p(y | x) a weight of at least one a reading (not in graphs with images).
            patience: epochs without improvement before stopping; the best weights are kept.  Half as many of a table
                that is fitted whole.
            anneal: lets the learning rate fall to zero over ``max_epochs``, along a half cosine; with thousands of rows
                and 30 to 60 epochs it takes the place of a long wait for early stopping.
            paired: draws z of every class from one noise, as predictions do: log p(y | x) is a difference, from which
                what the classes have in common then cancels.
            checkpoints: a folder for ``last.ckpt``, from which a fit that was stopped goes on, and for what is logged.
            resume: go on from the checkpoint there, if there is one; the weights end up as if nothing had happened.
            checkpoint_seconds: least time between two checkpoints.
            trainer_kwargs: passed to ``lightning.pytorch.Trainer``: devices, strategy, precision, gradient_clip_val,
                callbacks, logger (also "csv", the default with checkpoints, or "tensorboard") and so on.  With several
                devices ``batch_size`` is of all of them together.

        A table in memory whose style is linear (``z: {effect: linear}``) is fitted whole, by L-BFGS from a closed-form
        start, an epoch being a step; anything that is of minibatches alone asks for these:
        ``batch_size``, ``lr``, ``weight_decay``, ``samples``, ``anneal``, ``conditional_power``, ``paired``,
        ``checkpoints``, ``trainer_kwargs``, ``manipulated``, ``interventions``, or a cause that is missing somewhere.

        Entries far from all others of their column, such as -999, are trained on as missing, and a warning says where
        they are (:mod:`pyro_cama.data.far_entries`); at prediction every entry counts.

        A second call goes on from the first: with its weights, and with its units, sites and class frequencies, even if
        the rows have others. Where they do, build anew.

        Whatever is raised, Ctrl-C too, the model is as it was before the call, and what was checkpointed stays.

        Raises:
            DataError: the table does not fit the graph; names column, rows and remedy.
            FileExistsError, ValueError: there is a checkpoint and no ``resume``, it is of another fit, or damaged.
            FloatingPointError: the loss became NaN or infinite.
            OSError: a checkpoint or log cannot be written; names the file.
        """
        options = FitOptions(
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            conditional_weight=conditional_weight,
            conditional_share=conditional_share,
            conditional_power=conditional_power,
            density_epochs=density_epochs,
            unknown_pixels=unknown_pixels,
            mixing=mixing,
            samples=samples,
            validation=validation,
            patience=patience,
            anneal=anneal,
            paired=paired,
        )
        with self._cores(batch_size, samples):
            self.history = fit(
                self,
                clean,
                manipulated,
                interventions,
                options,
                progress=progress,
                checkpoints=checkpoints,
                resume=resume,
                checkpoint_seconds=checkpoint_seconds,
                trainer_kwargs=trainer_kwargs,
            )
        return self

    def _cores(self, rows: int, draws: int) -> AbstractContextManager[None]:
        """One core for steps on tables, unless their tensors are large; all that the caller allows for others."""
        one = self.device.type == "cpu" and not self.model.has_images and 2 * rows <= chunk_size(self, draws)
        return one_core() if one else nullcontext()

    @one_at_a_time
    def lightning(
        self,
        clean: DataSource | None,
        manipulated: DataSource | None = None,
        interventions: float | Mapping[str, Scale] | None = None,
        *,
        progress: bool = True,
        **options: Any,
    ) -> tuple[Training, TrainingData]:
        """Returns what :meth:`fit` hands to Lightning, for a Trainer of one's own.

        The module logs ``loss``, ``validation_loss`` and ``validation_accuracy`` after every epoch; it trains the
        weights of this very model, which until ``module.finish()`` has done what is left of a fit are not to be used.
        If the Trainer fails or is stopped (Ctrl-C, of which Lightning makes ``SystemExit``), the model is as it was
        before; ``module.undo()`` puts it back where no Trainer is to run.  Options as :meth:`fit`.

        >>> cama = build({"target": "y", "nodes": {"y": {"type": "binary"}, "x": "continuous"}, "edges": ["y -> x"]})
        >>> rows = {"y": [0, 1] * 50, "x": [0.1 * (i % 7) + i % 2 for i in range(100)]}
        >>> module, data = cama.lightning(rows, max_epochs=2, progress=False)
        >>> module.epochs
        2

        Then ``Trainer(max_epochs=module.epochs).fit(module, data)`` and ``module.finish()``.
        """

        def keep(history: History) -> None:
            self.history = history

        expect_options("lightning", options, FitOptions)
        chosen = FitOptions(**options)
        return lightning_parts(self, clean, manipulated, interventions, chosen, progress=progress, after=keep)

    @one_at_a_time
    def adapt(
        self,
        new_data: DataSource,
        clean: DataSource | None = None,
        *,
        only: Sequence[str] | None = None,
        unknown: Unknown = "error",
        **options: Any,
    ) -> CAMA:
        """Adapts NN_pM and NN_qM to unlabelled rows from a changed world (eq. 8).

        Of several manipulations those that rows share move first, by themselves, and then those of every row's own that
        no training has seen, each with a verdict of its own.

        Args:
            new_data, clean: rows, see :func:`pyro_cama.adaptation.adapt.adapt`.
            only: names of the manipulations that move, trained or not.
            unknown: as :meth:`predict_proba`.
            options: as :func:`pyro_cama.adaptation.adapt.adapt`.

        Returns:
            An adapted copy, ``self`` untouched; ``copy.adaptation`` says whether the change was kept, and why.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> y = rng.integers(0, 2, 300)
            >>> rows = pd.DataFrame({"y": y, "x": 4.0 * y + rng.normal(size=300)})
            >>> graph = {"target": "y", "nodes": {"y": {"type": "binary"}, "x": "continuous"}, "edges": ["y -> x"]}
            >>> cama = build(graph, hidden=8).fit(rows, max_epochs=10, lr=0.01, progress=False)
            >>> shifted = rows.assign(x=rows["x"] + 5.0)
            >>> adapted = cama.adapt(shifted[["x"]], progress=False)
            >>> adapted.adaptation.accepted, adapted.score(shifted) > cama.score(shifted)
            (True, True)
        """
        from pyro_cama.adaptation.adapt import adapt
        from pyro_cama.adaptation.options import AdaptOptions, moving_together

        asked: dict[str, Any] = {name: options.get(name) for name in ("batch_size", "samples")}
        rows, draws = (n if whole(n, 1) else getattr(AdaptOptions, name) for name, n in asked.items())
        copy, stages = self, moving_together(self.graph, only, self.trained)
        if len(stages) > 1:  # read more than once, and has to be the same
            new_data = open_stream(new_data, self.graph) or new_data
        with self._cores(rows, draws), reading_unknown(unknown, "adapt"):
            for moving in stages:
                previous = copy.adaptation
                copy, adaptation = adapt(copy, new_data, clean, only=moving, **options)
                copy.adaptation = adaptation.after(previous)
        return copy

    @one_at_a_time
    def monitor(
        self,
        clean: DataSource | None = None,
        *,
        state: str | Path | None = None,
        false_alarms: float = 0.01,
        least: int = 100,
        window: int = 4000,
        most_regimes: int = 16,
        class_prior: Literal["train", "regime"] = "train",
        unknown: Unknown = "error",
        predict: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Monitor[Self]:
        """Returns a monitor that reads a stream of batches, and adapts only where the world is another one.

        ``monitor.update(rows)`` predicts, tests whether the world has changed, and then takes a regime that it knows,
        or adapts to one that is new.  The model itself is left alone.

        Args:
            clean: rows of the world that the model reads now, held out of the fit; their labels are not looked at.
                Left out, the first ``least`` rows of the stream are taken for such.
            state: a file for what the monitor knows, written after every step; if it is there, the stream goes on.
            false_alarms: the probability that the test ever sets off an alarm in a visit to a world, however long
                that is, though nothing has changed, is at most that: :mod:`pyro_cama.stream.change`.
            least: rows of a new world before the model adapts to it.
            window: the last rows that are kept, those which a change may have begun with.
            most_regimes: that are kept; at one more, of the two nearest to each other one is forgotten.
            class_prior: predict with the training class proportions, or with those that the adaptation to a regime
                settled on.
            unknown: as :meth:`predict_proba`.
            predict: options of :meth:`predict_proba` for every batch, such as ``{"samples": 4, "m_samples": 1}``: of
                images and of deep models on tables, draws are most of a step's time.
            options: of :func:`pyro_cama.adaptation.adapt.adapt`.

        Raises:
            ValueError: the graph has no m, m belongs to sites, an option is out of range, or the state is another
                model's or another monitor's.
            DataError: ``clean`` does not fit the graph, or has fewer than 20 rows; the state is damaged.
        """
        from pyro_cama.stream.monitor import Monitor, MonitorOptions

        asked = MonitorOptions(false_alarms, least, window, most_regimes, class_prior)

        def tell(copy: Self, adaptation: Adaptation) -> None:
            copy.adaptation = adaptation

        return Monitor(self, clean, asked, state, unknown, predict or {}, options, tell)

    @one_at_a_time
    def explain_shift(self, *, level: float = 0.95) -> Explanation:
        """Returns which children moved between training and :meth:`adapt`, by how much, in raw units with intervals.

        See :func:`pyro_cama.adaptation.explain.explain_shift`; call it on the copy that ``adapt`` returned.
        """
        from pyro_cama.adaptation.explain import explain_shift

        return explain_shift(self, self.adaptation, level=level)

    @one_at_a_time
    def diagnose(self, data: Table, **options: Any) -> Diagnosis:
        """Tests whether graph and fitted densities fit clean labelled rows: suspects, edges, badly fitted nodes.

        Needs ``pip install 'pyro_cama[pgmpy]'``; options as :func:`pyro_cama.diagnosis.diagnose.diagnose`.
        """
        from pyro_cama.diagnosis.diagnose import diagnose

        return diagnose(self, data, **options)

    # answers ---------------------------------------------------------------------------------------------------------

    @one_at_a_time
    def predict_proba(
        self,
        data: DataSource,
        do: Literal["auto"] | UserDo = "auto",
        class_prior: ClassPrior = "train",
        *,
        samples: int = 16,
        m_samples: int = 4,
        widen: float = 1.0,
        refine: int = 0,
        refine_z: int = 0,
        power: float = 1.0,
        regime: Regime = "interventional",
        unknown: Unknown = "error",
    ) -> NDArray[np.float64]:
        """Returns p(y | x, a, c) by Bayes' rule, eq. 6, ``(rows, classes)``; deterministic, and each row's own.

        NaN where a reading is so far from the training rows that no density is finite.

        Args:
            do: "auto" is do(m=0) until :meth:`adapt`, or training in scope row or a column, has found an m, the
                inferred m after; None infers m.  In both m is 0 at a site of clean rows.  Or a value of m by its name:
                a number, ``(dim,)``, in scope row also ``(rows, dim)``, a value of every row, and where a column is
                the scope ``(sites, dim)``, in the order of ``encoder.sites``.
            class_prior: "train", new class proportions, ``(classes,)`` in the order of ``classes`` or by label (a
                mapping or a series; a class of a share of 0 is ruled out), or "estimate" to find those of ``data`` by
                EM (Saerens et al. 2002), which then do depend on the rows together.  The training ones stand where the
                rows do not tell otherwise, see :mod:`pyro_cama.inference.class_prior`.
            samples: draws of z; of a shared m so many for each draw of m.
            m_samples: draws of a shared m; in scope row each draw of z has its own m.
            widen, refine: in scope row, where m is inferred: a factor on the scale of q(m | x), and gradient steps of
                every row's own m before it is drawn.  They help where q(m | x) is poor, and hurt where it is good and
                draws are few; see :mod:`pyro_cama.inference.proposals`.
            refine_z: gradient steps of every row's z, under every class by itself, before it is drawn; in any scope.
                They help where q(z | x, y) is: rows unlike any that were trained on, such as attacked images.  z then
                suits the mean of m and not each draw of it, so leave ``samples`` at 4 or more.
            power: of p(x | y, z, m, a, c), above 0 and at most 1.  Below 1 a row says less than the model believes: a
                guard against rows that no m and no z explain, and against probabilities that are too sure.
            regime: of an m that goes with the class in the training rows (an edge from the target into it, or a
                confounder): "interventional" cuts that edge, as in a new world m may come with any class;
                "observational" takes m for evidence of the class, as it is where nothing has changed.  Elsewhere, and
                where ``do`` sets m, both are the same.
            unknown: what a level is that the graph does not name, of any column but the target: an error, or
                "missing", as if nothing stood there; a warning then says which levels, and how many.

        Raises:
            DataError: the table does not fit the graph.
            ValueError: an argument out of range; in ``class_prior`` a share of a level that was in no training row; of
                ``do`` also a value of every row that lacks rows or has too many.
        """
        with reading_unknown(unknown, "predict"):
            return class_posterior(
                self,
                data,
                do,
                class_prior,
                samples=samples,
                m_samples=m_samples,
                widen=widen,
                refine=refine,
                refine_z=refine_z,
                power=power,
                regime=regime,
            )

    @one_at_a_time
    def predict(self, data: DataSource, do: Literal["auto"] | UserDo = "auto", **options: Any) -> NDArray[Any]:
        """Returns the most probable label of every row, as the YAML names it, ``(rows,)``.

        None for a row without probabilities: a reading is too far from the training rows for any.  Options as
        :meth:`predict_proba`.
        """
        return most_probable_labels(self, self.predict_proba(data, do, **options))

    @one_at_a_time
    def score(
        self, data: DataSource, do: Literal["auto"] | UserDo = "auto", *, unknown: Unknown = "error", **options: Any
    ) -> float:
        """Returns the accuracy on rows that hold the target; a row without probabilities is a wrong one.

        Options as :meth:`predict_proba`; an unknown label is an error.
        """
        data = open_stream(data, self.graph) or data  # read twice, and has to be the same
        with reading_unknown(unknown, "score"):
            y = torch.cat([batch.values[self.graph.target].long().cpu() for batch in self.batches(data, "require")])
            p = self.predict_proba(data, do, **options)
        return float((most_probable(p) == y.numpy()).mean())

    @one_at_a_time
    def elbo(
        self,
        data: Table | Batch,
        do: Literal["clean"] | UserDo = "clean",
        *,
        samples: int = 16,
        regime: Regime = "interventional",
        unknown: Unknown = "error",
    ) -> Tensor:
        """Returns a lower bound on log p(x, y | a, c) of every row, ``(rows,)``, in nats.

        The density is of readings in training standard deviations.

        Eq. 3 under ``do={"m": 0.0}`` (the default), eq. 4 under ``do=None``, eq. 7 for rows without a label.
        ``regime`` and ``unknown`` as :meth:`predict_proba`; what fit maximises is "observational".
        """
        with reading_unknown(unknown, "elbo"):
            return elbo(self, data, do, samples=samples, regime=regime)

    @one_at_a_time
    def log_weights(self, batch: Batch, **options: Any) -> LogWeights:
        """Returns the log-weights of encoded rows; options as :func:`pyro_cama.inference.log_weights.log_weights`."""
        return log_weights(self.model, self.guide, batch, **options)

    @one_at_a_time
    def sample(self, n: int, do: Literal["auto"] | UserDo = "auto", *, seed: int = 0) -> pd.DataFrame:
        """Draws rows from the model, in raw units.

        Args:
            do: interventions, by node (in raw units or as a level's name) or manipulation; of the same seed's rows
                descendants alone change.  Where m is not among them, and under "auto", it is that of the rows last
                adapted to: in scope row drawn from theirs, else the posterior's mean, with sites in the proportions of
                those rows.  Of a model that was never adapted it is 0.  None draws m from its prior, which no training
                has seen.

        Returns:
            A column for every node of the model; where m's scope is a column, that too.
        """
        return sample(self, n, do, seed=seed)

    @one_at_a_time
    def reconstruct(
        self,
        data: Table,
        do: Literal["clean"] | UserDo = "clean",
        *,
        samples: int = 16,
        unknown: Unknown = "error",
    ) -> pd.DataFrame:
        """Estimates the children as they would have been under ``do`` (default: not manipulated), in raw units.

        m, y and z are inferred from the rows as measured; then m takes the value of ``do`` (None leaves it).  A child's
        effects follow: they read it as it would have been, or under ``affects: measurement`` as it was apart from m.
        Means for numbers, taken on the scale of the column (of a logarithmic one they are near medians), the most
        probable level for discrete children.  Rows keep the labels of a DataFrame's index.
        ``unknown`` as :meth:`predict_proba`.
        """
        with reading_unknown(unknown, "reconstruct"):
            return reconstruct(self, data, do, samples=samples)

    @one_at_a_time
    def as_program(
        self, data: Table | Batch | None = None, *, samples: int = 100, seed: int | None = None
    ) -> Callable[..., dict[str, Tensor]]:
        """Returns the model as a structural program, for ChiRho's ``do``, worlds and ``condition``.

        It is :attr:`model` with readings that are functions of their causes and of noise of their own, which worlds
        share; nothing is pinned.  Without rows it takes the arguments of ``model``.

        Args:
            data: rows that counterfactuals are asked of; the program then takes no arguments, and its sites are these
                rows as measured, with z, m and what is not known (labels, missing entries) drawn given them.  Labels
                that are known count.  ``pip install 'pyro_cama[interop]'``.
            samples: of those draws, a plate at dim -3; sites are ``(samples, 1, rows, ...)``.
            seed: of the draws; None is the model's own.

        z is drawn from the guide (of a linear style the exact posterior), a missing entry from its own factor.
        ``continuous`` readings keep their noise under an intervention; counts, levels and images of pixels on or off
        that have other causes are drawn anew.  m has no cause in the program, also where the graph gives it one: under
        another class it is as it was.  Values are encoded: ``encoder.encode_value`` and ``encoder.decode``.

        Example::

            program = cama.as_program(rows)
            with MultiWorldCounterfactual(), do(actions={"m": torch.zeros(4)}):
                worlds = program()
            worlds["x"]  # (2, 1, samples, 1, rows): as measured, and had nothing been manipulated
        """
        return as_program(self, data, samples=samples, seed=seed)

    @one_at_a_time
    def to_dowhy(self, do: Literal["auto"] | UserDo = "auto") -> Any:
        """Returns the model as a graphical causal model of DoWhy's (``dowhy.gcm``): same graph, these conditionals.

        ``pip install 'pyro_cama[dowhy]'``.  Values are in raw units, levels are text.  Its nodes are the target and its
        blanket; z is integrated out of each by itself, so that readings that z makes alike are independent there given
        their causes.  Continuous nodes are invertible functions of noise, but for those of a deep style; discrete ones
        are functions of noise; counts are drawn.  DoWhy's ``fit`` leaves all of them as they are, and warns.

        Args:
            do: which world; "auto" is do(m=0), of an adapted model the mean of what is known of m.

        Raises:
            GraphError: vectors or images.
            ValueError: m is of every row or site, and ``do`` says nothing.
        """
        from pyro_cama.persistence.to_dowhy import to_dowhy

        return to_dowhy(self, do)

    # storage ---------------------------------------------------------------------------------------------------------

    @one_at_a_time
    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes graph.yaml, settings.json and tensors.safetensors to a new folder, all or nothing.

        Raises:
            FileExistsError: the folder is there and ``overwrite`` is False, or it holds something else.
            OSError: the disk is full, or the place cannot be written to; names the file.
        """
        from pyro_cama.persistence.storage import save

        return save(self, self.adaptation, folder, overwrite=overwrite)

    @one_at_a_time
    def export(self, folder: str | Path, **options: Any) -> Path:
        """Writes :meth:`predict_proba` as a ``torch.export`` program, for serving without Pyro.

        Options as :func:`pyro_cama.persistence.export.export`.
        """
        from pyro_cama.persistence.export import export

        return export(self, folder, **options)
