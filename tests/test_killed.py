"""A process that is killed between any two steps of writing: what was there is whole, or what is to be there is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyro_cama import _files
from tests.helpers.paths import ROOT


def killed(*arguments: str) -> dict[str, Any]:
    """What :mod:`tests.helpers.killed` found."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.helpers.killed", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for kind, told in found.items():
        assert told["steps"] > 2, kind
        assert told["changes"], kind
        assert told["wrong"] == [], f"{kind}: killed at step {told['wrong']} of {told['steps']}"
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    assert {*killed(str(tmp_path))} == {"save", "save over", "export", "report", "csv", "adapt", "checkpoints"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_watch_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    assert killed(str(tmp_path), "watch")["watch"]["steps"] > 20


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
def test_folders_change_places(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert _files.exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name / "file").read_text() for name in "ab"] == ["b", "a"]
    with pytest.raises(FileNotFoundError) as told:
        _files.exchange(tmp_path / "a", tmp_path / "c")
    assert told.value.filename == str(tmp_path / "a")
