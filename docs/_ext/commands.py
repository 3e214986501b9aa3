"""The directive ``commands``: what ``pyro-cama COMMAND --help`` prints, for every command."""

from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive


class Commands(Directive):
    """Writes a section for every command of the command line."""

    def run(self) -> list[nodes.Node]:
        """Returns the sections."""
        from pyro_cama.cli import app

        found: list[nodes.Node] = []
        with click.Context(app, info_name="pyro-cama", max_content_width=88) as above:
            for name in app.list_commands(above):
                command = app.commands[name]
                with click.Context(command, info_name=name, parent=above, max_content_width=88) as context:
                    said = command.get_help(context)
                section = nodes.section(ids=[f"command-{name}"], names=[f"command-{name}"])
                section += nodes.title(text=name)
                section += nodes.literal_block(text=said, language="text")
                found.append(section)
        return found


def setup(app: Any) -> dict[str, Any]:
    """Registers the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
