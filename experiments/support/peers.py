"""Other ways to a label on rows from elsewhere, with the same rows to adapt on as CAMA has.

source = Source(pair)
labels = PEERS["skada_coral"](source, seed, adapt, score)

Every peer sees the training rows, unlabelled rows to adapt on, and rows to label.  It chooses what it can on the
training rows by cross-validation (the net's shape, the logistic regression's penalty, which skada's, condo's and
ComBat's classifier take over); all else is its package's or paper's default, since no labelled row from elsewhere
is there to choose by.  Categories are one-hot, a missing value is the median of its batch.

- `net`, and its adaptations (:mod:`support.baselines`): statistics, Tent, SHOT-IM, Deep CORAL.
- `logistic`, `boosting`: as they are; `_standardised`: every batch by its own means and deviations;
  `_quantiles`: every column of every batch by its own ranks; `_em`: as they are, then other class proportions, found
  by EM (Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
  2002).
- skada, on columns standardised by the training rows, or (CORAL, subspace alignment, JDOT, DANN) by every batch, at
  most 1,000 rows of a side.  Gnassounou et al., "SKADA-Bench", 2024.
- `condo`: a location and scale of each measurement, given what causes them beside the target (the first of it), if
  anything does.  McCarter, "Towards backwards-compatible data with confounded domain
  adaptation", 2024.
- `combat`: neuroCombat, without the class among its covariates, which new rows lack.  It knows no rows but those it
  was fitted on, and so sees those to be scored (unlabelled) as well.  Johnson, Li and Rabinovic, 2007.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from sklearn import config_context
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn

from support.baselines import DiscriminativeNet, Encoding
from support.drift_pairs import Pair

MOST = 1000  # rows of a side for methods whose cost grows with the square
FEW_ROWS = 10  # of a kind, below which condo does not look at it by itself
Array = np.ndarray


class Source:
    """What all peers share of a pair: the training rows as numbers, and what is learnt from them alone, once.

    Attributes:
        labels: the classes, sorted; y: their codes in the training rows.
        x: the training rows, missing values filled; columns that do not vary are left out.
        columns: the name that each column of `x` comes from.
    """

    def __init__(self, pair: Pair, max_epochs: int = 150) -> None:
        self.pair, self.max_epochs = pair, max_epochs
        self.encoding = Encoding(pair.train.drop(columns=pair.target))
        values = self.encoding(pair.train)
        self.medians = _medians(values)
        filled = np.where(np.isnan(values), self.medians, values)
        self.varies = filled.std(axis=0) > 0
        names = [
            name for name, levels in self.encoding.levels.items() for _ in (["a number"] if levels is None else levels)
        ]
        self.columns = np.array(names)[self.varies]
        self.x = filled[:, self.varies]
        self.labels, self.y = np.unique(pair.train[pair.target].to_numpy(str), return_inverse=True)
        self.proportions = np.bincount(self.y) / len(self.y)
        self._fitted: dict[Any, Any] = {}

    def filled(self, frame: pd.DataFrame, batch: pd.DataFrame | None = None) -> Array:
        """Rows as numbers; what is missing is the median of `batch`, or the training rows' where that has none."""
        medians, x = self.medians, self.encoding(frame)
        if batch is not None:
            own = _medians(self.encoding(batch))
            medians = np.where(np.isnan(own), medians, own)
        return np.where(np.isnan(x), medians, x)[:, self.varies]

    def once(self, name: str, make: Callable[[], Any], seed: int | None = None) -> Any:
        """What `make` returns, made when it is first asked for."""
        if (name, seed) not in self._fitted:
            self._fitted[name, seed] = make()
        return self._fitted[name, seed]

    def net(self, seed: int) -> DiscriminativeNet:
        """The tuned net."""
        pair = self.pair
        return self.once(
            "net", lambda: DiscriminativeNet(seed, max_epochs=self.max_epochs).fit(pair.train, pair.target), seed
        )

    def penalty(self) -> float:
        """C of the logistic regression, by cross-validated log-loss on standardised training rows."""

        def tuned() -> float:
            folds = StratifiedKFold(max(2, min(5, int(np.bincount(self.y).min()))), shuffle=True, random_state=0)
            search = GridSearchCV(
                LogisticRegression(max_iter=2000), {"C": np.logspace(-3, 2, 6)}, cv=folds, scoring="neg_log_loss"
            )
            return float(search.fit(standardised(self.x, self.x), self.y).best_params_["C"])

        return self.once("penalty", tuned)

    def logistic(self) -> LogisticRegression:
        """An untrained logistic regression with that penalty."""
        return LogisticRegression(C=self.penalty(), max_iter=2000)


Peer = Callable[[Source, int, pd.DataFrame, pd.DataFrame], Array]
"""Labels of rows, given a seed, unlabelled rows to adapt on, and these rows."""


def _medians(x: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without a value
        return np.nanmedian(x, axis=0)


def standardised(x: Array, by: Array) -> Array:
    """Columns by the means and deviations of others; one that is constant there is only centred."""
    sd = by.std(axis=0)
    return (x - by.mean(axis=0)) / np.where(sd > 0, sd, 1.0)


def quantiles(x: Array, by: Array) -> Array:
    """Columns as normal quantiles of their ranks among the rows of `by`.

    >>> quantiles(np.array([[2.0], [9.0]]), np.array([[1.0], [2.0], [3.0]])).round(2).tolist()
    [[0.0], [1.15]]
    """
    below, upto = (
        np.stack([np.searchsorted(np.sort(b), column, side) for column, b in zip(x.T, by.T, strict=True)], axis=1)
        for side in ("left", "right")
    )
    return norm.ppf(((below + upto) / 2 + 0.5) / (len(by) + 1))


def shifted_proportions(proba: Array, train: Array, steps: int = 500) -> Array:
    """Class proportions of rows, from their probabilities under the training ones.  Saerens et al. 2002.

    >>> shifted_proportions(np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]]), np.array([0.5, 0.5])).round(1)
    array([0.8, 0.2])
    """
    found = train
    for _ in range(steps):
        weighted = proba * (found / train)
        weighted /= weighted.sum(axis=1, keepdims=True)
        found = weighted.mean(axis=0)
    return found


# classifiers that were trained, and other columns ---------------------------------------------------------------------


def _net(adapt_by: str, source: Source, seed: int, adapt: pd.DataFrame, score: pd.DataFrame) -> Array:
    net = source.net(seed)
    return (getattr(net, adapt_by)(adapt) if adapt_by else net).predict(score)


Columns = Callable[[Array, Array], Array]


def _by_columns(
    kind: str, columns: Columns | None, em: bool, source: Source, seed: int, adapt: pd.DataFrame, score: pd.DataFrame
) -> Array:
    """Trained on the training rows' columns by themselves, used on new rows' columns by the new rows'.

    None for `columns` standardises all by the training rows.
    """
    own = columns is not None
    transform = columns or standardised
    batch = source.filled(adapt, adapt if own else None)
    by = batch if own else source.x
    seen, new = (transform(rows, by) for rows in (batch, source.filled(score, adapt if own else None)))

    def fit() -> Any:
        model = source.logistic() if kind == "logistic" else HistGradientBoostingClassifier(random_state=0)
        return model.fit(transform(source.x, source.x), source.y)

    model = source.once(f"{kind}, {transform.__name__}", fit)
    proba = model.predict_proba(new)
    if em:
        found = shifted_proportions(model.predict_proba(seen), source.proportions)
        proba = proba * found / source.proportions
    return source.labels[proba.argmax(axis=1)]


# packages -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def package(name: str) -> Iterator[None]:
    """Quiet, with scikit-learn's settings as skada wants them, and as they were afterwards.

    Raises:
        ImportError: the package is not installed; names the extra.
    """
    with config_context(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(name)  # skada switches metadata routing on for the whole process
        except ImportError as error:
            raise ImportError(f"this peer needs {name}, which is not installed: pip install '.[peers]'") from error
        with config_context(enable_metadata_routing=True):
            yield


def _domains(
    source: Source, seed: int, adapt: pd.DataFrame, score: pd.DataFrame, each: bool, most: int = MOST
) -> tuple[Array, Array, Array, Array]:
    """Rows, codes and domains as skada takes them, and the rows to score.

    Training rows are domain 1, new ones domain -2, whose labels are -1; at most so many of either, drawn.  Columns are
    standardised by the training rows, or each batch by itself.
    """
    rng = np.random.default_rng(seed)
    few, seen = (np.sort(rng.permutation(rows)[:most]) for rows in (len(source.x), len(adapt)))
    batch = source.filled(adapt, adapt)
    by = batch if each else source.x
    x, new = standardised(source.x, source.x)[few], standardised(batch, by)[seen]
    y = np.concatenate([source.y[few], np.full(len(new), -1)])
    domain = np.concatenate([np.ones(len(x), int), np.full(len(new), -2)])
    return np.concatenate([x, new]), y, domain, standardised(source.filled(score, adapt), by)


Make = Callable[[Source, int], Any]
"""A pipeline of skada's, given how many rows the smaller side has."""


def _skada(make: Make, each: bool, source: Source, seed: int, adapt: pd.DataFrame, score: pd.DataFrame) -> Array:
    x, y, domain, scored = _domains(source, seed, adapt, score, each)
    source.penalty()  # tuned under scikit-learn's own settings
    with package("skada"):
        model = make(source, int(min((domain > 0).sum(), (domain < 0).sum())))
        model.fit(x, y, sample_domain=domain)  # not chained: JDOTClassifier.fit returns None
        codes = model.predict(scored, sample_domain=np.full(len(scored), -2))
    return source.labels[np.asarray(codes, int)]


def _adapter(name: str, **options: Any) -> Make:
    def make(source: Source, rows: int) -> Any:
        import skada

        return skada.make_da_pipeline(getattr(skada, name)(**options), source.logistic())

    return make


def _subspace(source: Source, rows: int) -> Any:
    import skada

    # the default keeps more components than the smaller side may have
    adapter = skada.SubspaceAlignmentAdapter(n_components=min(rows, source.x.shape[1]), random_state=0)
    return skada.make_da_pipeline(adapter, source.logistic())


def _kmm(source: Source, rows: int) -> Any:
    import skada

    return skada.make_da_pipeline(skada.KMMReweightAdapter(), source.logistic().set_fit_request(sample_weight=True))


class _NeverCertain(LogisticRegression):
    """No probability is 0, whose logarithm would make JDOT's costs NaN."""

    def predict_log_proba(self, X: Array) -> Array:
        return np.log(self.predict_proba(X).clip(1e-12))


def _jdot(source: Source, rows: int) -> Any:
    import skada

    model = _NeverCertain(C=source.penalty(), max_iter=2000).set_fit_request(sample_weight=True)
    return skada.JDOTClassifier(model, n_iter_max=10)


class Perceptron(nn.Module):
    """The net's shape, with a name for what its head sees."""

    def __init__(self, inputs: int, hidden: list[int], classes: int, dropout: float) -> None:
        super().__init__()
        layers = [
            part for i, o in pairwise([inputs, *hidden]) for part in (nn.Linear(i, o), nn.ReLU(), nn.Dropout(dropout))
        ]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(hidden[-1], classes)

    def forward(self, x: torch.Tensor, sample_weight: object = None) -> torch.Tensor:
        return self.head(self.features(x))


def _dann(source: Source, seed: int, adapt: pd.DataFrame, score: pd.DataFrame) -> Array:
    """DANN on the shape and dropout that suit the training rows, 400 steps."""
    x, y, domain, scored = _domains(source, seed, adapt, score, each=True, most=2 * MOST)
    tuned, size, steps = source.net(seed).tuned, 64, 400
    with package("skada.deep"), torch.random.fork_rng(devices=[]):
        from skada.deep import DANN

        torch.manual_seed(seed)
        batches = max((domain > 0).sum(), (domain < 0).sum()) / size
        net = DANN(
            Perceptron(x.shape[1], tuned["hidden"], len(source.labels), tuned["dropout"]),
            layer_name="features", num_features=tuned["hidden"][-1], train_split=None, verbose=0, batch_size=2 * size,
            max_epochs=math.ceil(steps / max(batches, 1)), optimizer=torch.optim.Adam, optimizer__lr=1e-3,
        )  # fmt: skip
        net.fit(x.astype(np.float32), y, sample_domain=domain)
        codes = net.predict(scored.astype(np.float32), sample_domain=np.full(len(scored), -2))
    return source.labels[np.asarray(codes, int)]


def _condo(source: Source, seed: int, adapt: pd.DataFrame, score: pd.DataFrame) -> Array:
    """New rows' measurements moved to where the training rows' are, given the first of what else causes them."""
    batch = source.filled(adapt, adapt)
    moved = np.isin(source.columns, source.pair.graph.blanket.children)
    x, seen, new = (standardised(rows, source.x) for rows in (source.x, batch, source.filled(score, adapt)))
    with package("condo"):
        import condo

        kinds = [_high(source, of, batch) for of in (batch, source.x)]
        adapter = condo.ConDoAdapterKLD(transform_type="location-scale", verbose=0)
        # its offset is right only where the kinds' weighted means are 0 (version 1.1.0; findings/condo_offset.sh)
        here, there = (_centre(rows[:, moved], kind, kinds) for rows, kind in zip((seen, x), kinds, strict=True))
        adapter.fit(seen[:, moved] - here, x[:, moved] - there, kinds[0][:, None], kinds[1][:, None])
        new[:, moved] = adapter.transform(new[:, moved] - here) + there
    model = source.once("logistic, standardised", lambda: source.logistic().fit(x, source.y))
    return source.labels[model.predict(new)]


def _high(source: Source, rows: Array, batch: Array) -> Array:
    """Whether the first cause beside the target is above its median over both batches, as text.

    All are alike where nothing else causes anything, or a batch has few rows of a kind.
    """
    causes = [i for i, name in enumerate(source.columns) if name not in source.pair.graph.blanket.children]
    if causes:
        median = np.median(np.concatenate([source.x, batch])[:, causes[0]])
        above = [of[:, causes[0]] > median for of in (source.x, batch)]
        if all(min(high.sum(), (~high).sum()) >= FEW_ROWS for high in above):
            return np.where(rows[:, causes[0]] > median, "high", "low")
    return np.full(len(rows), "alike")


def _centre(x: Array, kind: Array, kinds: list[Array]) -> Array:
    """Mean over kinds of their means, weighted as condo does: by the root of the product of their shares."""
    levels = np.unique(kind)
    weights = np.array([np.sqrt(np.prod([(of == level).mean() for of in kinds])) for level in levels])
    return np.stack([x[kind == level].mean(axis=0) for level in levels], axis=1) @ (weights / weights.sum())


def _combat(source: Source, seed: int, adapt: pd.DataFrame, score: pd.DataFrame) -> Array:
    batch = pd.concat([adapt, score])
    new = source.filled(batch, batch)
    with package("neuroCombat"):
        from neuroCombat import neuroCombat

        sites = pd.DataFrame({"batch": np.repeat([0, 1], [len(source.x), len(new)])})
        both = neuroCombat(dat=np.concatenate([source.x, new]).T, covars=sites, batch_col="batch")["data"].T
    x, found = both[: len(source.x)], both[len(source.x) :]
    model = source.logistic().fit(standardised(x, x), source.y)
    return source.labels[model.predict(standardised(found[len(adapt) :], x))]


# the list -------------------------------------------------------------------------------------------------------------


NETS = {
    "net": "", "net_adapted": "adapt_norm", "tent": "adapt_tent", "shot_im": "adapt_shot_im", "coral": "adapt_coral",
}  # fmt: skip
PEERS: dict[str, Peer] = {
    **{name: partial(_net, adapt_by) for name, adapt_by in NETS.items()},
    **{
        f"{kind}{suffix}": partial(_by_columns, kind, columns, suffix == "_em")
        for kind in ("logistic", "boosting")
        for suffix, columns in (("", None), ("_standardised", standardised), ("_quantiles", quantiles), ("_em", None))
    },
    "skada_coral": partial(_skada, _adapter("CORALAdapter"), True),
    # one-hot columns and doubles make covariances singular, for which the default of 1e-8 is too little
    "skada_linear_ot": partial(_skada, _adapter("LinearOTMappingAdapter", reg=1e-3), False),
    "skada_class_ot": partial(_skada, _adapter("ClassRegularizerOTMappingAdapter"), False),
    "skada_subspace": partial(_skada, _subspace, True),
    "skada_kmm": partial(_skada, _kmm, False),
    "skada_jdot": partial(_skada, _jdot, True),
    "skada_dann": _dann,
    "condo": _condo,
    "combat": _combat,
}
OF_EXTRA = tuple(name for name in PEERS if name.startswith(("skada", "condo", "combat")))
SEEDS = dict.fromkeys(NETS, 3) | {"skada_jdot": 3, "skada_dann": 2}  # how many a slow method gets
NOT_ADAPTED = ("net", "logistic", "boosting")
TRANSDUCTIVE = ("combat",)  # sees the rows it is scored on, without labels
