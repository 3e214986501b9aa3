"""The wheel on its own: built, installed with what it requires, and used from an empty folder.

``make test-wheel`` runs it: minutes, and 6 GB that are given back. pytest does not, as nothing here is named test.
"""

import csv
import os
import random
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OF_EXTRAS = ("pgmpy", "pyarrow", "pydot", "statsmodels")
COMMANDS = ("init", "check", "draw", "simulate", "fit", "diagnose", "predict", "adapt", "evaluate", "report", "demo")
# run inside: every module is there, and those that need an extra say which
IMPORTS = f"""
import importlib, importlib.util, pkgutil, sys
import pyro_cama
there = [name for name in {OF_EXTRAS} if name in sys.modules or importlib.util.find_spec(name)]
assert not there, f"{{there}}: installed or imported without their extras"
assert "site-packages" in pyro_cama.__file__, pyro_cama.__file__
def complain(name):
    error = sys.exc_info()[1]  # of a package that could not be imported to look inside
    assert isinstance(error, ImportError) and "pyro_cama[" in str(error) and "\\n" not in str(error), error
names = [module.name for module in pkgutil.walk_packages(pyro_cama.__path__, "pyro_cama.", complain)]
assert len(names) > 100 and "pyro_cama.model.pair" in names, names
for name in names:
    if name.endswith(".__main__"):
        continue  # it runs the command line
    try:
        importlib.import_module(name)
    except ImportError:
        complain(name)
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pyro-cama-wheel-") as name:
        folder = Path(name)
        wheel = built(folder / "dist")
        holds_the_package_only(wheel)
        env, elsewhere = folder / "env", folder / "elsewhere"
        elsewhere.mkdir()
        venv.create(env, with_pip=True)
        inside = Inside(env, elsewhere)
        inside.python("-m", "pip", "install", "--quiet", "--no-compile", str(wheel))
        inside.python("-c", IMPORTS)
        works_without_extras(inside)
        draws(inside)
        runs_the_readme(inside)
    print("the wheel works on its own")


def built(folder: Path) -> Path:
    call = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(call, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def holds_the_package_only(wheel: Path) -> None:
    files = (path.relative_to(ROOT) for path in (ROOT / "pyro_cama").rglob("*") if path.is_file())
    source = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    source |= {f"pyro_cama/datasets/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "graphs").rglob("*.yaml")}
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {"pyro_cama/py.typed", "pyro_cama/report/report.html.jinja"} <= found, f"{wheel.name} holds {sorted(found)}"
    assert found == source, f"in the wheel or in pyro_cama/, not in both: {sorted(found ^ source)}"


class Inside:
    """Runs what was installed, where nothing of the repository can be found."""

    def __init__(self, env: Path, folder: Path) -> None:
        self.bin, self.folder = env / "bin", folder
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_"))}

    def python(self, *args: str) -> str:
        """What Python prints."""
        call: list[str | Path] = [self.bin / "python", *args]
        return subprocess.run(call, check=True, cwd=self.folder, env=self.environ, stdout=-1, text=True).stdout

    def cama(self, *args: str, code: int = 0) -> str:
        """What ``pyro-cama`` prints on success, or its one line of complaint."""
        print("  pyro-cama", *args, flush=True)
        call: list[str | Path] = [self.bin / "pyro-cama", *args]
        done = subprocess.run(call, cwd=self.folder, env=self.environ, capture_output=True, text=True)
        assert done.returncode == code, f"expected {code}, found {done.returncode}\n{done.stdout}{done.stderr}"
        if code:
            assert done.stderr.startswith("Error: "), done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
            return done.stderr
        return done.stdout


def works_without_extras(inside: Inside) -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert inside.cama("--version").split()[-1] == version
    said = inside.cama("--help")
    assert all(f"\n  {command} " in said for command in COMMANDS), said
    write_table(inside.folder / "train.csv", 200, 0.0)
    write_table(inside.folder / "later.csv", 80, 2.0)
    (inside.folder / "later.parquet").write_bytes(b"PAR1")
    inside.cama("init", "train.csv", "--target", "diagnosis", "-o", "graph.yaml")
    assert "radius" in inside.cama("check", "graph.yaml")
    inside.cama("fit", "graph.yaml", "train.csv", "-o", "model", "--epochs", "3", "--hidden", "8")
    assert "accuracy" in inside.cama("evaluate", "model", "later.csv")
    inside.cama("adapt", "model", "later.csv", "-o", "adapted", "--steps", "5")
    inside.cama("predict", "adapted", "later.csv", "-o", "out.csv")
    with open(inside.folder / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    assert {row["label"] for row in rows} <= {"benign", "malignant"}
    said = inside.cama("init", "later.parquet", "--target", "diagnosis", code=1)
    assert "pip install 'pyro_cama[parquet]'" in said, said
    assert "instruments are found to have moved" in inside.cama("demo")
    left = {path.name for path in inside.folder.iterdir()}
    assert left == {"train.csv", "later.csv", "later.parquet", "graph.yaml", "model", "adapted", "out.csv"}, left


def draws(inside: Inside) -> None:
    inside.cama("draw", "graph.yaml", "-o", "graph.png")
    assert (inside.folder / "graph.png").read_bytes().startswith(b"\x89PNG")
    inside.cama("report", "adapted", "later.csv", "-o", "report.html")
    assert "<h2" in (inside.folder / "report.html").read_text(encoding="utf-8")


def runs_the_readme(inside: Inside) -> None:
    """The first block of Python in README.md, in a folder with nothing in it, prints what stands below it there.

    What float32 makes of the evidence differs between machines, and with it a row or two of the adapted model's.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block, rest = text.split("```python\n", 1)[1].split("```", 1)
    printed = rest.split("```\n", 1)[1].split("```", 1)[0]
    inside.folder = inside.folder.parent / "empty"
    inside.folder.mkdir()
    said = inside.python("-c", block)
    accuracies, verdict, moved = printed.splitlines()
    assert accuracies[:-2] in said, said
    assert verdict.split(":")[0] in said, said
    assert moved in said, said


def write_table(path: Path, rows: int, drift: float) -> None:
    rng = random.Random(rows)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["diagnosis", "radius", "texture", "lesions"])
        for _ in range(rows):
            y = rng.randrange(2)
            readings = [f"{rng.gauss(mean, 1):.4f}" for mean in (3 * y + drift, -2 * y)]
            writer.writerow(
                [("benign", "malignant")[y], *readings, sum(rng.random() < 0.3 + 0.4 * y for _ in range(9))]
            )


if __name__ == "__main__":
    main()
