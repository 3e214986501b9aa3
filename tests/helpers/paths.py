"""Where the repository keeps what tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GRAPHS = ROOT / "graphs"
CORPUS = ROOT / "tests" / "corpus"
