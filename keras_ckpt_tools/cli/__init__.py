"""The command line `keras-ckpt`.

Each command is a module with a `command`, listed in `COMMANDS` and imported when it is called, so
that a hook over a folder of models starts fast. Nothing here imports Keras or TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from keras_ckpt_tools._version import __version__
from keras_ckpt_tools.showing.messages import harmless

COMMANDS = {
    "completion": "completing",
    "diff": "diffing",
    "export": "exporting",
    "inspect": "inspecting",
    "ls": "listing",
    "plot": "plotting",
    "prune": "pruning",
    "report": "reporting",
    "resume-info": "resuming",
    "verify": "verifying",
}


class _Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # The message may contain text from files: metrics, runs, file names.
            vars(error)["message"] = harmless(error.message)  # Typed as final there.
            raise


_EXIT_STATUS = """
The exit status is 0 if there are no problems, 1 if there are problems (damage, names that a load
would refuse, nothing to resume from, or files that prune did not delete), and 2 if a file cannot
be read or the arguments are wrong. For several files, it is the highest one. With --json, every
command prints one JSON object that begins with "format" and "status".
"""


@click.group(
    cls=_Commands, epilog=_EXIT_STATUS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="keras-ckpt")
def main() -> None:
    """Inspect and manage Keras models, weights and checkpoints without loading them in Keras.

    No command runs code from a file that you have not trusted, and only prune deletes checkpoints.
    """
