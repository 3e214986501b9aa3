"""What all experiments share: arguments, tidy rows, resumable runs in processes, text tables and pictures.

parser = experiment.parser(__doc__)
options = parser.parse_args()
tasks = [{"seed": seed} for seed in experiment.seeds(options)]
rows = experiment.run(function, tasks, "name", options)  # writes name.json; function(seed=...) returns rows
print(experiment.table(rows, index="severity"))
experiment.lines(rows, options.out / "name.png")
"""

from __future__ import annotations

import argparse
import json
import math
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from pyro_cama._files import replacing

Row = dict[str, Any]
Task = Mapping[str, Any]
Part = tuple[Callable[..., list[Row]], Iterable[Task]]
KEYS = (
    "experiment", "method", "mechanism", "trained_on", "adapted_on", "tested_on", "severity", "seed", "metric",
    "value", "setting", "device",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a method is called and drawn, in every figure."""

    label: str
    colour: str
    strong: bool = False


METHODS = {
    "net": Style("net", "#9aa0a6"),
    "net_adapted": Style("net, re-standardised", "#7a86b8"),
    "tent": Style("net, Tent", "#4f6bd0"),
    "net_bn": Style("net with batch norm", "#5f6368"),
    "net_pgd": Style("net, adversarially trained", "#202a44"),
    "bn_adapt": Style("net, BN-adapt", "#5fa3d9"),
    "t3a": Style("net, T3A", "#9b7fc2"),
    "shot_im": Style("net, SHOT-IM", "#c58b4b"),
    "coral": Style("net, CORAL", "#b3577f"),
    "irm": Style("net, IRM", "#8a5a9e"),
    "logistic": Style("logistic regression", "#c9b458"),
    "boosting": Style("boosting", "#c9c9c9"),
    "cvae": Style("CVAE (no M)", "#e3a08f"),
    "cvae_adapted": Style("CVAE (no M), adapted", "#c4513a"),
    "concat": Style("CAMA, paper's concat", "#b5cf6b"),
    "concat_adapted": Style("CAMA, paper's concat, adapted", "#8ca252"),
    "concat_adaptive": Style("CAMA, paper's concat, attacked anew", "#5f6f2e"),
    "intensity": Style("CAMA, warp and intensity", "#d9b3cf"),
    "intensity_adapted": Style("CAMA, warp and intensity, adapted", "#a3477f", strong=True),
    "intensity_adaptive": Style("CAMA, warp and intensity, attacked anew", "#5c1f45"),
    "cama": Style("CAMA, not adapted", "#8fc1a9"),
    "cama_adapted": Style("CAMA, adapted", "#1b7f5c", strong=True),
    "cama_adaptive": Style("CAMA, adapted, attacked anew", "#0b3d2c"),
    "simulated": Style("CAMA, simulated interventions", "#2f8fb0"),
    "simulated_adapted": Style("CAMA, simulated, then adapted", "#10586f", strong=True),
    "input": Style("the manipulated image itself", "#b8b8d0"),
    "oracle": Style("supervised oracle", "#111111"),
}
OTHERS = ("#5b4b3a", "#2f8fb0", "#a34a4a", "#6f7d2c", "#444444", "#d08fc0", "#c9a227")  # for lines that are no method


# arguments and rows -----------------------------------------------------------------------------------------------


def parser(description: str | None, *, seeds: int = 5) -> argparse.ArgumentParser:
    """The arguments of every experiment; `seeds` is how many a full run takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_true", help="seconds: does it run?")
    size.add_argument("--quick", action="store_true", help="at most three minutes on two cores")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, help=f"how many; {seeds}, or 1 with --smoke or --quick")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder to write to")
    parser.set_defaults(all_seeds=seeds)
    return parser


def seeds(options: argparse.Namespace) -> range:
    """The seeds asked for."""
    count = options.seeds or (1 if size(options) != "full" else options.all_seeds)
    return range(options.seed, options.seed + count)


def size(options: argparse.Namespace) -> str:
    """smoke, quick or full."""
    return "smoke" if options.smoke else "quick" if options.quick else "full"


def row(
    experiment: str,
    method: str,
    value: float,
    *,
    metric: str = "accuracy",
    mechanism: str = "",
    trained_on: str = "clean",
    adapted_on: str = "",
    tested_on: str = "clean",
    severity: float | str = 0.0,
    seed: int = 0,
    setting: str = "",
    device: str = "cpu",
) -> Row:
    """One tidy row; a value that is no number is null, as JSON has it."""
    found = {
        "experiment": experiment, "method": method, "mechanism": mechanism, "trained_on": trained_on,
        "adapted_on": adapted_on, "tested_on": tested_on,
        "severity": severity if isinstance(severity, str) else float(severity),
        "seed": int(seed), "metric": metric, "value": float(value) if math.isfinite(value) else None,
        "setting": setting, "device": device,
    }  # fmt: skip
    assert tuple(found) == KEYS
    return found


def line_of(row: Row) -> str:
    """The line of a figure that a row belongs to: its method, adapted or not where it is shown both ways.

    >>> line_of({"method": "cama", "adapted_on": ""}), line_of({"method": "cama", "adapted_on": "adaptive attack"})
    ('cama', 'cama_adaptive')
    """
    both = f"{row['method']}_{'adaptive' if row['adapted_on'] == 'adaptive attack' else 'adapted'}"
    return both if row["adapted_on"] and both in METHODS else str(row["method"])


# running ----------------------------------------------------------------------------------------------------------


def run(
    function: Callable[..., list[Row]], tasks: Iterable[Task], stem: str, options: argparse.Namespace, **more: Any
) -> list[Row]:
    """The rows of `function(**task)` of every task, also written to `<out>/<stem>.json`; see :func:`run_parts`."""
    return run_parts([(function, tasks)], stem, options, **more)


def run_parts(
    parts: Iterable[Part], stem: str, options: argparse.Namespace, written_as: Callable[[Row], Row] = dict
) -> list[Row]:
    """The rows of every part's `function(**task)`, also written to `<out>/<stem>.json`.

    A part begins when the one before is done.  Tasks run in spawned processes of one thread, so functions are a
    module's and their arguments can be pickled; `--smoke` and `--jobs 1` stay in this process.  Rows of finished
    tasks are kept in `<stem>.part.jsonl` until all are there, so an interrupted run goes on where it was (delete
    that file if the code has changed since).  `written_as` gives a row the names under which others read it.

    Raises:
        RuntimeError: tasks failed; names them, after all others of their part are done.
    """
    every = [(function, {_key(function, task): task for task in tasks}) for function, tasks in parts]
    named = dict.fromkeys(key for _, tasks in every for key in tasks)
    path, part = options.out / f"{stem}.json", options.out / f"{stem}.part.jsonl"
    done = {key: rows for key, rows in _finished(part) if key in named}
    write_text(part, "".join(map(_line, done, done.values())))  # without a line that was cut off
    if done:
        print(f"{len(done)} of {len(named)} tasks are taken from {part}")
    failed: dict[str, Exception] = {}
    with part.open("a") as file, tqdm(total=len(named), initial=len(done), desc=stem) as bar:
        for function, tasks in every:
            waiting = {key: task for key, task in tasks.items() if key not in done}
            alone = options.smoke or options.jobs <= 1 or len(waiting) <= 1
            results = _here(function, waiting) if alone else _in_processes(options.jobs, function, waiting)
            for key, result in results:
                if isinstance(result, Exception):
                    failed[key] = result
                    tqdm.write(f"failed: {key}\n{''.join(traceback.format_exception(result))}")
                else:
                    done[key] = result
                    file.write(_line(key, result))
                    file.flush()
                bar.update()
            if failed:
                break
    if failed:
        key, error = next(iter(failed.items()))
        more = f" ({len(failed)} tasks in all)" if len(failed) > 1 else ""
        raise RuntimeError(f"task failed: {key}{more}; finished ones are kept in {part}") from error
    rows = [row for key in named for row in done[key]]
    write([written_as(row) for row in rows], path)
    part.unlink()
    return rows


def run_among(
    parts: Iterable[Part],
    stem: str,
    options: argparse.Namespace,
    same: Sequence[str] = ("experiment", "seed"),
    written_as: Callable[[Row], Row] = dict,
) -> list[Row]:
    """:func:`run_parts`, whose rows take the place of those in `<out>/<stem>.json` that are the same in these columns.

    So a part or a seed can be measured by itself, and the others stay.
    """
    path, new = options.out / f"{stem}.json", options.out / f"{stem}_new.json"
    found = [written_as(row) for row in run_parts(parts, new.stem, options)]
    measured = {tuple(row[name] for name in same) for row in found}
    old = json.loads(path.read_text()) if path.exists() else []
    rows = [row for row in old if tuple(row[name] for name in same) not in measured] + found
    order = list(dict.fromkeys(tuple(row[name] for name in same if name != "seed") for row in rows))
    rows.sort(key=lambda row: (order.index(tuple(row[name] for name in same if name != "seed")), row["seed"]))
    write(rows, path)
    new.unlink()
    return rows


def write(rows: Sequence[Row], path: Path) -> None:
    """Writes tidy rows as JSON, all or nothing."""
    write_text(path, json.dumps(rows, indent=1, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """Writes a file, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        new.write_text(text)


def _key(function: Callable[..., Any], task: Task) -> str:
    return f"{function.__qualname__} {json.dumps(dict(task), sort_keys=True, default=repr)}"


def _line(key: str, rows: list[Row]) -> str:
    return json.dumps({"task": key, "rows": rows}) + "\n"


def _finished(part: Path) -> Iterator[tuple[str, list[Row]]]:
    if part.exists():
        for line in part.read_text().splitlines():
            with suppress(json.JSONDecodeError):  # the process ended while it wrote
                entry = json.loads(line)
                yield entry["task"], entry["rows"]


Results = Iterator[tuple[str, list[Row] | Exception]]


def _here(function: Callable[..., list[Row]], tasks: Mapping[str, Task]) -> Results:
    torch.set_num_threads(1)
    for key, task in tasks.items():
        try:
            yield key, function(**task)
        except Exception as error:  # told at the end
            yield key, error


def _in_processes(jobs: int, function: Callable[..., list[Row]], tasks: Mapping[str, Task]) -> Results:
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # of the libraries that the processes load
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        keys = {pool.submit(function, **task): key for key, task in tasks.items()}
        try:
            for future in as_completed(keys):
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield keys[future], error or future.result()
        finally:
            pool.shutdown(cancel_futures=True)


# tables -----------------------------------------------------------------------------------------------------------


def summary(
    rows: Iterable[Row],
    index: str | list[str] = "tested_on",
    columns: str | list[str] = "line",
    metric: str = "accuracy",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean over seeds and its standard error (NaN for one seed), both `index` by `columns` in order of appearance.

    Several rows of one seed in one place are averaged first.
    """
    index, columns = [index] if isinstance(index, str) else index, [columns] if isinstance(columns, str) else columns
    frame = pd.DataFrame(_with_line(rows))
    frame = frame[frame["metric"] == metric]
    a_seed = frame.groupby([*index, *columns, "seed"], sort=False)["value"].mean()
    grouped = a_seed.groupby([*index, *columns], sort=False)
    order, across = (frame[names].drop_duplicates() for names in (index, columns))
    if columns == ["line"]:
        across = across.sort_values("line", key=lambda names: names.map(_rank), kind="stable")
    down, right = _labels(order), _labels(across)
    mean, error = (
        found.unstack(columns).reindex(index=down, columns=right) for found in (grouped.mean(), grouped.sem())
    )
    return mean, error


def table(
    rows: Iterable[Row],
    index: str | list[str] = "tested_on",
    columns: str | list[str] = "line",
    metric: str = "accuracy",
    *,
    digits: int = 3,
) -> str:
    """:func:`summary` as text: mean ± standard error."""
    mean, error = summary(rows, index, columns, metric)

    def text(value: float, se: float) -> str:
        if math.isnan(value):
            return ""
        return f"{value:.{digits}f}" + ("" if math.isnan(se) else f" ± {se:.{digits}f}")

    cells = {name: [text(v, e) for v, e in zip(mean[name], error[name], strict=True)] for name in mean.columns}
    frame = pd.DataFrame(cells, index=mean.index)
    frame.columns = mean.columns
    return frame.rename(columns={name: style.label for name, style in METHODS.items()}).to_string()


def _with_line(rows: Iterable[Row]) -> list[Row]:
    return [row if "line" in row else row | {"line": line_of(row)} for row in rows]


def _labels(frame: pd.DataFrame) -> pd.Index:
    return pd.MultiIndex.from_frame(frame) if frame.shape[1] > 1 else pd.Index(frame.iloc[:, 0])


def _rank(method: str) -> int:
    """Methods in the order of METHODS, others first."""
    return list(METHODS).index(method) if method in METHODS else -1


# pictures ---------------------------------------------------------------------------------------------------------


def styles(names: Iterable[str], given: Mapping[str, Style] | None = None) -> dict[str, Style]:
    """A style for every line: the given one, the method's, or one of the colours that are left."""
    known = {**METHODS, **(given or {})}
    left = iter(OTHERS * 10)
    return {name: known[name] if name in known else Style(str(name), next(left)) for name in names}


def lines(
    rows: Sequence[Row],
    path: Path,
    *,
    x: str = "severity",
    line: str = "line",
    panel: str = "experiment",
    metric: str = "accuracy",
    xlabel: str | None = None,
    ylabel: str | None = None,
    given: Mapping[str, Style] | None = None,
    wide: int = 3,
    each: tuple[float, float] = (4.6, 3.4),
) -> None:
    """A panel for every value of `panel`, in it a line with error bars for every value of `line`.

    Args:
        x: its values are numbers, or text in order of appearance.
        given: styles of lines that are no method, or that shall look different here.
        wide: panels side by side.
        each: width and height of a panel.
    """
    rows, look, panels = _drawn(rows, line, panel, metric, given)
    figure, axes = _panels(panels, wide, each)
    for axis, name in zip(axes, panels, strict=True):
        mean, error = summary((row for row in rows if row[panel] == name), x, line, metric)
        numeric = all(isinstance(value, int | float) for value in mean.index)
        if numeric:
            mean, error = mean.sort_index(), error.sort_index()
        else:
            axis.set_xticks(range(len(mean)), [str(value).replace(" on ", "\non ") for value in mean.index], fontsize=8)
        for key in sorted(mean.columns, key=_rank):
            _errorbar(
                axis, mean.index if numeric else range(len(mean)), mean[key], look[key], yerr=error[key].fillna(0.0)
            )
        axis.grid(axis="y", color="#e6e6e6")
        axis.set_xlabel((x.replace("_", " ") if numeric else "") if xlabel is None else xlabel)
    _finish(figure, axes, path, metric if ylabel is None else ylabel, look)


def dots(
    rows: Sequence[Row],
    path: Path,
    *,
    case: str = "tested_on",
    line: str = "line",
    panel: str = "experiment",
    metric: str = "accuracy",
    given: Mapping[str, Style] | None = None,
    wide: int = 2,
) -> None:
    """A panel for every value of `panel`, in it a line of dots for every case: for many cases with long names."""
    rows, look, panels = _drawn(rows, line, panel, metric, given)
    most = max(len({row[case] for row in rows if row[panel] == name}) for name in panels)
    figure, axes = _panels(panels, wide, (6.0, 1.2 + 0.24 * most))
    for axis, name in zip(axes, panels, strict=True):
        mean, error = summary((row for row in rows if row[panel] == name), case, line, metric)
        for i, key in enumerate(sorted(mean.columns, key=_rank)):
            shifted = [y + 0.5 * ((i + 0.5) / len(mean.columns) - 0.5) for y in range(len(mean))]
            _errorbar(axis, mean[key], shifted, look[key], xerr=error[key].fillna(0.0), linestyle="none")
        axis.set_yticks(range(len(mean)), mean.index, fontsize=8)
        axis.invert_yaxis()
        axis.grid(color="#e6e6e6")
        axis.set_xlabel(metric)
    _finish(figure, axes, path, "", look)


def _drawn(
    rows: Sequence[Row], line: str, panel: str, metric: str, given: Mapping[str, Style] | None
) -> tuple[list[Row], dict[str, Style], list[Any]]:
    """The rows of a metric, a style for every line, and the panels in order of appearance."""
    rows = [row for row in _with_line(rows) if row["metric"] == metric]
    look = styles(sorted(dict.fromkeys(row[line] for row in rows), key=_rank), given)
    return rows, look, list(dict.fromkeys(row[panel] for row in rows))


def _panels(names: Sequence[Any], wide: int, each: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    wide = min(wide, len(names))
    high = math.ceil(len(names) / wide)
    size = (max(6.0, each[0] * wide), each[1] * high + 0.5)
    figure, grid = plt.subplots(high, wide, figsize=size, squeeze=False, layout="constrained")
    axes = list(grid.flat)
    for axis in axes[len(names) :]:
        axis.remove()
    for axis, name in zip(axes, names, strict=False):
        axis.set_title(str(name).replace("_", " "), loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
    return figure, axes[: len(names)]


def _errorbar(axis: Axes, x: Any, y: Any, style: Style, **options: Any) -> None:
    axis.errorbar(
        x, y, label=style.label, color=style.colour, marker="o", markersize=6 if style.strong else 4,
        linewidth=2.2 if style.strong else 1.3, zorder=3 if style.strong else 2, **options,
    )  # fmt: skip


def _finish(figure: Figure, axes: Sequence[Axes], path: Path, ylabel: str, look: Mapping[str, Style]) -> None:
    """One legend for all panels, under them."""
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    shown = [style.label for style in look.values() if style.label in handles]
    columns = int(figure.get_figwidth() / (0.06 * max(map(len, shown)) + 0.5))  # a letter's and a handle's inches
    figure.legend(
        [handles[label] for label in shown], shown, loc="outside lower center",
        ncols=min(max(columns, 1), 4, len(shown)), fontsize=8, frameon=False,
    )  # fmt: skip
    axes[0].set_ylabel(ylabel)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
