"""Explain which objects a file lacks, with the line to add for each.

One error lists all of them. For each it contains the module that defined it, the nearest registered
names, and the line to add.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from keyword import iskeyword

from keras_ckpt_tools.errors import ObjectsNotFoundError, UntranslatableError
from keras_ckpt_tools.formats.keras2.translate import Untranslated
from keras_ckpt_tools.inspection.verdicts import ObjectUse
from keras_ckpt_tools.showing.messages import as_name, harmless, literal
from keras_ckpt_tools.showing.tables import printable

# Modules without user objects, or that cannot be imported.
_NOT_IMPORTED = ("__main__", "__mp_main__", "builtins", "keras", "tf_keras", "tensorflow")
# Python's name for a function without a name.
_NO_NAME = "<lambda>"


def objects_not_found(
    path: str, refused: Sequence[ObjectUse], writer: str = ""
) -> ObjectsNotFoundError:
    """Return one error for all objects that a load may not use.

    Args:
        path: The file.
        refused: The objects that may not be used.
        writer: A sentence on the writer of the file, if it may be the cause.
    """
    groups = _by_name(refused)
    by_verdict = {
        verdict: tuple(name for name, uses in groups.items() if uses[0].verdict == verdict)
        for verdict in ("missing", "untrusted", "refused")
    }
    missing, untrusted = by_verdict["missing"], by_verdict["untrusted"]
    words = {"missing": "missing", "untrusted": "not trusted", "refused": "refused"}
    counts = [f"{len(names)} {words[verdict]}" for verdict, names in by_verdict.items() if names]
    things = "1 object" if len(groups) == 1 else f"{len(groups)} objects"
    fixable = {name: uses for name, uses in groups.items() if uses[0].verdict != "refused"}
    remedy = f"Add the lines above before the load, or call `{_call(path, fixable)}`."
    if not fixable:
        remedy = "Get the file that Keras saved from where this one came from."
    elif by_verdict["refused"]:
        remedy = "Refused objects are never loaded. Get the file that Keras saved."
    return ObjectsNotFoundError(
        f"The file needs {things} that cannot be used: {', '.join(counts)}.\n"
        f"{describe_refused(refused)}\n",
        received=f"path={path!r}",
        remedy=f"{writer} {remedy}".strip(),
        path=path,
        missing=missing,
        untrusted=untrusted,
        refused=by_verdict["refused"],
    )


def describe_refused(refused: Sequence[ObjectUse]) -> str:
    """Return a paragraph for each name that cannot be used."""
    return "\n".join(_paragraph(name, uses) for name, uses in _by_name(refused).items())


def _by_name(refused: Iterable[ObjectUse]) -> dict[str, list[ObjectUse]]:
    groups: dict[str, list[ObjectUse]] = {}
    for use in refused:
        groups.setdefault(use.registered_name, []).append(use)
    return groups


def _paragraph(name: str, uses: list[ObjectUse]) -> str:
    use = uses[0]
    places = f"{use.role} at {use.where}" + (f" and {len(uses) - 1} more" if uses[1:] else "")
    if use.module:
        places += f"; saved from {use.module}"
    elif use.role not in ("lambda", "path"):
        places += "; the file does not contain its module"
    lines = [printable(f"  {use.verdict:<9}  {name}  ({places})")]
    if use.note:
        lines.append(printable(f"             {use.note}"))
    if use.nearest:
        lines.append(printable(f"             nearest: {', '.join(use.nearest)}"))
    # Code is never cut, because half a line cannot be pasted.
    lines += [f"             {_one_line(line)}" for line in _lines_to_add(name, use)]
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return harmless(text).replace("\n", "\\n")


def _lines_to_add(name: str, use: ObjectUse) -> list[str]:
    ended = successor(name, use.module)
    if use.verdict == "refused":
        return [ended] if ended else []
    if use.role == "path":
        return [
            f"add: trusted=[{literal(name)}], if you know the file; its content becomes part of "
            "the model"
        ]
    if _is_code(name, use):
        return [f"add: trusted=[{literal(name)}], if you know what the code does"]
    if name == _NO_NAME:
        return [
            'add: custom_objects={"<lambda>": the_function}, with a function that computes the '
            "same; a lambda has no name, so use `def` before the next save"
        ]
    package, _, bare = name.rpartition(">")
    if not package:
        package = (use.module or "").partition(".")[0]
        package = package if package not in ("", "__main__", "builtins") else "my_package"
    kind, called = ("class", use.class_name) if use.role == "class" else ("def", bare)
    called = _name_of(use, called)
    named = "" if called == bare else f", name={literal(bare)}"
    lines = [ended] if ended else []
    if use.verdict == "missing" and ">" in name and not ended and _may_import(use.module):
        lines.append(
            f"add: `import {use.module}` (its module, according to the file), then load "
            f"again; with trusted=[{literal(name)}] if Keras' own decorator registers it"
        )
    again = "or: " if lines and not ended else "add: "
    lines += [
        f"{again}@kct.register({literal(package)}{named}) above `{kind} {called}`, or "
        f"custom_objects={{{literal(bare)}: {called}}}"
    ]
    near = use.nearest[0] if use.nearest else ""
    if use.verdict == "untrusted":
        lines.append(f"add: or trusted=[{literal(name)}]")
    elif ">" in near:
        why = "has moved" if near.rpartition(">")[2] == bare else "was renamed"
        lines.append(f"add: or aliases=[{literal(name)}] where {near} is registered, if it {why}")
    return lines


def _may_import(module: str | None) -> bool:
    """Return whether this program can import a module, but has not imported it."""
    names = (module or "").split(".")
    plain = all(name.isidentifier() and not iskeyword(name) for name in names)
    return plain and names[0] not in _NOT_IMPORTED and module not in sys.modules


def _name_of(use: ObjectUse, called: str) -> str:
    # Not a valid name in code, so the object has another name here.
    return as_name(called, "TheClass" if use.role == "class" else "the_function")


def _is_code(name: str, use: ObjectUse) -> bool:
    return use.role in ("lambda", "path") or "would run on load" in use.note


def _call(path: str, groups: dict[str, list[ObjectUse]]) -> str:
    arguments = [repr(path)]
    bare = [name.rpartition(">")[2] for name in groups]
    objects = [
        f"{literal(_key(name, bare))}: {_name_of(uses[0], uses[0].class_name)}"
        for name, uses in groups.items()
        if not _is_code(name, uses[0])
    ]
    trusted = [literal(name) for name, uses in groups.items() if _is_code(name, uses[0])]
    if objects:
        arguments.append(f"custom_objects={{{', '.join(objects)}}}")
    if trusted:
        arguments.append(f"trusted=[{', '.join(trusted)}]")
    return f"kct.safe_load_model({', '.join(arguments)})"


def _key(name: str, bare: list[str]) -> str:
    # A bare key stands for a qualified name; with two objects of one bare name it must be
    # qualified.
    short = name.rpartition(">")[2]
    return short if short and bare.count(short) == 1 else name


def untranslatable(path: str, found: Sequence[Untranslated]) -> UntranslatableError:
    """Return one error for all features of a Keras 2 model that Keras 3 does not support."""
    things = "1 thing" if len(found) == 1 else f"{len(found)} things"
    compiled = all(one.part == "compile" for one in found)
    remedy = (
        "Load it with `compile=False`."
        if compiled
        else "All weights are in the file: build the model in code, with other layers for these, "
        f"and call `kct.load_weights(model, {path!r})`. To use the model as it is, open it with "
        "Keras 2: `tf_keras.models.load_model` (`pip install tf_keras`)."
    )
    return UntranslatableError(
        f"Keras 2 wrote the file, and Keras 3 does not support {things} in it.\n"
        f"{describe_untranslated(found)}\n",
        received=f"path={path!r}",
        remedy=remedy,
        path=path,
        places=tuple(str(one) for one in found),
    )


def describe_untranslated(found: Sequence[Untranslated]) -> str:
    """Return a line for each part that was left out."""
    return "\n".join(f"  {printable(str(one))}" for one in found)


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
    "keras_cv": "keras_cv moved to keras_hub: `pip install keras_hub`, `import keras_hub`",
    "keras_nlp": "keras_nlp moved to keras_hub: `pip install keras_hub`, `import keras_hub`",
    "tensorflow_hub": "hub.KerasLayer works with Keras 2 only: `pip install tf_keras`, or use "
    "the model of keras_hub or `keras.layers.TFSMLayer`",
    "tf_keras": "it was saved by Keras 2: `pip install tf_keras`, and open it with "
    "`tf_keras.models.load_model`",
    "transformers": "transformers' TensorFlow models use Keras 2: open it with `tf_keras`, or "
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
    "DenseFeatures": "use `keras.utils.FeatureSpace` of Keras 3",
    "LocallyConnected1D": "Keras 3 does not have it; write the layer yourself",
    "LocallyConnected2D": "Keras 3 does not have it; write the layer yourself",
}
_KERAS_2 = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")


def successor(name: str, module: str | None) -> str | None:
    """Return the advice for an object of a known package, or `None`.

    Args:
        name: Its registered name.
        module: Module that defined it, if the file contains it.

    >>> successor("keras_nlp>Bert", None)
    'keras_nlp moved to keras_hub: `pip install keras_hub`, `import keras_hub`'
    """
    registered, _, bare = name.rpartition(">")
    package = (module or "").partition(".")[0]
    package = _BY_REGISTERED.get(registered.lower(), package or registered)
    if bare in _KERAS_2:
        return (
            f"{bare} is a call of a TensorFlow function, as Keras 2 saved it; open the file with "
            "`tf_keras.models.load_model`, and save the model again with layers in its place"
        )
    if bare in _GONE and package in ("", "keras", "tf_keras"):
        return _GONE[bare]
    if package == "tensorflow_addons":
        instead = _ADDONS.get(bare)
        return f"{_ADDONS_ENDED}; use {instead} instead" if instead else _ADDONS_ENDED
    for names in (package, registered):
        if names in _ENDED:
            return _ENDED[names]
        if names in _ALIVE:
            return (
                f"`pip install {names}` and `import {names}`, then "
                f"`safe_load_model(..., trusted=[{literal(f'{registered or names}>*')}])`"
            )
    return None
