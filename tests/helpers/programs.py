"""Programs that train, for tests to run in processes of their own; see `processes`."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
from processes import KillAt, become_nobody, kill, killed_after, limit_file_size

import keras_ckpt_tools as kct


def callbacks_of(ours: bool) -> Any:
    """Return where the callbacks come from: this package, or stock Keras."""
    return kct if ours else keras.callbacks


# What is trained.


def small_model(dropout: float = 0.0) -> keras.Model:
    """Return a compiled model with momenta and, if asked for, randomness; always the same one."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(1),
        ]
    )
    # By an object: stock Keras cannot find "mse" again in its older format.
    model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    return model


def small_data(batches: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets for that many batches of 4."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(4 * batches, 4)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


def constant_model(value: float, layers: int = 3) -> keras.Model:
    """Return a model that has `value` in all its weights, so that a mixture of two is seen."""
    keras.utils.clear_session(free_memory=False)
    model = keras.Sequential([keras.Input((16,))])
    for _ in range(layers):
        model.add(keras.layers.Dense(16))
    model.compile("sgd", "mse")
    set_constant(model, value)
    return model


def set_constant(model: keras.Model, value: float) -> None:
    """Give all weights one value."""
    for weight in model.weights:
        weight.assign(np.full(weight.shape, value))


def constant_of(model: keras.Model) -> float | None:
    """Return the one value that all weights have, or `None` where there is none."""
    values = {float(v) for weight in model.weights for v in np.unique(np.asarray(weight))}
    return values.pop() if len(values) == 1 else None


def state_of(model: keras.Model) -> list[bytes]:
    """Return all weights and all of the optimizer's state, bit for bit."""
    variables = [*model.weights, *model.optimizer.variables]
    return [np.asarray(variable).tobytes() for variable in variables]


def names_in(directory: str | os.PathLike[str]) -> list[str]:
    """Return the names in a directory, sorted."""
    return sorted(os.listdir(directory))


# Programs.


def fit_with_backup(
    ours: bool,
    directory: str,
    arguments: dict[str, Any],
    epochs: int,
    kill_at: tuple[int, int] | None = None,
    dropout: float = 0.0,
) -> dict[str, Any]:
    """Train with `BackupAndRestore`, and be killed if that is asked for."""
    model = small_model(dropout)
    seen: list[tuple[int, int]] = []

    class Watch(KillAt):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            seen.append((self.epoch, batch))

    backup = callbacks_of(ours).BackupAndRestore(directory, **arguments)
    x, y = small_data()
    watch = Watch(*(kill_at or (-1, -1)))
    model.fit(
        x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=[backup, watch]
    )
    return {"batches": seen, "state": state_of(model)}


def overwrite_model(ours: bool, path: str, calls: int | None) -> int:
    """Save a model of ones, then one of twos over it, and be killed in the second save."""
    model = constant_model(1.0)
    weights_only = path.endswith(".weights.h5")
    callback = callbacks_of(ours).ModelCheckpoint(path, save_weights_only=weights_only)
    callback.set_model(model)
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0, {})
    set_constant(model, 2.0)
    callback.on_epoch_begin(1)
    with killed_after(calls) as count:
        callback.on_epoch_end(1, {})
    return count[0]


def back_up_twice(ours: bool, directory: str, calls: int | None) -> int:
    """Back up epoch 0 with weights of one and epoch 1 with weights of two; be killed in that."""
    model = constant_model(1.0)
    model.optimizer.build(model.trainable_variables)
    callback = callbacks_of(ours).BackupAndRestore(directory)
    callback.set_model(model)
    callback.set_params({})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0, {})
    set_constant(model, 2.0)
    callback.on_epoch_begin(1)
    with killed_after(calls) as count:
        callback.on_epoch_end(1, {})
    return count[0]


def manage_twice(directory: str, calls: int | None, first: bool = False) -> int:
    """Save weights of one and, an epoch later, of two, keeping one; be killed in one of the two."""
    model = constant_model(1.0)
    manager = kct.CheckpointManager(directory, max_to_keep=1, model=model)
    if first:
        with killed_after(calls, of_files=True) as count:
            manager.save()
        return count[0]
    for epoch in manager.epochs(2):
        if epoch == 1:
            break
    set_constant(model, 2.0)
    with killed_after(calls, of_files=True) as count:
        for _ in manager.epochs(2):
            pass
    return count[0]


def be_killed_in_the_layout(directory: str) -> None:
    """Be killed in the first save, while the file is laid out."""
    from keras_ckpt_tools.formats.hdf5 import layout

    layout._create = lambda *_: kill()
    kct.CheckpointManager(directory, model=constant_model(1.0)).save()


def fail_to_write(directory: str, kind: str, cause: str) -> dict[str, Any]:
    """Save where that is not possible; return what was raised, and what was there before."""
    model = constant_model(1.0)
    manager = kct.CheckpointManager(directory, max_to_keep=1, model=model)
    backup = kct.BackupAndRestore(directory, delete_checkpoint=False)
    backup.set_model(model)
    checkpoint = kct.ModelCheckpoint(os.path.join(directory, "{epoch}.keras"), max_to_keep=1)
    checkpoint.set_model(model)
    actions = {
        "manager": manager.save,
        "backup": lambda: backup.on_epoch_end(0),
        "checkpoint": lambda: checkpoint.on_epoch_end(0),
        # Its directory may be one to read from, until a loop begins.
        "new manager": lambda: next(kct.CheckpointManager(directory, model=model).epochs(9)),
        "new backup": lambda: kct.BackupAndRestore(directory),
        "new checkpoint": lambda: kct.ModelCheckpoint(os.path.join(directory, "a.keras")),
    }
    actions[kind]()
    before = _content(directory)
    if cause == "full disk":
        limit_file_size(2048)
    else:
        become_nobody(directory)
    try:
        actions[kind]()
    except kct.errors.CkptError as error:
        raised = f"{type(error).__name__}: {error}"
    else:
        raised = "nothing"
    return {"raised": raised, "unchanged": _content(directory) == before, "files": len(before)}


def _content(directory: str) -> dict[str, bytes]:
    content = {}
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), "rb") as file:
            content[name] = file.read()
    return content


def overwrite_on_a_full_disk(ours: bool, path: str) -> str:
    """Save over a file that is there, on a disk that has no space; return the error's name."""
    model = constant_model(2.0)
    callback = callbacks_of(ours).ModelCheckpoint(
        path, save_weights_only=path.endswith(".weights.h5")
    )
    callback.set_model(model)
    callback.on_epoch_begin(0)
    limit_file_size(2048)
    try:
        callback.on_epoch_end(0, {})
    except Exception as error:  # noqa: BLE001 - whichever it is, the test looks at it
        return f"{type(error).__name__}: {error}"
    return "no error"


def tape_loop(
    directory: str,
    epochs: int,
    arguments: dict[str, Any] | None = None,
    kill_at: tuple[int, int] | None = None,
    batches: int = 4,
) -> dict[str, Any]:
    """Train by `GradientTape` under a manager; be killed in a batch's body, if that is asked for.

    All that has state is tracked: two models, two optimizers, a metric, variables in a list and
    in a dict, a generator of NumPy and one of TensorFlow, both of which the loss depends on.
    """
    import tensorflow as tf

    model, other = small_model(dropout=0.3), small_model()
    optimizer, other_optimizer = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, 0.9)
    metric = keras.metrics.Mean()
    numbers = {"scale": tf.Variable(1.0), "more": [tf.Variable(0.5), tf.Variable(0.5)]}
    noise, numpy_noise = tf.random.Generator.from_seed(1), np.random.default_rng(1)
    manager = kct.CheckpointManager(
        directory,
        model=model,
        other=other,
        optimizer=optimizer,
        other_optimizer=other_optimizer,
        metric=metric,
        numbers=numbers,
        noise=noise,
        numpy_noise=numpy_noise,
        **(arguments or {}),
    )
    x, y = small_data(batches)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    seen = []
    for epoch in manager.epochs(epochs):
        for inputs, targets in manager.batches(dataset):
            shift = noise.normal([1]) * float(numpy_noise.normal()) * 0.01
            for each, update in ((model, optimizer), (other, other_optimizer)):
                with tf.GradientTape() as tape:
                    error = each(inputs, training=True) * numbers["scale"] + shift - targets
                    loss = tf.reduce_mean(error**2)
                variables = each.trainable_variables
                update.apply(tape.gradient(loss, variables), variables)
            for number in (numbers["scale"], *numbers["more"]):
                number.assign_add(0.01)
            metric.update_state(loss)
            seen.append((epoch, float(inputs[0, 0])))
            if (epoch, manager.progress.batches_completed) == kill_at:
                kill()
            manager.log(loss=loss)
        manager.log(loss=metric.result())
        metric.reset_state()
    state = [np.asarray(v).tobytes() for v in (*model.weights, *other.weights)]
    state += [np.asarray(v).tobytes() for v in (*optimizer.variables, *other_optimizer.variables)]
    state += [np.asarray(v).tobytes() for v in (numbers["scale"], *numbers["more"], noise.state)]
    return {
        "state": [*state, repr(numpy_noise.bit_generator.state)],
        "batches": seen,
        "history": manager.progress.history,
        "step": manager.progress.step,
        "epochs": manager.progress.epochs_completed,
        "files": [os.path.basename(path) for path in manager.checkpoints],
    }
