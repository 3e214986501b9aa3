"""Pairs of tables, labelled in both, between which nobody made the shift: other months, places, species, units.

pair = drift_pairs.pair("crabs_blue_orange")
pair.train, pair.new, pair.target, pair.graph

The list was fixed before anything was run on it.  A pair is a task that its field has, the target the cause of its
measurements, with a variable (time, place, instrument, people) that divides the rows.  Both directions count, except
where time has but one.  `made` marks those whose shift we made ourselves, as controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pyro_cama import CausalGraph, datasets
from pyro_cama._arguments import expect
from support import image_data
from support.drift import Swapped, Unit, load_table, split
from support.drift_sources import ROWS, gas_sensors, heart_disease, rdataset, small_mnist

GRAPHS = Path(__file__).parents[2] / "graphs" / "real_drift"
Frames = tuple[pd.DataFrame, pd.DataFrame]


@dataclass(frozen=True)
class Pair:
    """Rows to learn from, and rows from elsewhere.

    Attributes:
        train, new: the columns of the graph, the target among them in both.
        graph: one that people of the field would defend; its target is what is to be predicted.
        source: where the rows come from, and under which licence.
        protocol: "disjoint" adapts on one half of the new rows and scores the other, and the other way round;
            "transductive" adapts on all and scores all, as is usual for gas sensors.
        made: whether we made the shift.
    """

    name: str
    train: pd.DataFrame
    new: pd.DataFrame
    graph: CausalGraph
    source: str
    protocol: str = "disjoint"
    made: bool = False

    @property
    def target(self) -> str:
        """The column to predict."""
        return self.graph.target


@dataclass(frozen=True)
class Recipe:
    """How a pair is made of a folder with data files, or of none."""

    frames: Callable[[Path | None], Frames]
    graph: str
    source: str
    protocol: str = "disjoint"
    made: bool = False


def pairs(names: Iterable[str] | None = None, data_dir: Path | str | None = None) -> dict[str, Pair]:
    """Pairs by name; None are all of `PAIRS`."""
    return {name: pair(name, data_dir) for name in (PAIRS if names is None else names)}


def pair(name: str, data_dir: Path | str | None = None) -> Pair:
    """A pair by its name, one of `PAIRS`.

    Args:
        data_dir: the folder that holds `real/` and `MNIST/`; None takes the one that ``PYRO_CAMA_DATA`` names, or
            downloads to :func:`image_data.cache`.

    Raises:
        ValueError: there is none of this name, or its data are not there, cannot be read, or are others.
        ImportError: its data come with a package of the extra `peers`.

    >>> pair("made_scales").made
    True
    """
    expect("pair", "name", name, name in PAIRS, f"one of {', '.join(PAIRS)}")
    recipe = PAIRS[name]
    train, new = recipe.frames(image_data.folder(data_dir))
    graph = graph_of(recipe.graph)
    most = None if recipe.protocol == "transductive" else ROWS
    train, new = (_usable(frame, graph, most) for frame in (train, new))
    return Pair(name, train, new, graph, recipe.source, recipe.protocol, recipe.made)


def graph_of(name: str) -> CausalGraph:
    """A graph of `graphs/real_drift`, or one of the package's."""
    return datasets.graph(name) if name in datasets.GRAPHS else CausalGraph(GRAPHS / f"{name}.yaml")


def _usable(frame: pd.DataFrame, graph: CausalGraph, most: int | None) -> pd.DataFrame:
    """The graph's columns, of rows whose target is known and of which something is measured."""
    known = frame[graph.target].notna() & frame[list(graph.blanket.children)].notna().any(axis=1)
    frame = frame.loc[known, list(graph.order)].infer_objects()
    if most is not None and len(frame) > most:
        frame = frame.sample(most, random_state=0).sort_index()
    return frame.reset_index(drop=True)


# tables -----------------------------------------------------------------------------------------------------------


SEX = {"F": "female", "f": "female", "M": "male", "m": "male", "Female": "female", "Male": "male"}
SEX |= {"female": "female", "male": "male"}


def _crabs(folder: Path | None) -> pd.DataFrame:
    table = rdataset("MASS", "crabs")
    return table.assign(sex=table["sex"].map(SEX))


def _adults() -> pd.DataFrame:
    table = rdataset("openintro", "bdims")
    return table.assign(sex=table["sex"].map({0: "female", 1: "male"}))


def _sex_by_stature(folder: Path | None) -> Frames:
    """Adults in centimetres, teenagers in metres."""
    teenagers = rdataset("openintro", "yrbss").rename(columns={"gender": "sex"}).dropna(subset=["height", "weight"])
    return _adults().rename(columns={"hgt": "height", "wgt": "weight"}), teenagers


def _stature_of_adults(folder: Path | None) -> Frames:
    """Centimetres and kilograms, measured; inches and pounds, reported."""
    measured, reported = rdataset("carData", "Davis"), rdataset("Stat2Data", "Pulse")
    reported = reported.rename(columns={"Hgt": "height", "Wgt": "weight"})
    return (
        measured.assign(sex=measured["sex"].map(SEX)),
        reported.assign(sex=reported["Sex"].map({0: "male", 1: "female"})),
    )


def _penguins(folder: Path | None) -> pd.DataFrame:
    return rdataset("palmerpenguins", "penguins")


def _olives(folder: Path | None) -> pd.DataFrame:
    return rdataset("dslabs", "olive")


def _hawks(folder: Path | None) -> pd.DataFrame:
    names = {"CH": "Coopers", "RT": "Red-tailed", "SS": "Sharp-shinned"}
    table = rdataset("Stat2Data", "Hawks").rename(columns=str.lower)
    return table.assign(species=table["species"].map(names))


def _possums(folder: Path | None) -> pd.DataFrame:
    table = rdataset("DAAG", "possum")
    names = {
        "hdlngth": "head_length", "skullw": "skull_width", "totlngth": "total_length", "taill": "tail_length",
        "footlgth": "foot_length", "earconch": "ear_conch",
    }  # fmt: skip
    return table.rename(columns=names).assign(sex=table["sex"].map(SEX))


def _athletes(folder: Path | None) -> pd.DataFrame:
    table = rdataset("DAAG", "ais")
    names = {
        "rcc": "red_cells", "wcc": "white_cells", "hc": "hematocrit", "hg": "hemoglobin", "ferr": "ferritin",
        "ssf": "skin_folds", "lbm": "lean_mass", "ht": "height", "wt": "weight",
    }  # fmt: skip
    return table.rename(columns=names).assign(sex=table["sex"].map(SEX))


def _biopsies(folder: Path | None) -> pd.DataFrame:
    """In the order in which they came: the first 367 are those of January 1989."""
    table = rdataset("MASS", "biopsy").rename(columns={"class": "lump"})
    names = ("clump_thickness", "cell_size", "cell_shape", "adhesion", "epithelial_size", "bare_nuclei", "chromatin",
             "nucleoli", "mitoses")  # fmt: skip
    table = table.rename(columns={f"V{i}": name for i, name in enumerate(names, 1)})
    return table.assign(first=np.arange(len(table)) < 367)


def _leaves(folder: Path | None) -> pd.DataFrame:
    table = rdataset("DAAG", "leafshape").rename(columns={"bladelen": "blade_length", "bladewid": "blade_width"})
    return table.assign(architecture=table["arch"].map({0: "plagiotropic", 1: "orthotropic"}))


def _cars(folder: Path | None) -> pd.DataFrame:
    table = rdataset("ISLR", "Auto")
    return table.assign(origin=table["origin"].map({1: "America", 2: "Europe", 3: "Japan"}))


def _hands(folder: Path | None) -> pd.DataFrame:
    names = {"Wr.Hnd": "writing_hand", "NW.Hnd": "other_hand", "Height": "height", "Pulse": "pulse"}
    table = rdataset("MASS", "survey")
    return table.rename(columns=names).assign(sex=table["Sex"].map(SEX))


def _cirrhosis(folder: Path | None) -> pd.DataFrame:
    table = rdataset("survival", "pbc")
    names = {"bili": "bilirubin", "platelet": "platelets", "protime": "prothrombin"}
    stage = table["stage"].map({1: "before", 2: "before", 3: "before", 4: "cirrhosis"})
    return table.rename(columns=names).assign(stage=stage, trial=table["trt"].notna())


def _personality(folder: Path | None) -> pd.DataFrame:
    table = rdataset("psych", "bfi")
    return table.assign(gender=table["gender"].map({1: "male", 2: "female"}))


def _earnings(folder: Path | None) -> pd.DataFrame:
    return rdataset("AER", "CPSSW9204")


def _births(folder: Path | None) -> Frames:
    frames = [
        table.rename(columns={"mage": "mother_age", sex: "child"}).assign(
            birth=table["premie"].map({"premie": "early", "full term": "full_term"})
        )
        for table, sex in ((rdataset("openintro", "ncbirths"), "gender"), (rdataset("openintro", "births14"), "sex"))
    ]
    return frames[0], frames[1]


def _cognition(folder: Path | None) -> pd.DataFrame:
    table = rdataset("heplots", "NeuroCog")
    return table.assign(group=np.where(table["Dx"] == "Control", "control", "patient"))


def _digits(folder: Path | None) -> pd.DataFrame:
    return load_table("digits")[0]


# shifts that we made ----------------------------------------------------------------------------------------------


def _monotone(folder: Path | None) -> Frames:
    """Half of the columns of the second half of the rows through a smooth increasing map each."""
    train, new = split(_adults(), "sex", seed=0)
    columns = [name for name in new.columns if name not in ("sex", "age")]
    rng = np.random.default_rng(0)
    moved = rng.permutation(columns)[: len(columns) // 2]
    power = rng.choice([-1, 1], len(moved)) * rng.uniform(0.7, 1.2, len(moved))

    def bent(column: pd.Series, power: float) -> pd.Series:
        """From the training range onto itself, steep at one end and flat at the other."""
        low, high = train[column.name].min(), train[column.name].max()
        return low + (high - low) * np.expm1(power * 2 * (column - low) / (high - low)) / np.expm1(power * 2)

    return train, new.assign(**{name: bent(new[name], p) for name, p in zip(moved, power, strict=True)})


def _scales(folder: Path | None) -> Frames:
    """Three columns of the second half of the rows times ten, and one read from its other end."""
    train, new = split(*load_table("breast_cancer"), seed=0)
    columns = [name for name in new.columns if name != "diagnosis"]
    new, moved = Unit(10.0, 0.1).apply(new, train, columns, seed=0)
    assert len(moved) == 3
    return train, Swapped(0.0).apply(new, train, [name for name in columns if name not in moved], seed=0)[0]


# the list ---------------------------------------------------------------------------------------------------------


Table = Callable[[Path | None], pd.DataFrame]
Where = Callable[[pd.DataFrame], pd.Series]


def _between(table: Table, train: Where, new: Where | None = None) -> Callable[[Path | None], Frames]:
    """Two parts of one table; the second is all others if it is not given."""

    def frames(folder: Path | None) -> Frames:
        rows = table(folder)
        first = train(rows)
        return rows[first], rows[~first if new is None else new(rows)]

    return frames


def _both_ways(
    what: str, one: str, other: str, frames: Callable[[Path | None], Frames], graph: str, source: str
) -> dict[str, Recipe]:
    return {
        f"{what}_{one}_{other}": Recipe(frames, graph, source),
        f"{what}_{other}_{one}": Recipe(lambda folder: frames(folder)[::-1], graph, source),
    }


def _species(name: str) -> Where:
    return lambda rows: rows["species"] == name


def _batch(number: int) -> Where:
    return lambda rows: rows["batch"] == number


def _year(low: int, high: int) -> Where:
    return lambda rows: rows["year"].between(low, high)


_GAS = "Vergara et al. 2012, UCI, CC BY 4.0, doi 10.24432/C5RP6W"
_HEART = "Detrano et al. 1989, UCI, CC BY 4.0, doi 10.24432/C52P4X"
_DIGITS = "optdigits, Alpaydin and Kaynak 1998, UCI, CC BY 4.0; MNIST, LeCun et al. 1998, CC BY-SA 3.0"
_CRABS = "Campbell and Mahon 1974; MASS, GPL-2 or GPL-3"
_BDIMS = "Heinz et al. 2003; openintro, GPL-3"
_PENGUINS = "Gorman, Williams and Fraser 2014; palmerpenguins, CC0"
OLIVES = ("South-Apulia", "Inland-Sardinia", "Umbria")
WATER = ("Row", "Swim", "W_Polo")
TROPICS = ("Sabah", "Panama", "Costa Rica")

PAIRS: dict[str, Recipe] = {
    **{
        f"gas_1_{batch}": Recipe(
            _between(gas_sensors, _batch(1), _batch(batch)),
            "gas_sensors", _GAS, protocol="transductive",
        )
        for batch in (2, 3, 4, 6)
    },
    **_both_ways(
        "heart", "cleveland", "hungary", _between(heart_disease, lambda rows: rows["site"] == "cleveland"),
        "heart_disease", _HEART,
    ),
    "digits_optdigits_mnist": Recipe(lambda folder: (_digits(folder), small_mnist(folder)[1]), "digits", _DIGITS),
    "digits_mnist_optdigits": Recipe(lambda folder: (small_mnist(folder)[0], _digits(folder)), "digits", _DIGITS),
    **_both_ways("crabs", "blue", "orange", _between(_crabs, lambda rows: rows["sp"] == "B"), "crabs", _CRABS),
    **_both_ways(
        "stature", "adults", "teenagers", _sex_by_stature, "stature",
        f"{_BDIMS}; Youth Risk Behavior Surveillance System, CDC, public domain",
    ),
    **_both_ways(
        "stature", "metric", "imperial", _stature_of_adults, "stature_of_adults",
        "Davis 1990, carData, GPL-2 or later; Stat2Data, GPL-3",
    ),
    **_both_ways(
        "penguins", "adelie", "gentoo", _between(_penguins, _species("Adelie"), _species("Gentoo")), "penguins_sex",
        _PENGUINS,
    ),
    "penguins_2007_2009": Recipe(
        _between(_penguins, _year(2007, 2007), _year(2009, 2009)), "penguins_species", _PENGUINS
    ),
    **_both_ways(
        "olives", "one", "others", _between(_olives, lambda rows: rows["area"].isin(OLIVES)), "olives",
        "Forina et al. 1983; dslabs, Artistic-2.0",
    ),
    **_both_ways(
        "hawks", "immature", "adult", _between(_hawks, lambda rows: rows["age"] == "I"), "hawks",
        "Black and Cannon; Stat2Data, GPL-3",
    ),
    **_both_ways(
        "possums", "victoria", "north", _between(_possums, lambda rows: rows["Pop"] == "Vic"), "possums",
        "Lindenmayer et al. 1995; DAAG, GPL-3",
    ),
    **_both_ways(
        "athletes", "water", "land", _between(_athletes, lambda rows: rows["sport"].isin(WATER)), "athletes",
        "Cook and Weisberg 1994; DAAG, GPL-3",
    ),
    "biopsies_first_later": Recipe(
        _between(_biopsies, lambda rows: rows["first"]), "biopsies",
        "Wolberg and Mangasarian 1990, UCI; MASS, GPL-2 or GPL-3",
    ),
    **_both_ways(
        "leaves", "tropics", "australia", _between(_leaves, lambda rows: rows["location"].isin(TROPICS)), "leaves",
        "King and Maindonald 1999; DAAG, GPL-3",
    ),
    "cars_1970s_1980s": Recipe(
        _between(_cars, _year(70, 75), _year(79, 82)), "cars", "StatLib; ISLR, GPL-2"
    ),
    **_both_ways(
        "hands", "metric", "imperial",
        _between(_hands, lambda rows: rows["M.I"] == "Metric", lambda rows: rows["M.I"] == "Imperial"), "hands",
        "Venables and Ripley 2002; MASS, GPL-2 or GPL-3",
    ),
    **_both_ways(
        "cirrhosis", "trial", "others", _between(_cirrhosis, lambda rows: rows["trial"]), "cirrhosis",
        "Therneau and Grambsch 2000; survival, LGPL-2 or later",
    ),
    **_both_ways(
        "personality", "adults", "teenagers", _between(_personality, lambda rows: rows["age"] >= 18), "personality",
        "SAPA project; psych, GPL-2 or later",
    ),
    "earnings_1992_2004": Recipe(
        _between(_earnings, _year(1992, 1992)), "earnings", "Stock and Watson 2007, CPS; AER, GPL-2 or GPL-3"
    ),
    "births_2004_2014": Recipe(_births, "births", "State of North Carolina, CDC; openintro, GPL-3"),
    **_both_ways(
        "cognition", "men", "women", _between(_cognition, lambda rows: rows["Sex"] == "Male"), "cognition",
        "Hartman 2016; heplots, GPL-2 or later",
    ),
    "made_monotone": Recipe(_monotone, "body_measures", _BDIMS, made=True),
    "made_scales": Recipe(
        _scales, "breast_cancer", "Wolberg, Mangasarian and Street 1993, UCI, CC BY 4.0", made=True
    ),
}  # fmt: skip
