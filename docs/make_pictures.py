"""Make the pictures of the documentation, all of them real: a run, its plots, its page, its shell.

Two small runs are trained on scikit-learn's digits, interrupted twice, and looked at with the
package's own commands. What a command prints on a terminal becomes an SVG, what a browser shows of
the page a PNG. Needs a Chromium for the latter (`apt-get install chromium`).

Call: `python docs/make_pictures.py [FOLDER]`
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import chromium  # noqa: E402 (the path to it is set above)

from keras_ckpt_tools.cli import COMMANDS  # noqa: E402

WIDTH = 112
# What is shown of the shell, as far as the command is there.
SHELL = {
    "ls": "runs/digits",
    "inspect": "models/06.keras",
    "diff": "models/05.keras models/06.keras",
    "verify": "runs/digits",
    "resume-info": "runs/digits",
}


class Interrupted(Exception):
    """The program was stopped."""


def train(folder: Path) -> None:
    """Leave two runs and a folder of models, as a day's work does."""
    import keras
    from sklearn.datasets import load_digits

    import keras_ckpt_tools as kct

    bunch = load_digits()
    x, y = (bunch.images / 16).astype("float32")[..., None], bunch.target

    @kct.register("digits")
    class Shifted(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs - 0.5

    def build(units: int) -> Any:
        keras.utils.set_random_seed(1)
        layers = keras.layers
        model = keras.Sequential(
            [
                layers.Input((8, 8, 1)),
                Shifted(),
                layers.Flatten(),
                layers.Dense(units, activation="relu"),
                layers.Dropout(0.3),
                layers.Dense(10, activation="softmax"),
            ]
        )
        rate = keras.optimizers.Adam(3e-3)
        model.compile(rate, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def go_on(name: str, units: int, stop: tuple[int, int] | None) -> None:
        model = build(units)
        manager = kct.CheckpointManager(
            folder / "runs" / name,
            model=model,
            keep=kct.KeepLast(3) | kct.KeepEvery(8),
            monitor="val_loss",
        )
        for epoch in manager.epochs(24):
            sums = {"loss": 0.0, "accuracy": 0.0}
            for batch in manager.batches(range(38)):
                if (epoch, batch) == stop:
                    raise Interrupted
                rows = slice(32 * batch, 32 * batch + 32)
                logs = model.train_on_batch(x[:1200][rows], y[:1200][rows], return_dict=True)
                sums = {key: value + float(logs[key]) / 38 for key, value in sums.items()}
            judged = model.evaluate(x[1200:], y[1200:], verbose=0, return_dict=True)
            manager.log(**sums, **{f"val_{key}": judged[key] for key in sums})

    for name, units, stops in (("digits", 96, ((6, 20), (15, 5))), ("narrow", 12, ())):
        for stop in (*stops, None):
            try:
                go_on(name, units, stop)
            except Interrupted:
                continue
    path = folder / "models" / "{epoch:02d}.keras"
    keep = kct.ModelCheckpoint(path, max_to_keep=3)
    data = {"x": x[:1200], "y": y[:1200], "validation_data": (x[1200:], y[1200:])}
    build(24).fit(**data, epochs=6, verbose=0, callbacks=[keep])


def on_terminal(arguments: list[str], folder: Path) -> str:
    """Return what a command prints on a terminal, with its colours."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parent),
        "COLUMNS": str(WIDTH),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
    }
    command = [sys.executable, "-m", "keras_ckpt_tools", *arguments]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=folder, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            data = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the last writer has gone.
            break
        if not data:
            break
        said += data
    process.wait()
    os.close(ours)
    return said.decode("utf-8", "replace").replace("\r\n", "\n")


def as_svg(command: str, said: str) -> str:
    """Return what a terminal showed as SVG that asks nobody for a font."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    # The last line of all is cut as well, so it is an empty one.
    console.print(Text.from_ansi(f"\x1b[1m$ {command}\x1b[0m\n{said.rstrip()}\n "))
    drawn = console.export_svg(title=command.partition(" ")[0])
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    # Lines are cut at the height of rich's own font, which takes the underscores off others.
    return re.sub(r' clip-path="url\(#[^)"]*-line-\d+\)"', "", drawn)


def main() -> None:
    """Make all pictures."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train(folder)
        for name, arguments in SHELL.items():
            if name in COMMANDS:
                said = on_terminal([name, *shlex.split(arguments)], folder)
                svg = as_svg(f"keras-ckpt {name} {arguments}", said)
                (out / f"{name}.svg").write_text(svg, encoding="utf-8")
        on_terminal(["plot", "runs/digits", "-o", str(out / "plot.png")], folder)
        both = ["runs/digits", "runs/narrow"]
        on_terminal(["plot", *both, "--metric", "loss", "-o", str(out / "plot-two.png")], folder)
        on_terminal(["report", "runs/digits", "-o", "report.html"], folder)
        binary = chromium.find()
        if binary is None:
            sys.exit("There is no Chromium here, so there are no pictures of the page.")
        with chromium.Chromium(binary) as browser:
            for name, width, height, dark in (
                ("report-light", 1080, 1180, False),
                ("report-dark", 1080, 1180, True),
                ("report-phone", 360, 1180, False),
            ):
                browser.open(folder / "report.html", width=width, dark=dark)
                browser.picture(out / f"{name}.png", height=height)


if __name__ == "__main__":
    main()
