"""The commands, their options and what their help says; :mod:`pyro_cama.cli.graphs` and ``models`` do the work.

Nothing of weight is imported here before a command is run: help and completion answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pyro_cama.cli.app import app
from pyro_cama.cli.options import (
    SEED,
    file_argument,
    output_option,
    parse_device,
    parse_shifts,
    prediction_options,
    unknown_option,
)
from pyro_cama.cli.starting import starting


@app.command()
@file_argument("data")
@click.option("--target", required=True, help="The column to predict.")
@click.option(
    "--graph",
    type=click.Path(path_type=Path),
    help="Another tool's graph, whose nodes and edges it takes; types it lacks are guessed.",
)
@click.option(
    "--orient",
    multiple=True,
    metavar="'A -> B'",
    help="Which way an edge of --graph points that has no direction; may be given again.",
)
@output_option("The graph, a .yaml file; left out, it is printed.", required=False)
def init(**given: Any) -> None:
    """A first graph from the table DATA, to be edited.

    Guesses types and levels, leaves out identifiers and constants, and makes every column a child of the target; or
    takes the edges of --graph.
    """
    with starting():
        from pyro_cama.cli import graphs
    graphs.init(**given)


@app.command()
@file_argument("graph")
def check(**given: Any) -> None:
    """Check GRAPH: roles, factorisation, what drifts.

    GRAPH is a .yaml file, or one of other tools whose nodes have types.
    """
    with starting():
        from pyro_cama.cli import graphs
    graphs.check(**given)


@app.command()
@file_argument("graph")
@output_option("The picture, .png, .svg or .pdf.")
def draw(**given: Any) -> None:
    """A picture of GRAPH, roles told apart by colour and shape."""
    with starting():
        from pyro_cama.cli import graphs
    graphs.draw(**given)


@app.command()
@file_argument("graph")
@click.option("-n", "--rows", type=click.IntRange(1), default=1000, help="Rows.")
@click.option("--seed", type=SEED, default=0, help="Draws equations and rows.")
@click.option(
    "--shift", multiple=True, callback=parse_shifts, metavar="NODE=OFFSET", help="Adds to a node; may be given again."
)
@output_option("The rows, .csv or .parquet.")
def simulate(**given: Any) -> None:
    """Rows of GRAPH from a random nonlinear causal model.

    The same seed gives the same rows with and without shifts.
    """
    with starting():
        from pyro_cama.cli import graphs
    graphs.simulate_rows(**given)


@app.command()
@file_argument("graph")
@file_argument("train")
@output_option("The model, a new folder.")
@click.option(
    "--epochs", type=click.IntRange(0), help="Passes over the rows at most; 300, or 20 with images, after those asleep."
)
@click.option("--batch-size", type=click.IntRange(1), default=64, help="Rows a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, help="Learning rate.")
@click.option("--conditional-weight", type=click.FloatRange(0), default=30.0, help="Of log p(y | x); 0: the paper's.")
@click.option("--hidden", type=click.IntRange(1), default=64, help="Units a layer.")
@click.option("--layers", type=click.IntRange(0), default=2, help="Hidden layers.")
@click.option("--seed", type=SEED, default=0, help="Of weights, validation rows and draws.")
@click.option("--device", callback=parse_device, default="auto", help="auto, cpu or cuda.")
@click.option("--anneal", is_flag=True, help="Let the learning rate fall to zero; for thousands of rows.")
@click.option("--checkpoints", type=click.Path(path_type=Path), help="Folder for checkpoints and logs, left there.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --checkpoints, if there is one.")
def fit(**given: Any) -> None:
    """Fit a model of GRAPH to the labelled rows of TRAIN.

    15 % of the rows, 2,000 at most, are held out for early stopping; how the model does on them is printed. A file of
    more than 256 MB is read in parts, once an epoch.
    """
    if given["resume"] and given["checkpoints"] is None:
        raise click.UsageError("--resume needs --checkpoints", click.get_current_context())
    with starting():
        from pyro_cama.cli import models
    models.fit(**given)


@app.command()
@file_argument("model", folder=True)
@file_argument("data")
@click.option("--plot", type=click.Path(path_type=Path), help="A picture of it, .png, .svg or .pdf.")
@click.option("--force", is_flag=True, help="Replace what is there already.")
def diagnose(**given: Any) -> None:
    """Does the graph of MODEL fit the labelled rows of DATA?

    Tests the independences that the graph implies and compares every column's distribution with the model's: names
    suspects, missing edges and badly fitted columns. Needs pip install 'pyro_cama[pgmpy]'.
    """
    with starting():
        from pyro_cama.cli import models
    models.diagnose(**given)


@app.command()
@file_argument("model", folder=True)
@file_argument("data")
@click.option("--id", "ids", multiple=True, metavar="COLUMN", help="A column to carry along; may be given again.")
@prediction_options
@unknown_option
@output_option("The labels, .csv or .parquet.")
def predict(**given: Any) -> None:
    """Labels for the rows of DATA, in its order.

    Columns: those of --id, label, p(CLASS) for every class, evidence (a bound on log p(x | a, c), in nats) and, for
    models that pyro-cama fitted, unusual: evidence lower than that of 99.9 % of the training rows, or of all if they
    are few, given what was measured. Label and probabilities are empty where a reading is so far off that none can be
    told. A file of more than 256 MB is read, and the labels are written, in parts.
    """
    with starting():
        from pyro_cama.cli import models
    models.predict(**given)


@app.command()
@file_argument("model", folder=True)
@file_argument("data")
@click.option("--clean", type=click.Path(path_type=Path), help="The training rows; used where m belongs to rows.")
@click.option("--steps", type=click.IntRange(1), help="Gradient steps of every start; 100, or 200 with images.")
@click.option("--folds", type=click.IntRange(1), help="Of the rows, for intervals of what moved; 4, or 1 with images.")
@click.option("--only", multiple=True, help="A manipulation that moves, of several; all by default. May be repeated.")
@unknown_option
@output_option("The adapted model, a new folder.")
def adapt(**given: Any) -> None:
    """Adapt MODEL to the unlabelled rows of DATA.

    Labels are not looked at if there are any. Says whether the change was kept (if not, the new model predicts as the
    old one) and what moved. Of a file of more than 256 MB a sample of 20,000 rows is taken.
    """
    with starting():
        from pyro_cama.cli import models
    models.adapt(**given)


@app.command()
@file_argument("model", folder=True)
@file_argument("data")
@prediction_options
@unknown_option
def evaluate(**given: Any) -> None:
    """How right MODEL is on the labelled rows of DATA.

    Prints accuracy, log-loss, expected calibration error (15 bins), and precision, recall and F1 of every class.
    """
    with starting():
        from pyro_cama.cli import models
    models.evaluate(**given)


@app.command()
@file_argument("model", folder=True)
@file_argument("data")
@click.option(
    "--before", type=click.Path(path_type=Path, file_okay=False), help="The model that MODEL was adapted from."
)
@click.option("--clean", type=click.Path(path_type=Path), help="Labelled rows that nothing happened to.")
@click.option("--drift", "drifts", multiple=True, metavar="'COLUMN offset|gain'", help="A curve; may be given again.")
@click.option("--follow", is_flag=True, help="Adapt at every point of the curves too; slow.")
@click.option("--steps", type=click.IntRange(1), help="Gradient steps of every start; 100, or 200 with images.")
@unknown_option
@output_option("The report, a .html file.")
def report(**given: Any) -> None:
    """One HTML file on MODEL and the rows of DATA, labelled or not.

    What moved and whether to trust it; scores, confusion and calibration before and after adapting, where there are
    labels; accuracy on the rows of --clean while columns drift by 0 to 3 standard deviations, or times 0.5 to 2; the
    graph. A model that was not adapted is adapted to DATA for the purpose.
    """
    with starting():
        from pyro_cama.cli import models
    models.write_report(**given)


@app.command()
@file_argument("model", folder=True)
@file_argument("folder", folder=True)
@click.option("--clean", type=click.Path(path_type=Path), help="Rows as the model was fitted to, held out of the fit.")
@click.option("--pattern", default="*", help="Names of the files, such as 'day-*.csv'.")
@click.option("--order", type=click.Choice(["name", "time"]), default="name", help="In which files are read.")
@click.option("--once", is_flag=True, help="Read what is there, and end; left out, wait for more.")
@click.option("--every", type=click.FloatRange(0, min_open=True), default=10.0, help="Seconds between looks.")
@click.option("--settle", type=click.FloatRange(0), default=0.0, help="Seconds a file must have lain unchanged.")
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    help="Probability, at most, of ever an alarm while nothing changes.",
)
@click.option("--least", type=click.IntRange(20), default=100, help="Rows of a new world before the model adapts.")
@click.option("--id", "ids", multiple=True, metavar="COLUMN", help="A column to carry along; may be given again.")
@unknown_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="A folder, new or of a run before."
)
def watch(**given: Any) -> int:
    """Label files as they arrive in FOLDER, and follow the world.

    Every .csv or .parquet file is read once, in order: its labels go to labels/ in the output folder, under its name,
    and a line to ledger.csv there: what the step was (same, back, new, refused, undecided, calibrating; failed for a
    file that cannot be read, which is not tried again), and why. report.html has the course of it. Without --clean the
    first rows stand for what the model was fitted to.

    Stopped or killed at any time, the same command goes on where it was: no file is lost, none is done twice. Exit
    codes with --once, the greatest that holds: 0 nothing changed; 3 the world changed, and the model follows; 4 it
    reads a world that it could not adapt to, or cannot tell yet; 5 a file failed.
    """
    with starting():
        from pyro_cama.cli import watch as watching
    return watching.watch(**given)


@app.command()
@click.option("--seed", type=SEED, default=0, help="Of the split, the model and the drifts.")
@click.option("--quick", is_flag=True, help="One drift and little training: seconds, worse figures.")
def demo(**given: Any) -> None:
    """Real data and drifting instruments, in seconds.

    The breast-cancer table of scikit-learn: trains, lets instruments drift, adapts, compares.
    """
    with starting():
        from pyro_cama.cli import models
    models.demo(**given)
