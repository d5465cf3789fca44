"""While Keras builds, a file's names reach what was resolved, and nothing else."""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import pytest
from keras.src.backend.common import global_state
from keras.src.utils import python_utils

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ObjectsNotFoundError
from keras_ckpt_tools.inspection.trust import Trust
from keras_ckpt_tools.inspection.verdicts import Resolver
from keras_ckpt_tools.loading import variable_budget
from keras_ckpt_tools.loading.isolation import POINTS, Allowed, closed_room


def test_names_of_the_file_are_what_was_resolved_or_nothing():
    """Qualified or bare; of other names those that the caller vouches for, in this thread only."""
    everything = keras.saving.get_custom_objects()
    everything.update({"a>Block": 1, "b>Block": 2, "Plain": 3, "c>Other": 4, "d>Known": 5})
    before = dict(everything)
    allowed = Allowed({"a>Block": "mine"}, vouches_for=lambda name, obj: obj == 5)
    with closed_room(allowed, ["a>Block", "Block", "Plain"]):
        assert dict(keras.saving.get_custom_objects()) == {"a>Block": "mine", "d>Known": 5}
        assert global_state.get_global_attribute("custom_objects_scope_dict") == {"a>Block": "mine"}
        with ThreadPoolExecutor() as pool:
            assert pool.submit(lambda: dict(keras.saving.get_custom_objects())).result() == before
    assert keras.saving.get_custom_objects() is everything
    assert everything == before


@pytest.mark.parametrize("runs_code", [False, True])
def test_safe_mode_is_on_unless_code_was_trusted(runs_code):
    """Whatever the process-wide switch says; a failure inside changes nothing."""
    seen = []

    def fail():
        with closed_room(Allowed({}, runs_code=runs_code)):
            seen.append(global_state.get_global_attribute("safe_mode_saving"))
            raise KeyError("inside")

    global_state.set_global_attribute("safe_mode_saving", False)
    try:
        with pytest.raises(KeyError, match="inside"):
            fail()
        assert seen == [not runs_code]
        assert global_state.get_global_attribute("safe_mode_saving") is False
    finally:
        global_state.set_global_attribute("safe_mode_saving", None)


def test_what_is_registered_meanwhile_stays():
    """A module that a custom class imports may register its classes."""
    everything = keras.saving.get_custom_objects()
    with closed_room(Allowed({"Block": "mine"}), ["Block"]):
        keras.saving.get_custom_objects()["Block"] = "registered meanwhile"
        keras.saving.get_custom_objects()["late>Thing"] = "too"
    assert everything["Block"] == "registered meanwhile"
    assert everything["late>Thing"] == "too"


def test_a_global_entry_does_not_take_the_place_of_kerass_own(names, tmp_path):
    """Keras writes its operations by bare names, which anybody may have registered."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.relu(inputs))
    model.save(tmp_path / "net.keras")

    class Relu(keras.layers.Layer):
        pass

    keras.saving.get_custom_objects()["Relu"] = Relu
    loaded = kct.safe_load_model(tmp_path / "net.keras", registry=names)
    assert type(loaded.operations[1]) is type(model.operations[1])


# The second lock: what is looked up while a model is built, whatever led there.


@pytest.fixture
def build(names):
    """A function that lets Keras build a config in the closed room, the walk left out."""

    def run(config, objects=(), trusted=(), strings=()):
        resolver = Resolver(names, None, Trust.of(trusted))
        allowed = Allowed(dict(objects), vouches_for=resolver.vouches_for, trusts=resolver.trusts)
        with closed_room(allowed, config, list(strings), path="net.keras"):
            return keras.saving.deserialize_keras_object(copy.deepcopy(config))

    return run


class Marked(keras.layers.Layer):
    """A layer that nobody trusts, and that some package has registered with Keras."""


@pytest.fixture
def planted():
    """Put it into Keras' tables, as an import may do."""
    names = {"marked>Marked": Marked, "Marked": Marked, "adam": Marked}
    keras.saving.get_custom_objects().update(names)
    yield names
    for name in names:
        keras.saving.get_custom_objects().pop(name, None)


def outer(build_inner):
    """Return a class whose code calls this while it is made from its config."""

    class Outer(keras.layers.Layer):
        @classmethod
        def from_config(cls, config):
            inner = build_inner(config)
            made = cls()
            made.inner = inner
            return made

    return Outer


OUTER = {"module": "my", "class_name": "Outer", "config": {}, "registered_name": "my>Outer"}
MARKED = {"module": None, "class_name": "Marked", "config": {}, "registered_name": "marked>Marked"}


@pytest.mark.parametrize(
    ("node", "name"),
    [
        (MARKED, "marked>Marked"),
        ({"module": "keras_hub.some", "class_name": "Thing", "config": {}}, "Thing"),
        ({"module": "keras.callbacks", "class_name": "CSVLogger", "config": {}}, "CSVLogger"),
        ({"module": "keras.utils", "class_name": "function", "config": "get_file"}, "get_file"),
        ({"module": "builtins", "class_name": "function", "config": "deserialize"}, "deserialize"),
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {}}, "TFSMLayer"),
    ],
)
def test_what_the_walk_missed_is_refused_with_its_place(node, name, build, planted):
    """Nothing is imported or made; the error says where it stands."""
    config = {"module": "keras.layers", "class_name": "TimeDistributed", "config": {"layer": node}}
    with pytest.raises(ObjectsNotFoundError) as caught:
        build(config)
    assert caught.value.untrusted == (name,)
    assert "at $[0].config.layer" in str(caught.value) or "at $.config.layer" in str(caught.value)
    assert "bug of keras_ckpt_tools" in str(caught.value)
    assert "keras_hub" not in sys.modules


def test_a_refusal_that_keras_swallows_comes_at_the_end(build):
    """Half a model is no model."""

    def swallow(config):
        with contextlib.suppress(Exception):
            keras.saving.deserialize_keras_object({**MARKED, "module": "keras.callbacks"})

    with pytest.raises(ObjectsNotFoundError, match="by code that runs while the model is built"):
        build(OUTER, {"my>Outer": outer(swallow)})


def test_code_of_the_users_own_finds_what_is_keras_own_or_vouched_for(build, names):
    """By config, by string and by constructor; with objects that it passes itself."""

    class Own(keras.layers.Layer):
        pass

    class Registered(keras.layers.Layer):
        pass

    names.register("my")(Registered)
    keras.saving.get_custom_objects()["my>Registered"] = Registered

    def inner(config):
        dense = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}}
        own = {"module": None, "class_name": "Own", "config": {}, "registered_name": "Own"}
        registered = {**own, "class_name": "Registered", "registered_name": "my>Registered"}
        with keras.saving.custom_object_scope({"Scoped": Own}):
            scoped = keras.layers.deserialize({**own, "registered_name": "Scoped"})
        return [
            keras.layers.deserialize(dense),
            keras.layers.deserialize(own, custom_objects={"Own": Own}),
            keras.layers.deserialize(registered),
            scoped,
            keras.layers.Dense(1),
            keras.losses.get("mse"),
            keras.metrics.get("mae"),
            keras.optimizers.get("adam"),
            keras.activations.get("relu"),
            keras.initializers.get("zeros"),
        ]

    found = build(OUTER, {"my>Outer": outer(inner)}).inner
    assert [type(one).__name__ for one in found[:5]] == [
        "Dense",
        "Own",
        "Registered",
        "Own",
        "Dense",
    ]
    assert all(callable(one) or hasattr(one, "variables") for one in found[5:])


def test_what_the_users_code_finds_in_kerass_registry_needs_trust(build, planted):
    """The advice in the error works."""
    objects = {"my>Outer": outer(lambda config: keras.layers.deserialize(dict(MARKED)))}
    with pytest.raises(ObjectsNotFoundError, match=r'Allow it with `trusted=\["marked>Marked"\]`'):
        build(OUTER, objects)
    assert type(build(OUTER, objects, trusted=["marked>Marked"]).inner) is Marked


def test_a_name_that_keras_makes_of_another_one_is_kerass_own(planted, tmp_path, names):
    """Keras looks `Adam` up as `adam`, under which a package has registered something else."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "net.h5")
    loaded = kct.safe_load_model(tmp_path / "net.h5", compile=True, registry=names)
    assert type(loaded.optimizer) is keras.optimizers.Adam


def test_functions_that_keras_is_made_of_are_text_in_the_legacy_dialect(build):
    """Keras looks every string up in the module of layers, which has `deserialize`, too."""
    dense = {
        "class_name": "Dense",
        "config": {"name": "d", "units": 1, "activation": "deserialize"},
    }
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "n"}}
    config["config"]["layers"] = [dense]
    stock = keras.saving.deserialize_keras_object(copy.deepcopy(config))
    assert stock.layers[0].activation is keras.layers.deserialize
    with pytest.raises((TypeError, ValueError), match="Could not interpret activation"):
        build(config)


def test_bytecode_of_the_file_is_not_loaded_because_other_code_is_trusted():
    """Trust of one Lambda layer opens Keras' safe mode for all of them."""
    code = python_utils.func_dump(lambda x: x)[0]
    node = {"class_name": "__lambda__", "config": {"value": [code, None, None]}}
    with closed_room(Allowed({}, runs_code=True, code=frozenset({code})), node):
        assert callable(keras.saving.deserialize_keras_object(node))
    with (
        pytest.raises(ObjectsNotFoundError, match="bytecode"),
        closed_room(Allowed({}, runs_code=True), node),
    ):
        keras.saving.deserialize_keras_object(node)


def test_a_load_within_a_load_has_its_own_lock(build, tmp_path, names):
    """What the inner one may use, the outer one need not know."""

    class Inner(keras.layers.Layer):
        pass

    keras.Sequential([keras.Input((2,)), Inner()]).save(tmp_path / "inner.keras")

    def load(config):
        one = {"custom_objects": {"Inner": Inner}, "registry": names}
        return kct.safe_load_model(tmp_path / "inner.keras", **one)

    model = build(OUTER, {"my>Outer": outer(load)}).inner
    assert type(model.layers[0]) is Inner


@pytest.mark.parametrize("fails", [False, True])
def test_every_point_of_the_lock_is_as_it_was(fails):
    """After a failure too; each exists in this Keras, and other threads go by it untouched."""
    held = [(holder, name, getattr(holder, name)) for holder, name, _ in POINTS]
    with contextlib.suppress(KeyError), closed_room(Allowed({}), ["Dense"]):
        assert all(getattr(holder, name) is not old for holder, name, old in held)
        with ThreadPoolExecutor() as pool:
            unhindered = {"module": "keras.callbacks", "class_name": "CSVLogger", "config": {}}
            with pytest.raises(TypeError):
                pool.submit(keras.saving.deserialize_keras_object, unhindered).result()
        if fails:
            raise KeyError
    assert all(getattr(holder, name) is old for holder, name, old in held)


def test_a_scope_that_code_opens_counts_for_classes_that_were_built_before(build):
    """The answer of the first lookup is kept, and is not that of a scope that was opened since."""
    dense = {"module": "keras.layers", "class_name": "Dense", "registered_name": "Dense"}
    node = dense | {"config": {"units": 1}}

    class Mine(keras.layers.Dense):
        pass

    def inner(config):
        built = [keras.saving.deserialize_keras_object(dict(node)) for _ in range(2)]
        with keras.saving.custom_object_scope({"Dense": Mine}):
            built.append(keras.saving.deserialize_keras_object(dict(node)))
        return [*built, keras.saving.deserialize_keras_object(dict(node))]

    found = build([OUTER, node], {"my>Outer": outer(inner)}, trusted=["Dense"])[0].inner
    assert [type(one).__name__ for one in found] == ["Dense", "Dense", "Mine", "Dense"]


def test_one_lookup_costs_the_same_however_much_is_registered():
    """Each of many lookups used to look at all that is registered."""
    everything = keras.saving.get_custom_objects()
    names = {f"many>Thing{index}": index for index in range(500)}
    everything.update(names)
    asked = []

    def vouches_for(name, obj):
        asked.append(name)
        return False

    try:
        with closed_room(Allowed({}, vouches_for=vouches_for), ["Dense"]):
            table = keras.saving.get_custom_objects()
            for _ in range(10):
                assert "Dense" not in table
                assert "many>Thing7" not in table
            assert asked == ["many>Thing7"] * 10
            table["many>Thing500"] = "late"
            assert "many>Thing500" not in table
    finally:
        for name in [*names, "many>Thing500"]:
            everything.pop(name, None)


def test_a_load_that_waits_for_a_load_in_another_thread_is_an_error(names, tmp_path, monkeypatch):
    """It used to wait for ever; in the same thread it is done."""
    monkeypatch.setattr(variable_budget, "_PATIENCE", 1)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)]).save(tmp_path / "inner.keras")
    pooled = [False]

    @names.register("nested")
    class Teacher(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            load = functools.partial(kct.safe_load_model, tmp_path / "inner.keras", registry=names)
            if pooled[0]:
                with ThreadPoolExecutor(1) as pool:
                    self.inner = pool.submit(load).result()
            else:
                self.inner = load()

        def call(self, x):
            return self.inner(x)

    keras.Sequential([keras.Input((4,)), Teacher()]).save(tmp_path / "outer.keras")
    assert kct.safe_load_model(tmp_path / "outer.keras", registry=names)
    pooled[0] = True
    with pytest.raises(TypeError, match="Another thread builds a model and is waiting"):
        kct.safe_load_model(tmp_path / "outer.keras", registry=names)
