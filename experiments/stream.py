"""A model that follows a stream: worlds that come back, images, slow drift, false alarms, delay, many batches.

CAMA's monitor beside adapting to every batch, never adapting, Tent carried on, and river's detectors before the same
model.  Nothing looks at a label but the score.  Writes results/stream.json and .png.

    pip install '.[peers]'        # river; without it its detectors are left out
    python experiments/stream.py
    python experiments/stream.py --parts slow --seed 1 --seeds 2
"""

from __future__ import annotations

import itertools
import math
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from support import experiment, image_data
from support.experiment import Row, Style
from support.image_streams import image_stream
from support.streams import ADAPT, Detected, Stream, Worlds, detectors, gas_stream, read_all, readers

LOOK = {
    "monitor": Style("CAMA's monitor", "#1b7f5c", strong=True),
    "never": Style("never adapted", "#9aa0a6"),
    "always": Style("adapted to every batch", "#3f7fd0"),
    "tent_carried": Style("Tent, carried on", "#a34a4a"),
    "adwin": Style("adapted when ADWIN alarms", "#d1731c"),
    "kswin": Style("adapted when KSWIN alarms", "#8a7a1f"),
    "ph": Style("adapted when Page-Hinkley alarms", "#8a5a9e"),
}
COURSE = "ABACBA"
PARTS = ("returns", "gas", "images", "slow", "delay", "false_alarms", "long")
COURSES = ("returns", "gas", "images", "slow")  # parts whose accuracy is shown batch by batch
SIZES: dict[str, dict[str, int]] = {
    "full": {"visit": 2, "rows": 200, "slow": 40, "undrifted": 200, "trials": 3, "long": 10_000},
    "quick": {"visit": 2, "rows": 200, "slow": 30, "undrifted": 40, "trials": 2, "long": 400},
    "smoke": {"visit": 1, "rows": 100, "slow": 2, "undrifted": 2, "trials": 1, "long": 4},
}
QUICKEST = ("returns", "images", "false_alarms", "long")  # parts of a smoke run
OFFSETS = (0.25, 0.5, 1.0, 2.0)
BEFORE, LONGEST = 20, 40  # batches of 20 rows before a change, and after it


def run_readers(part: str, stream: Stream, seed: int, size: str, methods: Sequence[str] = ()) -> list[Row]:
    """Rows of every reader on a stream; `severity` is the step, `setting` the number of the world's visit."""
    found = []
    visits = _visits([world for world, _ in stream.batches])
    for name, begin in readers(stream, size).items():
        if methods and name not in methods:
            continue
        for step, (world, told) in enumerate(read_all(stream, begin()), 1):
            more: dict[str, Any] = {"tested_on": world, "severity": step, "seed": seed, "setting": visits[step - 1]}
            found += [experiment.row(part, name, float(v), metric=key, **more) for key, v in told.items()]
    return found


def _visits(worlds: Sequence[str]) -> list[str]:
    """Which visit of its world every batch belongs to, "1", "2", ..."""
    seen: dict[str, int] = {}
    found = []
    for world, group in itertools.groupby(worlds):
        seen[world] = seen.get(world, 0) + 1
        found += [str(seen[world]) for _ in group]
    return found


def run_returns(seed: int, size: str) -> list[Row]:
    worlds, sizes = Worlds.of(seed, size), SIZES[size]
    course = [world for world in (COURSE[:3] if size == "smoke" else COURSE) for _ in range(sizes["visit"])]
    batches = [(world, worlds.batch(i, sizes["rows"], world)) for i, world in enumerate(course)]
    return run_readers("returns", worlds.stream(batches), seed, size)


def run_images(seed: int, size: str, data_dir: str | None) -> list[Row]:
    course = [world for world in (COURSE[:3] if size == "smoke" else COURSE) for _ in range(SIZES[size]["visit"])]
    return run_readers(
        "images", image_stream(course, seed, size, data_dir), seed, size, ("monitor", "never", "always", "tent_carried")
    )


def run_gas(seed: int, size: str, data_dir: str | None) -> list[Row]:
    return run_readers("gas", gas_stream(seed, size, data_dir), seed, size)


def run_slow(seed: int, size: str) -> list[Row]:
    worlds, steps = Worlds.of(seed, size), SIZES[size]["slow"]
    batches = [("B", worlds.batch(i, 100, "B", by=4.0 * i / steps)) for i in range(steps)]
    methods = ("monitor", "never", "tent_carried")
    return run_readers("slow", worlds.stream(batches), seed, size, methods)


def alarms_of(stream: Stream, size: str) -> dict[str, int]:
    """The batch of every test's first alarm, counted from 1; 0 if there is none.  Nothing adapts."""
    target, found = stream.cama.graph.target, {}
    for name in ("monitor", *detectors()):
        monitor = stream.cama.monitor(stream.held, least=4000)
        tested = None if name == "monitor" else Detected(stream, ADAPT[size], name=name)
        found[name] = 0
        for number, (_, rows) in enumerate(stream.batches, 1):
            if tested is None:
                step = monitor.update(rows.drop(columns=target))
                alarm = step.evidence >= step.threshold
            else:
                alarm = tested.alarms(rows)
            if alarm:
                found[name] = number
                break
    return found


def run_false_alarms(seed: int, size: str) -> list[Row]:
    """Whether there is an alarm in 200 batches of 100 rows of the training world."""
    worlds = Worlds.of(seed, size)
    found = []
    for trial in range(SIZES[size]["trials"]):
        numbers = range(10_000 * (trial + 1), 10_000 * (trial + 1) + SIZES[size]["undrifted"])
        held = worlds.model.sample(200, seed=50 + trial)
        batches = [("A", worlds.batch(number, 100)) for number in numbers]
        stream = Stream(worlds.cama, worlds.net, held, batches)
        for name, at in alarms_of(stream, size).items():
            more: dict[str, Any] = {"metric": "alarm", "seed": seed, "setting": f"trial {trial}"}
            found.append(experiment.row("false_alarms", name, float(at > 0), **more))
    return found


def run_delay(seed: int, size: str) -> list[Row]:
    """Rows from the change to the alarm, in batches of 20; `value` is null where there is none in 800 rows."""
    worlds, found = Worlds.of(seed, size), []
    for by in OFFSETS[-1:] if size == "smoke" else OFFSETS:
        for trial in range(min(2, SIZES[size]["trials"])):
            first = 10_000 * (trial + 1)
            worlds_of = ["A"] * BEFORE + ["B"] * LONGEST
            batches = [(world, worlds.batch(first + i, 20, world, by)) for i, world in enumerate(worlds_of)]
            stream = worlds.stream(batches)
            for name, at in alarms_of(stream, size).items():
                rows = 20.0 * (at - BEFORE) if at > BEFORE else math.nan
                more: dict[str, Any] = {"severity": by, "seed": seed}
                early = float(0 < at <= BEFORE)
                found.append(experiment.row("delay", name, rows, metric="rows", setting=f"trial {trial}", **more))
                found.append(experiment.row("delay", name, early, metric="early", setting=f"trial {trial}", **more))
    return found


def run_long(seed: int, size: str) -> list[Row]:
    """Seconds a step, memory of the process and bytes of the state, of every 500 batches; a new world now and then."""
    worlds, steps = Worlds.of(seed, size), SIZES[size]["long"]
    every, found = max(1, steps // 20), []
    names = "AABACABCAD"
    few = min(200, steps)
    batches = {(w, i): worlds.batch(i, 20, w) for w in dict.fromkeys(names) for i in range(few)}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        monitor = worlds.cama.monitor(worlds.held, state=state)
        begun = time.perf_counter()
        for step in range(1, steps + 1):
            rows = batches[names[step // (steps // len(names) or 1) % len(names)], step % few]
            monitor.update(rows.drop(columns="y"))
            if step % every == 0:
                seconds, begun = (time.perf_counter() - begun) / every, time.perf_counter()
                memory = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
                told = {"seconds": seconds, "megabytes": memory, "state": state.stat().st_size / 2**20}
                told |= {"regimes": len(monitor.regimes)}
                more: dict[str, Any] = {"severity": step, "seed": seed}
                found += [experiment.row("long", "monitor", value, metric=key, **more) for key, value in told.items()]
    return found


# what to say ------------------------------------------------------------------------------------------------------


def report(rows: Sequence[Row]) -> str:
    """What each part comes to, mean and standard error over seeds."""
    frame, text = pd.DataFrame(rows), []
    for part in COURSES:
        own = [row for row in rows if row["experiment"] == part]
        if own:
            index = "method"
            text.append(f"{part}: accuracy\n" + experiment.table(own, index=index, columns=["tested_on", "setting"]))
            text.append(
                f"{part}: seconds a batch\n"
                + experiment.table(own, index=index, columns="experiment", metric="seconds")
            )
    for part in ("returns", "gas", "images"):
        if part in set(frame["experiment"]):
            text.append(f"{part}: returns\n" + returns(frame[frame["experiment"] == part]).to_string())
    for part, index, metric in (("delay", "severity", "rows"), ("delay", "severity", "early")):
        own = [row for row in rows if row["experiment"] == part and row["metric"] == metric]
        if own:
            text.append(
                f"{part}: {metric}\n" + experiment.table(_numbers(own), index=index, columns="method", metric=metric)
            )
            missed = (
                pd.DataFrame(own).assign(missed=lambda f: f["value"].isna()).pivot_table("missed", "severity", "method")
            )
            text.append(f"{part}: share without an alarm\n{missed.round(3).to_string()}" if metric == "rows" else "")
    alarms = frame[frame["experiment"] == "false_alarms"]
    if len(alarms):
        counts = alarms.groupby("method")["value"].agg(["sum", "count"])
        text.append(f"streams of 200 undrifted batches with an alarm\n{counts.to_string()}")
    long = frame[frame["experiment"] == "long"]
    if len(long):
        text.append("long\n" + long.pivot_table("value", "severity", "metric").round(4).to_string())
    return "\n\n".join(part for part in text if part)


def _numbers(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["value"] is not None]


def returns(frame: pd.DataFrame) -> pd.DataFrame:
    """Of the monitor's returns: points to the first visit, share of its seconds, and how often named as then."""
    own = frame[frame["method"] == "monitor"]
    found = []
    for (_, world), part in own.groupby(["seed", "tested_on"], sort=False):
        mean = part.pivot_table("value", "setting", "metric")
        last = part[part["metric"] == "regime"].groupby("setting")["value"].last()  # what its visits end as
        for visit in mean.index:
            if visit != "1" and world != "A":
                points = 100 * (mean["accuracy"][visit] - mean["accuracy"]["1"])
                cost = mean["seconds"][visit] / mean["seconds"]["1"]
                found.append({"world": world, "points": points, "seconds": cost, "named": last[visit] == last["1"]})
    table = pd.DataFrame(found)
    return table.astype({"named": float}).groupby("world").agg(["mean", "sem"]).round(3) if len(table) else table


# the picture ------------------------------------------------------------------------------------------------------


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for every part."""
    figure, grid = plt.subplots(4, 2, figsize=(13, 15), layout="constrained")
    panels = dict(zip(PARTS, grid.flat, strict=False))
    for axis in list(grid.flat)[len(PARTS) :]:
        axis.remove()
    drawn: dict[str, Callable[[Axes, list[Row]], None]] = {
        **dict.fromkeys(COURSES, _courses), "delay": _delays, "false_alarms": _rates, "long": _long,
    }  # fmt: skip
    titles = {
        "returns": f"simulated instruments: worlds {', '.join(COURSE)}",
        "gas": "gas sensors in order of time, then batches 2, 3 and 6 again",
        "images": f"MNIST digits: worlds {', '.join(COURSE)}",
        "slow": "slow drift: every batch a little further",
        "delay": "from the change to the alarm",
        "false_alarms": "streams of 200 undrifted batches with an alarm",
        "long": "ten thousand batches of 20 rows",
    }
    for part, axis in panels.items():
        axis.set_title(titles[part], loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e6e6e6")
        axis.set_axisbelow(True)
        own = [row for row in rows if row["experiment"] == part]
        if own:
            drawn[part](axis, own)
        else:
            axis.remove()
    handles = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    shown = [style.label for style in LOOK.values() if style.label in handles]
    figure.legend([handles[n] for n in shown], shown, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _courses(axis: Axes, rows: list[Row]) -> None:
    frame = pd.DataFrame(rows)
    frame = frame[frame["metric"] == "accuracy"]
    worlds = frame.drop_duplicates("severity").sort_values("severity")
    places = list(zip(worlds["severity"], worlds["tested_on"], strict=True))
    for name, style in reversed(LOOK.items()):
        own = frame[frame["method"] == name].groupby("severity")["value"].mean()
        if len(own):
            wide = 2.4 if style.strong else 1.1
            axis.plot(own.index, own, color=style.colour, linewidth=wide, label=style.label, zorder=2 + style.strong)
    axis.set_ylabel("accuracy")
    axis.set_xlabel("batch")
    if len({world for _, world in places}) > 1:
        for world, group in itertools.groupby(places, key=lambda place: place[1]):
            first = next(group)[0]
            axis.axvline(first - 0.5, color="#c9ced4", linewidth=0.9, linestyle=":")
            axis.text(
                first - 0.4, 0.01, world.removeprefix("batch "), fontsize=9, color="#59616c", va="bottom",
                transform=axis.get_xaxis_transform(),
            )  # fmt: skip


def _delays(axis: Axes, rows: list[Row]) -> None:
    frame = pd.DataFrame(rows)
    frame = frame[frame["metric"] == "rows"].assign(value=lambda f: f["value"].astype(float).fillna(20.0 * LONGEST))
    for name, style in LOOK.items():
        own = frame[frame["method"] == name].groupby(["severity", "seed"])["value"].mean().groupby("severity")
        if len(own):
            axis.errorbar(
                own.mean().index, own.mean(), yerr=own.sem().fillna(0.0), color=style.colour, marker="o",
                linewidth=2.4 if style.strong else 1.2, label=style.label,
            )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xticks(OFFSETS, [f"{by:g}" for by in OFFSETS])
    axis.set_yscale("log")
    ticks = [20, 50, 100, 200, 400, 800]
    axis.set_yticks(ticks, [str(tick) for tick in ticks])
    axis.set_yticks([], minor=True)
    axis.set_xlabel("offset of a third of the readings (standard deviations)")
    axis.set_ylabel(f"rows to the alarm ({20 * LONGEST} where there was none)")


def _rates(axis: Axes, rows: list[Row]) -> None:
    frame = pd.DataFrame(rows)
    names = [name for name in LOOK if name in set(frame["method"])]
    counts = frame.groupby("method")["value"].agg(["mean", "count"])
    for i, name in enumerate(names):
        axis.barh(i, counts["mean"][name], color=LOOK[name].colour, height=0.6)
        axis.text(
            counts["mean"][name] + 0.01, i, f"{counts['mean'][name]:.0%} of {counts['count'][name]:.0f}", va="center",
            fontsize=9,
        )  # fmt: skip
    axis.axvline(0.01, color="#1b7f5c", linestyle="--", linewidth=1.2)
    axis.set_yticks(
        range(len(names)), [LOOK[name].label.removeprefix("adapted when ").removesuffix(" alarms") for name in names]
    )
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15)
    axis.set_xlabel("share of streams (dashed: the rate that the monitor states, 1 %)")


def _long(axis: Axes, rows: list[Row]) -> None:
    frame = pd.DataFrame(rows).pivot_table("value", "severity", "metric")
    axis.plot(frame.index, 1000 * frame["seconds"], color="#1b7f5c", marker="o", label="_")
    axis.set_ylabel("milliseconds a step", color="#1b7f5c")
    axis.set_xlabel("batches")
    axis.set_ylim(0, 1.5 * 1000 * float(frame["seconds"].max()))
    other = axis.twinx()
    other.plot(frame.index, frame["megabytes"], color="#3f7fd0", marker="s")
    other.set_ylim(0, 1.3 * float(frame["megabytes"].max()))
    other.set_ylabel("memory of the process (MB)", color="#3f7fd0")
    other.spines[["top"]].set_visible(False)


def main() -> None:
    parser = experiment.parser(__doc__, seeds=3)
    image_data.add_data_dir(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="all; rows of others, and of other seeds, stay")
    options = parser.parse_args()
    size, seeds = experiment.size(options), list(experiment.seeds(options))
    data = None if options.data_dir is None else str(options.data_dir)
    chosen = options.parts or [part for part in PARTS if size != "smoke" or part in QUICKEST]
    every: dict[str, experiment.Part] = {
        "returns": (run_returns, [{"seed": seed, "size": size} for seed in seeds]),
        "gas": (run_gas, [{"seed": seed, "size": size, "data_dir": data} for seed in seeds]),
        "images": (run_images, [{"seed": seed, "size": size, "data_dir": data} for seed in seeds]),
        "slow": (run_slow, [{"seed": seed, "size": size} for seed in seeds]),
        "delay": (run_delay, [{"seed": seed, "size": size} for seed in seeds]),
        "false_alarms": (run_false_alarms, [{"seed": seed, "size": size} for seed in seeds]),
        "long": (run_long, [{"seed": seeds[0], "size": size}]),
    }
    rows = experiment.run_among([every[part] for part in chosen], "stream", options)
    print(report(rows))
    draw(rows, options.out / "stream.png")


if __name__ == "__main__":
    main()
