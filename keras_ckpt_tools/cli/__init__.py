"""The command line: paths -> *command* -> reports -> exit status.

One module for each command, imported when it is called: a hook that runs over a folder of models
pays for what it uses. `COMMANDS` says where each is; the module has it under the name `command`.
Nothing here imports Keras or TensorFlow.
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
    """A group whose commands are imported when they are asked for."""

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
            # It may name what files name: metrics, runs, and files themselves.
            vars(error)["message"] = harmless(error.message)  # Typed as final there.
            raise


_EXIT_STATUS = """
The exit status is 0 where all is good, 1 where there are problems (damage, names that a load would
refuse, nothing to go on from, or prune has not deleted what it could), and 2 where something cannot
be read or the call is wrong. Of several files the worst counts. With --json every command prints
one JSON object with "format" and "status" in front.
"""


@click.group(
    cls=_Commands, epilog=_EXIT_STATUS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="keras-ckpt")
def main() -> None:
    """Look at Keras models, weights and checkpoints without opening them in Keras.

    None of the commands runs anything that a file holds, and none but prune changes what is there.
    """
