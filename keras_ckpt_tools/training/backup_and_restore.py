"""`BackupAndRestore`: a Keras callback that saves `fit()` and resumes it after an interruption.

It uses the same engine as `CheckpointManager` (`Checkpoints`), so both write the same files. State
and progress are in one file. A new file is committed before the old one is deleted, and only files
written by this package are deleted.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import keras

from keras_ckpt_tools.errors import ArgumentError, ResumeError
from keras_ckpt_tools.live.keras_walk import is_whole
from keras_ckpt_tools.live.state import build_optimizer
from keras_ckpt_tools.metadata import TrainingProgress, epoch_number
from keras_ckpt_tools.runs.entry import CheckpointEntry
from keras_ckpt_tools.runs.phases import Choice, Phases, check_phase, phases_of
from keras_ckpt_tools.runs.retention import KeepLast
from keras_ckpt_tools.showing.messages import warn
from keras_ckpt_tools.training.changes import Changes, check_changed
from keras_ckpt_tools.training.checkpoints import Checkpoints, Commit, Restored
from keras_ckpt_tools.training.interruption import SaveOnSignal, SignalWatch
from keras_ckpt_tools.training.keras_hooks import refuse_hooks
from keras_ckpt_tools.training.messages import Announcer
from keras_ckpt_tools.training.run import (
    Run,
    check_resume,
    last_of_execution,
    plain_logs,
    run_of_callback,
)
from keras_ckpt_tools.training.save_schedule import Cadence, SaveFreq
from keras_ckpt_tools.training.state.fit import FirstOfAll, FitState
from keras_ckpt_tools.training.state.fit_data import call_in_turn, callback_list_of
from keras_ckpt_tools.training.state.run_state import CADENCE, FIT
from keras_ckpt_tools.training.untracked import OnUntracked, check_on_untracked
from keras_ckpt_tools.training.writing import check_directory

_log = logging.getLogger(__name__)


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """Back up the state of training, and resume from it when the program is started again.

    Use it in place of `keras.callbacks.BackupAndRestore`, and run the same program again after an
    interruption: `fit()` resumes with the next epoch. The arguments are those of Keras, in the same
    order; those after `*` are new.

    Args:
        backup_dir: Directory of the checkpoints; created if missing. Other files in it are not
            changed.
        save_freq: `"epoch"`, a number of batches from 1, or a `datetime.timedelta`.
        double_checkpoint: Whether two checkpoints are retained instead of one.
        delete_checkpoint: Whether the checkpoints are deleted when training ends.
        callbacks: Callbacks whose state is saved and restored, such as Keras' `EarlyStopping` and
            `ReduceLROnPlateau`. Pass them to `fit()` as well.
        background: Whether files are written in a thread while training continues. The saved state
            is that at the time of the save. Errors are raised at the next save, or when training
            ends.
        save_on_signal: Whether SIGTERM and SIGINT (Ctrl-C) save the state at the end of the current
            batch and then take their usual effect. Or which signals do: one, or several
            (`[signal.SIGTERM, signal.SIGUSR1]`, for SLURM's `--signal=USR1@120`). A signal during
            validation saves the state after the last batch; a restart validates again and ends the
            epoch.
        resume: `"auto"` resumes if there is a checkpoint, `"never"` starts over, `"must"` raises an
            error if there is no checkpoint, and resumes the newest run if it is not known which run
            of the directory this one is.
        phase: Name of this `fit()`, if a program calls it several times with one directory. A
            restart then finds each by its name, and `delete_checkpoint=True` retains the last
            checkpoint of each phase, so a completed phase is not trained a second time. Without
            names, the calls are counted. See `docs/fit.md`.
        changed: Intended changes of the program since the checkpoint was written: any of `"data"`,
            `"learning_rate"`, `"optimizer"`, `"metrics"`, `"callbacks"` and `"seed"`. If the
            program differs there, its own setting is used instead of the saved one, without a
            warning or an error; otherwise the argument has no effect. `docs/resuming.md` lists
            which changes need it, and what each costs.
        on_untracked: What to do at a save about state that Keras does not save (a `tf.Variable` in
            a layer, a layer in a plain Python object): `"warn"` once, raise an `"error"` before
            anything is written, or `"ignore"` it.
        tensorboard: Log directory of TensorBoard for a history of the saves, below `saves/` in it:
            time, path, size, duration, and how long training was blocked.
        verbose: 1 to print a line at each save and at a resume. With 0, the lines are logged with
            `logging` instead, under the name `keras_ckpt_tools.training.backup_and_restore`.
        every_n_epochs: Interval of the saves in epochs, from 1, if `save_freq` is `"epoch"`.

    Raises:
        ArgumentError: an argument is invalid.
        UntrackedStateError: at a save, some state would not be saved, and `on_untracked="error"`.
        ResumeError: at the start, `resume="must"` and there is no checkpoint.
        RestoreError: at the start, the checkpoint does not match the model. Nothing was changed.
        PathInUseError: at the start, another process saves into the same directory.
        CommitError: at a save, the operating system refused. The last checkpoint is unchanged.

    The files are `backup_dir/ckpt-00000001.weights.h5` and so on: plain Keras weights files with
    the training progress, which `model.load_weights` can load. A file is visible when it is
    complete.

    Besides the model, a file contains its optimizer, the metrics of the current epoch, `History`,
    the random generators of Python, NumPy, TensorFlow and Keras, the state of `callbacks`, and the
    position in the data. An interrupted epoch resumes at its next batch if the data can be replayed
    (`kct.data.ArrayDataset`, `kct.data.resumable`, and others in `docs/data.md`). Otherwise the
    epoch starts over from its first batch, and a warning explains what to change.

    A directory of Keras' own `BackupAndRestore`, of Keras 3 or Keras 2, is resumed as well: model
    and optimizer, both or none, with the next epoch. Its files are not changed, also not by
    `delete_checkpoint`. After the first save, the new checkpoints are used.

    Example:

    >>> import tempfile
    >>> import keras, numpy as np
    >>> import keras_ckpt_tools as kct
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> directory = tempfile.mkdtemp()
    >>> backup = kct.BackupAndRestore(directory, delete_checkpoint=False)
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> _ = model.fit(x, y, epochs=2, callbacks=[backup], verbose=0)

    Resume in another process, or in this one with `resume="must"`:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> backup = kct.BackupAndRestore(directory, resume="must")
    >>> history = model.fit(x, y, epochs=5, callbacks=[backup], verbose=0)
    >>> history.epoch, len(history.history["loss"])
    ([0, 1, 2, 3, 4], 5)

    Source: the arguments and their meaning are those of
    [`keras.callbacks.BackupAndRestore`](https://keras.io/api/callbacks/backup_and_restore/).
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: SaveFreq = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
        *,
        callbacks: Iterable[keras.callbacks.Callback] | None = None,
        background: bool = False,
        save_on_signal: SaveOnSignal = False,
        resume: Literal["auto", "never", "must"] = "auto",
        phase: str | None = None,
        changed: str | Iterable[str] = (),
        on_untracked: OnUntracked = "warn",
        tensorboard: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        every_n_epochs: int = 1,
    ):
        if not backup_dir:
            # The message of Keras, which users search for.
            raise ArgumentError(
                "Empty `backup_dir` argument passed.",
                received=f"backup_dir={backup_dir!r}",
                remedy="Pass the path of a directory for the backups.",
            )
        # Not Keras' own `__init__`: it sets counters and paths that are not used here.
        keras.callbacks.Callback.__init__(self)
        self.backup_dir = check_directory(backup_dir, "backup_dir")
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self.callbacks = _checked_callbacks(callbacks)
        self.background = background
        self.save_on_signal = save_on_signal
        self._signals = SignalWatch(save_on_signal)
        self._in_epoch = False
        self._before_validation: Commit | None = None
        self._taken: Commit | None = None
        self.resume = check_resume(resume)
        self.on_untracked = check_on_untracked(on_untracked)
        self.every_n_epochs = every_n_epochs
        self._cadence = Cadence(save_freq, "Invalid value for argument `save_freq`", every_n_epochs)
        self._checkpoints: Checkpoints | None = None
        self.phase = check_phase(phase)
        self.changed = check_changed(changed)
        self._changes = Changes(self.changed)
        self._state = FitState(self.callbacks, self._changes)
        self._begins_phase = self._past = False
        self._announcer = Announcer(_log, self.backup_dir, verbose, tensorboard, in_fit=True)
        self._batch = 0
        self._begun: int | None = None
        self._last_logs: Mapping[str, Any] | None = None
        self._due = self._over = self._left = False
        self._pending: Commit | None = None
        self._told_first = False
        self._first: FirstOfAll | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restore the newest good checkpoint, and set where `fit()` resumes."""
        run = self._run()
        self._forget_initial_epoch()
        if self._checkpoints is not None:
            self._checkpoints.close()  # An exception may have ended an earlier `fit()`.
        run.begin(self.params or None)
        run.claim(os.path.abspath(self.backup_dir), self)
        self._state.train_begins(self.model)
        call_in_turn(self)
        self._take_places()
        phases = self._phases()
        again = phases.trained(self.model)
        checkpoints = self._begin()
        checkpoints.occupy()
        phases.begins(self.model, self.phase, checkpoints.kept.saved)
        if self.resume == "never":
            phases.starts_over()
        self._batch = 0
        self._due = self._over = self._left = False
        self._pending = self._before_validation = None
        self._past = False
        loss = getattr(self.model, "loss", None)
        self._changes.begin(self.model.optimizer, same=again, loss=loss)
        if phases.put_back(checkpoints.next_path()):
            checkpoints.kept.look_again()
        found = self._restore(checkpoints, phases) if self.resume != "never" else None
        self._begins_phase = found is None and phases.is_further
        if found is None and phases.is_new:
            run.resume(TrainingProgress())
            checkpoints.kept.expect_another_run()
        if found is not None:
            checkpoints.kept.keep_now()
        if found is None and self.resume == "must" and not phases.is_further:
            raise ResumeError(
                "There is no checkpoint to resume from.",
                received=f"backup_dir={self.backup_dir!r}, resume='must'",
                remedy="Pass `resume='auto'` to start if there is none, or check the path.",
                path=self.backup_dir,
            )
        if self.save_on_signal:
            self._signals.begin()

    def _phases(self) -> Phases:
        return phases_of(os.path.abspath(self.backup_dir))

    def _restore(self, checkpoints: Checkpoints, phases: Phases) -> Restored | None:
        choice = Choice([])

        def among(saved: list[CheckpointEntry]) -> list[CheckpointEntry]:
            nonlocal choice
            choice = phases.choose(saved, self.resume)
            return choice.saved

        among(checkpoints.kept.saved)  # The restore also needs the resulting choice.
        if choice.warning:
            warn(choice.warning, UserWarning, stacklevel=3)
            checkpoints.kept.expect_another_run()
        found = checkpoints.restore_newest(
            _no_differences if choice.over else self._state.differences,
            (self.params or {}).get("steps"),
            among,
            optimizers=not choice.of_later,
            stock=phases.may_begin_from_stock,
        )
        if found is None:
            return None
        checkpoints.kept.expect_another_run()
        phases.resumed(found.beside.get(FIT, {}).get("phase", {}), of_later=choice.of_later)
        self._past = choice.over
        if choice.over:
            self._leave_out(found, phases, of_later=choice.of_later)
        else:
            self._go_on(found)
        return found

    def _leave_out(self, found: Restored, phases: Phases, *, of_later: bool) -> None:
        """Train nothing: this phase has ended, and a later one has started."""
        phase, progress = phases.phase, found.progress
        assert phase is not None
        if of_later:
            ended = phases.earlier.get(str(phase.number), {})
            progress = TrainingProgress.from_json({**ended, "run_id": progress.run_id})
            found = found._replace(beside={})
        # In an epoch that was left, there is nothing to do.
        done = dataclasses.replace(progress, batches_completed=0)
        self._state.resume(found._replace(progress=done))
        self._run().resume(progress)
        epochs = self._epochs()
        self.model._initial_epoch = epochs
        over = f"{phase} has ended after {progress.epochs_completed} epochs, and a later one began"
        if of_later:
            warn(
                f"{over}. Its own checkpoints were deleted, so the weights are now those of the "
                f"later phase, in {found.path!r}. Nothing is trained here; that phase resumes "
                "exactly. To retain the last checkpoint of each phase, name the phases: "
                "`BackupAndRestore(..., phase='head')`.",
                UserWarning,
                stacklevel=5,
            )
        else:
            self._announcer.say(f"{over}: restored its end from {found.path}; nothing is trained")
        begun = found.beside.get(FIT, {}).get("epochs")
        if begun is not None and epochs != begun:
            warn(
                f"{phase} has ended with `epochs={begun}`, and a later phase has started, so "
                f"`epochs={epochs}` trains nothing more in it. To start the whole program over, "
                "pass `resume='never'`.",
                UserWarning,
                stacklevel=5,
            )

    def _epochs(self) -> int:
        return int((self.params or {}).get("epochs") or 0)

    def _take_places(self) -> None:
        """Put this callback before all others, and its restore after the carried callbacks."""
        called = callback_list_of(self)
        self._told_first = called is not None
        if called is None:
            return
        mine = {id(callback) for callback in self.callbacks}
        others = [c for c in called.callbacks if c is not self._first]
        unknown = [c for c in self.callbacks if not any(c is other for other in others)]
        if unknown:
            raise ArgumentError(
                "`callbacks=` contains a callback that was not passed to `fit()`.",
                received=f"callbacks={unknown!r}",
                remedy="Pass it to `fit()` as well: `callbacks=[*carried, "
                "BackupAndRestore(..., callbacks=carried)]`.",
            )
        self._state.tell_of_lost(c for c in others if id(c) not in mine)
        place = next(index for index, callback in enumerate(others) if callback is self)
        after = [c for c in others[place + 1 :] if id(c) not in mine]
        carried = [c for c in others[place + 1 :] if id(c) in mine]
        self._first = FirstOfAll(
            self._first_of_all,
            self._state.before_batches,
            self._batches_over,
            self._state.train_ends,
        )
        self._first.set_model(self.model)
        # A new list: Keras is iterating over the old one.
        called.callbacks = self._state.watched(
            [self._first, *others[:place], *carried, self, *after]
        )

    def _go_on(self, found: Restored) -> None:
        run, progress = self._run(), found.progress
        in_epoch, stopped = self._state.resume(found)
        if not in_epoch and progress.batches_completed:
            progress = dataclasses.replace(progress, batches_completed=0)
        self._announcer.goes_on(found.path, progress)
        self._batch = progress.batches_completed
        run.resume(progress)
        self._cadence.goes_on(found.beside.get(CADENCE), self._batch, progress.step)
        self.model._initial_epoch = progress.epochs_completed
        if stopped and self.params:
            warn(
                f"{' and '.join(stopped)} had stopped the run of {self.backup_dir!r} after "
                f"{progress.epochs_completed} epochs, so nothing is left to train. To train more, "
                "remove it from `BackupAndRestore(callbacks=...)`: it may stay in `fit()` and "
                "starts over. To start the run over, pass `resume='never'`.",
                UserWarning,
                stacklevel=3,
            )
            self.model._initial_epoch = self.params.get("epochs") or progress.epochs_completed
        elif self.params and progress.epochs_completed >= self._epochs() > 0:
            self._say_all_done(progress)

    def _say_all_done(self, progress: TrainingProgress) -> None:
        done, epochs = progress.epochs_completed, self._epochs()
        if self.phase is not None and done == epochs:
            self._announcer.say(f"Phase {self.phase!r} has ended; nothing is trained")
            return
        warn(
            f"Nothing is left to train: the run of {self.backup_dir!r} has {done} epochs, and "
            f"`epochs={epochs}`. The model and its history are now those of that run. Pass a "
            "larger `epochs` to train more, or `resume='never'` to start a new run.",
            UserWarning,
            stacklevel=6,
        )

    def _first_of_all(self, epoch: int) -> None:
        self._forget_initial_epoch()
        batch, self._batch = self._batch, 0
        self._state.epoch_begins(epoch, batch)
        if self._begins_phase:
            # A restart from here on knows that the previous phase has ended.
            self._begins_phase = False
            self._run().epoch_begins(epoch)
            self._back_up(in_epoch=False)

    def _begin(self) -> Checkpoints:
        if self.model.optimizer is not None and is_whole(self.model):
            build_optimizer(self.model.optimizer, self.model.trainable_variables)
        self._checkpoints = Checkpoints(
            self.backup_dir,
            {"model": self.model},
            KeepLast(2 if self.double_checkpoint else 1),
            background=self.background,
            on_untracked=self.on_untracked,
            announcer=self._announcer,
            changes=self._changes,
            door=FIT,
        )
        if self.resume == "never":
            self._checkpoints.kept.expect_another_run()
        return self._checkpoints

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note the epoch."""
        if not self._told_first:
            self._first_of_all(epoch)
        self._over = self._left = False
        self._run().epoch_begins(epoch)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note the batch."""
        self._begun = batch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if a save is due by batches or by time."""
        if self._signals.received:
            self._pending = None  # The state after this batch is saved now; time is short.
        self._save_pending()
        begun, self._begun = self._begun, None
        batch = last_of_execution(self, batch, begun)
        self._run().batch_ends(batch)
        self._last_logs = logs
        self._due = self._should_save_on_batch(batch) or self._due
        if self._signals.received:
            steps = self._steps()
            self._save_in_epoch(over=bool(steps) and batch + 1 >= steps)
        elif self._due:
            # A save after the last batch belongs to the end of the epoch. If the last batch is not
            # known, the state is written when the next batch has been trained on.
            steps = self._steps()
            if not steps and self._told_first:
                self._pending = self._take_in_epoch()
            elif not steps or batch + 1 < steps:
                self._save_in_epoch()
        self._leave_on_signal()

    def _batches_over(self) -> None:
        """Note that the last batch of the epoch is done, before validation and `on_epoch_end`.

        If training was stopped earlier, the rest of the epoch remains to be done. Anything that
        happens from here on is not part of the state to resume from.
        """
        if self._over:
            return
        self._over = True
        self._left = bool(getattr(self.model, "stop_training", False)) and self._is_inside()
        if self._left:
            self._save_pending()
            if self._newest_at(self._progress()) is None:
                self._save_in_epoch()
        elif self._pending is not None:
            self._pending, self._due = None, True

    def _save_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._back_up(in_epoch=True, taken=pending)

    def _save_in_epoch(self, *, over: bool = False) -> None:
        self._back_up(in_epoch=True, taken=self._take_in_epoch(over=over))

    def _take_in_epoch(self, *, over: bool = False) -> Commit:
        self._run().note(plain_logs(self._last_logs))
        return self._take(in_epoch=True, over=over)

    def _steps(self) -> int:
        """Return the number of batches in an epoch; 0 if unknown."""
        return int(self._state.steps or (self.params or {}).get("steps") or 0)

    def _is_inside(self) -> bool:
        """Return whether some but not all batches of the epoch are done, as far as known."""
        done, steps = self._run().progress().batches_completed, self._steps()
        return done > 0 and (not steps or done < steps)

    def _progress(self) -> TrainingProgress:
        return self._run().progress(getattr(self.model, "optimizer", None))

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Note the state after the last batch, for a signal during validation."""
        self._before_validation = None
        if self.save_on_signal and self._checkpoints is not None:
            if self._run().progress().batches_completed:
                self._before_validation = self._take_in_epoch(over=not self._left)
            self._save_in_validation()

    def on_test_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if a signal was received during validation."""
        self._save_in_validation()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Save if a signal was received during validation."""
        self._save_in_validation()
        self._before_validation = None

    def _save_in_validation(self) -> None:
        if self._signals.received and self._before_validation is not None:
            commit, self._before_validation = self._before_validation, None
            commit()
            self._leave_on_signal()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save if a save is due by epochs."""
        self._run().epoch_ends(epoch, plain_logs(logs), left=self._left)
        due = self._cadence.epoch_ends(epoch_number(epoch)) or self._due or self._signals.received
        if due and not self._left:
            self._back_up(in_epoch=False)
        self._leave_on_signal()

    def _leave_on_signal(self) -> None:
        if self._signals.received:
            if self._checkpoints is not None:
                self._checkpoints.wait()
            self._signals.hand_on()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Delete the checkpoints, unless they are retained."""
        self._forget_initial_epoch()
        self._signals.end()
        if self._checkpoints is None:
            return
        self._checkpoints.wait()
        phases, now = self._phases(), self._progress()
        if self._past:
            # The remaining checkpoints belong to the later phase.
            phases.ended(now, None)
            phases.leaves(self._checkpoints.kept.saved)
            self._checkpoints.close()
            self._state.forget()
            return
        gone = self.delete_checkpoint and self.phase is None
        newest = self._newest_at(now)
        if newest is None and not gone and now.trained:
            self._back_up(in_epoch=False)
        self._checkpoints.tidy()
        phases.ended(now, newest if gone else None)
        if self.delete_checkpoint:
            also = phases.is_of_program if gone else _none
            self._checkpoints.kept.delete_all(now.run_id, also, but_newest=not gone)
            self._checkpoints.close()
            if os.path.isdir(self.backup_dir) and not os.listdir(self.backup_dir):
                os.rmdir(self.backup_dir)
        phases.leaves(self._checkpoints.kept.saved)
        self._state.forget()

    def _newest_at(self, now: TrainingProgress) -> str | None:
        """Return the newest checkpoint of the run if it has the current position."""
        saved = self._checkpoints.kept.saved if self._checkpoints else []
        mine = [item for item in saved if item.progress.run_id == now.run_id]
        return mine[-1].path if mine and mine[-1].progress.place == now.place else None

    # Hooks of Keras, which subclasses may override.

    def _should_save_on_batch(self, batch: int) -> bool:
        return self._cadence.batch_ends(batch)

    def _save_model(self) -> None:
        taken, self._taken = self._taken, None
        (taken or self._take(in_epoch=self._in_epoch))()

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Raise an error for an override that would never be called.

        Raises:
            ArgumentError: the class overrides `_load_model`.
        """
        super().__init_subclass__(**arguments)
        refuse_hooks(cls, BackupAndRestore, ("_load_model",))

    def _back_up(self, *, in_epoch: bool, taken: Commit | None = None) -> None:
        self._in_epoch, self._taken = in_epoch, taken
        self._due = False
        self._save_model()

    def _take(self, *, in_epoch: bool, over: bool = False) -> Commit:
        """Take the current state; return the function that saves it."""
        self._run().ensure_begun()
        checkpoints = self._checkpoints or self._begin()
        progress = self._progress()
        beside = self._state.take(self.model, in_epoch=in_epoch, over=over)
        phases = self._phases()
        if phases.phase is None:
            phases.begins(self.model, self.phase, checkpoints.kept.saved)
        beside[FIT] |= {"phase": phases.state(), "epochs": self._epochs() or None}
        return checkpoints.take(progress, beside | {CADENCE: self._cadence.get_state()})

    def _forget_initial_epoch(self) -> None:
        # If it stayed on the model, it would shift every later `fit()` without a resume.
        self.model._initial_epoch = None

    def _run(self) -> Run:
        return run_of_callback(self)

    # Attributes of Keras' callback that some programs read.

    @property
    def _current_epoch(self) -> int:
        return self._run().progress().epochs_completed

    @property
    def _last_batch_seen(self) -> int:
        return self._cadence.last_batch or 0

    @property
    def _weights_path(self) -> str:
        return self._path_of(-1)

    @property
    def _prev_weights_path(self) -> str:
        return self._path_of(-2)

    # Weights and metadata are in one file.
    _training_metadata_path = _weights_path
    _prev_training_metadata_path = _prev_weights_path

    def _path_of(self, index: int) -> str:
        saved = self._checkpoints.kept.saved if self._checkpoints else []
        return saved[index].path if len(saved) >= -index else ""


def _none(saved: CheckpointEntry) -> bool:
    return False


def _no_differences(restored: Restored) -> list[str]:
    return []


def _checked_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    if isinstance(callbacks, keras.callbacks.Callback):
        return [callbacks]
    return list(callbacks or ())
