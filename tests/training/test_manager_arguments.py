"""Arguments and objects of `tf.train.CheckpointManager`'s programs, and some odd ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import keras_ckpt_tools as kct


def numbers(manager: kct.CheckpointManager) -> list[int]:
    """Return the numbers in the names of a manager's checkpoints."""
    return [
        int(Path(path).name.partition("-")[2].partition(".")[0]) for path in manager.checkpoints
    ]


@pytest.mark.parametrize("make", [int, np.int64, tf.Variable])
def test_a_save_takes_the_number_of_a_checkpoint(make: Any, tmp_path: Path) -> None:
    """As programs pass the epoch or the step; the order of the saves stays the order of numbers."""
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0))
    manager.save(make(5))
    manager.save(checkpoint_number=make(3))
    manager.save(options=None)
    assert numbers(manager) == [5, 6, 7]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"checkpoint_number": "last"}, "non-negative integer"),
        ({"checkpoint_number": True}, "non-negative integer"),
        ({"options": tf.train.CheckpointOptions()}, "no options"),
    ],
)
def test_a_save_refuses_what_it_cannot_do(
    arguments: dict[str, Any], what: str, tmp_path: Path
) -> None:
    """Before anything is written."""
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0))
    with pytest.raises(kct.errors.ArgumentError, match=what):
        manager.save(**arguments)
    assert manager.checkpoints == []


def test_arguments_of_tensorflows_manager_are_named_with_what_to_do(tmp_path: Path) -> None:
    """All of them at once; and following the advice works."""
    steps = tf.Variable(0)
    with pytest.raises(kct.errors.ArgumentError) as caught:
        kct.CheckpointManager(
            tmp_path,
            weight=tf.Variable(1.0),
            keep_checkpoint_every_n_hours=2,
            checkpoint_name="model",
            checkpoint_interval=100,
            step_counter=steps,
            init_fn=lambda: None,
        )
    message = str(caught.value)
    for name in (
        "keep_checkpoint_every_n_hours",
        "checkpoint_name",
        "checkpoint_interval",
        "step_counter",
        "init_fn",
    ):
        assert f"`{name}`: " in message
    keep = kct.KeepLast(5) | kct.KeepEvery(10)
    manager = kct.CheckpointManager(
        tmp_path, weight=tf.Variable(1.0), keep=keep, save_freq=100, my_steps=steps
    )
    assert manager.restore_or_initialize() is None


def test_what_tensorflows_manager_takes_by_default_may_be_passed(tmp_path: Path) -> None:
    """`None` is no wish; and a variable may have one of these names."""
    manager = kct.CheckpointManager(
        tmp_path,
        weight=tf.Variable(1.0),
        keep_checkpoint_every_n_hours=None,
        init_fn=None,
        step_counter=tf.Variable(7),
    )
    manager.save()
    again = tf.Variable(0)
    kct.CheckpointManager(
        tmp_path, weight=tf.Variable(0.0), step_counter=again
    ).restore_or_initialize()
    assert int(again) == 7


@pytest.mark.parametrize("format", ["h5", "tf"])
def test_an_object_may_be_called_save_counter(format: Any, tmp_path: Path) -> None:
    """TensorFlow has a counter of that name in each checkpoint, which is another one."""
    manager = kct.CheckpointManager(
        tmp_path, format=format, save_counter=tf.Variable(5), weight=tf.Variable(2.0)
    )
    manager.save()
    manager.save()
    counter, weight = tf.Variable(0), tf.Variable(0.0)
    kct.CheckpointManager(
        tmp_path, format=format, save_counter=counter, weight=weight
    ).restore_or_initialize()
    assert (int(counter), float(weight)) == (5, 2.0)
    if format == "tf":
        stock = tf.train.Checkpoint(weight=tf.Variable(0.0))
        stock.restore(tf.train.latest_checkpoint(tmp_path)).assert_existing_objects_matched()
        assert float(stock.weight) == 2.0
        assert int(stock.save_counter) == 2


@pytest.mark.parametrize("format", ["h5", "tf"])
def test_containers_that_contain_themselves_are_saved_once(format: Any, tmp_path: Path) -> None:
    """Each variable in them, and no recursion."""

    def cyclic(value: float) -> dict[str, Any]:
        a_list: list[Any] = [tf.Variable(value)]
        a_list.append(a_list)
        a_dict: dict[str, Any] = {"x": tf.Variable(value + 1), "list": a_list}
        a_dict["self"] = a_dict
        return {"a_list": a_list, "a_dict": a_dict}

    kct.CheckpointManager(tmp_path, format=format, **cyclic(3.0)).save()
    again = cyclic(0.0)
    kct.CheckpointManager(tmp_path, format=format, **again).restore_or_initialize()
    assert float(again["a_list"][0]) == 3.0
    assert float(again["a_dict"]["x"]) == 4.0


def test_a_state_that_contains_itself_is_refused(tmp_path: Path) -> None:
    """JSON has no way to say it."""

    class Odd:
        def get_state(self) -> Any:
            state: dict[str, Any] = {"rate": 0.1}
            return state | {"again": [state, state]} | {"cycle": self.cycle()}

        def cycle(self) -> Any:
            state: list[Any] = []
            state.append(state)
            return state

        def set_state(self, state: Any) -> None:
            raise NotImplementedError

    with pytest.raises(kct.errors.ArgumentError, match="'odd' contains a list that contains"):
        kct.CheckpointManager(tmp_path, odd=Odd()).save()


def test_fewer_checkpoints_stay_from_the_next_restart_on(tmp_path: Path) -> None:
    """When `max_to_keep` was made smaller; files of others, and of another run, stay."""

    def run(steps: int, **arguments: Any) -> list[int]:
        manager = kct.CheckpointManager(
            tmp_path, save_freq=10, weight=tf.Variable(1.0), **arguments
        )
        for step in manager.steps(steps):
            if step == steps - 5:
                return numbers(manager)
        return numbers(manager)

    (tmp_path / "ckpt-9.index").write_bytes(b"of others")
    assert run(55) == [1, 2, 3, 4, 5]
    assert run(65, max_to_keep=2)[-3:] == [5, 6]
    assert (tmp_path / "ckpt-9.index").exists()
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0), max_to_keep=1)
    with pytest.warns(UserWarning, match="another run"):
        manager.save()
    assert len(manager.checkpoints) == 3


def test_fewer_checkpoints_stay_before_anything_is_saved(tmp_path: Path) -> None:
    """Disks are full now; what the run goes on from is the newest, and stays."""
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0))
    for _ in manager.epochs(4):
        pass
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0), max_to_keep=2)
    for epoch in manager.epochs(5):
        assert epoch == 4
        assert len(list(tmp_path.glob("ckpt-*"))) == 2


class Gradient:
    """A tensor as PyTorch's: it has no NumPy array before it is detached."""

    dtype = "float32"

    def __init__(self, value: float, *, detached: bool = False):
        self.value, self.detached = value, detached

    def detach(self) -> Gradient:
        return Gradient(self.value, detached=True)

    def cpu(self) -> Gradient:
        return self

    def is_floating_point(self) -> bool:
        return True

    def double(self) -> Gradient:
        return self

    def numpy(self) -> Any:
        if not self.detached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return np.float64(self.value)


def test_a_loss_with_a_gradient_can_be_logged(tmp_path: Path) -> None:
    """As loops on PyTorch have it."""
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0))
    manager.log(loss=Gradient(0.5))
    assert manager.progress.logs == {"loss": 0.5}


def test_a_loss_of_pytorch_can_be_logged(tmp_path: Path) -> None:
    """The real one, where it is installed."""
    torch = pytest.importorskip("torch")
    manager = kct.CheckpointManager(tmp_path, weight=tf.Variable(1.0))
    loss = (torch.tensor([2.0], requires_grad=True) * 0.25).sum()
    manager.log(loss=loss, half=loss.to(torch.bfloat16), count=torch.tensor(3))
    assert manager.progress.logs == {"loss": 0.5, "half": 0.5, "count": 3.0}


def test_a_scheduler_with_an_optimizer_that_counts_nothing_is_no_model(tmp_path: Path) -> None:
    """As those of PyTorch: the manager counts the steps, and builds nothing."""

    class Scheduler:
        def __init__(self) -> None:
            self.optimizer = object()
            self.epoch = 0

        def state_dict(self) -> dict[str, Any]:
            return {"epoch": self.epoch}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.epoch = state["epoch"]

    def run(steps: int) -> tuple[Scheduler, kct.CheckpointManager]:
        scheduler = Scheduler()
        manager = kct.CheckpointManager(tmp_path, scheduler=scheduler)
        for _ in manager.steps(steps):
            scheduler.epoch += 1
        return scheduler, manager

    run(3)
    scheduler, manager = run(5)
    assert (scheduler.epoch, manager.progress.step) == (5, 5)
