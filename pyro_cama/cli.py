"""The command line, ``pyro-cama``: a first graph from a table, a model from a graph, adapted without a line of Python.

Exit codes: 0 done; 1 a graph, a table, a model or a file is at fault; 2 the command was called wrongly; 130
interrupted. Whatever went wrong is one line on stderr; ``--debug`` puts the traceback before it. Results appear whole
or not at all, and nothing is written over without ``--force``.

Shell completion is click's own: put ``eval "$(_PYRO_CAMA_COMPLETE=bash_source pyro-cama)"`` into ~/.bashrc
(zsh_source into ~/.zshrc; for fish, ``_PYRO_CAMA_COMPLETE=fish_source pyro-cama | source``).
"""

from __future__ import annotations

import logging
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import pandas as pd
import torch

import pyro_cama
from pyro_cama.cama import CAMA, build
from pyro_cama.cli_evidence import Usual, evidence
from pyro_cama.cli_init import first_graph
from pyro_cama.cli_tables import (
    claim,
    claim_model,
    draft,
    read_rows,
    read_table,
    write_model,
    write_table,
    write_tables,
)
from pyro_cama.data import Batch
from pyro_cama.draw import draw
from pyro_cama.errors import DataError, GraphError
from pyro_cama.fitting import encoded
from pyro_cama.graph import CausalGraph
from pyro_cama.report import report
from pyro_cama.scores import scores
from pyro_cama.simulate import Shift, simulate
from pyro_cama.sources import SUFFIXES
from pyro_cama.storage import load
from pyro_cama.streams import open_stream, survey
from pyro_cama.training import train_validation_split

VALIDATION = 0.15  # of the rows of a fit
_PICTURES = (".png", ".svg", ".pdf")
_SHOWN = 5  # faults of a graph in the one line

Command = TypeVar("Command", bound=Callable[..., Any])


# errors --------------------------------------------------------------------------------------------------------------


class _App(click.Group):
    """A group of commands whose errors are one line, listed in the order of work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, SystemExit) as error:  # click would print an empty line; Lightning exits silently
            raise click.Abort from error

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any) -> Any:  # type: ignore[override]
        argv = list(sys.argv[1:] if args is None else args)
        debug, argv = "--debug" in argv, [a for a in argv if a != "--debug"]  # wherever it stands
        options["standalone_mode"] = False
        with _notes() as notes:
            try:
                code = super().main(argv, prog_name or "pyro-cama", **options)
                for note in notes:
                    click.echo(note, err=True)
                sys.exit(code if isinstance(code, int) else 0)
            except BrokenPipeError:  # whoever read our output, head for instance, has enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except click.Abort:
                click.echo("Error: interrupted", err=True)
                sys.exit(130)
            except Exception as error:
                if debug and not isinstance(error, click.UsageError):
                    traceback.print_exc()
                click.echo(f"Error: {_sentence(error)}", err=True)
                sys.exit(error.exit_code if isinstance(error, click.ClickException) else 1)


def _sentence(error: Exception) -> str:
    """What went wrong, on one line."""
    if isinstance(error, click.UsageError):
        where = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
        return _joined(error.format_message()) + where
    if isinstance(error, click.ClickException):
        return _joined(error.format_message())
    if isinstance(error, OSError) and error.strerror:
        return _joined(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if isinstance(error, ValueError | OSError | ImportError | FloatingPointError):
        first, *faults = str(error).split("\n  - ")
        said = "; ".join(f"{i}) {fault}" for i, fault in enumerate(faults[:_SHOWN], 1))
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        return _joined(f"{first}: {said}{more}" if faults else first)
    return _joined(f"{type(error).__name__}: {error}; this is a fault of pyro_cama's, pyro-cama --debug shows where")


def _joined(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _notes() -> Iterator[list[str]]:
    """What the library logs and warns of, kept until the command has succeeded; others' warnings are not the user's."""
    notes: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(f"Note: {_joined(record.getMessage())}")

    def note(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
        said = f"Note: {_joined(str(message))}"
        if issubclass(category, UserWarning) and said not in notes:
            notes.append(said)

    handler, logger = Keep(), logging.getLogger("pyro_cama")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings():
            warnings.showwarning = note
            yield notes
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


# arguments -----------------------------------------------------------------------------------------------------------


def _file(name: str, *, folder: bool = False) -> Callable[[Command], Command]:
    return click.argument(name, type=click.Path(path_type=Path, file_okay=not folder))


def _output(what: str, *, required: bool = True) -> Callable[[Command], Command]:
    """-o and --force."""

    def add(command: Command) -> Command:
        place = click.Path(path_type=Path)
        command = click.option("--force", is_flag=True, help="Replace what is there already.")(command)
        return click.option("-o", "--output", type=place, required=required, help=what)(command)

    return add


def _budget(command: Command) -> Command:
    """What a prediction may cost, and how much it takes readings at their word."""
    steps, power = click.IntRange(0), click.FloatRange(0.0, 1.0, min_open=True)
    for name, kind, usual, said in (
        ("--refine-z", steps, 0, "Gradient steps of every row's z under every class: for rows unlike any trained on."),
        ("--power", power, 1.0, "Of the readings' likelihood; below 1 they say less, for noise not seen in training."),
        ("--samples", click.IntRange(1), 16, "Draws of the latents a row; fewer are faster."),
    ):
        command = click.option(name, type=kind, default=usual, help=said)(command)
    return command


def _progress() -> bool:
    """A bar is for somebody who watches."""
    return sys.stderr.isatty()


def _device(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value != "auto":
        try:
            torch.empty(0, device=value)
        except (RuntimeError, AssertionError, NotImplementedError):
            raise click.BadParameter(
                f"found {value!r}, no device of torch's here; expected auto, cpu or cuda"
            ) from None
    return value


def _shifts(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, Shift]:
    found: dict[str, Shift] = {}
    for text in value:
        name, _, offset = text.rpartition("=")
        try:
            number = float(offset)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            raise click.BadParameter(f"found {text!r}; expected node=number, such as fever=+1.5")
        if name in found:
            raise click.BadParameter(f"found node {name!r} more than once; expected it once")
        found[name] = Shift(offset=number)
    return found


_SEED = click.IntRange(0, 2**32 - 1)


@click.group("pyro-cama", cls=_App, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(pyro_cama.__version__, prog_name="pyro-cama")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def app(debug: bool) -> None:
    """Classifiers that follow their instruments: deep CAMA models from a causal graph.

    \b
    pyro-cama init clinic.csv --target diagnosis -o clinic.yaml   # then edit clinic.yaml
    pyro-cama fit clinic.yaml clinic.csv -o model
    pyro-cama adapt model later.csv -o adapted
    pyro-cama predict adapted later.csv -o labels.csv

    Tables are CSV (UTF-8, commas, names in the first line, empty fields are missing) or Parquet; a vector node x is
    columns x[0], x[1], ... Completion for bash: eval "$(_PYRO_CAMA_COMPLETE=bash_source pyro-cama)".
    """


# graphs --------------------------------------------------------------------------------------------------------------


@app.command()
@_file("data")
@click.option("--target", required=True, help="The column to predict.")
@_output("The graph, a .yaml file; left out, it is printed.", required=False)
def init(data: Path, target: str, output: Path | None, force: bool) -> None:
    """A first graph from the table DATA, to be edited.

    Guesses types and levels, leaves out identifiers and constants, and makes every column a child of the target.
    """
    if output is not None:
        claim(output, force, (".yaml", ".yml"))
    text, left_out = first_graph(read_table(data), target, str(data))
    if output is None:
        click.echo(text, nl=False)
    else:
        with draft(output, force) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
        click.echo(f"wrote {output}: edit the types and the edges, then pyro-cama check {output}")
    for name, why in left_out.items():
        click.echo(f"Note: left out {name!r}: {_joined(why)}", err=True)


@app.command()
@_file("graph")
def check(graph: Path) -> None:
    """Check GRAPH: roles, factorisation, what drifts.

    GRAPH is a .yaml, .gml, .graphml or .dot file.
    """
    cama = _built(graph, device="cpu")
    click.echo(cama.summary())
    outside = [name for name in cama.graph.nodes if name not in cama.graph.order]
    if outside:
        click.echo(f"\nnot used, outside the target's Markov blanket: {', '.join(outside)}")


def _built(path: Path, **options: Any) -> CAMA:
    graph = CausalGraph(path)
    try:
        return build(graph, **options)
    except GraphError as error:  # of mechanisms and likelihoods, which no longer knows the file
        raise GraphError(f"{path}: {error}") from error


@app.command("draw")
@_file("graph")
@_output("The picture, .png, .svg or .pdf.")
def draw_command(graph: Path, output: Path, force: bool) -> None:
    """A picture of GRAPH, roles told apart by colour and shape."""
    claim(output, force, _PICTURES)
    causal = CausalGraph(graph)
    with draft(output, force) as part:
        draw(causal, part)
    click.echo(f"wrote {output}")


@app.command("simulate")
@_file("graph")
@click.option("-n", "--rows", type=click.IntRange(1), default=1000, help="Rows.")
@click.option("--seed", type=_SEED, default=0, help="Draws equations and rows.")
@click.option(
    "--shift", multiple=True, callback=_shifts, metavar="NODE=OFFSET", help="Adds to a node; may be given again."
)
@_output("The rows, .csv or .parquet.")
def simulate_command(graph: Path, rows: int, seed: int, shift: dict[str, Shift], output: Path, force: bool) -> None:
    """Rows of GRAPH from a random nonlinear causal model.

    The same seed gives the same rows with and without shifts.
    """
    claim(output, force, SUFFIXES)
    frame = simulate(CausalGraph(graph), rows, seed, shift)
    write_table(frame, output, force)
    click.echo(f"wrote {output}: {rows} rows, {len(frame.columns)} nodes")


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """The library does not know which file its table comes from."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(f"{path}: "):  # what reads files has named it
            raise
        raise DataError(f"{path}: {error}") from error


# models --------------------------------------------------------------------------------------------------------------


@app.command()
@_file("graph")
@_file("train")
@_output("The model, a new folder.")
@click.option("--epochs", type=click.IntRange(0), help="Passes over the rows at most; 300, or 20 with images.")
@click.option("--batch-size", type=click.IntRange(1), default=64, help="Rows a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, help="Learning rate.")
@click.option("--conditional-weight", type=click.FloatRange(0), default=30.0, help="Of log p(y | x); 0: the paper's.")
@click.option("--hidden", type=click.IntRange(1), default=64, help="Units a layer.")
@click.option("--layers", type=click.IntRange(0), default=2, help="Hidden layers.")
@click.option("--seed", type=_SEED, default=0, help="Of weights, validation rows and draws.")
@click.option("--device", callback=_device, default="auto", help="auto, cpu or cuda.")
@click.option("--anneal", is_flag=True, help="Let the learning rate fall to zero; for thousands of rows.")
@click.option("--checkpoints", type=click.Path(path_type=Path), help="Folder for checkpoints and logs, left there.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --checkpoints, if there is one.")
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
    """Fit a model of GRAPH to the labelled rows of TRAIN.

    15 % of the rows, 2,000 at most, are held out for early stopping; how the model does on them is printed. A file of
    more than 256 MB is read in parts, once an epoch.
    """
    if resume and checkpoints is None:
        raise click.UsageError("--resume needs --checkpoints", click.get_current_context())
    claim_model(output, force)
    cama = _built(graph, seed=seed, hidden=hidden, layers=layers, device=device)
    rows = read_rows(train, cama.graph)
    with _about(train):
        cama.fit(
            rows, max_epochs=epochs, batch_size=batch_size, lr=lr, conditional_weight=conditional_weight,
            validation=VALIDATION, anneal=anneal, progress=_progress(), checkpoints=checkpoints, resume=resume,
        )  # fmt: skip
        some, held = _validation(cama, rows, seed)
    seen = evidence(cama, some)
    if not np.isfinite(seen).all():
        raise FloatingPointError("fit: the evidence of some rows is not finite; look for extreme values, or lower --lr")
    write_model(cama, Usual.of(seen, evidence(cama, held)).to_json(), output, force)
    click.echo(_fitted(cama, held))
    click.echo(f"wrote {output}")


def _validation(cama: CAMA, rows: pd.DataFrame | Path, seed: int) -> tuple[Batch, Batch]:
    """The rows of a fit, of many a sample, and those that it held out."""
    stream = open_stream(rows, cama.graph)
    if stream is None:
        batch = cama.encode(rows)  # type: ignore[arg-type]
        _, held = train_validation_split(batch.values[cama.graph.target].cpu(), VALIDATION, seed)
        return batch, batch.select(held.to(cama.device))
    found = survey(stream, cama.graph, validation=VALIDATION, seed=seed, encoder=cama.encoder, progress=_progress())
    return Batch.concatenate([found.held, found.sample]), found.held


def _fitted(cama: CAMA, held: Batch) -> str:
    history = cama.history
    lines = []
    if history is not None and history.rows:
        best = history.rows[history.best_epoch]
        said = "".join(f", {k.replace('_', ' ')} {v:.4g}" for k, v in best.items() if k != "epoch")
        lines.append(f"{len(history.rows)} epochs, the best {history.best_epoch + 1}{said}")
    known = held.observed.get(cama.graph.target, torch.ones(held.rows, dtype=torch.bool))
    if not known.any():
        return "\n".join([*lines, "no validation: fewer than 20 rows"])
    held = held.select(known)
    return "\n".join([*lines, f"validation on {held.rows} rows: {scores(cama, held).line()}"])


@app.command()
@_file("model", folder=True)
@_file("data")
@_budget
@_output("The labels, .csv or .parquet.")
def predict(model: Path, data: Path, samples: int, power: float, refine_z: int, output: Path, force: bool) -> None:
    """Labels for the rows of DATA, in its order.

    Columns: label, p(CLASS) for every class, evidence (a bound on log p(x | a, c), in nats) and, for models that
    pyro-cama fitted, unusual: evidence lower than that of 99.9 % of the training rows, or of all if they are few. Label
    and probabilities are empty where a reading is so far off that none can be told. A file of more than 256 MB is read,
    and the labels are written, in parts.
    """
    claim(output, force, SUFFIXES)
    cama = load(model)
    usual = Usual.load(model)
    rows, odd = 0, 0

    def labelled() -> Iterator[pd.DataFrame]:
        nonlocal rows, odd
        for batch in cama.batches(read_rows(data, cama.graph), "ignore"):
            frame = _labelled(cama, batch, usual, samples=samples, power=power, refine_z=refine_z)
            rows += len(frame)
            odd += int(frame["unusual"].sum()) if usual is not None else 0
            yield frame

    with _about(data):
        write_tables(labelled(), output, force)
    said = "which of them are unusual is not known, as pyro-cama did not fit this model"
    click.echo(f"wrote {output}: {rows} rows, {said if usual is None else f'{odd} unlike anything seen'}")


def _labelled(cama: CAMA, batch: Batch, usual: Usual | None, **budget: Any) -> pd.DataFrame:
    probabilities, found = cama.predict_proba(batch, **budget), evidence(cama, batch)
    told = np.asarray(np.isfinite(probabilities).all(1))
    labels = pd.Series(cama.encoder.labels(probabilities.argmax(1))).where(told)
    columns: dict[str, Any] = {"label": labels if told.all() else labels.astype(object)}
    columns |= {f"p({level})": probabilities[:, i] for i, level in enumerate(cama.classes)}
    columns["evidence"] = found
    if usual is not None:
        columns["unusual"] = usual.flag(found)
    return pd.DataFrame(columns)


@app.command()
@_file("model", folder=True)
@_file("data")
@click.option("--clean", type=click.Path(path_type=Path), help="The training rows; used where m belongs to rows.")
@click.option("--steps", type=click.IntRange(1), help="Gradient steps of every start; 100, or 200 with images.")
@click.option("--folds", type=click.IntRange(1), help="Of the rows, for intervals of what moved; 4, or 1 with images.")
@_output("The adapted model, a new folder.")
def adapt(
    model: Path, data: Path, clean: Path | None, steps: int | None, folds: int | None, output: Path, force: bool
) -> None:
    """Adapt MODEL to the unlabelled rows of DATA.

    Labels are not looked at if there are any. Says whether the change was kept (if not, the new model predicts as the
    old one) and what moved. Of a file of more than 256 MB a sample of 20,000 rows is taken.
    """
    claim_model(output, force)
    cama = load(model)
    usual = Usual.load(model)
    kept = None
    if clean is not None:
        with _about(clean):
            kept = encoded(cama, read_rows(clean, cama.graph), "require")
    with _about(data):
        rows = read_rows(data, cama.graph)
        adapted = cama.adapt(rows, kept, steps=steps, folds=folds, progress=_progress())
        if usual is not None and adapted.adaptation.applied:
            usual = usual.after(evidence(adapted, encoded(adapted, rows, "ignore")))
    write_model(adapted, None if usual is None else usual.to_json(), output, force)
    click.echo(str(adapted.adaptation))
    try:
        found = adapted.explain_shift()
        table = found.table.assign(moved="unknown") if found.note else found.table
        click.echo(table.to_string(index=False, float_format="{:.3g}".format))
        if found.note:
            click.echo(found.note)
    except ValueError as error:  # mechanisms without parameters
        click.echo(str(error))
    click.echo(f"wrote {output}")


@app.command()
@_file("model", folder=True)
@_file("data")
@_budget
def evaluate(model: Path, data: Path, samples: int, power: float, refine_z: int) -> None:
    """How right MODEL is on the labelled rows of DATA.

    Prints accuracy, log-loss, expected calibration error (15 bins), and precision, recall and F1 of every class.
    """
    cama = load(model)
    table = read_table(data, cama.graph)
    with _about(data):
        click.echo(str(scores(cama, table, samples=samples, power=power, refine_z=refine_z)))


@app.command("report")
@_file("model", folder=True)
@_file("data")
@click.option(
    "--before", type=click.Path(path_type=Path, file_okay=False), help="The model that MODEL was adapted from."
)
@click.option("--clean", type=click.Path(path_type=Path), help="Labelled rows that nothing happened to.")
@click.option("--drift", "drifts", multiple=True, metavar="'COLUMN offset|gain'", help="A curve; may be given again.")
@click.option("--follow", is_flag=True, help="Adapt at every point of the curves too; slow.")
@click.option("--steps", type=click.IntRange(1), help="Gradient steps of every start; 100, or 200 with images.")
@_output("The report, a .html file.")
def report_command(
    model: Path,
    data: Path,
    before: Path | None,
    clean: Path | None,
    drifts: tuple[str, ...],
    follow: bool,
    steps: int | None,
    output: Path,
    force: bool,
) -> None:
    """One HTML file on MODEL and the rows of DATA, labelled or not.

    What moved and whether to trust it; scores, confusion and calibration before and after adapting, where there are
    labels; accuracy on the rows of --clean while columns drift by 0 to 3 standard deviations, or times 0.5 to 2; the
    graph. A model that was not adapted is adapted to DATA for the purpose.
    """
    claim(output, force, (".html",))
    cama = load(model)
    other = None if before is None else load(before)
    table = read_table(data, cama.graph)
    clean_table = None if clean is None else read_table(clean, cama.graph)
    if clean is not None and clean_table is not None:
        with _about(clean):
            cama.encode(clean_table, target="require")
    with draft(output, force) as part, _about(data):
        report(
            cama, table, part, before=other, clean=clean_table, drifts=drifts, follow=follow, steps=steps,
            progress=_progress(),
        )  # fmt: skip
    click.echo(f"wrote {output}")


@app.command()
@click.option("--seed", type=_SEED, default=0, help="Of the split, the model and the drifts.")
@click.option("--quick", is_flag=True, help="One drift and little training: seconds, worse figures.")
def demo(seed: int, quick: bool) -> None:
    """Real data and drifting instruments, in a minute.

    The breast-cancer table of scikit-learn, which is needed: trains, lets instruments drift, adapts, compares.
    """
    from pyro_cama.cli_demo import run

    for line in run(seed, quick=quick, progress=_progress()):
        click.echo(line)


def main() -> None:
    """The entry point of the command ``pyro-cama``."""
    app.main()


if __name__ == "__main__":
    main()
