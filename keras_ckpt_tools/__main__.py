"""Run the command line as `python -m keras_ckpt_tools`."""

from __future__ import annotations

from keras_ckpt_tools.cli import main

if __name__ == "__main__":
    main(prog_name="python -m keras_ckpt_tools")
