"""What the commands on models do: fit, diagnose, predict, adapt, evaluate, report, demo."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pyro_cama._messages import one_of
from pyro_cama.cama import CAMA, load
from pyro_cama.cli.files import (
    claim,
    claim_model,
    draft,
    errors_in,
    expect_other_names,
    parts_of,
    read_rows,
    read_table,
    write_model,
    write_tables,
)
from pyro_cama.cli.graphs import PICTURES, build_from
from pyro_cama.cli.starting import shows_progress
from pyro_cama.data.batch import Batch
from pyro_cama.data.open_stream import open_stream
from pyro_cama.data.row_numbers import numbered
from pyro_cama.data.sampling import survey, train_validation_split
from pyro_cama.data.table_files import SUFFIXES
from pyro_cama.data.unknown_levels import Unknown, reading_unknown
from pyro_cama.errors import DataError
from pyro_cama.handlers.interventions import Regime
from pyro_cama.inference.class_posterior import most_probable_labels
from pyro_cama.inference.evidence import elbo_of_unlabelled
from pyro_cama.inference.novelty import NoveltyThreshold, Scored, measured, sites_of
from pyro_cama.metrics import scores

VALIDATION = 0.15  # of the rows of a fit


def fit(
    graph: Path,
    train: Path,
    output: Path,
    force: bool,
    epochs: int | None,
    batch_size: int,
    lr: float,
    conditional_weight: float,
    hidden: int,
    layers: int,
    seed: int,
    device: str,
    anneal: bool,
    checkpoints: Path | None,
    resume: bool,
) -> None:
    """Fits a model of a graph to labelled rows, prints how it does on those held out, and writes it."""
    claim_model(output, force)
    cama = build_from(graph, seed=seed, hidden=hidden, layers=layers, device=device)
    rows = read_rows(train, cama.graph)
    with errors_in(train):
        cama.fit(
            rows, max_epochs=epochs, batch_size=batch_size, lr=lr, conditional_weight=conditional_weight,
            validation=VALIDATION, anneal=anneal, progress=shows_progress(), checkpoints=checkpoints, resume=resume,
        )  # fmt: skip
        some, held = _validation(cama, rows, seed)
    try:
        usual = NoveltyThreshold.fit(cama, some, held)
    except FloatingPointError as error:
        raise FloatingPointError(f"fit: {error}; look for extreme values, or lower --lr") from None
    write_model(cama, usual.to_json(), output, force)
    click.echo(_fitted(cama, some.select(torch.from_numpy(held).nonzero()[:, 0].to(cama.device))))
    click.echo(f"wrote {output}")


def _validation(cama: CAMA, rows: pd.DataFrame | Path, seed: int) -> tuple[Batch, NDArray[np.bool_]]:
    """Returns the rows of a fit, of many a sample, as it saw them, and which of them it held out."""
    stream = open_stream(rows, cama.graph)
    if stream is None:
        batch = cama.encoder.without_far(cama.encode(rows))  # type: ignore[arg-type]
        _, held = train_validation_split(batch.values[cama.graph.target].cpu(), VALIDATION, seed)
        return batch, np.isin(np.arange(batch.rows), held.numpy())
    found = survey(
        stream, cama.graph, validation=VALIDATION, seed=seed, encoder=cama.encoder, progress=shows_progress()
    )
    batch = cama.encoder.without_far(Batch.concatenate([found.held, found.sample]))
    return batch, np.arange(batch.rows) < found.held.rows


def _fitted(cama: CAMA, held: Batch) -> str:
    """Says how a fit went: its epochs, and the scores of the rows held out."""
    history = cama.history
    lines = []
    if history is not None and history.rows:
        best = next((row for row in history.rows if row["epoch"] == history.best_epoch), history.rows[-1])
        losses = {name: best[name] for name in ("loss", "validation_loss") if name in best}
        lines.append(f"{history}" + "".join(f", {k.replace('_', ' ')} {v:.4g}" for k, v in losses.items()))
    known = held.observed.get(cama.graph.target, torch.ones(held.rows, dtype=torch.bool))
    if not known.any():
        return "\n".join([*lines, "no validation: fewer than 20 rows"])
    held = held.select(known)
    return "\n".join([*lines, f"validation on {held.rows} rows: {scores(cama, held).line()}"])


def diagnose(model: Path, data: Path, plot: Path | None, force: bool) -> None:
    """Prints which implied independences and densities the rows of a table contradict."""
    if plot is not None:
        claim(plot, force, PICTURES)
    cama = load(model)
    table = read_table(data, cama.graph)
    with errors_in(data):
        found = cama.diagnose(table, progress=shows_progress())
    click.echo(str(found))
    if plot is not None:
        with draft(plot, force) as part:
            found.plot(part)
        click.echo(f"wrote {plot}")


def predict(
    model: Path,
    data: Path,
    ids: tuple[str, ...],
    samples: int,
    power: float,
    refine_z: int,
    regime: Regime,
    unknown: Unknown,
    output: Path,
    force: bool,
) -> None:
    """Writes labels, probabilities, evidence and which rows are unusual, after the columns that tell rows apart."""
    claim(output, force, SUFFIXES)
    cama = load(model)
    expect_other_names(ids, cama.classes)
    usual = NoveltyThreshold.load(model)
    site = cama.graph.site_column
    images = {name for name in cama.graph.order if cama.graph.nodes[name].is_image}
    rows, odd = 0, 0

    def labelled() -> Iterator[pd.DataFrame]:
        nonlocal rows, odd
        for part in parts_of(data, cama.graph):
            beside = [name for name in ids if name not in {*cama.graph.nodes, site}]  # of which encode would take note
            with numbered(part.index.to_numpy()):
                batch = cama.encode(part.drop(columns=beside, errors="ignore"), target="ignore")
            frame = _labelled(cama, batch, usual, samples=samples, power=power, refine_z=refine_z, regime=regime)
            frame = pd.concat([_named(part, ids, images, data).reset_index(drop=True), frame], axis=1)
            rows += len(frame)
            odd += int(frame["unusual"].sum()) if usual is not None else 0
            yield frame

    with errors_in(data), reading_unknown(unknown, "predict"):
        write_tables(labelled(), output, force, float_format="%.6g")
    said = "which of them are unusual is not known, as pyro-cama did not fit this model"
    click.echo(f"wrote {output}: {rows} rows, {said if usual is None else f'{odd} unlike anything seen'}")
    if 2 * odd > rows and cama.adaptation is None and cama.graph.m is not None:
        click.echo(f"more than half of them: has an instrument changed? pyro-cama adapt {model} {data} -o adapted")


def _named(part: pd.DataFrame, ids: tuple[str, ...], images: Set[str], data: Path) -> pd.DataFrame:
    """The columns that tell rows apart, as they stand; paths of images, which are read from the table's folder, too.

    Raises:
        DataError: there is no such column.
    """
    names = [str(name) for name in part.columns]
    if missing := [name for name in ids if name not in names]:
        raise DataError(f"--id: found no column {missing[0]!r}; {one_of(missing[0], names)}")
    found = part.set_axis(names, axis=1)[[*ids]].astype(object)
    for name in images & {*ids}:
        found[name] = found[name].map(lambda entry: _from(entry, data if data.is_dir() else data.parent))
    return found


def _from(entry: Any, folder: Path) -> Any:
    """A path from a folder, where it is in there."""
    inside = isinstance(entry, str) and Path(entry).is_relative_to(folder)
    return str(Path(entry).relative_to(folder)) if inside else entry


def _labelled(cama: CAMA, batch: Batch, usual: NoveltyThreshold | None, **budget: Any) -> pd.DataFrame:
    """Returns labels, probabilities and evidence of some rows, a row each."""
    probabilities, found = cama.predict_proba(batch, **budget), elbo_of_unlabelled(cama, batch)
    columns: dict[str, Any] = {"label": most_probable_labels(cama, probabilities)}
    columns |= {f"p({level})": probabilities[:, i] for i, level in enumerate(cama.classes)}
    columns["evidence"] = found
    if usual is not None:
        columns["unusual"] = usual.flag(Scored(found, measured(cama, batch), sites_of(cama, batch)))
    return pd.DataFrame(columns)


def adapt(
    model: Path,
    data: Path,
    clean: Path | None,
    steps: int | None,
    folds: int | None,
    only: tuple[str, ...],
    unknown: Unknown,
    output: Path,
    force: bool,
) -> None:
    """Adapts a model to unlabelled rows, prints what was decided and what moved, and writes the copy."""
    claim_model(output, force)
    cama = load(model)
    usual = NoveltyThreshold.load(model)
    kept = None
    if clean is not None:
        with errors_in(clean):
            kept = cama.read(read_rows(clean, cama.graph), "require")
    with errors_in(data), reading_unknown(unknown, "adapt"):
        rows = read_rows(data, cama.graph)
        adapted = cama.adapt(rows, kept, only=only or None, steps=steps, folds=folds, progress=shows_progress())
        if usual is not None and adapted.adaptation is not None and adapted.adaptation.applied:
            usual = usual.after(Scored.of(adapted, adapted.read(rows, "ignore")))
    write_model(adapted, None if usual is None else usual.to_json(), output, force)
    click.echo(str(adapted.adaptation))
    try:
        found = adapted.explain_shift()
        if found.refused:
            click.echo("these rows changed nothing; an adaptation before them stands:")
        said = "unknown" if found.note else found.table["moved"].map({True: "yes", False: "no"})
        wide = max(map(len, found.table["reading"]), default=0)
        table = found.table.assign(moved=said, reading=found.table["reading"].str.ljust(wide))
        text = table.to_string(index=False, float_format="{:.3g}".format, justify="left")
        click.echo("\n".join(line.rstrip() for line in text.splitlines()))
        if found.note:
            click.echo(found.note)
    except ValueError as error:  # mechanisms without parameters
        click.echo(str(error))
    click.echo(f"wrote {output}")


def evaluate(
    model: Path, data: Path, samples: int, power: float, refine_z: int, regime: Regime, unknown: Unknown
) -> None:
    """Prints the scores of a model on labelled rows."""
    cama = load(model)
    table = read_table(data, cama.graph)
    with errors_in(data):
        found = scores(cama, table, unknown=unknown, samples=samples, power=power, refine_z=refine_z, regime=regime)
    click.echo(str(found))


def write_report(
    model: Path,
    data: Path,
    before: Path | None,
    clean: Path | None,
    drifts: tuple[str, ...],
    follow: bool,
    steps: int | None,
    unknown: Unknown,
    output: Path,
    force: bool,
) -> None:
    """Writes one HTML file on a model and rows."""
    from pyro_cama.report import report

    claim(output, force, (".html",))
    cama = load(model)
    other = None if before is None else load(before)
    table = read_table(data, cama.graph)
    clean_table = None if clean is None else read_table(clean, cama.graph)
    if clean is not None and clean_table is not None:
        with errors_in(clean):
            cama.encode(clean_table, target="require")
    with draft(output, force) as part, errors_in(data), reading_unknown(unknown, "report"):
        report(
            cama, table, part, before=other, clean=clean_table, drifts=drifts, follow=follow, steps=steps,
            progress=shows_progress(),
        )  # fmt: skip
    click.echo(f"wrote {output}")


def demo(seed: int, quick: bool) -> None:
    """Prints the demonstration, line by line."""
    from pyro_cama.cli.demo import run

    for line in run(seed, quick=quick, progress=shows_progress()):
        click.echo(line)
