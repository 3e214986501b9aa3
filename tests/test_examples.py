"""Every script in examples/ runs, at its smallest size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = (
    "bayes_nets.py",
    "breast_cancer_drift.py",
    "cifar.py",
    "corruptions.py",
    "custom_guide.py",
    "custom_likelihood.py",
    "custom_mechanism.py",
    "custom_network.py",
    "exposure.py",
    "figure1.py",
    "figure10.py",
    "figure11.py",
    "figure12.py",
    "figure13.py",
    "figure14.py",
    "figure7.py",
    "figure8.py",
    "figure9.py",
    "image_budget.py",
    "power.py",
    "prevalence_drift.py",
    "quickstart.py",
    "real_tables.py",
    "sites.py",
    "svi_loop.py",
    "what_changed.py",
)

# experiments on images, and the methods they share
IMAGES = {f"figure{i}.py": f"figure{i}" for i in (1, 7, 8, 9, 10, 11)} | {
    "cifar.py": "cifar_binary",
    "corruptions.py": "corruptions",
}
METHODS = {
    "cama", "cnn", "cnn_bn", "cnn_augmented", "cnn_pgd", "tent", "bn_adapt", "shot_im", "t3a", "cvae", "oracle",
}  # fmt: skip


def test_every_script_is_listed() -> None:
    assert sorted(SCRIPTS) == sorted(path.name for path in EXAMPLES.glob("*.py")), "see SCRIPTS in this file"


@pytest.mark.parametrize("script", SCRIPTS)
def test_smoke(script: str, tmp_path: Path) -> None:
    # an empty folder to run in: a script must find its graphs and write its results from anywhere
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, str(EXAMPLES / script), "--smoke", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{script} failed\n{done.stdout}\n{done.stderr}"
    assert not list(elsewhere.iterdir()), f"{script} wrote outside --out"
    if script in IMAGES:
        rows = json.loads((tmp_path / "out" / f"{Path(script).stem}.json").read_text())
        assert {row["experiment"] for row in rows} == {IMAGES[script]}
        assert {row["method"] for row in rows} <= METHODS
