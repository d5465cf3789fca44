"""Makes mutants of small files: of bytes, of JSON trees, of zips, of records.

Everything comes from one seeded generator, so a mutant is known by its format, seed and number.
Most changes keep the checks around them right (checksums, digests), because a mutant that fails at
the first checksum teaches nothing about what comes behind it.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import struct
from collections.abc import Callable
from typing import Any

from fuzz.grammar import grammar, places
from hostile.parts import (
    METADATA,
    compiled,
    dense,
    function,
    h5_model,
    legacy,
    members,
    node,
    sequential,
    weights,
    zipped,
)
from hostile.rawzip import Member, plain, raw_zip
from hostile.records import our_archive, our_weights

Mutant = tuple[str, bytes]
"""The name that the file gets, and its content."""

_NUMBERS = (0, 1, 2, 7, 255, 256, 511, 4096, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1,
            2**64 - 1)  # fmt: skip
_NAMES = ("Dense", "Sequential", "Functional", "Lambda", "function", "__lambda__", "__tensor__",
          "__typespec__", "__numpy__", "__dtype__", "keras", "keras.layers", "keras.src",
          "builtins", "os", "system", "relu", "mse", "my_package>Scale",
          "StringLookup", "DTypePolicy",
          "name",
          "layers", "config", "class_name", "module", "registered_name", "\x00", "\ud800", "é" * 9,
          "x" * 5000, "../../x", "NaN")  # fmt: skip


def bytes_of(random_: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Return data with a few bytes changed, cut out, put in, moved or taken from elsewhere."""
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        if not changed:
            break
        place = random_.randrange(len(changed))
        length = min(random_.choice((1, 2, 4, 8, 16, 64, 512)), len(changed) - place)
        what = random_.randrange(9)
        if what <= 2:
            changed[place] ^= 1 << random_.randrange(8)
        elif what == 3:
            changed[place] = random_.choice((0, 1, 127, 128, 254, 255))
        elif what == 4:
            form = random_.choice(("<H", "<I", "<Q"))
            value = random_.choice(_NUMBERS) & ((1 << 8 * struct.calcsize(form)) - 1)
            changed[place : place + struct.calcsize(form)] = struct.pack(form, value)
        elif what == 5:
            del changed[place : place + length]
        elif what == 6:
            changed[place:place] = random_.randbytes(length)
        elif what == 7:
            start = random_.randrange(max(1, len(other or changed) - length))
            changed[place : place + length] = (other or changed)[start : start + length]
        else:
            del changed[place:]
    return bytes(changed)


def tree_of(random_: random.Random, tree: Any) -> Any:
    """Return a JSON tree with a few of its values changed."""
    tree = copy.deepcopy(tree)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        found = list(places(tree))
        if not found:
            return _value(random_, tree)
        parent, key = random_.choice(found)
        what = random_.randrange(8)
        if what <= 3:
            parent[key] = _value(random_, parent[key])
        elif what == 4:
            del parent[key]
        elif what == 5:
            other, its_key = random_.choice(found)
            parent[key] = copy.deepcopy(other[its_key])
        elif what == 6 and isinstance(parent, dict):
            parent[random_.choice(_NAMES)] = parent.pop(key)
        else:
            parent[key] = [parent[key]] if random_.random() < 0.5 else {"config": parent[key]}
    return tree


def _value(random_: random.Random, old: Any) -> Any:
    if isinstance(old, (int, float)) and random_.random() < 0.5:
        return random_.choice((-old, old + 1, old * 10**6, -1, 0, 1e308, 0.5, 10**25, True))
    if isinstance(old, str) and random_.random() < 0.7:
        return random_.choice(_NAMES)
    return random_.choice(
        (None, True, -1, 0, 3, 10**30, 1e999, "", "x", [], {}, [None], [[]], {"a": 1}, [1, 2, 3],
         node("Dense", units=1), node("Scale", "kct_hostile_payload"), function("system", "os"),
         {"class_name": "__tensor__", "config": {"value": 1, "dtype": "float32"}})
    )  # fmt: skip


def _text(random_: random.Random, tree: Any) -> bytes:
    text = json.dumps(tree).encode()
    return bytes_of(random_, text) if random_.random() < 0.2 else text


@functools.cache
def _configs() -> tuple[Any, ...]:
    layers = (
        node("Dropout", name="d", rate=0.5, seed=None, noise_shape=None),
        node("BatchNormalization", name="b", axis=-1, momentum=0.9, epsilon=0.001),
        node("Activation", name="a", activation="relu"),
    )
    return (
        sequential(),
        sequential(
            dense(activation="relu", kernel_initializer=node("Zeros", "keras.initializers"))
        ),
        sequential(*layers, dense()),
        compiled(metrics=["mae"]),
    )


# The formats. Each takes a generator and returns a mutant.


def our_keras_bytes(random_: random.Random) -> Mutant:
    """Change bytes of a `.keras` of ours."""
    return "model.keras", bytes_of(random_, _ours(), _stock())


def our_weights_bytes(random_: random.Random) -> Mutant:
    """Change bytes of a weights file of ours."""
    return "model.weights.h5", bytes_of(random_, _our_weights(), _stock_weights())


def our_record(random_: random.Random) -> Mutant:
    """Change the record of ours, and digest it anew."""
    edit: Callable[[Any], Any] = functools.partial(tree_of, random_)
    data = our_weights(edit)
    if random_.random() < 0.5:
        return "model.weights.h5", data
    return "model.keras", our_archive(data)


def our_config(random_: random.Random) -> Mutant:
    """Change the config in a `.keras` of ours, and seal it anew."""
    config = tree_of(random_, random_.choice(_configs()))
    return "model.keras", our_archive(config=json.dumps(config))


def stock_keras_bytes(random_: random.Random) -> Mutant:
    """Change bytes of a `.keras` of stock Keras'."""
    return "model.keras", bytes_of(random_, _stock(), _ours())


def stock_config(random_: random.Random) -> Mutant:
    """Change the config in a `.keras` of stock Keras', whose weights are not even HDF5."""
    text = _text(random_, tree_of(random_, random_.choice(_configs())))
    return "model.keras", zipped(members(text, b"\x89HDF\r\n\x1a\n"))


def stock_metadata(random_: random.Random) -> Mutant:
    """Change the metadata in a `.keras` of stock Keras'."""
    text = _text(random_, tree_of(random_, METADATA))
    return "model.keras", zipped({**members(data=b"no HDF5"), "metadata.json": text})


def zip_fields(random_: random.Random) -> Mutant:
    """Change fields of an archive's headers."""
    entries = plain(members(data=b"no HDF5"))
    entries.append(Member(b"assets/a/vocabulary.txt", b"one\ntwo\n"))
    for _ in range(random_.choice((1, 1, 2, 3))):
        member = random_.choice(entries)
        field = random_.choice(("name", "local_name", "method", "size", "packed", "crc", "flags",
                                "mode", "extra", "local_size", "offset", "data"))  # fmt: skip
        value: Any = random_.choice(_NUMBERS) & 0xFFFFFFFF
        if field in ("name", "local_name"):
            value = bytes_of(random_, random_.choice((member.name, b"../x", b"assets/../x")))
        elif field in ("data", "extra"):
            value = random_.randbytes(random_.choice((0, 1, 4, 20)))
        elif field in ("method", "flags", "mode"):
            value &= 0xFFFF
        setattr(member, field, value)
    count = random_.choice((None, None, None, 0, 1, 65535))
    return "model.keras", raw_zip(entries, count, random_.choice((b"", b"x", b"PK\x05\x06" * 3)))


def stock_weights_bytes(random_: random.Random) -> Mutant:
    """Change bytes of HDF5 weights of stock Keras', which libhdf5 gets to see."""
    return "model.weights.h5", bytes_of(random_, _stock_weights(), _stock_h5())


def stock_weights_in_keras(random_: random.Random) -> Mutant:
    """The same inside a `.keras`, with the right checksums."""
    data = bytes_of(random_, _stock_weights(), _stock_h5())
    return "model.keras", zipped(members(data=data))


def stock_h5_bytes(random_: random.Random) -> Mutant:
    """Change bytes of a whole-model `.h5` of stock Keras'."""
    return "model.h5", bytes_of(random_, _stock_h5(), _stock_weights())


def stock_h5_config(random_: random.Random) -> Mutant:
    """Change the configs in a whole-model `.h5`."""
    config = tree_of(random_, legacy(random_.choice(_configs())))
    training = {"loss": "mse", "optimizer_config": {"class_name": "SGD", "config": {}}}
    return "model.h5", h5_model(config, tree_of(random_, training))


@functools.cache
def _ours() -> bytes:
    return our_archive()


@functools.cache
def _our_weights() -> bytes:
    return our_weights()


@functools.cache
def _stock() -> bytes:
    return zipped(members())


@functools.cache
def _stock_weights() -> bytes:
    return weights()


@functools.cache
def _stock_h5() -> bytes:
    return h5_model()


FORMATS: dict[str, tuple[Callable[[random.Random], Mutant], float]] = {
    make.__name__: (make, share)
    for make, share in (
        (our_keras_bytes, 0.24),
        (our_weights_bytes, 0.42),
        (our_record, 0.08),
        (our_config, 0.03),
        (stock_keras_bytes, 0.10),
        (stock_config, 0.02),
        (stock_metadata, 0.01),
        (zip_fields, 0.06),
        (stock_weights_bytes, 0.01),
        (stock_weights_in_keras, 0.01),
        (stock_h5_bytes, 0.01),
        (stock_h5_config, 0.01),
    )
}
"""Every format with its share of all mutants: what is cheap gets more."""

UNTOUCHED = {"our_keras_bytes": _ours, "our_weights_bytes": _our_weights}
"""Formats in which every byte is covered: a mutant that opens has to be what it was made of."""


def mutant(form: str, seed: int, number: int) -> Mutant:
    """Return one mutant; the same one each time."""
    make = grammar if form == "grammar" else FORMATS[form][0]
    return make(random.Random(f"{form} {seed} {number}"))
