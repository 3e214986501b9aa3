"""The conda recipe: well formed by rattler-build's own reader, and with the requirements of pyproject.toml."""

import tomllib
from pathlib import Path

import pytest
import yaml

import pyro_cama

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "conda" / "recipe.yaml"
ON_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where conda-forge has another name


def spec(requirement: str) -> str:
    """A requirement of pyproject.toml as a recipe writes it."""
    cut = min(i for i, letter in enumerate(requirement) if letter in "<>=")
    return f"{ON_CONDA.get(requirement[:cut], requirement[:cut])} {requirement[cut:]}"


def test_it_asks_for_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    python = f"python {project['project']['requires-python']}"
    wanted = [python, *(spec(each) for each in project["project"]["dependencies"])]
    assert sorted(recipe["requirements"]["run"]) == sorted(wanted)
    assert [each for each in recipe["requirements"]["host"] if each not in (python, "pip")] == [
        spec(each) for each in project["build-system"]["requires"]
    ]
    assert recipe["context"]["version"] == pyro_cama.__version__ == project["project"]["version"]
    name, target = recipe["build"]["python"]["entry_points"][0].split(" = ")
    assert project["project"]["scripts"] == {name: target}


def test_rattler_build_reads_it() -> None:
    build = pytest.importorskip("rattler_build")
    (found,) = build.Stage0Recipe.from_yaml(RECIPE.read_text(encoding="utf-8")).render()
    package = found.recipe.package
    assert (str(package.name), str(package.version)) == ("pyro-cama", pyro_cama.__version__)
