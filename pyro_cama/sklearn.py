"""CAMA as a scikit-learn classifier: in pipelines, cross-validation and searches, and adapted without labels.

``import pyro_cama`` alone does not import scikit-learn.

>>> from sklearn.datasets import load_iris
>>> X, y = load_iris(return_X_y=True, as_frame=True)
>>> model = CAMAClassifier(hidden=16, layers=1, max_epochs=20, lr=1e-2, device="cpu").fit(X, y)
>>> model.score(X, y) > 0.9
True
>>> model.predict_proba(X[:3]).shape
(3, 3)
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import networkx as nx
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from pyro_cama._arguments import expect
from pyro_cama._messages import caller_level, shown
from pyro_cama.adaptation.result import Adaptation
from pyro_cama.cama import CAMA, build, load
from pyro_cama.data.columns import read_column
from pyro_cama.data.row_numbers import rows_text
from pyro_cama.data.tables import arrow_columns
from pyro_cama.data.unknown_levels import Unknown, expect_unknown
from pyro_cama.errors import DataError
from pyro_cama.graph.causal_graph import CausalGraph
from pyro_cama.graph.nodes import Node
from pyro_cama.handlers.interventions import Regime
from pyro_cama.inference.class_posterior import most_probable
from pyro_cama.inference.options import PredictionOptions
from pyro_cama.persistence.storage import FILES

__all__ = ["CAMAClassifier", "adapt_pipeline"]

_WHOLE = ("hidden", "layers", "batch_size", "patience")
_FIT = ("lr", "weight_decay", "conditional_weight", "mixing", "interventions", "validation", "anneal", "progress")


class CAMAClassifier(ClassifierMixin, BaseEstimator):
    """A deep CAMA model (Zhang, Zhang and Li, NeurIPS 2020) as a scikit-learn estimator.

    Args:
        graph: what :func:`pyro_cama.build` takes; the columns of X are then its nodes, by name, in raw units and level
            names.  X has to be a DataFrame with the target's Markov blanket and the manipulation's scope column, if it
            has one; a column of the target's name is not looked at.  None means that the target causes every column of
            X under one manipulation a batch (scope dataset): of a DataFrame those of dtype ``category`` are
            categorical, of their categories, and all others are continuous numbers.
        hidden, layers, device: as :func:`pyro_cama.build`.
        random_state: the seed of all that is drawn; an int gives the same model every time.
        max_epochs, batch_size, lr, weight_decay, conditional_weight, mixing: as :meth:`pyro_cama.CAMA.fit`.
        interventions, validation, patience, anneal, progress: likewise.
        power, regime: of the readings' likelihood, and of a manipulation that goes with the class, as
            :meth:`pyro_cama.CAMA.predict_proba`.
        unknown: what a level is that fit did not know, "error" or "missing", likewise; of X at predict and adapt.

    Attributes:
        classes_: sorted labels of y, ``(classes,)``.  A level of the graph that y never holds is no class.
        n_features_in_: number of columns of X.
        feature_names_in_: their names, where X had any, ``(n_features_in_,)``.
        cama_: the fitted :class:`pyro_cama.CAMA`, with all it can do.  Its classes are in the order of ``classes_``.
            Without a graph its target is called ``target``, columns without a name ``x0``, ``x1``, ...

    ``adaptation_`` says what :meth:`adapt` decided, and why; None before.

    Missing values (NaN) are allowed in X, at fit too; labels have to be complete.  Predictions are deterministic and
    each row's own.  ``fit`` refuses ``sample_weight``, and says what to do.  A pickle holds the fitted model as
    :meth:`pyro_cama.CAMA.save` writes it, so without its history.
    """

    def __init__(
        self,
        graph: str | os.PathLike[str] | Mapping[str, Any] | nx.DiGraph[Any] | CausalGraph | None = None,
        *,
        hidden: int = 64,
        layers: int = 2,
        max_epochs: int | None = None,
        batch_size: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        conditional_weight: float = 30.0,
        mixing: float = 0.5,
        interventions: float | Mapping[str, Any] | None = None,
        validation: float = 0.15,
        patience: int = 40,
        anneal: bool = False,
        power: float = 1.0,
        regime: Regime = "interventional",
        unknown: Unknown = "error",
        random_state: int | np.random.RandomState | None = 0,
        device: str | torch.device = "auto",
        progress: bool = False,
    ) -> None:
        self.graph = graph
        self.hidden = hidden
        self.layers = layers
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.conditional_weight = conditional_weight
        self.mixing = mixing
        self.interventions = interventions
        self.validation = validation
        self.patience = patience
        self.anneal = anneal
        self.power = power
        self.regime = regime
        self.unknown = unknown
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = tags.input_tags.string = self.graph is not None
        return tags

    def fit(self, X: Any, y: Any, **refused: Any) -> Self:
        """Trains on clean rows.

        Args:
            X: ``(rows, n_features_in_)``; without a graph numbers and categories, else a DataFrame.
            y: labels, ``(rows,)``; with a graph, levels of its target.
            refused: nothing; ``sample_weight`` is an error that says what to do instead.

        Raises:
            ValueError: an argument, X or y does not fit; a DataError where they do not fit the graph, a GraphError
                where the graph itself is at fault.
            TypeError: without a graph, X is sparse, or no numbers; or there is a ``sample_weight``.

        Whatever is raised, Ctrl-C too, the classifier is as it was before.
        """
        _expect_nothing(refused)
        before = dict(self.__dict__)
        try:
            return self._fit(X, y)
        except BaseException:
            self.__dict__ = before
            raise

    def _fit(self, X: Any, y: Any) -> Self:
        seed = self._seed()
        options = {name: getattr(self, name) for name in _FIT}
        options |= {name: self._whole(name) for name in _WHOLE}
        if self.max_epochs is not None:  # else left to fit
            options["max_epochs"] = self._whole("max_epochs")
        table, labels = self._labelled(X, y, reset=True)
        classes, first = np.unique(labels, return_index=True)
        if len(classes) < 2:
            raise DataError(
                f"y: found one class, {shown(classes.tolist()[0])}, in all {len(labels)} rows; "
                "expected two or more to learn from"
            )
        graph = self._graph_of(table, labels, classes, first)
        sizes = {name: options.pop(name) for name in ("hidden", "layers")}
        cama = build(graph, seed=seed, device=self.device, **sizes)
        PredictionOptions.checked("CAMAClassifier", cama.graph, None, **self._weighing())  # before the work
        expect_unknown("CAMAClassifier", self.unknown)
        cama.fit(table.assign(**{graph.target: labels}), **options)
        # in single precision the rows beside it would change a row's probabilities by 1e-7
        cama.modules.double()
        self.classes_, self.cama_ = classes, cama
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Returns p(y | x, a, c) by Bayes' rule, eq. 6, ``(rows, classes)``, in the order of ``classes_``.

        Under do(m=0) unless m has been learned: by ``interventions``, or by :meth:`adapt` where it kept a change.

        Raises:
            sklearn.exceptions.NotFittedError: call :meth:`fit` first.
            ValueError: X has other columns than at fit, or values that do not fit them.
        """
        check_is_fitted(self, "cama_")
        return self.cama_.predict_proba(self._rows(X), unknown=self.unknown, **self._weighing())

    def predict(self, X: Any) -> NDArray[Any]:
        """Returns the most probable label of every row, ``(rows,)``; raises what :meth:`predict_proba` does.

        None for a row without probabilities, since a reading is too far from the training rows for any; a warning
        counts them.
        """
        codes = most_probable(self.predict_proba(X))
        labels = np.asarray(self.classes_[codes.clip(0)])
        if (untold := codes < 0).any():
            labels = labels.astype(object)
            labels[untold] = None
            warnings.warn(
                f"found no probabilities for {rows_text(untold)}: readings are too far from the training rows; their "
                "label is None",
                UserWarning,
                stacklevel=caller_level(),
            )
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Returns the accuracy on labelled rows; a row without probabilities is a wrong one.

        Raises:
            ValueError: rows without a label.
        """
        labels = column_or_1d(y)
        if missing := int(pd.isna(labels).sum()):
            raise ValueError(f"score: found {missing} rows without a label in y; expected one in each: leave them out")
        predicted = self.predict(X)
        check_consistent_length(predicted, labels, sample_weight)
        return float(np.average(predicted == labels, weights=sample_weight))

    @property
    def adaptation_(self) -> Adaptation | None:
        """What the last :meth:`adapt` decided, and why; None of a model that was not adapted."""
        check_is_fitted(self, "cama_")
        return self.cama_.adaptation

    def adapt(self, X: Any, X_clean: Any = None, y_clean: Any = None, **options: Any) -> Self:
        """Adapts NN_pM and NN_qM to unlabelled rows from a changed world (eq. 8).

        Args:
            X: the new rows, ``(rows, n_features_in_)``.
            X_clean, y_clean: training rows and their labels, which have a part in scope row only.
            options: as :func:`pyro_cama.adaptation.adapt.adapt`; proportions in ``class_prior`` are those of
                ``classes_``.

        Returns:
            An adapted fitted copy, ``self`` untouched; ``copy.adaptation_`` says whether the change was kept, and
            why.  Where it was not, the copy predicts as ``self`` does.

        Raises:
            sklearn.exceptions.NotFittedError: call :meth:`fit` first.
            ValueError: X, the clean rows or an option does not fit.
        """
        check_is_fitted(self, "cama_")
        rows, clean = self._rows(X), None
        if (X_clean is None) != (y_clean is None):
            given = "y_clean" if X_clean is None else "X_clean"
            raise ValueError(f"adapt: found {given} alone; expected X_clean and its labels y_clean, or neither")
        if X_clean is not None:
            table, labels = self._labelled(X_clean, y_clean, reset=False)
            clean = table.assign(**{self.cama_.graph.target: labels})
        adapted = self.cama_.adapt(rows, clean, **{"progress": self.progress, "unknown": self.unknown, **options})
        twin: Self = clone(self)
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                setattr(twin, name, getattr(self, name))
        twin.cama_ = adapted
        return twin

    # inside ----------------------------------------------------------------------------------------------------------

    def _weighing(self) -> dict[str, Any]:
        """Returns the options of a prediction."""
        return {"power": self.power, "regime": self.regime}

    def _seed(self) -> int:
        source = check_random_state(self.random_state)  # refuses what is no seed
        given = self.random_state
        return int(given) if isinstance(given, Integral) else int(source.randint(2**31 - 1))

    def _whole(self, name: str) -> int:
        """Returns a parameter as Python's int: numpy's, from a search over a range, has no place in a saved model."""
        value = getattr(self, name)
        expect("CAMAClassifier", name, value, isinstance(value, Integral), "a whole number")
        return int(value)

    def _rows(self, X: Any) -> pd.DataFrame:
        """Returns X as a table, its columns those of the fit."""
        X = _framed(X)
        return self._table(validate_data(self, X, reset=False, **self._form(X)), self.cama_.graph.nodes)

    def _labelled(self, X: Any, y: Any, *, reset: bool) -> tuple[pd.DataFrame, NDArray[Any]]:
        """Returns X as a table and y as labels, none missing; ``reset`` takes the columns of X for those of the fit."""
        X = _framed(X)
        X, y = validate_data(self, X, y, reset=reset, **self._form(X))
        labels = column_or_1d(y, warn=True)
        if (missing := np.asarray(pd.isna(labels))).any():
            raise DataError(f"y: found no label in {rows_text(missing)}; label these rows, or leave them out")
        assert_all_finite(labels, input_name="y")
        check_consistent_length(X, labels)
        check_classification_targets(labels)
        return self._table(X, {} if reset else self.cama_.graph.nodes), labels

    def _form(self, X: Any) -> dict[str, Any]:
        """Returns how scikit-learn checks X: as numbers without a graph, else not, as the encoder knows its columns."""
        if self.graph is None and _holds_texts(X):
            return {"skip_check_array": True}  # but for its numbers, in _table
        if self.graph is None:
            return {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
        if not isinstance(X, pd.DataFrame):
            raise DataError(
                f"X: found a {type(X).__name__}; expected a DataFrame with the graph's columns by name "
                "(from a pipeline's earlier steps: set_output(transform='pandas'))"
            )
        return {"skip_check_array": True}

    def _table(self, X: Any, known: Mapping[str, Node]) -> pd.DataFrame:
        """Returns checked X under the names that the graph's nodes have.

        Args:
            known: nodes of the model that was fitted, none at fit.

        Raises:
            DataError: a column of texts is no category, or holds dates.
        """
        if self.graph is not None:
            return X
        if _holds_texts(X):
            return _by_type(X, known)
        named = getattr(self, "feature_names_in_", None)
        return pd.DataFrame(X, columns=[f"x{i}" for i in range(self.n_features_in_)] if named is None else list(named))

    def _graph_of(
        self, table: pd.DataFrame, labels: NDArray[Any], classes: NDArray[Any], first: NDArray[np.int64]
    ) -> CausalGraph:
        """Returns the graph, the target's levels those that ``labels`` hold, in the order of ``classes``.

        Args:
            first: a row of each class, ``(classes,)``.

        Raises:
            DataError: a column has fewer than two categories.
        """
        if self.graph is None:
            names = list(table.columns)
            known = {name: [*table[name].cat.categories] for name in names if _is_category(table[name])}
            if alone := [name for name, levels in known.items() if len(levels) < 2]:
                found = f"{len(known[alone[0]])} categories, {known[alone[0]]}"
                raise DataError(f"X: column {alone[0]!r}: found {found}; expected two or more: leave it out of X")
            return _all_children(names, classes.tolist(), known)
        graph = CausalGraph(self.graph)
        target = graph.nodes[graph.target]
        codes, _ = read_column(target, labels)
        levels = target.levels or ()
        raw = graph.to_dict()
        raw["nodes"][graph.target]["levels"] = [levels[code] for code in codes[first]]
        return CausalGraph(raw)

    # pickles ---------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        # as saved files: another machine's device is no obstacle then, and the copy's parameters get names of their own
        state = dict(super().__getstate__())
        if "cama_" in state:
            state["cama_"] = _packed(state["cama_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "cama_" in state:
            state = {**state, "cama_": _unpacked(state["cama_"], state["device"])}
        super().__setstate__(state)


def adapt_pipeline(pipeline: Pipeline, X: Any, X_clean: Any = None, y_clean: Any = None, **options: Any) -> Pipeline:
    """Adapts the classifier at the end of a fitted pipeline to unlabelled rows, as :meth:`CAMAClassifier.adapt` does.

    The steps before it stay as they were fitted: a scaler that learned the new rows would hide what happened to them.

    Args:
        pipeline: its last step a fitted :class:`CAMAClassifier`.
        X: the new rows, as the first step takes them.
        X_clean, y_clean: training rows, likewise, and their labels, which have a part in scope row only.
        options: of :func:`pyro_cama.adaptation.adapt.adapt`.

    Returns:
        A pipeline of the same steps and an adapted copy of the last one, whose ``adaptation_`` is the verdict.

    Raises:
        TypeError: the last step is no :class:`CAMAClassifier`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> X, y = load_iris(return_X_y=True)
        >>> model = make_pipeline(StandardScaler(), CAMAClassifier(max_epochs=20, device="cpu")).fit(X, y)
        >>> adapted = adapt_pipeline(model, X + [3.0, 0.0, 0.0, 0.0])
        >>> adapted[-1].adaptation_.accepted
        True
    """
    name, model = pipeline.steps[-1]
    if not isinstance(model, CAMAClassifier):
        raise TypeError(f"adapt_pipeline: found a {type(model).__name__} as last step; expected a CAMAClassifier")
    before = pipeline[:-1] if len(pipeline.steps) > 1 else None

    def seen(rows: Any) -> Any:
        return rows if rows is None or before is None else before.transform(rows)

    twin = model.adapt(seen(X), seen(X_clean), y_clean, **options)
    return Pipeline([*pipeline.steps[:-1], (name, twin)], memory=pipeline.memory, verbose=pipeline.verbose)


def _expect_nothing(options: Mapping[str, Any]) -> None:
    """Refuses what fit does not take; None stands for nothing, as scikit-learn's own callers pass it."""
    given = [name for name, value in options.items() if value is not None or name != "sample_weight"]
    if "sample_weight" in given:
        raise TypeError(
            "CAMAClassifier.fit: found sample_weight; the model says how rows come about, and has no weights for them. "
            "Repeat rows in proportion to theirs, X.loc[X.index.repeat(weights)], or draw them so; for other "
            "proportions of the classes, fit as they are and predict with cama_.predict_proba(X, class_prior=...)"
        )
    if given:
        raise TypeError(
            f"CAMAClassifier.fit: found {given[0]!r}; expected X and y alone, options go to the constructor"
        )


def _framed(X: Any) -> Any:
    """Returns a table of polars, pyarrow or another library as a DataFrame, all else as it is."""
    if isinstance(X, pd.DataFrame) or not hasattr(X, "__arrow_c_stream__"):
        return X
    columns = arrow_columns(X)
    return pd.DataFrame({name: [*column] if column.ndim > 1 else column for name, column in columns.items()})


def _is_category(column: pd.Series[Any]) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype)


def _holds_texts(X: Any) -> bool:
    """Whether X is a DataFrame with columns that are no numbers: categories, or texts."""
    return isinstance(X, pd.DataFrame) and any(
        not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)) for kind in X.dtypes
    )


def _by_type(X: pd.DataFrame, known: Mapping[str, Node]) -> pd.DataFrame:
    """Returns X with numbers as scikit-learn checks them, and categories as plain levels.

    Args:
        known: the nodes of a model that was fitted; a categorical one's column may be of any dtype.

    Raises:
        DataError: a column of texts that is no category, or one of dates.
    """
    table = X.copy()
    table.columns = pd.Index([str(name) for name in X.columns])
    for name in table.columns:
        column = table[name]
        if _is_category(column):
            table[name] = column.cat.rename_categories([_level(level) for level in column.cat.categories])
        elif not (name in known and known[name].levels):
            if pd.api.types.is_datetime64_any_dtype(column.dtype):
                raise DataError(
                    f"X: column {name!r}: found dates; expected numbers: leave it out, or take of it what may matter, "
                    f"such as X[{name!r}].dt.dayofyear"
                )
            texts = column.map(lambda entry: isinstance(entry, str)).to_numpy(dtype=bool)
            if texts.any():
                raise DataError(
                    f"X: column {name!r}: found {shown(column[texts].iloc[0])} in {rows_text(texts)}; expected "
                    f"numbers, or dtype 'category': X.astype({{{name!r}: 'category'}}) makes its texts levels"
                )
            table[name] = check_array(
                column.to_frame(), dtype=np.float64, ensure_all_finite="allow-nan", input_name="X"
            )[:, 0]
    return table


def _level(level: Any) -> Any:
    """A category as a graph names it: numbers and texts as they are, intervals and the like as text."""
    level = level.item() if isinstance(level, np.generic) else level
    return level if isinstance(level, str | int | float | bool) else str(level)


def _all_children(
    columns: list[str], classes: list[Any], levels: Mapping[str, Sequence[Any]] | None = None
) -> CausalGraph:
    """Returns the graph of a target that causes every column, under one manipulation a batch.

    Args:
        levels: of those that are categorical.

    >>> _all_children(["z", "pulse"], ["ill", "well"])
    <CausalGraph: target 'target'; parents none; children 'z', 'pulse'; coparents none; latents 'z_', 'm'>
    """

    def free(name: str) -> str:
        return free(name + "_") if name in columns else name

    target, z, m = free("target"), free("z"), free("m")
    label = "binary" if isinstance(classes[0], bool) else "categorical"
    latents: dict[str, Any] = {"z": None, "m": None}  # dropped where a column has taken the name
    latents |= {z: {}, m: {"manipulation": True, "scope": "dataset"}}
    return CausalGraph(
        {
            "target": target,
            "nodes": {
                target: {"type": label, "levels": classes},
                **dict.fromkeys(columns, "continuous"),
                **{name: {"type": "categorical", "levels": [*found]} for name, found in (levels or {}).items()},
            },
            "edges": [[target, name] for name in columns],
            "latents": latents,
        }
    )


def _packed(cama: CAMA) -> dict[str, bytes]:
    """Returns the files of a saved model, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = cama.save(Path(folder) / "model")
        return {name: (path / name).read_bytes() for name in FILES}


def _unpacked(files: Mapping[str, bytes], device: str | torch.device) -> CAMA:
    """Reads the model of :func:`_packed`."""
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            (Path(folder) / name).write_bytes(files[name])
        return load(folder, device=device)
