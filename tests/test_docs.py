"""Every file and every name that the documentation mentions exists."""

import importlib
import inspect
import pkgutil
import re
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pyro_cama

ROOT = Path(__file__).parents[1]
PAGES = ("docs/architecture.md", "docs/equations.md")
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


@pytest.mark.parametrize(
    "page", [*PAGES, "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/decisions.md", "docs/speed.md"]
)
def test_every_file_that_is_mentioned_exists(page):
    mentioned = FILE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert mentioned
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


@pytest.mark.parametrize(
    "page", [path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]]
)
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
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\|(.*)\|$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    path = r"\bpyro_cama(?:\.[A-Za-z_]\w*)+"
    named = [name for text in (readme, *rows) for name in re.findall(path, text)]
    called = re.findall(rf"({path})\(", readme)
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
    assert not [name for name in packages if f"`pyro_cama.{name}`" not in text and name != "_version"]
    steps = re.findall(r"\b[a-z]+/\w+\.py\b", "\n".join(re.findall(r"^```\n.*?^```$", text, flags=re.M | re.S)))
    assert steps
    assert not [step for step in steps if not (ROOT / "pyro_cama" / step).exists()]
