"""What every measurement shares: interleaved timing, ratios pair by pair, profiles, the machine's matrix rate, rows."""

from __future__ import annotations

import json
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pyro_cama._files import replacing

Call = Callable[[], Any]
PLAIN = "plain PyTorch"


@dataclass(frozen=True)
class Row:
    """One line of results.json.

    Attributes:
        goal: None where a row is there to be compared with only.
        direction: "min" where less is better.
        spread: quartiles of the pairs, or of the runs.
        profile: where the time of what was measured goes.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    direction: Literal["max", "min"] = "min"
    spread: tuple[float, float] | None = None
    profile: str = ""

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.direction == "min" else self.value >= self.goal

    def record(self) -> dict[str, Any]:
        spread = self.spread and [_rounded(v) for v in self.spread]
        return asdict(self) | {"value": _rounded(self.value), "spread": spread, "met": self.met}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


@dataclass(frozen=True)
class Times:
    """Seconds of every contender, round by round: the i-th of all were taken one after the other."""

    of: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.of[name])

    def ratio(self, over: str, under: str, row: str, **about: Any) -> Row:
        """Median and quartiles of the pairs' ratios."""
        pairs = [a / b for a, b in zip(self.of[over], self.of[under], strict=True)]
        low, middle, high = quartiles(pairs)
        return Row(row, middle, "x", spread=(low, high), **about)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def interleaved(
    contenders: Mapping[str, Call],
    rounds: int,
    *,
    warm: int = 3,
    clock: Callable[[], float] | None = None,
    device: str = "cpu",
) -> Times:
    """Runs all contenders in turn, each round in another order.

    Args:
        warm: rounds that do not count.
        clock: :func:`clock_of` the device by default.
    """
    clock = clock or clock_of(device)
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(-warm, rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = clock()
            contenders[name]()
            if i >= 0:
                times[name].append(clock() - start)
    return Times(times)


def clock_of(device: str) -> Callable[[], float]:
    """Processor time, which other load inflates least (of one thread, or they add up); on a GPU time once it is done.

    >>> clock_of("cpu") is time.process_time
    True
    """
    if torch.device(device).type == "cpu":
        return time.process_time

    def when_done() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return when_done


def steps(
    losses: Mapping[str, Callable[[], Tensor]], parameters: Sequence[Tensor], lr: float = 1e-4
) -> dict[str, Call]:
    """Gradient steps on each loss: forward, backward, one fused Adam for all."""
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)

    def step(loss: Callable[[], Tensor]) -> Call:
        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()

        return run

    return {name: step(loss) for name, loss in losses.items()}


def agree(losses: Mapping[str, Callable[[], Tensor]], *, draws: int, within: float) -> None:
    """
    Args:
        draws: evaluations of each over which their means have to agree.
        within: the largest relative difference of these means.

    Raises:
        AssertionError: the contenders do not compute the same loss.
    """
    values: dict[str, float] = {}
    with torch.random.fork_rng():
        for name, loss in losses.items():
            torch.manual_seed(0)
            values[name] = float(sum(loss().detach() for _ in range(draws)) / draws)
    low, high = min(values.values()), max(values.values())
    if high - low > within * abs(low):
        raise AssertionError(f"the contenders do not compute the same loss: {values}")


# where the time goes --------------------------------------------------------------------------------------------------

PACKAGES = ("pyro_cama", "pyro", "torch")


def profiled(call: Call, seconds: float = 1.0) -> str:
    """Operators of one call, the costliest of them, and the share of processor time in each package's Python.

    A frame's time includes the operators that it calls itself; the backward pass counts as torch's.
    """
    start = time.process_time()
    call()
    calls = max(1, min(20, int(0.2 / max(time.process_time() - start, 1e-3))))  # one alone shows every hiccup
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(calls):
            call()
    operators = [e for e in found.key_averages() if e.key.startswith("aten::")]
    total = sum(e.self_cpu_time_total for e in found.key_averages()) or 1.0
    top = sorted(operators, key=lambda e: -e.self_cpu_time_total)[:4]
    dearest = ", ".join(f"{e.key.removeprefix('aten::')} {e.self_cpu_time_total / total:.0%}" for e in top)
    shares = _sampled(call, seconds)
    where = ", ".join(f"{name} {shares[name]:.0%}" for name in (*PACKAGES, "other"))
    return f"{sum(e.count for e in operators) // calls} operators ({dearest}); frames: {where}"


def _sampled(call: Call, seconds: float) -> dict[str, float]:
    """Share of processor time by the package of the innermost Python frame, looked at every millisecond."""
    seen: Counter[str] = Counter()

    def look(signum: int, frame: FrameType | None) -> None:
        parts = Path(frame.f_code.co_filename).parts if frame else ()
        seen[next((name for name in PACKAGES if name in parts[:-1]), "other")] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, 1e-3, 1e-3)
    try:
        end = time.process_time() + seconds
        while time.process_time() < end:
            call()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    total = sum(seen.values()) or 1
    return {name: seen[name] / total for name in (*PACKAGES, "other")}


def flops(call: Call) -> float:
    """Floating-point operations of all matrix products and convolutions of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def product(device: str = "cpu") -> tuple[Call, float]:
    """A product of two square matrices, and how many floating-point operations it is: the machine's matrix rate."""
    size = 512 if torch.device(device).type == "cpu" else 4096
    a, b = torch.randn(2, size, size, device=device)
    return lambda: torch.mm(a, b), 2.0 * size**3


def over_floor(call: Call, rounds: int, device: str = "cpu") -> str:
    """How many times longer a call takes than its multiplications at the machine's matrix rate."""
    multiply, one = product(device)
    times = interleaved({"call": call, "floor": multiply}, rounds, device=device)
    each = times.ratio("call", "floor", "").value
    return f"{each * one / flops(call):.3g} x its multiplications ({1e3 * times.median('call'):.3g} ms)"


# results --------------------------------------------------------------------------------------------------------------


def write(rows: Sequence[Row], path: Path) -> list[dict[str, Any]]:
    """Puts rows in the place of those of their names in a file; returns what is in it then."""
    kept: dict[str, dict[str, Any]] = {}
    if path.exists():
        kept = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    kept |= {row.name: row.record() for row in rows}
    everything = list(kept.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    return everything
