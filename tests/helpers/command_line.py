"""Calls of the command line, and what they leave in a folder."""

from pathlib import Path

from click.testing import CliRunner, Result

from pyro_cama import cli

GRAPH = """
target: y
nodes:
  y: {type: categorical, levels: [a, b]}
  x: {type: continuous}
  n: {type: count}
  k: {type: binary}
  v: {type: continuous, dim: 2}
edges: [y -> x, y -> n, k -> x, y -> v]
latents: {z: {dim: 1, effect: deep}, m: {dim: 1, scope: dataset}}
"""


def run(*args: object) -> Result:
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def done(*args: object) -> str:
    """What a command that succeeds prints on stdout."""
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*args: object, says: object = "", code: int = 1) -> str:
    """The one line of a command that fails cleanly."""
    result = run(*args)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    assert str(says) in result.stderr
    assert "fault of pyro_cama" not in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
