"""Load what the two other programs trained, in a process that has never seen it, and try it.

Call: `python evaluate.py MODELS_DIRECTORY CHECKPOINT`
"""

from __future__ import annotations

import sys

import keras_ckpt_tools as kct


def main(models: str, checkpoint: str) -> None:
    """Tell what was missing before the import and the accuracies after it."""
    try:
        kct.safe_load_model(models)
        missing = []
    except kct.errors.ObjectsNotFoundError as error:
        missing = list(error.missing)

    # Importing the module registers the three objects that the model is made of.
    from digits import build_model, splits, tell

    _, _, held_out = splits()
    from_fit = kct.safe_load_model(models)
    from_loop = build_model()
    kct.load_weights(from_loop, checkpoint)
    accuracies = [
        model.evaluate(*held_out, verbose=0, return_dict=True) for model in (from_fit, from_loop)
    ]
    epochs = [kct.training_progress(m).epochs_completed for m in (from_fit, from_loop)]
    tell("evaluated", missing=missing, results=accuracies, epochs=epochs)


if __name__ == "__main__":
    main(*sys.argv[1:])
