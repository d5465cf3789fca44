"""An object that nobody trusts is found wherever it stands in a config, and it never runs.

Each real config of Keras gets a marked object at each of its positions: in place of each value and
item, under a surplus key of each mapping, and as `compile_config` in four shapes. All are walked in
memory; some, drawn by chance, are files that are inspected and loaded, and some are built with no
walk before, so that the second lock stands alone. `KCT_FUZZ` takes all shapes at all positions, and
that many files.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import inspect
import marshal
import os
import random
import sys
import warnings

import keras
import keras_catalogue
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import CkptError
from keras_ckpt_tools.inspection.builtin_names import CLASSES_IN
from keras_ckpt_tools.inspection.configs import MalformedConfigError, uncompiled, walk
from keras_ckpt_tools.inspection.verdicts import Resolver
from keras_ckpt_tools.loading.isolation import Allowed, closed_room

# Of the packages that Keras imports because a config names them.
MODULE = "keras_hub.marked"
SOURCE = """
import pathlib, keras
pathlib.Path({marker!r}).touch()
class Marked(keras.layers.Layer):
    pass
"""
ALL = "KCT_FUZZ" in os.environ
DRAWN = int(os.environ.get("KCT_FUZZ") or 20)


@pytest.fixture(scope="module")
def marker(tmp_path_factory):
    """The file that appears once a marked object is imported, made or called."""
    folder = tmp_path_factory.mktemp("marked")
    marker = folder / "marker"
    (folder / "keras_hub").mkdir()
    (folder / "keras_hub" / "__init__.py").touch()
    (folder / "keras_hub" / "marked.py").write_text(SOURCE.format(marker=str(marker)))

    class Marked(keras.layers.Layer):
        def __init__(self, **kwargs):
            marker.touch()
            super().__init__(**kwargs)

    def marked_fn(*args, **kwargs):
        marker.touch()
        return args[0]

    # As of a package that some import has brought along: what tests define is their own.
    Marked.__module__ = marked_fn.__module__ = "somebody.marked"
    table = keras.saving.get_custom_objects()
    planted = {"marked>Marked": Marked, "marked>marked_fn": marked_fn, "marked_fn": marked_fn}
    table.update(planted)
    sys.path.insert(0, str(folder))
    yield marker
    sys.path.remove(str(folder))
    for name in planted:
        del table[name]
    assert "keras_hub" not in sys.modules


@pytest.fixture(scope="module")
def marks(marker):
    """Marked objects, in each shape that Keras would make one of."""
    scope = {}
    exec(f"def run(*a, **k):\n    open({str(marker)!r}, 'w').close()\n    return a[0]\n", scope)
    code = base64.b64encode(marshal.dumps(scope["run"].__code__)).decode()
    function = {"module": "builtins", "class_name": "function", "registered_name": None}
    return {
        "imported": {"module": MODULE, "class_name": "Marked", "config": {}},
        "registered": {"module": None, "class_name": "Marked", "config": {},
                       "registered_name": "marked>Marked"},
        "legacy": {"class_name": "marked>Marked", "config": {}},
        "function": {**function, "config": "marked>marked_fn"},
        "bare function": {**function, "config": "marked_fn"},
        "string": "marked>marked_fn",
        "code": {"class_name": "__lambda__", "config": {
            "value": [code, None, None], "code": code, "defaults": None, "closure": None}},
        "type": {"class_name": "__typespec__", "spec_name": "Marked", "module": MODULE,
                 "registered_name": None, "config": []},
        "in a list": [[{"x": {"module": MODULE, "class_name": "Marked", "config": {}}}]],
        "as a class name": {"class_name": {"module": MODULE, "class_name": "Marked", "config": {}}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def real():
    """A config of an object of each class of Keras', in each place that a model has for one."""
    groups = {"schedules": "optimizers.schedules", "policies": "dtype_policies"}
    found = {
        f"keras.{groups.get(group, group)}.{name}": config
        for group, configs in keras_catalogue.configs().items()
        for name, config in configs.items()
    }
    tensor = {"class_name": "__keras_tensor__", "config": {
        "shape": [None, 4], "dtype": "float32", "keras_history": ["x", 0, 0]}}  # fmt: skip
    inputs = {"module": "keras.layers", "class_name": "InputLayer", "name": "x",
              "config": {"batch_shape": [None, 4], "name": "x"}, "inbound_nodes": []}  # fmt: skip
    nodes = [{"args": [tensor], "kwargs": {"mask": None, "training": False}}]
    dense = {**found["keras.layers.Dense"], "name": "dense", "inbound_nodes": nodes}
    dense["config"] = {**dense["config"], "name": "dense"}
    found["a functional model"] = {
        "module": "keras.src.models.functional", "class_name": "Functional",
        "config": {"name": "net", "layers": [inputs, dense], "input_layers": [["x", 0, 0]],
                   "output_layers": [["dense", 0, 0]]},
    }  # fmt: skip
    return found


def in_a_model(config, module=""):
    """Return a compiled model that has this object where a model has one of its kind."""
    compiled = {"optimizer": "sgd", "loss": "mse", "metrics": ["mae"]}
    layers = [{"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}}]
    if module.startswith(("keras.losses", "keras.metrics", "keras.optimizers")):
        place = {"keras.losses": "loss", "keras.metrics": "metrics"}.get(module, "optimizer")
        compiled[place] = [config] if place == "metrics" else config
    elif module.startswith(("keras.layers", "keras.src", "a functional")):
        layers = [config]
    else:
        keys = {
            "keras.constraints": "kernel_constraint",
            "keras.dtype_policies": "dtype",
            "keras.initializers": "kernel_initializer",
        }
        key = keys.get(module, "kernel_regularizer")
        layers[0]["config"][key] = config
    return {"module": "keras", "class_name": "Sequential", "compile_config": compiled,
            "config": {"name": "net", "layers": layers}, "registered_name": None}  # fmt: skip


def positions(value, path=()):
    """Yield the path to each value and item, and to a surplus key in each mapping."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from positions(item, (*path, key))
        yield (*path, "surplus")
        yield (*path, "compile_config")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield (*path, index)
            yield from positions(item, (*path, index))


def put(config, path, mark):
    """Return the config with the mark at a path; what is beside the path is shared."""
    if not path:
        return mark
    changed = dict(config) if isinstance(config, dict) else list(config)
    old = config.get(path[0]) if isinstance(config, dict) else config[path[0]]
    changed[path[0]] = put(old, path[1:], mark)
    return changed


def every_case(real, marks):
    """Yield what is marked where, and the config of a model that has it."""
    chance = random.Random(keras.__version__)
    for name, config in real.items():
        module = name.rpartition(".")[0] or name
        for path in positions(config):
            for kind in marks if ALL else chance.sample(sorted(marks), 1):
                mark = marks[kind]
                shapes = [mark]
                if path[-1] == "compile_config":
                    shapes = [mark, [mark], {"optimizer": mark}, {"other": {"deep": [mark]}}]
                for shape in shapes if ALL else chance.sample(shapes, 1):
                    yield (
                        f"{kind} at {path} of {name}",
                        in_a_model(put(config, path, shape), module),
                    )


@pytest.fixture(scope="module")
def cases(real, marks):
    """All cases; of each position one shape, unless all were asked for."""
    return list(every_case(real, marks))


@pytest.fixture(scope="module")
def drawn(cases):
    """Some of them, others in each version of Keras."""
    return random.Random(keras.__version__).sample(cases, min(DRAWN, len(cases)))


def refused(config, resolver):
    """Return whether a config is refused, whatever of it a load would drop."""
    try:
        return bool(resolver.resolve(walk(config)).refused())
    except MalformedConfigError:
        return True


def test_real_configs_are_of_nearly_all_classes(real):
    """A property of all is worth as much as the list of all; and none of them is refused."""
    made = {kind for kinds in keras_catalogue.classes().values() for kind in kinds.values()}
    known = {
        kind
        for module, _ in keras_catalogue.GROUPS.values()
        for name in CLASSES_IN[module.__name__] - keras_catalogue.ABSTRACT
        if inspect.isclass(kind := getattr(module, name, None))
    }
    assert len(made & known) >= 0.95 * len(known), known - made
    for name, config in real.items():
        resolved = Resolver(kct.registry).resolve(walk(config))
        assert not [use for use in resolved.refused() if use.role != "path"], name


def test_a_marked_object_is_found_at_every_position(cases, marker, names):
    """Whatever stands around it, and under whatever key."""
    resolver = Resolver(names)
    missed = [what for what, config in cases if not refused(config, resolver)]
    assert missed == []
    assert not marker.exists()


def test_what_is_dropped_to_load_uncompiled_is_what_was_found_for_training(cases, names):
    """So nothing that was judged as needed to train only is left in what Keras sees."""
    resolver = Resolver(names)
    for what, config in cases if ALL else cases[::5]:
        try:
            found = resolver.resolve(walk(config))
        except MalformedConfigError:
            continue
        bare = resolver.resolve(walk(uncompiled(config)))
        assert not bare.refused("compile"), what
        assert bool(bare.refused()) == bool(found.refused("model")), what


def test_files_with_a_marked_object_are_reported_and_it_never_runs(drawn, forge, names, marker):
    """By `inspect` each time; with `compile=False` what is needed to train only is dropped."""
    for index, (what, config) in enumerate(drawn):
        path = forge(config)
        report = kct.inspect(path, registry=names)
        assert not report, what
        compiled = (True, False, "auto")[index % 3]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That it is loaded uncompiled.
            try:
                kct.safe_load_model(path, compile=compiled, registry=names)
            except CkptError:
                pass
            else:
                assert compiled is not True, what
        assert not marker.exists(), what


def build(config, lock):
    """Let Keras build a config, as far as that goes: most of them are no models any more."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with lock:
            keras.saving.deserialize_keras_object(copy.deepcopy(config))


def test_the_second_lock_alone_runs_none_of_them(cases, real, marks, marker):
    """A walk that sees nothing: every name that Keras asks for is held against what is allowed."""
    for what, config in random.Random(keras.__version__).sample(cases, min(10 * DRAWN, len(cases))):
        build(config, closed_room(Allowed({}), config))
        assert not marker.exists(), what
    assert "keras_hub" not in sys.modules
    marked = put(real["keras.layers.Conv1D"], ("config", "bias_constraint"), marks["registered"])
    build(marked, closed_room(Allowed({}), marked))
    assert not marker.exists()
    build(marked, contextlib.nullcontext())
    assert marker.exists(), "Keras would have run it."
    marker.unlink()
