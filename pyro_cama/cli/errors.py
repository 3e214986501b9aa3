"""Errors and notes of the command line: one line each, on stderr."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

_SHOWN = 5  # faults of a graph in the one line


class App(click.Group):
    """A group of commands whose errors are one line, listed in the order of work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands in the order of work, not of the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; an interruption becomes click's own."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, SystemExit) as error:  # click's own line is empty; SIGTERM exits
            raise click.Abort from error

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Runs the command line and exits: 0 done, 1 a fault, 2 called wrongly, 130 interrupted."""
        argv = list(sys.argv[1:] if args is None else args)
        debug, argv = "--debug" in argv, [a for a in argv if a != "--debug"]  # wherever it stands
        options["standalone_mode"] = False
        with _notes() as notes:
            _escape_on_stdout(notes)
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
    """Says what went wrong, on one line."""
    if isinstance(error, click.UsageError):
        where = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
        return one_line(error.format_message()) + where
    if isinstance(error, click.ClickException):
        return one_line(error.format_message())
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if isinstance(error, MemoryError):
        return one_line(f"not enough memory: {error}; expected fewer rows, or a machine with more")
    if isinstance(error, ValueError | OSError | ImportError | FloatingPointError):
        first, *faults = str(error).split("\n  - ")
        said = "; ".join(f"{i}) {fault}" for i, fault in enumerate(faults[:_SHOWN], 1))
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        return one_line(f"{first}: {said}{more}" if faults else first)
    return one_line(f"{type(error).__name__}: {error}; this is a fault of pyro_cama's, pyro-cama --debug shows where")


def _escape_on_stdout(notes: list[str]) -> None:
    """Lets stdout escape what it cannot encode, as stderr does, and notes that it did."""

    def escaped(error: UnicodeError) -> tuple[str | bytes, int]:
        said = "Note: characters that stdout cannot encode are escaped, as in \\u6e29; set PYTHONUTF8=1"
        if said not in notes:
            notes.append(said)
        return codecs.backslashreplace_errors(error)

    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("pyro_cama", escaped)
        sys.stdout.reconfigure(errors="pyro_cama")


def one_line(text: str) -> str:
    """Puts a text on one line."""
    return " ".join(text.split())


@contextmanager
def _notes() -> Iterator[list[str]]:
    """Collects what the library logs and warns of until the command has succeeded; others' warnings are left out."""
    notes: list[str] = []

    def keep(message: str) -> None:
        if (said := f"Note: {one_line(message)}") not in notes:
            notes.append(said)

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            keep(record.getMessage())

    def note(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
        if issubclass(category, UserWarning):
            keep(str(message))

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
