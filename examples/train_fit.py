"""Train with `fit()`, so that it can be killed at any moment and started again.

Started again, it is the same program with the same arguments; the two callbacks do the rest.
`BackupAndRestore` brings back weights, optimizer and epoch, `ModelCheckpoint` its best value.

Call: `python train_fit.py DIRECTORY EPOCHS`
"""

from __future__ import annotations

import os
import sys
from typing import Any

import keras
from digits import BATCH_SIZE, build_model, splits, tell

import keras_ckpt_tools as kct


class Report(keras.callbacks.Callback):
    """Tells the demo how far training is."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        tell("batch", epoch=self.epoch, batch=batch)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        tell("epoch", epoch=epoch, batch=0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        tell("saved", epoch=epoch, val_accuracy=logs["val_accuracy"])


def main(directory: str, epochs: int) -> None:
    """Train for that many epochs in all, those of earlier starts included."""
    train, validation, _ = splits()
    model = build_model()
    tell("ready", batches=-(-len(train.labels) // BATCH_SIZE))
    model.fit(
        *train,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=tuple(validation),
        verbose=0,
        callbacks=[
            kct.ModelCheckpoint(
                os.path.join(directory, "models", "epoch-{epoch:02d}.keras"),
                monitor="val_accuracy",
                max_to_keep=3,
            ),
            kct.BackupAndRestore(os.path.join(directory, "backup")),
            Report(),
        ],
    )
    tell("end", progress=kct.training_progress(model).to_json())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
