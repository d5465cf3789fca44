"""Compiled models that were trained, with optimizers of all sorts, made by `make.py`.

Beside each stands what the weights are after one more step on a fixed batch.
"""

from __future__ import annotations

import numpy as np
import tf_keras as keras

new, old, schedules = keras.optimizers, keras.optimizers.legacy, keras.optimizers.schedules

OPTIMIZERS = {
    "adam": lambda: new.Adam(0.01, clipnorm=1.0),
    "adam_amsgrad": lambda: new.Adam(0.01, amsgrad=True, beta_1=0.8),
    "adam_older": lambda: old.Adam(0.01),
    "adam_older_decay": lambda: old.Adam(0.02, decay=0.1),
    "adamw": lambda: new.AdamW(0.01, weight_decay=0.02),
    "sgd": lambda: new.SGD(0.1),
    "sgd_momentum": lambda: new.SGD(0.1, momentum=0.9, nesterov=True),
    "sgd_older": lambda: old.SGD(0.1, momentum=0.9, decay=0.05, clipvalue=0.5),
    "rmsprop": lambda: new.RMSprop(0.01, momentum=0.5, centered=True),
    "rmsprop_older": lambda: old.RMSprop(0.01, momentum=0.5),
    "adagrad": lambda: new.Adagrad(0.1),
    "adadelta": lambda: new.Adadelta(1.0),
    "adamax": lambda: new.Adamax(0.01),
    "nadam": lambda: new.Nadam(0.01),
    "ftrl": lambda: new.Ftrl(0.1, l1_regularization_strength=0.01),
    "lion": lambda: new.Lion(0.01),
    "scheduled": lambda: new.SGD(schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.5),
    "averaged": lambda: new.SGD(0.1, momentum=0.5, use_ema=True, ema_momentum=0.9),
    "nadam_older": lambda: old.Nadam(0.01),
}


def batch():
    """Return the batch that all are trained on."""
    random = np.random.default_rng(11)
    x, y = random.normal(0, 1, (4, 4)), random.normal(0, 1, (4, 2))
    return x.astype("float32"), y.astype("float32")


def trained(optimizer, **arguments):
    """Return a model after three steps with an optimizer."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, activation="tanh", name="first"),
            layers.Dense(4, name="second", use_bias=False),  # Its gradient would be noise.
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="last"),
        ],
        name="net",
    )
    losses = keras.losses.MeanSquaredError(reduction=keras.losses.Reduction.AUTO)
    model.compile(**{"optimizer": optimizer, "loss": losses, "metrics": ["mae"], **arguments})
    for _ in range(3):
        model.train_on_batch(*batch())
    return model
