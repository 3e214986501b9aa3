"""What a GPU is for, within nine minutes: its tests, speed, the paper's Figure 7 and CIFAR, each with a time limit.

    python benchmarks/gpu.py                          # make gpu; needs PYRO_CAMA_DATA, or the network
    python benchmarks/gpu.py --parts tests speed      # these; files of others stay
    python benchmarks/gpu.py --smoke --device cpu     # as small as can be, where there is no GPU
    PYTHONPATH=. python benchmarks/gpu.py             # where the package is not installed

Each part is a process of its own, so what fails or takes too long costs no other part; the experiments run side by
side, since small networks leave a GPU waiting.  Of what is cut off the finished tasks are kept, and the same command
goes on with the others.  Writes to results/gpu a file of rows and a picture for every part, the device's name in every
row, and summary.json: seconds, exit status and the last words of every part.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pyro_cama._files import replacing

ROOT = Path(__file__).parents[1]
WORDS = 3000  # characters of a part's output that are kept
TIMED_OUT = 124
TESTS = ("test_device.py", "image_manipulations/test_kinds.py")  # those with tests marked gpu


@dataclass(frozen=True)
class Part:
    """A Python process.

    Attributes:
        command: its arguments.
        limit: seconds it may take at most.
        rows: the file of rows that it writes, below the folder of results; None if it writes none.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    rows: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        exit: of the process; 124 if it was stopped at its limit.
        rows: in its file now; None if it writes none.
        whole: whether all of it was done.
        said: the end of its output.
    """

    part: str
    device: str
    seconds: float
    exit: int
    limit: float
    rows: int | None
    whole: bool
    said: str

    def __str__(self) -> str:
        rows = "" if self.rows is None else f", {self.rows} rows"
        how = f"stopped at its limit of {self.limit:.0f} s" if self.exit == TIMED_OUT else f"exit {self.exit}"
        return f"{self.part:<8}{self.seconds:7.1f} s  {how}{rows}"


def parts(out: Path, device: str, smoke: bool, cores: int) -> list[list[Part]]:
    """All parts; those of one group run side by side."""
    size = ("--smoke",) if smoke else ()
    speed = ("--quick", "--only", "children") if smoke else ()

    def experiment(name: str, jobs: int) -> Part:
        options = ("--seeds", "1", "--device", device, "--jobs", str(max(1, jobs)), "--out", str(out))
        script = str(ROOT / "experiments" / f"{name}.py")
        return Part(name, (script, *size, *options, "--models", str(out / "models")), 600.0, f"{name}.json")

    tests = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        *(str(ROOT / "tests" / name) for name in TESTS),
    )
    bench = (str(ROOT / "benchmarks" / "run.py"), *speed, "--device", device, "--out", str(out / "speed.json"))
    return [
        [Part("tests", tests, 90.0)],
        [Part("speed", bench, 130.0, "speed.json")],
        [experiment("figure7", 2 * cores // 3), experiment("cifar", cores // 3)],
    ]


def run(part: Part, out: Path, device: str, ends: float) -> Outcome:
    """Runs a part, until its limit or the end of all, and names the device in its rows.

    Args:
        device: its name.
        ends: :func:`time.monotonic` at which all have to be done.
    """
    begun = time.monotonic()
    limit = max(0.0, min(part.limit, ends - begun))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    where = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "KINETO_LOG_LEVEL": "99"}
    where |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *part.command], cwd=ROOT, env=where, stdout=said, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and the processes that it began
                process.wait()
        said.seek(0)
        words = said.read()[-WORDS:]
    rows = None if part.rows is None else named(out / part.rows, device, whole=code == 0)
    return Outcome(part.name, device, round(time.monotonic() - begun, 1), code, limit, rows, code == 0, words)


def named(path: Path, device: str, *, whole: bool) -> int:
    """Puts the device's name into the rows of a file, and returns how many there are.

    Args:
        whole: the part came to its end; else the file is made of the tasks that were finished, if those were kept.
    """
    unfinished = path.with_suffix(".part.jsonl")
    if not whole and unfinished.exists():
        rows = [row for line in unfinished.read_text().splitlines() for row in _rows_of(line)]
    else:
        rows = json.loads(path.read_text()) if path.exists() else []
    if rows:
        written(path, [row | {"device": device} for row in rows])
    return len(rows)


def _rows_of(line: str) -> list[dict[str, Any]]:
    """Of a finished task, under the names that they are published with; none if the line was cut off."""
    sys.path.insert(0, str(ROOT / "experiments"))
    from support.images import published

    try:
        return [published(row) for row in json.loads(line)["rows"]]
    except json.JSONDecodeError:
        return []


def written(path: Path, content: Any) -> None:
    """Writes JSON, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1))


def name_of(device: str) -> str:
    """What the device calls itself.

    Raises:
        SystemExit: there is no such device.
    """
    if torch.device(device).type == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        sys.exit("gpu.py: torch.cuda.is_available() is False; expected a GPU, or --device cpu --smoke to try it out")
    return torch.cuda.get_device_name(device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if every part did."""
    names = [part.name for group in parts(Path(), "cuda", False, 1) for part in group]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--smoke", action="store_true", help="does it run?")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu")
    options = parser.parse_args(arguments)
    ends = time.monotonic() + 60 * options.minutes
    out, device = options.out.resolve(), name_of(options.device)
    out.mkdir(parents=True, exist_ok=True)
    summary = out / "summary.json"
    told = {one["part"]: one for one in (json.loads(summary.read_text()) if summary.exists() else [])}
    outcomes: list[Outcome] = []
    for group in parts(out, options.device, options.smoke, os.cpu_count() or 1):
        chosen = [part for part in group if part.name in options.parts]
        with ThreadPoolExecutor(len(group)) as pool:
            for outcome in pool.map(lambda part: run(part, out, device, ends), chosen):
                print(outcome, flush=True)
                if outcome.exit:
                    print(outcome.said, flush=True)
                outcomes.append(outcome)
                told[outcome.part] = asdict(outcome)
                written(summary, list(told.values()))
    if all(outcome.whole for outcome in outcomes):
        shutil.rmtree(out / "models", ignore_errors=True)  # else the next run goes on with them
    return int(not all(outcome.whole for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
