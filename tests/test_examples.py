"""Every script in examples/ and experiments/ runs, at its smallest size."""

import json
import os
import runpy
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "examples": (
        "confounded.py",
        "custom_guide.py",
        "custom_likelihood.py",
        "custom_mechanism.py",
        "custom_network.py",
        "exposure.py",
        "images_quickstart.py",
        "quickstart.py",
        "sites.py",
        "streams.py",
        "svi_loop.py",
        "two_manipulations.py",
        "what_changed.py",
    ),
    "experiments": (
        "bayes_nets.py",
        "breast_cancer_drift.py",
        "cifar.py",
        "coloured_mnist.py",
        "corruptions.py",
        "figure1.py",
        "figure10.py",
        "figure11.py",
        "figure12.py",
        "figure13.py",
        "figure14.py",
        "figure7.py",
        "figure8.py",
        "figure9.py",
        "guard.py",
        "image_budget.py",
        "image_drift.py",
        "power.py",
        "prevalence_drift.py",
        "real_drift.py",
        "real_tables.py",
        "stream.py",
        "several_manipulations.py",
    ),
}

# experiments on images, and the methods they share
IMAGES = {f"figure{i}.py": f"figure{i}" for i in (1, 7, 8, 9, 10, 11)} | {
    "cifar.py": "cifar_binary",
    "corruptions.py": "corruptions",
    "image_drift.py": "image_drift",
}
METHODS = {
    "cama", "cnn", "cnn_bn", "cnn_augmented", "cnn_pgd", "tent", "bn_adapt", "shot_im", "t3a", "cvae", "oracle",
}  # fmt: skip


@pytest.mark.parametrize("folder", SCRIPTS)
def test_every_script_is_listed(folder: str) -> None:
    assert sorted(SCRIPTS[folder]) == sorted(path.name for path in (ROOT / folder).glob("*.py")), "see SCRIPTS here"


@pytest.mark.parametrize("script", SCRIPTS["examples"])
def test_examples(script: str, tmp_path: Path) -> None:
    run(ROOT / "examples" / script, cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"results"}, f"{script} wrote outside results/"


@pytest.mark.parametrize("script", SCRIPTS["experiments"])
def test_experiments(script: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(ROOT / "experiments" / script, "--smoke", "--out", str(tmp_path / "out"), cwd=elsewhere)
    assert not list(elsewhere.iterdir()), f"{script} wrote outside --out"
    if script in IMAGES:
        rows = json.loads((tmp_path / "out" / f"{Path(script).stem}.json").read_text())
        assert {row["experiment"] for row in rows} == {IMAGES[script]}
        assert {row["method"] for row in rows} <= METHODS


# one process with all that scripts import, forked for each of them: those imports take longer than most scripts do
SERVER = get_context("forkserver")
PRELOADED = ["lightning.pytorch", "matplotlib.pyplot", "pyro_cama", "sklearn.ensemble", "torchvision"]
SERVER.set_forkserver_preload(PRELOADED)


def run(script: Path, *arguments: str, cwd: Path) -> None:
    """Runs a script from an empty folder: it must find its graphs from anywhere."""
    output = cwd.with_suffix(".output")
    process = SERVER.Process(target=run_here, args=(script, arguments, cwd, output))
    process.start()
    process.join(120)
    running = process.is_alive()
    process.kill()
    said = output.read_text() if output.exists() else ""
    assert not running, f"{script} took more than 120 s\n{said}"
    assert process.exitcode == 0, f"{script} failed\n{said}"


def run_here(script: Path, arguments: tuple[str, ...], cwd: Path, output: Path) -> None:
    """Runs a script in this process, as ``python script arguments`` would; what it prints goes to a file."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(cwd)
    os.environ["PYRO_CAMA_SMOKE"] = "1"
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
