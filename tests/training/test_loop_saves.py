"""Saves in the body of a loop, and ways out of it: nothing is trained twice or passed over."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct
from keras_ckpt_tools.training.state.loop import LoopState

BATCHES = 4


class Killed(Exception):
    """Stands for whatever ends a process."""


class Trained:
    """A model of one weight that notes what it was fed."""

    def __init__(self, optimizer: Any = None) -> None:
        self.model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        self.model.layers[0].kernel.assign([[1.0]])
        self.optimizer = keras.optimizers.SGD(0.125) if optimizer is None else optimizer
        self.fed: list[int] = []

    def step(self, number: int) -> float:
        """Train on one number; return the loss."""
        self.fed.append(number)
        weight = self.model.trainable_variables[0]
        self.optimizer.apply([weight * 0.5 + float(number)], [weight])
        return float(weight[0, 0])

    def weight(self) -> float:
        """Return the one weight."""
        return float(self.model.get_weights()[0][0, 0])

    @property
    def objects(self) -> dict[str, Any]:
        """What is tracked."""
        return {"model": self.model, "optimizer": self.optimizer}


def generated() -> Iterator[int]:
    """Yield batches; how many is not known beforehand."""
    yield from range(BATCHES)


SIZED = [lambda: range(BATCHES), generated]
Program = Callable[[Path, tuple[int, int] | None], tuple[list[int], float]]


def at_the_end(path: Path, cut: tuple[int, int] | None, data: Any = generated) -> Any:
    """Save by hand at the end of the body; be killed after the save of a batch."""
    it = Trained()
    manager = kct.CheckpointManager(path, save_freq=10**6, **it.objects)
    for epoch in manager.epochs(2):
        for number in manager.batches(data()):
            loss = it.step(number)
            manager.save()
            if (epoch, number) == cut:
                return it.fed, it.weight()
        assert isinstance(loss, float)  # Everyday code after the inner loop.
    return it.fed, it.weight()


def at_the_top(path: Path, cut: tuple[int, int] | None, data: Any = generated) -> Any:
    """Save by hand before the update; be killed after the save of a batch."""
    it = Trained()
    manager = kct.CheckpointManager(path, save_freq=10**6, **it.objects)
    for epoch in manager.epochs(2):
        for number in manager.batches(data()):
            manager.save()
            if (epoch, number) == cut:
                return it.fed, it.weight()
            loss = it.step(number)
        assert isinstance(loss, float)  # Everyday code after the inner loop.
    return it.fed, it.weight()


def by_schedule(path: Path, cut: tuple[int, int] | None, data: Any = generated) -> Any:
    """Let the loop save, each batch; be killed before the work of a batch."""
    it = Trained()
    manager = kct.CheckpointManager(path, save_freq=1, **it.objects)
    for epoch in manager.epochs(2):
        for number in manager.batches(data()):
            if (epoch, number) == cut:
                return it.fed, it.weight()
            loss = it.step(number)
        assert isinstance(loss, float)  # Everyday code after the inner loop.
    return it.fed, it.weight()


@pytest.mark.parametrize("data", SIZED, ids=["sized", "generated"])
@pytest.mark.parametrize("cut", [(0, 1), (0, 3), (1, 0), (1, 3)])
@pytest.mark.parametrize("program", [at_the_end, at_the_top, by_schedule])
def test_no_batch_is_trained_twice_or_passed_over(
    program: Any, cut: tuple[int, int], data: Any, tmp_path: Path
) -> None:
    """Wherever in the body the save is, and where the process ends; code after the loop runs."""
    whole, weight = program(tmp_path / "whole", None, data)
    first, _ = program(tmp_path / "cut", cut, data)
    with warnings.catch_warnings():
        # An epoch that was saved after its last batch counts as complete, and that is said.
        if program is at_the_end and cut[1] == BATCHES - 1:
            warnings.filterwarnings("ignore", "(?s).*after its last batch")
        second, again = program(tmp_path / "cut", None, data)
    assert first + second == whole
    assert again == weight


def test_a_break_after_the_work_of_a_batch_counts_it(tmp_path: Path) -> None:
    """And one before it does not."""

    def run(stop: int | None, before: bool = False) -> list[int]:
        it = Trained()
        manager = kct.CheckpointManager(tmp_path, save_freq=10**6, **it.objects)
        for _ in manager.epochs(1):
            for number in manager.batches(range(8)):
                if before and number == stop:
                    break
                it.step(number)
                if number == stop:
                    break
            if stop is not None:
                break
        manager.save()
        return it.fed

    assert run(2) + run(4, before=True) + run(None) == list(range(8))


def test_an_exception_after_the_update_counts_the_batch_and_one_before_it_does_not(
    tmp_path: Path,
) -> None:
    """As a program saves that catches Ctrl-C."""

    def run(stop: int | None, before: bool = False) -> list[int]:
        it = Trained()
        manager = kct.CheckpointManager(tmp_path, save_freq=10**6, **it.objects)
        try:
            for number in manager.steps(8):
                if before and number == stop:
                    raise Killed
                it.step(number)
                if number == stop:
                    raise Killed
        except Killed:
            manager.save()
        return it.fed

    assert run(2) + run(4, before=True) + run(None) == list(range(8))


def test_without_an_optimizer_a_body_left_by_an_exception_is_not_done(tmp_path: Path) -> None:
    """And a body that was left by `break` is."""

    def run(error: bool) -> tuple[list[float], int]:
        seen = tf.Variable(tf.zeros(4))
        manager = kct.CheckpointManager(tmp_path, save_freq=10**6, seen=seen)
        try:
            for step in manager.steps(4):
                if error and step == 2:
                    raise Killed
                seen.assign(tf.tensor_scatter_nd_add(seen, [[step]], [1.0]))
                if not error and step == 2:
                    break
            assert manager.progress.step == 3
        except Killed:
            manager.save()
            return seen.numpy().tolist(), manager.progress.step
        manager.save()
        return seen.numpy().tolist(), manager.progress.step

    assert run(error=True) == ([1, 1, 0, 0], 2)
    assert run(error=False) == ([1, 1, 1, 0], 3)


def test_gradients_that_are_added_up_make_a_batch_done(tmp_path: Path) -> None:
    """The optimizer counts every second batch only; the sum tells of the others."""

    def run(stop: int | None) -> tuple[list[int], float]:
        it, total = Trained(), tf.Variable([0.0])
        manager = kct.CheckpointManager(tmp_path, save_freq=10**6, total=total, **it.objects)
        done = []
        for number in manager.steps(6):
            total.assign_add([1.0 + number])
            if number % 2:
                it.step(int(total[0]))
                total.assign([0.0])
            done.append(number)
            manager.save()
            if number == stop:
                break
        return done, it.weight()

    assert run(2)[0] == [0, 1, 2]
    assert run(None)[0] == [3, 4, 5]


def test_optimizers_that_take_turns_count_each(tmp_path: Path) -> None:
    """A GAN trains its generator in every third batch; Keras adds gradients up by itself."""

    def run(stop: int | None) -> list[int]:
        one = Trained(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
        two = Trained()
        objects = {"a": one.model, "b": two.model, "c": two.optimizer, "d": one.optimizer}
        manager = kct.CheckpointManager(tmp_path, save_freq=10**6, **objects)
        for number in manager.steps(6):
            one.step(number)
            if number % 3 == 2:
                two.step(number)
            manager.save()
            if number == stop:
                break
        return one.fed

    assert run(1) + run(2) + run(None) == list(range(6))


def test_a_save_before_and_after_the_work_are_of_both_places(tmp_path: Path) -> None:
    """Two saves in one body."""
    it = Trained()
    manager = kct.CheckpointManager(tmp_path, save_freq=10**6, **it.objects)
    for number in manager.steps(2):
        manager.save()
        it.step(number)
        manager.save()
    places = [kct.training_progress(path) for path in manager.checkpoints]
    assert [(one.batches_completed, one.step) for one in places] == [(0, 0), (1, 1), (1, 1), (2, 2)]


def test_a_save_in_the_middle_of_a_batch_is_told(tmp_path: Path) -> None:
    """A restart from it would lack the rest of the batch."""
    it = Trained()
    manager = kct.CheckpointManager(tmp_path, save_freq=10**6, **it.objects)

    def run() -> None:
        for number in manager.steps(2):
            it.step(number)
            manager.save()
            it.step(number)

    with pytest.warns(UserWarning, match="in the middle of a batch"):
        run()


def test_a_save_by_hand_counts_for_the_schedule(tmp_path: Path) -> None:
    """Saves fall after a restart where they would have fallen."""

    def run(path: Path, stop: int | None) -> list[int]:
        it = Trained()
        manager = kct.CheckpointManager(path, save_freq=3, **it.objects)
        for number in manager.steps(10):
            it.step(number)
            if number == 3:
                manager.save()
            if number == stop:
                break
        return [kct.training_progress(path).step for path in manager.checkpoints]

    assert run(tmp_path / "whole", None) == [3, 4, 6, 9, 10]
    run(tmp_path / "cut", 3)
    assert run(tmp_path / "cut", None) == [3, 4, 6, 9, 10]


def test_a_save_at_the_end_of_an_epochs_body_is_the_one_of_its_end(tmp_path: Path) -> None:
    """After a validation, say: no two checkpoints hold the same weights."""
    it = Trained()
    manager = kct.CheckpointManager(tmp_path, **it.objects)
    paths = []
    for epoch in manager.epochs(3):
        for number in manager.batches(range(BATCHES)):
            it.step(number)
        paths.append(manager.save())
        manager.log(val_loss=float(epoch))
    assert manager.checkpoints == paths
    saved = [kct.training_progress(path) for path in paths]
    assert [(one.epochs_completed, one.batches_completed) for one in saved] == [
        (1, 0),
        (2, 0),
        (3, 0),
    ]
    assert saved[-1].history["val_loss"] == (0.0, 1.0, 2.0)


@pytest.mark.parametrize("format", ["h5", "tf"])
def test_a_process_that_ends_after_such_a_save_does_not_repeat_the_epoch(
    format: Any, tmp_path: Path
) -> None:
    """It is the end of the epoch, and what came after it is said to be lacking."""

    def run(stop: int | None) -> tuple[list[int], list[int], Any]:
        it, seen = Trained(), []
        manager = kct.CheckpointManager(tmp_path, format=format, **it.objects)
        for epoch in manager.epochs(3):
            seen.append(epoch)
            for number in manager.batches(generated()):
                manager.log(loss=it.step(number))
            if epoch == 1:
                manager.save()
            if epoch == stop:
                break
            manager.log(val_loss=float(epoch))
        return it.fed, seen, manager

    first, _, _ = run(1)
    with pytest.warns(UserWarning, match=r"saved in epoch 2, after its last batch"):
        second, seen, manager = run(None)
    assert first + second == [*range(BATCHES)] * 3
    assert seen == [2]
    assert manager.progress.history_epochs == {"loss": (0, 1, 2), "val_loss": (0, 2)}


def test_an_epoch_without_batches_of_the_manager_counts_as_one_piece_of_work(
    tmp_path: Path,
) -> None:
    """A body that calls a function of its own, saves, and is left."""

    def run(stop: int | None) -> list[int]:
        it = Trained()
        manager = kct.CheckpointManager(tmp_path, save_freq=10**6, **it.objects)
        for epoch in manager.epochs(4):
            it.step(epoch)
            manager.save()
            if epoch == stop:
                break
        return it.fed

    first = run(1)
    with pytest.warns(UserWarning, match="after its last batch"):
        assert first + run(None) == [0, 1, 2, 3]


def test_what_data_draw_when_they_are_read_ahead_is_not_in_the_save(tmp_path: Path) -> None:
    """A generator that draws from NumPy's global generator draws the same after a restart."""

    def drawn() -> Iterator[float]:
        for _ in range(4):
            yield float(np.random.random())

    def run(path: Path, stop: int | None) -> list[float]:
        keras.utils.set_random_seed(3)
        it, noise = Trained(), []
        manager = kct.CheckpointManager(path, save_freq=1, **it.objects)
        for _ in manager.epochs(2):
            data = drawn()
            for index, value in enumerate(manager.batches(data)):
                if len(noise) == stop:
                    return noise
                it.step(index)
                noise.append(value)
        return noise

    whole = run(tmp_path / "whole", None)
    # At the epoch's beginning nothing is passed over.
    assert run(tmp_path / "cut", 4) + run(tmp_path / "cut", None) == whole


def test_a_tracked_iterator_is_saved_as_it_was_before_it_was_read_ahead(tmp_path: Path) -> None:
    """Its next batch is the one that was read ahead."""

    def run(path: Path, stop: int | None) -> list[int]:
        it, iterator = Trained(), iter(tf.data.Dataset.range(6))
        manager = kct.CheckpointManager(path, save_freq=2, data=iterator, **it.objects)
        for _ in manager.epochs(1):
            for batch in manager.batches(iterator):
                it.step(int(batch))
                if int(batch) == stop:
                    return it.fed
        return it.fed

    first = run(tmp_path, 4)
    assert first[:4] + run(tmp_path, None) == [0, 1, 2, 3, 4, 5]


def test_an_error_of_the_data_comes_after_the_save_that_was_due(tmp_path: Path) -> None:
    """What was trained until then is on disk."""

    def broken() -> Iterator[int]:
        yield 0
        yield 1
        raise ValueError("the file of batch 3 is gone")

    it = Trained()
    manager = kct.CheckpointManager(tmp_path, save_freq=2, **it.objects)

    def run() -> None:
        for _ in manager.epochs(1):
            for number in manager.batches(broken()):
                it.step(number)

    with pytest.raises(ValueError, match="is gone"):
        run()
    assert kct.training_progress(tmp_path).batches_completed == 2


def test_a_former_save_after_the_last_batch_is_the_end_of_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the steps of the epochs before, or the data, tell how many batches there are."""
    now = LoopState.take

    def take(self: LoopState, *, over: bool = False) -> Any:
        taken = now(self, over=over)
        del taken["_loop"]["over"]  # Former versions did not record it.
        return taken

    monkeypatch.setattr(LoopState, "take", take)
    it = Trained()
    manager = kct.CheckpointManager(tmp_path, save_freq=10**6, **it.objects)
    data = kct.data.ArrayDataset(np.arange(8), batch_size=2)
    for epoch in manager.epochs(2):
        for index, _ in enumerate(manager.batches(data)):
            it.step(index)
            if epoch == 1 and index == BATCHES - 1:
                # What was written before it was known whether there are more batches.
                assert manager._settle()
                manager._take()()
                break
        else:
            continue
        break
    assert kct.training_progress(tmp_path).batches_completed == BATCHES
    again = Trained()
    manager = kct.CheckpointManager(tmp_path, **again.objects)
    with pytest.warns(UserWarning, match="saved in epoch 2, after its last batch"):
        assert list(manager.epochs(3)) == [2]


def test_an_epoch_that_is_longer_than_those_before_is_not_over(tmp_path: Path) -> None:
    """Its first save is after as many batches as the epoch before had."""

    def run(cut: tuple[int, int] | None) -> list[int]:
        it = Trained()
        manager = kct.CheckpointManager(tmp_path, save_freq=2, **it.objects)
        for epoch in manager.epochs(2):
            for number in manager.batches(range(2 + 3 * epoch)):
                if (epoch, number) == cut:
                    return it.fed
                it.step(number)
        return it.fed

    assert run((1, 3)) == [0, 1, 0, 1, 2]
    assert run(None) == [2, 3, 4]


def test_a_stop_inside_an_epoch_is_saved_as_inside_it(tmp_path: Path) -> None:
    """A callback that has run out of time; its remaining batches are not taken for done."""

    class Limit(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                self.model.stop_training = True

    it = Trained()
    manager = kct.CheckpointManager(tmp_path, callbacks=[Limit()], **it.objects)
    for _ in manager.epochs(3):
        for number in manager.batches(generated()):
            it.step(number)
    progress = kct.training_progress(tmp_path)
    assert (progress.epochs_completed, progress.batches_completed) == (0, 2)


def test_callbacks_see_the_end_of_a_batch_that_was_left_once(tmp_path: Path) -> None:
    """And not its beginning a second time after a restart."""

    class Seen(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.seen.append(f"{batch} begins")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append(f"{batch} ends")

    def run(stop: int | None, before: bool) -> list[str]:
        it, seen = Trained(), Seen()
        manager = kct.CheckpointManager(tmp_path, save_freq=10**6, callbacks=[seen], **it.objects)
        for number in manager.steps(3):
            if number == stop and before:
                manager.save()
                return seen.seen
            it.step(number)
            if number == stop:
                manager.save()
                return seen.seen
        return seen.seen

    run(0, before=False)
    run(1, before=True)
    expected = [f"{batch} {what}" for batch in range(3) for what in ("begins", "ends")]
    assert run(None, before=False) == expected


def test_a_signal_after_the_last_batch_is_saved_for_at_once(tmp_path: Path) -> None:
    """A validation may take longer than the machine is left; its end is saved if it comes."""

    def run() -> None:
        it = Trained()
        manager = kct.CheckpointManager(tmp_path, save_on_signal=True, **it.objects)
        for epoch in manager.epochs(2):
            for number in manager.batches(generated()):
                it.step(number)
            if epoch == 1:
                before = it.weight()
                signal.raise_signal(signal.SIGTERM)
                there = kct.training_progress(tmp_path)
                assert (there.epochs_completed, there.batches_completed) == (1, BATCHES)
                assert it.weight() == before
            manager.log(val_loss=it.weight())

    ended: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: ended.append("SIGTERM"))
    try:
        run()
        assert ended == ["SIGTERM"]
        progress = kct.training_progress(tmp_path)
        assert (progress.epochs_completed, progress.batches_completed) == (2, 0)
        assert len(progress.history["val_loss"]) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("background", [False, True])
def test_a_loop_that_keeps_its_state_to_itself_is_told(background: bool, tmp_path: Path) -> None:
    """As stateless loops do that assign at their end only: each save is of the first state."""
    it = Trained()
    manager = kct.CheckpointManager(tmp_path, save_freq=2, background=background, **it.objects)
    values = [v.value for v in it.model.trainable_variables]

    def run() -> None:
        state = values
        for _ in manager.steps(20):
            state = [value - 0.1 for value in state]
        manager.wait()

    with pytest.warns(UserWarning, match=r"(?s)No tracked object has changed.*assign"):
        run()


def test_a_loop_that_assigns_before_each_save_is_not_told(tmp_path: Path) -> None:
    """What the warning advises."""
    it = Trained()
    manager = kct.CheckpointManager(tmp_path, save_freq=2, **it.objects)
    state = [v.value for v in it.model.trainable_variables]
    for _ in manager.steps(6):
        state = [value - 0.1 for value in state]
        for variable, value in zip(it.model.trainable_variables, state, strict=True):
            variable.assign(value)
    assert len(manager.checkpoints) == 3


def test_saves_without_steps_between_them_are_not_told(tmp_path: Path) -> None:
    """The same state twice is what was asked for; and without an optimizer nothing is expected."""
    it = Trained()
    manager = kct.CheckpointManager(tmp_path / "a", **it.objects)
    manager.save()
    manager.save()
    manager = kct.CheckpointManager(tmp_path / "b", save_freq=1, model=it.model)
    for _ in manager.steps(3):
        pass
