"""benchmarks/gpu.py: parts that end well, fail, or take too long; and, without a GPU, one of its own."""

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_part_that_fails_or_takes_too_long_is_told(gpu: ModuleType, tmp_path: Path) -> None:
    finished = {
        "task": "one",
        "rows": [{"experiment": "cifar", "method": "net", "trained_on": "clean", "device": "cuda"}],
    }
    (tmp_path / "slow.part.jsonl").write_text(json.dumps(finished) + '\n{"task": "tw')
    write = f"import pathlib; pathlib.Path({str(tmp_path / 'well.json')!r}).write_text('[{{\"value\": 1}}]')"
    begun = time.monotonic()
    well, failed, slow = (
        gpu.run(gpu.Part(name, ("-c", code), limit, f"{name}.json"), tmp_path, "a card", begun + 60)
        for name, code, limit in (
            ("well", write, 30),
            ("failed", "print('so far'); raise SystemExit(3)", 30),
            ("slow", "import time; time.sleep(50)", 0.5),
        )
    )
    assert time.monotonic() - begun < 30
    assert (well.exit, well.whole, well.rows, well.device) == (0, True, 1, "a card")
    assert json.loads((tmp_path / "well.json").read_text()) == [{"value": 1, "device": "a card"}]
    assert (failed.exit, failed.whole, failed.rows) == (3, False, 0)
    assert failed.said == "so far\n"
    assert (slow.exit, slow.whole, slow.rows) == (124, False, 1)
    assert "stopped at its limit" in str(slow)
    (row,) = json.loads((tmp_path / "slow.json").read_text())
    assert (row["experiment"], row["method"], row["device"]) == ("cifar_binary", "cnn", "a card")


def test_what_is_left_of_the_time_is_a_limit(gpu: ModuleType, tmp_path: Path) -> None:
    late = gpu.run(gpu.Part("late", ("-c", "import time; time.sleep(50)"), 40), tmp_path, "a card", time.monotonic())
    assert (late.exit, late.limit, late.rows) == (124, 0.0, None)


def test_it_runs_on_the_cpu(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--smoke", "--device", "cpu", "--parts", "speed", "--out", str(tmp_path)]) == 0
    (told,) = json.loads((tmp_path / "summary.json").read_text())
    assert (told["part"], told["exit"], told["device"]) == ("speed", 0, "cpu")
    rows = json.loads((tmp_path / "speed.json").read_text())
    assert {row["device"] for row in rows} == {"cpu"}
    assert "speed" in capsys.readouterr().out


def test_every_part_is_a_script_that_takes_its_arguments(gpu: ModuleType, tmp_path: Path) -> None:
    for group in gpu.parts(tmp_path, "cuda", False, 16):
        for part in group:
            paths = [Path(word) for word in part.command if word.endswith(".py")]
            assert paths
            assert all(path.is_file() for path in paths)
