"""Promises between files: what is private stays so, and what several signatures share has one default."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

import pyro_cama
from pyro_cama import CAMA, build, cli
from pyro_cama.sklearn import CAMAClassifier
from pyro_cama.training.options import FitOptions
from tests.helpers.paths import ROOT

MODULES = sorted((ROOT / "pyro_cama").rglob("*.py"))
OTHERS_OWN = {  # private names of torch and Pyro, by the folder that may use them
    "handlers": {"_unbroadcasted_scale_tril", "_unbroadcasted_cov_factor", "_unbroadcasted_cov_diag", "_stack"},
}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined_in(tree: ast.Module) -> Iterator[str]:
    """All names that a file gives: functions, classes, variables, attributes of self and of classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and own(node.value):
            yield node.attr


def own(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        value = value.func
        return isinstance(value, ast.Name) and value.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def reaches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Private attributes of other files' objects, and private names imported from other files."""
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    modules = {(alias.asname or alias.name).split(".")[0] for node in imported for alias in node.names}
    known = {*defined_in(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyro_cama."):
            yield from ((node.lineno, alias.name) for alias in node.names if private(alias.name))
        if not isinstance(node, ast.Attribute) or not private(node.attr) or own(node.value) or node.attr in known:
            continue
        if not (isinstance(node.value, ast.Name) and node.value.id in modules - {"pyro_cama"}):
            yield node.lineno, node.attr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_uses_what_is_private_to_another(path: Path) -> None:
    allowed = OTHERS_OWN.get(path.parent.name, set())
    found = [(line, name) for line, name in reaches(ast.parse(path.read_text(encoding="utf-8"))) if name not in allowed]
    assert not found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cama._chunk", ["_chunk"]),
        ("cama.model._modules['networks']", ["_modules"]),
        ("from pyro_cama.model.pair import _numbers, SAMPLE", ["_numbers"]),
        ("import pyro_cama\npyro_cama._version", ["_version"]),
        ("import sys\nsys._getframe(1)", []),
        ("class A:\n    def f(self, other):\n        self._x = super()._y\n        return other._x", []),
        ("class A:\n    _x = 1\nA._x, a.__name__", []),
    ],
)
def test_reaches_are_seen(text: str, found: list[str]) -> None:
    assert [name for _, name in reaches(ast.parse(text))] == found


def test_what_hinders_an_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise AttributeError("'NoneType' object has no attribute 'format'")  # Pyro's own, under python -OO

    monkeypatch.setattr("importlib.import_module", broken)
    monkeypatch.delitem(vars(pyro_cama), "Recode", raising=False)
    with pytest.raises(ImportError, match=r"simulation\.interventions cannot be imported: 'NoneType' object has no"):
        pyro_cama.Recode  # noqa: B018


# signatures ----------------------------------------------------------------------------------------------------------


def defaults(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def annotations(function: Any) -> dict[str, Any]:
    return {p.name: p.annotation for p in inspect.signature(function).parameters.values()}


def command_line() -> dict[str, Any]:
    """What ``pyro-cama fit`` takes for what is not said, by the library's names."""
    command = cli.app.commands["fit"]
    assert isinstance(command, click.Command)
    # click keeps the help option of a command's first context: that of a command without a group knows no -h
    group = click.Context(cli.app, **cli.app.context_settings)
    found = command.make_context("fit", ["graph.yaml", "table.csv", "-o", "model"], parent=group).params
    found["max_epochs"] = found.pop("epochs")
    return found


def test_fit_takes_all_fit_options() -> None:
    options, of_fit = defaults(FitOptions), defaults(CAMA.fit)
    assert options.items() <= of_fit.items()
    types = annotations(CAMA.fit)
    assert {field.name: types[field.name] for field in fields(FitOptions)} == {
        f.name: f.type for f in fields(FitOptions)
    }


@pytest.mark.parametrize(
    ("found", "library", "shared"),
    [
        (lambda: defaults(CAMAClassifier), CAMA.fit, 11),
        (lambda: defaults(CAMAClassifier), FitOptions, 9),
        (lambda: defaults(CAMAClassifier), build, 3),
        (lambda: defaults(CAMAClassifier), CAMA.predict_proba, 3),
        (command_line, CAMA.fit, 7),
        (command_line, FitOptions, 5),
        (command_line, build, 4),
    ],
)  # fmt: skip
def test_what_bears_one_name_has_one_default(found: Any, library: Any, shared: int) -> None:
    """But ``progress``, which scikit-learn's estimators do not show."""
    ours, theirs = found(), defaults(library)
    names = ours.keys() & theirs.keys()
    assert len(names) == shared, sorted(names)
    differing = {name: (ours[name], theirs[name]) for name in names if ours[name] != theirs[name]}
    differing.pop("progress", None)
    assert not differing
