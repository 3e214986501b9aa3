"""A folder that commands start from."""

from pathlib import Path

import pandas as pd
import pytest

import pyro_cama
from pyro_cama import CAMA, CausalGraph
from pyro_cama.cli.files import read_table
from tests.helpers.command_line import GRAPH, done


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with g.yaml, t.csv (60 rows) and a tiny model; nobody writes into it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "g.yaml").write_text(GRAPH)
    done("simulate", folder / "g.yaml", "-n", 60, "-o", folder / "t.csv")
    tiny = ["--epochs", 1, "--hidden", 4, "--layers", 1, "--device", "cpu"]
    done("fit", folder / "g.yaml", folder / "t.csv", "-o", folder / "model", *tiny)
    return folder


@pytest.fixture(scope="session")
def model(made: Path) -> CAMA:
    return pyro_cama.load(made / "model")


@pytest.fixture(scope="session")
def table(made: Path) -> pd.DataFrame:
    return read_table(made / "t.csv", CausalGraph(made / "g.yaml"))
