"""Packages whose objects people still have in files, and what became of them: name -> *remedy*.

"No module named tensorflow_addons" helps nobody in a year when that package no longer installs.
Known here is what replaced it; for packages that live on, the line that installs and imports them,
because a package registers its objects when it is imported.
"""

from __future__ import annotations

from keras_ckpt_tools.showing.messages import literal

__all__ = ["successor"]

_ADDONS = {
    "AdamW": "keras.optimizers.AdamW",
    "AdaptiveAveragePooling2D": "keras.layers.AdaptiveAveragePooling2D",
    "AdaptiveMaxPooling2D": "keras.layers.AdaptiveMaxPooling2D",
    "CohenKappa": "sklearn.metrics.cohen_kappa_score on the predictions",
    "F1Score": "keras.metrics.F1Score",
    "FBetaScore": "keras.metrics.FBetaScore",
    "GELU": "keras.layers.Activation('gelu')",
    "GroupNormalization": "keras.layers.GroupNormalization",
    "InstanceNormalization": "keras.layers.GroupNormalization(groups=-1)",
    "LAMB": "keras.optimizers.Lamb",
    "LayerNormalization": "keras.layers.LayerNormalization",
    "MultiHeadAttention": "keras.layers.MultiHeadAttention",
    "RSquare": "keras.metrics.R2Score",
    "SigmoidFocalCrossEntropy": "keras.losses.BinaryFocalCrossentropy",
    "SpectralNormalization": "keras.layers.SpectralNormalization",
    "WeightNormalization": "a wrapper of your own around the layer",
    "gelu": "keras.activations.gelu",
    "hardshrink": "keras.activations.hard_shrink",
    "mish": "keras.activations.mish",
    "softshrink": "keras.activations.soft_shrink",
    "sparsemax": "keras.activations.sparsemax",
    "tanhshrink": "keras.activations.tanh_shrink",
}
_ADDONS_ENDED = "tensorflow_addons ended in May 2024 and does not work with Keras 3"
_ENDED = {
    "keras_contrib": "keras_contrib ended; most of it is in keras.layers now",
    "keras_cv": "keras_cv went into keras_hub: `pip install keras_hub`, `import keras_hub`",
    "keras_nlp": "keras_nlp went into keras_hub: `pip install keras_hub`, `import keras_hub`",
    "tensorflow_hub": "hub.KerasLayer works with Keras 2 alone: `pip install tf_keras`, or take "
    "the model from keras_hub or `keras.layers.TFSMLayer`",
    "tf_keras": "it was saved by Keras 2: `pip install tf_keras`, and open it with "
    "`tf_keras.models.load_model`",
    "transformers": "transformers' TensorFlow models are of Keras 2: open it with `tf_keras`, or "
    "with transformers' own `from_pretrained`",
}
_ALIVE = {
    "keras_hub": "keras_hub",
    "keras_rs": "keras_rs",
    "keras_tuner": "keras_tuner",
    "tensorflow_probability": "tensorflow_probability",
}
_BY_REGISTERED = {"addons": "tensorflow_addons", "tfa": "tensorflow_addons"}
_GONE = {
    "CuDNNGRU": "load its weights into a `GRU` with `tf_keras`, and save that",
    "CuDNNLSTM": "load its weights into an `LSTM` with `tf_keras`, and save that",
    "DenseFeatures": "Keras 3 has `keras.utils.FeatureSpace` in its place",
    "LocallyConnected1D": "Keras 3 does not have it; write the layer yourself",
    "LocallyConnected2D": "Keras 3 does not have it; write the layer yourself",
}
_KERAS_2 = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")


def successor(name: str, module: str | None) -> str | None:
    """Return what to do about an object of a package that is known, or `None`.

    Args:
        name: Its registered name.
        module: Module that it came from, where the file says so.

    >>> successor("keras_nlp>Bert", None)
    'keras_nlp went into keras_hub: `pip install keras_hub`, `import keras_hub`'
    """
    registered, _, bare = name.rpartition(">")
    package = (module or "").partition(".")[0]
    package = _BY_REGISTERED.get(registered.lower(), package or registered)
    if bare in _KERAS_2:
        return (
            f"{bare} is how Keras 2 saved calls of TensorFlow's functions; open the file with "
            "`tf_keras.models.load_model`, and save the model anew with layers in their place"
        )
    if bare in _GONE and package in ("", "keras", "tf_keras"):
        return _GONE[bare]
    if package == "tensorflow_addons":
        instead = _ADDONS.get(bare)
        return f"{_ADDONS_ENDED}; take {instead} in its place" if instead else _ADDONS_ENDED
    for names in (package, registered):
        if names in _ENDED:
            return _ENDED[names]
        if names in _ALIVE:
            return (
                f"`pip install {names}` and `import {names}`, then "
                f"`safe_load_model(..., trusted=[{literal(f'{registered or names}>*')}])`"
            )
    return None
