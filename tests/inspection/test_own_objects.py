"""What the program that loads has registered with Keras itself is trusted, and nothing else."""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.machinery
import json
import subprocess
import sys
import threading
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError, ObjectsNotFoundError
from keras_ckpt_tools.inspection.trust import Trust

X = np.ones((2, 4), "float32")
LAYER = """
import keras

@keras.saving.register_keras_serializable({package!r})
class {name}(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""
APP = """
import keras_ckpt_tools as kct

def load(path, **arguments):
    return kct.safe_load_model(path, **arguments)

def inspect(path, **arguments):
    return kct.inspect(path, **arguments)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A package with layers and a function that loads, a module beside it, an installed one."""
    files = {
        "own_pack/__init__.py": "",
        "own_pack/app.py": APP,
        "own_pack/layers.py": LAYER.format(package="Custom", name="Own"),
        "own_beside.py": LAYER.format(package="Custom", name="Beside"),
        "site-packages/own_vendor.py": LAYER.format(package="Custom", name="Vendors"),
        "own_space/ours/__init__.py": "",
        "own_space/ours/app.py": APP,
        "own_space/ours/layers.py": LAYER.format(package="Custom", name="Ours"),
        "own_space/theirs/__init__.py": "",
        "own_space/theirs/layers.py": LAYER.format(package="Custom", name="Theirs"),
    }
    for name, text in files.items():
        place = tmp_path / "program" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "program" / "site-packages")
    monkeypatch.syspath_prepend(tmp_path / "program")
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def saved(cls, path):
    """Save a model with one layer of a class."""
    keras.Sequential([keras.Input((4,)), cls(), keras.layers.Dense(2)]).save(path)
    return str(path)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_objects_of_the_calling_package_load_without_a_name(program, tmp_path, ending):
    """Decorated with Keras' decorator, in the package that loads: the commonest custom objects."""
    path = saved(program("own_pack.layers").Own, tmp_path / f"net.{ending}")
    app = program("own_pack.app")
    assert np.array_equal(app.load(path)(X), keras.models.load_model(path)(X))
    (use,) = [u for u in app.inspect(path).objects if u.verdict != "built-in"]
    assert use.verdict == "trusted"
    assert "registered with Keras by your own code, in own_pack.layers" in use.note


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_objects_that_the_caller_defined_load_without_a_name(tmp_path, ending):
    """A loss, an activation and a layer of the module that calls."""

    @keras.saving.register_keras_serializable()
    class Mine(keras.layers.Layer):
        def call(self, x):
            return 3 * x

    @keras.saving.register_keras_serializable()
    def mine_too(x):
        return keras.ops.relu(x)

    @keras.saving.register_keras_serializable()
    def my_loss(y, z):
        return keras.ops.mean((y - z) ** 2)

    layers = [keras.Input((4,)), Mine(), keras.layers.Dense(2, activation=mine_too)]
    model = keras.Sequential(layers)
    model.compile("sgd", my_loss)
    model.save(tmp_path / f"net.{ending}")
    loaded = kct.safe_load_model(tmp_path / f"net.{ending}", compile=True)
    assert np.array_equal(loaded(X), model(X))
    assert loaded.loss is my_loss


def test_objects_of_the_main_module_are_its_programs(monkeypatch):
    """A notebook or a script is `__main__`, whichever module makes the call."""
    mine = type("Mine", (), {"__module__": "__main__"})
    assert Trust.of((), "own_pack").is_own(mine)
    assert Trust.of((), "__main__").is_own(mine)
    assert not Trust().is_own(mine)


def test_objects_of_other_modules_need_a_name(program, tmp_path):
    """Registered under the same package name, by a module that is not the caller's."""
    app = program("own_pack.app")
    program("own_pack.layers")
    for module, name in (("own_beside", "Beside"), ("own_vendor", "Vendors")):
        path = saved(getattr(program(module), name), tmp_path / "net.keras")
        assert app.inspect(path).untrusted == (f"Custom>{name}",)
        with pytest.raises(ObjectsNotFoundError, match=f"registered with Keras .* by {module}"):
            app.load(path)
        assert app.load(path, trusted=[f"Custom>{name}"])


def test_registered_here_adds_what_is_not_installed(program, tmp_path):
    """A script and the modules beside it; a package that was installed still needs a name."""
    app = program("own_pack.app")
    beside = saved(program("own_beside").Beside, tmp_path / "beside.keras")
    vendors = saved(program("own_vendor").Vendors, tmp_path / "vendors.keras")
    with pytest.raises(ObjectsNotFoundError, match="pass trusted='registered-here'"):
        app.load(beside)
    assert app.load(beside, trusted="registered-here")
    with pytest.warns(UserWarning, match="these names in `trusted`: 'other>Name'"):
        assert app.load(beside, trusted=["registered-here", "other>Name"])
    with pytest.raises(ObjectsNotFoundError) as caught:
        app.load(vendors, trusted="registered-here")
    assert caught.value.untrusted == ("Custom>Vendors",)
    assert "registered-here" not in str(caught.value)


def installed(folder, name, listing):
    """Put a module with a layer into a folder, as an installer does."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(LAYER.format(package="Custom", name=name.title()))
    for place, text in listing.items():
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(text)


LISTS = {
    "own_pip": {"own_pip-1.0.dist-info/RECORD": "own_pip.py,sha256=x,1\n"},
    "own_old": {"own_old.egg-info/installed-files.txt": "../own_old.py\n"},
    "own_bare": {"own_bare-1.0.dist-info/METADATA": "Name: own_bare\n"},
}


@pytest.mark.parametrize("name", LISTS)
def test_a_package_installed_into_a_folder_of_its_own_is_installed(
    name, program, tmp_path, monkeypatch
):
    """By `pip install --target`, onto `PYTHONPATH`: the folder has another name then."""
    folder = tmp_path / "vendored"
    installed(folder, name, LISTS[name])
    monkeypatch.syspath_prepend(folder)
    app = program("own_pack.app")
    path = saved(getattr(program(name), name.title()), tmp_path / "net.keras")
    with pytest.raises(ObjectsNotFoundError) as caught:
        app.load(path, trusted="registered-here")
    assert "registered-here" not in caught.value.what
    assert app.load(path, trusted=[f"Custom>{name.title()}"])


def test_own_modules_beside_installed_ones_are_own(program, tmp_path, monkeypatch):
    """In a folder that is shipped with all it needs, and in a project installed to be edited."""
    folder = tmp_path / "shipped"
    installed(folder, "own_pip", LISTS["own_pip"])
    installed(
        folder, "own_handler", {"own_handler.egg-info/SOURCES.txt": "setup.py\nown_handler.py\n"}
    )
    monkeypatch.syspath_prepend(folder)
    app = program("own_pack.app")
    path = saved(program("own_handler").Own_Handler, tmp_path / "net.keras")
    assert app.load(path, trusted="registered-here")


def test_pip_itself_leaves_the_list(program, tmp_path, monkeypatch):
    """A real `pip install --target` of a wheel."""
    wheel = tmp_path / "own_wheel-1.0-py3-none-any.whl"
    info = "own_wheel-1.0.dist-info"
    members = {
        "own_wheel/__init__.py": LAYER.format(package="Custom", name="Own_Wheel"),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: own_wheel\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    rows = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**members, f"{info}/RECORD": rows}.items():
            archive.writestr(name, text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*pip, "--target", str(tmp_path / "target"), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named pip" in done.stderr:
        pytest.skip("there is no pip here")
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(tmp_path / "target")
    app = program("own_pack.app")
    path = saved(program("own_wheel").Own_Wheel, tmp_path / "net.keras")
    with pytest.raises(ObjectsNotFoundError):
        app.load(path, trusted="registered-here")


def test_a_namespace_package_has_several_owners(program, tmp_path):
    """`google.one` is not `google.two`: a folder without `__init__` is nobody's package."""
    app = program("own_space.ours.app")
    ours = saved(program("own_space.ours.layers").Ours, tmp_path / "ours.keras")
    theirs = saved(program("own_space.theirs.layers").Theirs, tmp_path / "theirs.keras")
    assert app.load(ours)
    with pytest.raises(ObjectsNotFoundError):
        app.load(theirs)


@pytest.mark.parametrize("how", ["submit", "map", "thread", "to_thread"])
def test_a_pool_of_threads_is_not_the_caller(program, tmp_path, how):
    """What a pool is given to call has no caller but the program that runs."""
    path = saved(program("own_pack.layers").Own, tmp_path / "net.keras")
    main = types.ModuleType("own_pack.app")
    main.__spec__ = importlib.machinery.ModuleSpec("own_pack.app", None)
    main.__name__ = "__main__"
    sys_main = sys.modules["__main__"]
    found = []

    def load(path):
        found.append(kct.safe_load_model(path))

    sys.modules["__main__"] = main  # As `python -m own_pack.app` has it.
    try:
        with ThreadPoolExecutor() as pool:
            if how == "submit":
                found.append(pool.submit(kct.safe_load_model, path).result())
            elif how == "map":
                found += pool.map(kct.safe_load_model, [path])
            elif how == "to_thread":
                found.append(asyncio.run(asyncio.to_thread(kct.safe_load_model, path)))
            else:
                caught = []
                thread = threading.Thread(target=functools.partial(kct.safe_load_model, path))
                monitor = threading.excepthook
                threading.excepthook = caught.append
                thread.start()
                thread.join()
                threading.excepthook = monitor
                assert not caught
                found.append(thread)
    finally:
        sys.modules["__main__"] = sys_main
    assert found
    with pytest.raises(ObjectsNotFoundError):
        load(path)  # Of this module, which is another.


def test_pythons_own_modules_are_passed_over_on_the_way_to_the_caller(program, tmp_path):
    """A function of Python's library that calls belongs to nobody."""
    path = saved(program("own_pack.layers").Own, tmp_path / "net.keras")
    (tmp_path / "program" / "own_pack" / "stack.py").write_text(
        "import contextlib\nimport keras_ckpt_tools as kct\n"
        "def load(path):\n"
        "    with contextlib.ExitStack() as stack:\n"
        "        stack.callback(lambda: None)\n"
        "        stack.callback(kct.safe_load_model, path)\n"
        "    return True\n"
    )
    assert program("own_pack.stack").load(path)


def test_keras_itself_and_this_package_are_nobodys_own():
    """What is registered by them is on the list of Keras' own, or it is not loaded."""
    for module in ("keras.src.layers", "tensorflow", "keras_ckpt_tools.registry"):
        thing = type("Thing", (), {"__module__": module})
        assert not Trust.of("registered-here", module).is_own(thing)


def test_own_code_finds_own_objects_by_name_while_a_model_is_built(program, tmp_path):
    """The second lock goes by the same rule: an object of another package stays out of reach."""
    vendors = program("own_vendor").Vendors

    @keras.saving.register_keras_serializable("lookup")
    class Helper(keras.layers.Layer):
        def call(self, x):
            return x

    @keras.saving.register_keras_serializable("lookup")
    class Looker(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = keras.saving.get_registered_object(self.wanted)()

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x)

    Looker.wanted = "lookup>Helper"
    path = saved(Looker, tmp_path / "net.keras")
    assert kct.safe_load_model(path)
    Looker.wanted = keras.saving.get_registered_name(vendors)
    with pytest.raises(TypeError, match="NoneType"):
        kct.safe_load_model(path)


def test_a_file_cannot_say_that_an_object_is_own(program, tmp_path):
    """The module that a config states is not asked; the object is."""
    app = program("own_pack.app")
    path = saved(program("own_vendor").Vendors, tmp_path / "net.keras")
    forged = tmp_path / "forged.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(forged, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                config["config"]["layers"][1]["module"] = "own_pack.layers"
                data = json.dumps(config).encode()
            new.writestr(name, data)
    with pytest.raises(ObjectsNotFoundError) as caught:
        app.load(forged)
    assert caught.value.untrusted == ("Custom>Vendors",)


def test_a_word_that_only_looks_like_it_is_refused():
    """`trusted` stays a list of names."""
    with pytest.raises(ArgumentError, match="a list of names"):
        Trust.of("registered_here")
