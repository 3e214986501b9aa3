"""Every file and every name that the documentation mentions exists."""

import importlib
import inspect
import pkgutil
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

import pyro_cama
from tests.helpers.command_line import done

ROOT = Path(__file__).parents[1]
PAGES = ("docs/architecture.md", "docs/equations.md")
EVERY = [path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/**/*.md")))]
NAMED = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/decisions.md",
    "docs/speed.md",
    "docs/howto/own_parts.md",
)
FILE = re.compile(r"(?<![\w/.])(?:pyro_cama|docs|tests|tools|graphs|examples|experiments|benchmarks)/[\w/.-]*\w")
# `log_weights`, `LogWeights.w`, `CAMA.fit(mixing=)`; no file
NAME = re.compile(r"`(?!\w+\.(?:py|md|toml|json)\b)([A-Za-z_][\w.]*)(?:\((\w+)=\))?`")


def blocks(page: str) -> list[str]:
    """Paragraphs, and single rows of tables and lists: a name is looked for in the files that its block mentions."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.split(r"\n\n|\n(?=\|)|\n(?=- )", text)


@cache
def modules() -> dict[str, ModuleType]:
    names = [m.name for m in pkgutil.walk_packages(pyro_cama.__path__, "pyro_cama.") if "__main__" not in m.name]
    return {name: importlib.import_module(name) for name in names}


def member(owner: Any, name: str) -> Any:
    """An attribute, or a field or instance attribute of a class; None if it is neither."""
    if hasattr(owner, name):
        return getattr(owner, name)
    if inspect.isclass(owner):
        fields = {field for base in owner.__mro__ for field in getattr(base, "__annotations__", {})}
        if name in fields or re.search(rf"self\.{name}\b.* = ", inspect.getsource(owner)):
            return ...
    return None


def found(name: str, module: ModuleType) -> Any:
    """What a module itself defines under a name, dotted or not; None if it does not."""
    head, *rest = name.split(".")
    value = vars(module).get(head)
    if getattr(value, "__module__", module.__name__) != module.__name__ or inspect.ismodule(value):
        return None
    for part in rest:
        value = member(value, part)
    return value


def imported(name: str) -> Any:
    """What a name that starts with the package's stands for, a module or one of its attributes; None if nothing."""
    value: Any = pyro_cama
    for part in name.split(".")[1:]:
        value = modules().get(f"{getattr(value, '__name__', '')}.{part}") or member(value, part)
    return value


@pytest.mark.parametrize("page", EVERY)
def test_every_file_that_is_mentioned_exists(page):
    mentioned = FILE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert mentioned or page not in (*PAGES, *NAMED)
    assert not [path for path in mentioned if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_every_name_stands_in_the_files_beside_it(page):
    wrong = []
    for block in blocks(page):
        files = [path for path in FILE.findall(block) if path.startswith("pyro_cama/") and path.endswith(".py")]
        beside = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files]
        homes = [modules()[name] for name in beside if name in modules()] or list(modules().values())
        for name, parameter in NAME.findall(block):
            known = [found(name, module) for module in homes]
            if all(value is None for value in known):  # a name of the public namespace needs no file beside it
                known = [imported(name if name.startswith("pyro_cama") else f"pyro_cama.{name}")]
            known = [value for value in known if value is not None]
            takes = not parameter or any(parameter in inspect.signature(value).parameters for value in known)
            if not known or not takes:
                wrong.append((name, parameter, files))
    assert not wrong


@pytest.mark.parametrize("page", EVERY)
def test_every_link_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)", text, flags=re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    dead = [link for link in links if link.startswith("#") and link[1:] not in anchors]
    dead += [link for link in links if "://" not in link and not ((ROOT / page).parent / link.split("#")[0]).exists()]
    assert not dead


def test_every_decision_is_in_the_table_of_contents():
    text = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^  - \[(.*)\]\(#", text, flags=re.M)) == sorted(
        re.findall(r"^## (.*)", text, flags=re.M)
    )


def test_import_paths_that_users_are_told_of_hold():
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in EVERY if page not in ("CHANGELOG.md",)]
    rows = re.findall(r"^\|.*\|(.*)\|$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    path = r"\bpyro_cama(?:\.[A-Za-z_]\w*)+"
    named = [name for text in (*pages, *rows) for name in re.findall(path, text)]
    called = [name for text in pages for name in re.findall(rf"({path})\(", text)]
    assert called
    assert not [name for name in named if imported(name) is None]
    assert not [name for name in called if not callable(imported(name))]


def test_every_layer_and_every_file_on_the_way_of_the_data_exists():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    packages = [name.strip(" ()") for layer in layers for name in re.split("[|:]", layer)]
    assert not [name for name in packages if f"`pyro_cama.{name}`" not in text and name not in ("__main__", "_version")]
    steps = re.findall(r"\b[a-z]+/\w+\.py\b", "\n".join(re.findall(r"^```\n.*?^```$", text, flags=re.M | re.S)))
    assert steps
    assert not [step for step in steps if not (ROOT / "pyro_cama" / step).exists()]


PACKAGES = (
    "adaptation", "attacks", "bayes_nets", "data", "datasets", "diagnosis", "graph", "handlers", "image_manipulations",
    "inference", "likelihoods", "mechanisms", "metrics", "model", "report", "simulation", "sklearn", "stream",
    "testing", "training",
)  # fmt: skip


def test_everything_public_is_in_the_reference():
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/reference/*.md")))
    entries = set(re.findall(r"^\s*\.\. (?:auto\w+|py:data):: (pyro_cama[\w.]+)", text, flags=re.M))
    public = [(pyro_cama, name) for name in pyro_cama.__all__]
    public += [(modules()[f"pyro_cama.{name}"], found) for name in PACKAGES for found in exported(name)]
    there = {id(value) for value in map(imported, entries)}
    assert not [entry for entry in entries if imported(entry) is None]
    assert not [name for owner, name in public if id(getattr(owner, name)) not in there]


def exported(package: str) -> list[str]:
    """What a package's ``__init__`` lists; of a module all that is its own."""
    module = modules()[f"pyro_cama.{package}"]
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return [*getattr(module, "__all__", [name for name in own if not name.startswith("_")])]


# blocks of code ------------------------------------------------------------------------------------------------------

WITH_CODE = [page for page in EVERY if "```python" in (ROOT / page).read_text(encoding="utf-8")]
WITH_COMMANDS = [page for page in EVERY if "```console" in (ROOT / page).read_text(encoding="utf-8")]


def code(page: str, language: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, and fits and adaptations of a few steps."""
    fit, adapt = pyro_cama.CAMA.fit, pyro_cama.CAMA.adapt
    short = {"steps": 3, "restarts": 1, "folds": 1, "progress": False}
    monkeypatch.setattr(
        pyro_cama.CAMA, "fit", lambda self, *rows, **o: fit(self, *rows, **{**o, "max_epochs": 2, "progress": False})
    )
    monkeypatch.setattr(pyro_cama.CAMA, "adapt", lambda self, *rows, **o: adapt(self, *rows, **{**o, **short}))
    diagnose = pyro_cama.CAMA.diagnose
    monkeypatch.setattr(
        pyro_cama.CAMA, "diagnose", lambda self, rows, **_: diagnose(self, rows, draws=0, progress=False)
    )
    for name, value in (("WANDB_SILENT", "true"), ("WANDB_CONSOLE", "off"), ("MLFLOW_ALLOW_FILE_STORE", "true")):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_CODE)
@pytest.mark.filterwarnings("ignore")
def test_every_block_of_python_runs(page: str, quick: Path) -> None:
    try:
        exec(compile(code(page, "python"), page, "exec"), {"__name__": "page"})
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("chirho", "dowhy", "mapie", "mlflow", "wandb"):
            raise
        pytest.skip(f"{error.name} is not installed: the extras dowhy, interop and loggers have it")
    pyplot.close("all")


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_runs(page: str, quick: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 90)
    rows = pd.DataFrame(
        {"patient": [f"p{i}" for i in range(90)], "radius": y + rng.normal(size=90), "age": rng.normal(size=90)}
    )
    rows["diagnosis"] = np.where(y, "sick", "well")
    for name in ("train", "later", "labelled"):
        rows.to_csv(f"{name}.csv", index=False)
    Path("incoming").mkdir()
    rows.to_csv("incoming/monday.csv", index=False)
    if "pyro-cama init" not in code(page, "console"):
        done("init", "train.csv", "--target", "diagnosis", "-o", "graph.yaml")
    for line in filter(None, code(page, "console").splitlines()):
        done(*shlex.split(line, comments=True)[1:])
