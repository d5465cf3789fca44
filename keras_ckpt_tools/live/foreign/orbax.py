"""Match the tensors of an Orbax checkpoint with a live model.

Keras names them by the paths of variables: `net/dense/kernel`. Automatic names are counted per
process (`dense_3`, `seed_generator_1`), so a second instance of a model has other names. If names
do not agree, they are compared with their numbers counted from the first. Places and shapes are not
used.

Unmatched tensors keep their name. The state of metrics is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from keras_ckpt_tools.formats.orbax import METRICS, OPTIMIZER, OrbaxCheckpoint
from keras_ckpt_tools.formats.tensor_source import TensorSource
from keras_ckpt_tools.live import state
from keras_ckpt_tools.live.foreign.tf_objects import MatchedSource
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP

# Generators have their own group, with any name of the model.
_GENERATOR = "seed_generator"


def match_orbax(checkpoint: OrbaxCheckpoint, model: Any) -> TensorSource:
    """Return the tensors of a checkpoint under the paths that Keras gives them in a weights file.

    Args:
        checkpoint: The checkpoint.
        model: The model that they are for, built; its optimizer, too, if the checkpoint has one.
    """
    captured = state.capture(model)
    places = {id(value): path for path, value in captured.values.items()}
    # Whether something is trained may have changed, and then it stands in the other branch.
    weights = {
        name.partition("/")[2]: name
        for name in checkpoint.variables
        if not name.startswith((OPTIMIZER, METRICS))
    }
    ours = {str(v.path): places[id(v)] for v in model.variables if id(v) in places}
    named = _best_names(list(ours), list(weights))
    keys = {ours[path]: weights[theirs] for path, theirs in named.items()}
    keys |= _optimizer(checkpoint, getattr(model, "optimizer", None), named)
    taken = set(keys.values())
    for name in checkpoint.variables:
        if name in taken or name.startswith(METRICS):
            continue
        rest = name.removeprefix(OPTIMIZER)
        keys[name if rest == name else OPTIMIZER_GROUP + rest] = name
    expected = captured.infos()
    dtypes = {
        path: expected[path].dtype
        for path, name in keys.items()
        if path in expected and not expected[path].shape and checkpoint.is_plain_number(name)
    }
    return MatchedSource(checkpoint, keys, dtypes)


def _optimizer(
    checkpoint: OrbaxCheckpoint, optimizer: Any, named: Mapping[str, str]
) -> dict[str, str]:
    """Return the name in the file of each variable of an optimizer of the same kind."""
    theirs = {name for name in checkpoint.variables if name.startswith(OPTIMIZER)}
    roots = {name.split("/")[1] for name in theirs}
    flat = {path.replace("/", "_"): other.replace("/", "_") for path, other in named.items()}
    found: dict[str, str] = {}
    group, level = OPTIMIZER_GROUP, optimizer
    while level is not None:
        for index, variable in enumerate(level.variables):
            root, _, name = str(variable.path).partition("/")
            owner = max((p for p in flat if name.startswith(f"{p}_")), key=len, default="")
            name = flat[owner] + name[len(owner) :] if owner else name
            same = [one for one in roots if _plain(one) == _plain(root)]
            place = f"{OPTIMIZER}{same[0]}/{name}" if len(same) == 1 else ""
            if place in theirs:
                found[f"{group}vars/{index}"] = place
        group, level = f"{group}inner_optimizer/", getattr(level, "inner_optimizer", None)
    return found


def _best_names(ours: list[str], theirs: list[str]) -> dict[str, str]:
    """Return what each of our paths is in the file, with the name of the model or without it.

    A `Sequential` that was made by a program has its own name in the paths of its variables, and
    one that was made from its config has not.

    >>> _best_names(["d/kernel", "seed_generator/s"], ["net/d/kernel", "seed_generator/s"])
    {'d/kernel': 'net/d/kernel', 'seed_generator/s': 'seed_generator/s'}
    """
    best: dict[str, str] = {}
    for here in (_as_they_are(ours), _below_the_top(ours)):
        for there in (_as_they_are(theirs), _below_the_top(theirs)):
            same = _same_names(here, there)
            if len(same) > len(best):
                best = {here[path]: there[other] for path, other in same.items()}
    return best


def _as_they_are(paths: Iterable[str]) -> dict[str, str]:
    return {path: path for path in paths}


def _below_the_top(paths: Iterable[str]) -> dict[str, str]:
    """Return paths by what follows the one name that all of them begin with, if there is one."""
    tops = {path.partition("/")[0] for path in paths if not path.startswith(_GENERATOR)}
    if len(tops) != 1:
        return _as_they_are(paths)
    top = f"{tops.pop()}/"
    return {path.removeprefix(top): path for path in paths}


def _same_names(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """Return what each of our paths is in the file, where it is there."""
    found: dict[str, str] = {}
    here, there = _families(ours), _families(theirs)
    for family, paths in here.items():
        others = there.get(family, [])
        counted, known = _counted(paths), _counted(others)
        if set(paths) <= set(others) or counted.keys() != known.keys():
            found |= {path: path for path in paths if path in set(others)}
        else:
            found |= {path: known[name] for name, path in counted.items()}
    return found


def _families(paths: Iterable[str]) -> dict[str, list[str]]:
    families: dict[str, list[str]] = {}
    for path in paths:
        families.setdefault(_plain(path.partition("/")[0]), []).append(path)
    return families


def _plain(name: str) -> str:
    """Return a name without the number that Keras gives the second one of it, and later ones.

    >>> _plain("dense_12"), _plain("conv2d"), _plain("block_1a")
    ('dense', 'conv2d', 'block_1a')
    """
    return re.sub(r"_\d+$", "", name)


def _counted(paths: Iterable[str]) -> dict[str, str]:
    """Return paths by what they would be if each name were counted from the first on.

    >>> _counted(["net_1/dense_7/bias", "net_1/dense_9/bias"])
    {'net#0/dense#0/bias#0': 'net_1/dense_7/bias', 'net#0/dense#1/bias#0': 'net_1/dense_9/bias'}
    """
    paths = list(paths)
    siblings: dict[str, set[str]] = {}
    for path in paths:
        parts = path.split("/")
        for level, part in enumerate(parts):
            siblings.setdefault("/".join(parts[:level]), set()).add(part)
    ranks: dict[tuple[str, str], int] = {}
    for above, names in siblings.items():
        seen: dict[str, int] = {}
        for name in sorted(names, key=lambda name: (_plain(name), _number(name))):
            ranks[above, name] = seen.setdefault(_plain(name), 0)
            seen[_plain(name)] += 1
    found: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        counted = (
            f"{_plain(part)}#{ranks['/'.join(parts[:level]), part]}"
            for level, part in enumerate(parts)
        )
        found["/".join(counted)] = path
    return found


def _number(name: str) -> int:
    number = name.rpartition("_")[2]
    return int(number) if _plain(name) != name else -1
