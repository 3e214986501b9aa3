"""What a command imports before it works: help nothing of weight, commands no more than they use."""

import gc
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_cama
from pyro_cama.cli.starting import starting

HEAVY = ("torch", "pyro", "lightning", "torchvision", "pandas", "numpy", "scipy", "networkx", "pydantic", "jinja2")
UNUSED = ("lightning", "torchvision", "torchmetrics", "scipy.stats", "sklearn", "matplotlib", "torch._dynamo", "jinja2")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def imported(arguments: list[str], names: tuple[str, ...], tmp_path: Path, **environment: str) -> list[str]:
    """Which of these modules a process of its own has imported when the command ends."""
    found = tmp_path / "found.json"
    code = (
        "import atexit, json, pathlib, sys\n"
        f"found, names = pathlib.Path({str(found)!r}), {names!r}\n"
        "atexit.register(lambda: found.write_text(json.dumps([n for n in names if n in sys.modules])))\n"
        f"sys.argv = {['pyro-cama', *arguments]!r}\n"
        "from pyro_cama.cli import main\n"
        "main()\n"
    )
    env = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    loaded: list[str] = json.loads(found.read_text())
    return loaded


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fit", "--help"], ["report", "-h"]])
def test_help_needs_no_torch(arguments: list[str], tmp_path: Path) -> None:
    assert imported(arguments, HEAVY, tmp_path) == []


@pytest.mark.parametrize("words", ["pyro-cama ", "pyro-cama fit --co", "pyro-cama fit --device cuda --co"])
def test_completion_needs_no_torch(words: str, tmp_path: Path) -> None:
    asked = {"_PYRO_CAMA_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    assert imported([], HEAVY, tmp_path, **asked) == []


def test_a_prediction_imports_what_it_uses(made: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(made / "model"), str(made / "t.csv"), "-o", str(tmp_path / "labels.csv")]
    assert imported(arguments, UNUSED, tmp_path) == []
    assert (tmp_path / "labels.csv").exists()


def test_a_terminal_is_told_while_the_first_imports_last(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[None] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(None))
    monkeypatch.setattr(sys, "stderr", said := Terminal())
    with starting():
        assert not gc.isenabled()
    assert (said.getvalue(), frozen, gc.isenabled()) == ("", [], True)
    monkeypatch.delitem(sys.modules, "pyro")
    with starting():
        assert said.getvalue() == "loading torch and Pyro ..."
    line, blank, end = said.getvalue().split("\r")
    assert (blank, end, len(frozen), gc.isenabled()) == (" " * len(line), "", 1, True)
    with pytest.raises(KeyboardInterrupt), starting():
        raise KeyboardInterrupt
    assert (len(frozen), gc.isenabled()) == (1, True)
    monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    with starting():
        pass
    assert said.getvalue() == ""


def test_the_package_lists_what_is_public() -> None:
    pyro_cama.build  # noqa: B018
    assert dir(pyro_cama) == sorted([*pyro_cama.__all__, "__version__"])
