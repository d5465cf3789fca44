"""`keras-ckpt completion`: prints the script with which a shell completes commands and options.

The script is click's own. With click alone, users would have to set an environment variable, in a
different way for each shell.
"""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

_PROGRAM = "keras-ckpt"
_VARIABLE = "_KERAS_CKPT_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(keras-ckpt completion bash)"            in ~/.bashrc
    zsh:   eval "$(keras-ckpt completion zsh)"             in ~/.zshrc
    fish:  keras-ckpt completion fish | source             in ~/.config/fish/config.fish
    """  # noqa: D301
    kind = get_completion_class(shell)
    assert kind is not None  # Those are click's own.
    main = context.find_root().command
    # The method of the base class: that of bash runs `bash --version` first.
    click.echo(ShellComplete.source(kind(main, {}, _PROGRAM, _VARIABLE)))
