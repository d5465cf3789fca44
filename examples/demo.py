"""Train, be killed, go on, load: the whole package on scikit-learn's digits.

Three runs are trained in processes of their own and killed by SIGKILL in the middle of an epoch,
then started again with the same command: `fit()` twice, a GradientTape loop that saves each epoch,
and one that saves every ten steps. After each kill the checkpoint on disk says where training has
to go on; that the new process does, and counts as if nothing had happened, is checked, and the exit
status is 1 where it is not. Last, a fresh process loads the best models and tries them on digits
that no training has seen.

Call: `python examples/demo.py [--directory DIRECTORY]`
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from child import ChildFailed, Event, Start, run
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import keras_ckpt_tools as kct

EPOCHS = 6
SAVE_EVERY = 10
GOOD_ENOUGH = 0.9


@dataclass
class Run:
    """One run of training, through all its starts.

    Attributes:
        title: What it is called in the output.
        program: The file that trains.
        arguments: What it is given after its directory and the number of epochs.
        kills: `(epoch, batch)` after which each start but the last is killed.
        checkpoints: Name of the folder that tells where to go on.
        kept: Name of the folder with what is there in the end.
        saves_by_steps: Whether it saves every `SAVE_EVERY` steps, and not each epoch.
    """

    title: str
    program: str
    kills: tuple[tuple[int, int], ...]
    checkpoints: str
    kept: str
    arguments: tuple[str, ...] = ()
    saves_by_steps: bool = False
    directory: Path = Path()
    progress: kct.TrainingProgress = field(default_factory=kct.TrainingProgress)

    def may_lose(self, batches: int) -> int:
        """Return how many steps a kill may cost at most, in epochs of that many batches."""
        return SAVE_EVERY + batches % SAVE_EVERY if self.saves_by_steps else batches

    @property
    def files(self) -> list[str]:
        """Names of the files that are kept."""
        return sorted(path.name for path in (self.directory / self.kept).iterdir())


RUNS = (
    Run("fit()", "train_fit.py", ((2, 20), (4, 20)), "backup", "models"),
    Run("loop by epoch", "train_loop.py", ((3, 20),), ".", "."),
    Run(
        "loop by step",
        "train_loop.py",
        ((3, 33),),
        ".",
        ".",
        arguments=(str(SAVE_EVERY),),
        saves_by_steps=True,
    ),
)


class Demo:
    """Runs everything, shows it, and collects what went wrong.

    Args:
        place: An empty directory to work in.
        console: Where to show it.
    """

    def __init__(self, place: Path, console: Console):
        self.place = place
        self.console = console
        self.problems: list[str] = []

    def check(self, holds: bool, problem: str) -> None:
        """Note a problem where something does not hold."""
        if not holds:
            self.problems.append(problem)
            self.console.print(f"  [bold red]wrong:[/] {problem}")

    def train(self, this: Run, number: int) -> None:
        """Train one run to its end, through all its kills."""
        self.console.rule(f"{number}. {this.title}", align="left")
        this.directory = self.place / f"run-{number}"
        this.directory.mkdir()
        expected = (0, 0)
        for attempt, kill_at in enumerate((*this.kills, None), 1):
            start = self._start(this, kill_at, attempt)
            told = start.first("epoch")
            began = (told["epoch"], told["batch"])
            self.check(began == expected, f"went on at {began}, expected {expected}")
            if kill_at is not None:
                expected = self._after_kill(this, start)
        this.progress = kct.TrainingProgress.from_json(start.first("end")["progress"])
        self._check_end(this, start.first("ready")["batches"])

    def _start(self, this: Run, kill_at: tuple[int, int] | None, attempt: int) -> Start:
        bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        with bar:
            task = bar.add_task("starting", total=None)
            shown: set[str] = set()

            def seen(event: Event) -> None:
                if event["event"] == "ready":
                    bar.update(task, total=event["batches"])
                elif event["event"] == "epoch":
                    bar.update(task, description=f"epoch {event['epoch']}")
                elif event["event"] == "batch":
                    bar.update(task, completed=event["batch"] + 1)
                if event["event"] == "saved" or (event["event"] == "epoch" and not shown):
                    shown.add(event["event"])
                    self._show(event, attempt)

            return run(
                this.program,
                [str(this.directory), str(EPOCHS), *this.arguments],
                self.place / "errors.log",
                kill_at=kill_at,
                seen=seen,
            )

    def _show(self, event: Event, attempt: int) -> None:
        if event["event"] == "epoch":
            what = "starts with" if attempt == 1 else "started again, goes on with"
            self.console.print(f"  [cyan]{what}[/] epoch {event['epoch']}, batch {event['batch']}")
        else:
            self.console.print(
                f"  epoch {event['epoch']} done: validation accuracy {event['val_accuracy']:.3f}"
            )

    def _after_kill(self, this: Run, start: Start) -> tuple[int, int]:
        """Say what the kill left; return the epoch and batch that have to come next."""
        epoch, batch = start.last_batch or (0, 0)
        folder = this.directory / this.checkpoints
        saved = kct.training_progress(folder)
        self.console.print(
            f"  [bold red]killed[/] by SIGKILL in epoch {epoch}, after batch {batch}\n"
            f"  on disk: {saved.epochs_completed} epochs and {saved.batches_completed} batches "
            f"completed, step {saved.step}"
        )
        self.check(start.killed, f"the process ended with status {start.status}, not by SIGKILL")
        self.check(bool(kct.verify(folder)), f"{folder} holds a damaged checkpoint")
        batches = start.first("ready")["batches"]
        counted = saved.epochs_completed * batches + saved.batches_completed
        self.check(saved.step == counted, f"step {saved.step} on record, not {counted}")
        behind = epoch * batches + batch + 1 - saved.step
        # One step may have been saved, but not told any more.
        self.check(-1 <= behind <= this.may_lose(batches), f"the save is {behind} steps behind")
        return saved.epochs_completed, saved.batches_completed

    def _check_end(self, this: Run, batches: int) -> None:
        done = this.progress
        self.check(done.epochs_completed == EPOCHS, f"{done.epochs_completed} epochs on record")
        self.check(done.step == EPOCHS * batches, f"{done.step} steps, not {EPOCHS * batches}")
        values = done.history.get("val_accuracy", ())
        self.check(len(values) == EPOCHS, f"the history has {len(values)} of {EPOCHS} epochs")
        if done.best is not None:
            self.check(done.best.value == max(values), "the best value is not that of the history")
        # The newest three, and the best where it is none of them.
        self.check(3 <= len(this.files) <= 4, f"{len(this.files)} files were kept")
        for name in this.files:
            report = kct.verify(this.directory / this.kept / name)
            self.check(bool(report), f"{name} is not whole: {report}")

    def load(self, fit: Run, loop: Run) -> None:
        """Load the best models in a fresh process, and try them."""
        self.console.rule(f"{len(RUNS) + 1}. A fresh process loads the best", align="left")
        best = best_checkpoint(loop)
        result = evaluate(fit.directory / fit.kept, best, self.place / "errors.log")
        missing = ", ".join(result["missing"])
        self.console.print("  before the import of what it is made of, one error lists all of it:")
        self.console.print(f"  {missing}")
        self.check(len(result["missing"]) == 3, "three objects should be missing")
        opened = ("safe_load_model(models)", f"load_weights(model, {best.name})")
        for this, call, epochs, scores in zip(
            (fit, loop), opened, result["epochs"], result["results"], strict=True
        ):
            self.console.print(
                f"  [cyan]{call}[/], {epochs} epochs: "
                f"[bold green]accuracy {scores['accuracy']:.3f}[/] on held-out digits"
            )
            self.check(scores["accuracy"] >= GOOD_ENOUGH, f"{call} is no good model")
            expected = this.progress.best
            self.check(
                expected is not None and epochs - 1 == expected.epoch, f"{call} is not the best"
            )


def best_checkpoint(this: Run) -> Path:
    """Return the checkpoint of the epoch that the run holds for its best."""
    best = this.progress.best
    for name in this.files:
        path = this.directory / this.kept / name
        if best and kct.training_progress(path).epochs_completed - 1 == best.epoch:
            return path
    raise ChildFailed(f"{this.title}: the best checkpoint is not there")


def evaluate(models: Path, checkpoint: Path, log: Path) -> Event:
    """Return what a fresh process finds out about the models."""
    events: list[Event] = []
    run("evaluate.py", [str(models), str(checkpoint)], log, seen=events.append)
    return events[-1]


def table_of(runs: Sequence[Run]) -> Table:
    """Return the table at the end."""
    table = Table(
        title="What the runs came to", title_justify="left", box=box.SIMPLE, pad_edge=False
    )
    for name in ("run", "epochs", "steps", "restarts", "best", "files kept"):
        number = name in ("epochs", "steps", "restarts")
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for this in runs:
        done, best = this.progress, this.progress.best
        table.add_row(
            this.title,
            str(done.epochs_completed),
            str(done.step),
            str(len(this.kills)),
            f"{best.value:.3f}\nepoch {best.epoch}" if best else "-",
            "\n".join(this.files),
        )
    return table


def show(place: Path, console: Console) -> int:
    """Run the demo in an empty directory; return the exit status."""
    began = time.monotonic()
    demo = Demo(place, console)
    console.print("Epochs and batches count from 0, as in Keras' callbacks.")
    try:
        for number, this in enumerate(RUNS, 1):
            demo.train(this, number)
            if demo.problems:
                break
        else:
            demo.load(RUNS[0], RUNS[1])
    except (ChildFailed, kct.errors.CkptError) as error:
        demo.check(False, str(error))
    console.print()
    console.print(table_of([this for this in RUNS if this.progress.trained]))
    console.print(f"{time.monotonic() - began:.0f} seconds, {len(demo.problems)} problems.")
    return 1 if demo.problems else 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Train, be killed, go on, load.")
    parser.add_argument("--directory", type=Path, help="an empty directory to work in, which stays")
    directory = parser.parse_args().directory
    # Into a file or a pipe goes text of a fixed width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="kct-demo-") as place:
            return show(Path(place), console)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        console.print(f"{directory} is not empty. Pass one that is, or none.")
        return 2
    return show(directory, console)


if __name__ == "__main__":
    sys.exit(main())
