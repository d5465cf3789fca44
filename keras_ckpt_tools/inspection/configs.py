"""Find every object that a config needs.

A config is JSON that Keras turns into objects by the names in it. This module finds all such names,
in both formats: Keras 3 (`module`, `class_name`, `registered_name`) and the legacy format of `.h5`
(`class_name` alone, functions as bare strings). `verdicts` looks the names up.

Keras turns a mapping into an object in any place, so every mapping and every string is checked,
under any key. Skipped parts were checked as part of their node. Only two things depend on a key.
The `compile_config` of an object is needed for training only. A few arguments take an object by a
bare name, or the path of a file.

A class is Keras' own only if module, class name and registered name agree: Keras looks up the
registered name first, so `keras.layers.Dense` in one of them proves nothing.

Places are JSONPaths (`$.config.layers[1]`).
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from keras_ckpt_tools.formats.common.bounded_json import LEAVES
from keras_ckpt_tools.inspection.builtin_names import (
    CLASSES,
    CLASSES_IN,
    FUNCTIONS_IN,
    IDENTIFIERS,
)

Role = Literal["class", "function", "lambda", "path"]
Part = Literal["model", "compile"]

# Arguments of layers that take a function or an object by its bare name.
_NAMED_BY_STRING = ("activation", "initializer", "regularizer", "constraint")
_COMPILED_BY_STRING = ("loss", "metrics", "weighted_metrics", "optimizer")
# Arguments of Keras' own layers that name a file, which the layer opens when it is built.
_PATHS = frozenset({"vocabulary", "filepath", "filename", "file", "path", "directory"})
# Trust in the code that they run includes the file of that code.
_OF_CODE = ("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper")
# Each name has its place and label, so a long key above many names would be stored for each.
_LONGEST_PLACE = 400
_LONGEST_STEP = 100
# Values, other than objects, that Keras makes from a config; Keras takes all others for objects.
_VALUES = frozenset(
    {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
)
_ARRAYS = ("__numpy__", "__tensor__")
_NO_OBJECTS = _VALUES | {"function", "__lambda__", "__typespec__"}
_WITHOUT_CONFIG = ("TypeSpec", "CompositeTensor")
# Names in a node that are judged with it, if they are names.
_NAMES = frozenset({"class_name", "module", "registered_name"})
_JUDGED_WITH_OBJECTS, _JUDGED_WITH_FUNCTIONS = _NAMES | {"compile_config"}, _NAMES | {"config"}
# Numbers only: an object, a string or a record may take any amount of memory.
_SCALARS = frozenset({bool, float, int, type(None)})
_DTYPE = re.compile(r"bool|string|complex\d+|u?int\d+|b?float\d+(_e\dm\d\w*)?")
_OPERATIONS = {
    name: module
    for module, names in CLASSES_IN.items()
    if module.startswith("keras.src.ops.")
    for name in names
}
_LAMBDA_CODE = ("function", "output_shape", "mask")


@dataclass(frozen=True)
class Need:
    """One object that a config needs.

    Attributes:
        where: JSONPath of the place that names it.
        role: `"class"`, `"function"`, `"lambda"` for code in the file, or `"path"` for a file that
            a layer of Keras' own would open.
        name: The name to look up: the registered name; `"lambda:<layer>"`, `"path:<file>"`.
        class_name: The name of the class in the file; for a function, its name.
        module: Module that defined it, if the file contains it.
        part: `"model"`, or `"compile"` for losses, metrics and optimizers.
        label: Name of the layer (or metric ...) at the place; empty if it has none.
        optional: Whether the string may be plain text: it is in a place for text, or in the config
            of a custom class.
        fault: Why it is always refused; empty if it is not.
        node: The config itself, for migrations; `None` for a bare string.
        owner: The class whose argument a path is.
        wrapped: The wrapper of a function: `"Function"` for a `tf.function`, `"partial"`.
    """

    where: str
    role: Role
    name: str
    class_name: str
    module: str | None
    part: Part
    label: str = ""
    optional: bool = False
    fault: str = ""
    node: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    owner: Need | None = field(default=None, compare=False, repr=False)
    wrapped: str = field(default="", compare=False)

    @property
    def of_keras(self) -> bool:
        """Whether it is one of Keras' own objects that models may contain."""
        if self.fault or self.name != self.class_name:
            return False
        if self.role == "class":
            return is_class_of_keras(self.name, self.module)
        if self.role == "function":
            by_string = self.node is None and self.module is None and self.name in CLASSES
            return by_string or is_function_of_keras(self.name, self.module)
        return False

    @property
    def from_keras(self) -> bool:
        """Whether it comes from Keras according to the file."""
        return self.module is not None and (self.module + ".").startswith("keras.")


class MalformedConfigError(ValueError):
    """A config contains something that Keras never writes."""


def is_class_of_keras(name: str, module: str | None) -> bool:
    """Return whether Keras has a class of this name that models may contain."""
    return name in (CLASSES if module is None else CLASSES_IN.get(module, frozenset()))


def is_function_of_keras(name: str, module: str | None) -> bool:
    """Return whether Keras has a function of this name that models may contain."""
    return name in (IDENTIFIERS if module is None else FUNCTIONS_IN.get(module, frozenset()))


def walk(
    config: Mapping[str, Any] | None, training_config: Mapping[str, Any] | None = None
) -> list[Need]:
    """Return the objects that a model's config needs, in the order of the config.

    Args:
        config: Config of a model, in either format.
        training_config: The `training_config` of an `.h5` file; its presence marks the legacy
            format, as does a config that names no module.

    Example:

    >>> [need.name for need in walk({"class_name": "my_package>Scale", "config": {"factor": 2}})]
    ['my_package>Scale']
    """
    walker = _Walker()
    if config is not None:
        walker.value(config, "$" if "module" in config else "model_config", "model", _OUTSIDE)
    if training_config is not None:
        walker.compile_config(training_config, "training_config", _OUTSIDE)
    return walker.needs


def uncompiled(config: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config in which no model is compiled.

    Only what `walk` finds for the part `"compile"` is removed. Arguments with the name
    `compile_config` stay.

    >>> uncompiled({"class_name": "Model", "config": {}, "compile_config": {"loss": "mse"}})
    {'class_name': 'Model', 'config': {}, 'compile_config': None}
    """
    config = copy.deepcopy(config)
    todo: list[Any] = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if "compile_config" in value and _is_object(value):
                value["compile_config"] = None
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
    return config


def own_names(needs: Iterable[Need]) -> set[str]:
    """Return the bare names in a config, without Keras' own classes and functions."""
    return {
        need.name.rpartition(">")[2]
        for need in needs
        if need.role in ("class", "function") and not need.optional and not need.of_keras
    }


def spell_out(config: Any, names: Collection[str]) -> None:
    """Replace these names by the config of a function, where Keras takes an object by its name.

    Keras looks up a bare string in its own table only, and a config also among custom objects.

    Args:
        config: Config of a model, in the format of Keras 3. It is changed.
        names: Which names.

    >>> config = {"class_name": "Dense", "module": "keras.layers", "config": {"activation": "relu"}}
    >>> spell_out(config, {"relu"})
    >>> config["config"]["activation"]["config"]
    'relu'
    """

    def spelled(value: Any) -> Any:
        if isinstance(value, str) and value in names:
            plain = {"class_name": "function", "module": "builtins"}
            return {**plain, "config": value, "registered_name": value}
        if isinstance(value, list):
            return [spelled(item) for item in value]
        if isinstance(value, dict) and "class_name" not in value:
            return {key: spelled(item) for key, item in value.items()}
        return value

    todo: list[Any] = [config] if names else []
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            arguments, compiled = value.get("config"), value.get("compile_config")
            name, module = value.get("class_name"), value.get("module")
            if isinstance(arguments, dict) and isinstance(module, str) and isinstance(name, str):
                for key in arguments if is_class_of_keras(name, module) else ():
                    if key.endswith(_NAMED_BY_STRING) and isinstance(arguments[key], str):
                        arguments[key] = spelled(arguments[key])
            if isinstance(compiled, dict) and _is_object(value):
                compiled |= {k: spelled(compiled[k]) for k in _COMPILED_BY_STRING if k in compiled}
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def strings_of(*configs: Any) -> set[str]:
    """Return every string in configs, keys left out.

    >>> sorted(strings_of({"class_name": "Dense", "config": {"inner": ["relu"]}}))
    ['Dense', 'relu']
    """
    found: set[str] = set()
    level: list[Any] = list(configs)
    while level:
        found.update([value for value in level if isinstance(value, str)])
        level = [
            inner
            for value in level
            if type(value) not in LEAVES and isinstance(value, (Mapping, list, tuple))
            for inner in (value.values() if isinstance(value, Mapping) else value)
        ]
    return found


class _Around(NamedTuple):
    """The context of a value: the nearest object, and whether it is one of Keras' own."""

    label: str
    of_keras: bool
    code_reported: bool = False
    need: Need | None = None


_OUTSIDE = _Around("", True)


class _Walker:
    def __init__(self) -> None:
        self.needs: list[Need] = []
        self.lambda_functions: set[str] = set()

    def value(self, value: Any, where: str, part: Part, around: _Around, key: str = "") -> None:
        if isinstance(value, str):
            self.string(key, value, where, part, around)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                # Most lists are long lists of numbers and words without names.
                if isinstance(item, (dict, list)) or (isinstance(item, str) and ">" in item):
                    self.value(item, _below(where, f"[{index}]"), part, around)
        elif isinstance(value, dict):
            self.mapping(value, where, part, around)

    def mapping(self, value: dict[str, Any], where: str, part: Part, around: _Around) -> None:
        class_name = value.get("class_name")
        if "class_name" not in value or "config" not in value:
            if class_name in _WITHOUT_CONFIG:
                name = str(class_name)
                self.needs.append(Need(where, "class", name, name, None, part, around.label))
            self.members(value, where, part, around)
            return
        _require_names(value, where)
        if _is_object(value) and isinstance(value["config"], str):
            # Keras writes a `tf.function` like this, and other objects with a `__name__` and no
            # config.
            kind = class_name
            value |= {"module": "builtins", "class_name": "function", "registered_name": "function"}
            self.function(value, where, part, around, str(kind))
            return
        if _is_object(value):
            self.object(value, where, part)
            return
        judged = _NAMES
        if class_name == "function":
            self.function(value, where, part, around)
            judged = _JUDGED_WITH_FUNCTIONS
        elif class_name == "__lambda__":
            if not around.code_reported:
                self.code(value, "__lambda__", where, part, around.label)
        elif class_name == "__typespec__":
            spec = value.get("spec_name")
            if not isinstance(spec, str):
                raise MalformedConfigError(f"the type at {where} has no name")
            name = value.get("registered_name") or spec
            module = value.get("module")
            self.needs.append(Need(where, "class", name, spec, module, part, node=value))
        else:
            _require_plain_dtype(value["config"], where, class_name in _ARRAYS)
        self.members(value, where, part, around, judged)

    def members(
        self,
        value: dict[str, Any],
        where: str,
        part: Part,
        around: _Around,
        judged: frozenset[str] = frozenset(),
    ) -> None:
        for key, item in value.items():
            # Most values name nothing, and need no place.
            if type(item) in _SCALARS or key in judged or not item:
                continue
            if isinstance(item, dict):
                self.mapping(item, _below(where, f".{key}"), part, around)
            elif not isinstance(item, str):
                self.value(item, _below(where, f".{key}"), part, around, key)
            elif ">" in item or key == "fn" or key in _PATHS or key.endswith(_NAMED_BY_STRING):
                self.string(key, item, _below(where, f".{key}"), part, around)

    def object(self, node: dict[str, Any], where: str, part: Part) -> None:
        class_name, config = node["class_name"], node["config"]
        if _is_operation(node):
            # As in a `.keras`; Keras reads it in a `.h5`, too.
            node["module"] = _OPERATIONS[class_name]
        called = config.get("name") if isinstance(config, dict) else None
        label = shortened(called) if isinstance(called, str) else ""
        need = _class_need(node, class_name, where, part, label)
        code = class_name == "Lambda" and need.of_keras and _has_code(config)
        if code:
            self.code(node, class_name, where, part, label)
        else:
            self.needs.append(need)
        around = _Around(label, need.of_keras and class_name not in _OF_CODE, code, need)
        if class_name == "Lambda" and need.of_keras and not code:
            place = _below(where, ".config.function")
            self.lambda_function(config["function"], place, part, around)
        self.members(node, where, part, around, _JUDGED_WITH_OBJECTS)
        if "compile_config" in node:
            self.compile_config(node["compile_config"], _below(where, ".compile_config"), around)

    def lambda_function(self, function: Any, where: str, part: Part, around: _Around) -> None:
        if isinstance(function, str):
            self.lambda_functions.add(where)
            self.needs.append(Need(where, "function", function, function, None, part, around.label))

    def function(
        self, node: dict[str, Any], where: str, part: Part, around: _Around, wrapped: str = ""
    ) -> None:
        name = node["config"]
        if not isinstance(name, str):
            raise MalformedConfigError(f"the function at {where} has no name")
        module, stated = node.get("module"), node.get("registered_name")
        plain = name.rpartition(">")[2]
        fault = ""
        if stated not in (None, "function", name, plain):
            fault = f"the file calls it both {name!r} and {stated!r}"
        module = None if module == "builtins" else module
        need = Need(where, "function", name, plain, module, part, around.label, False, fault, node)
        self.needs.append(dataclasses.replace(need, wrapped=wrapped) if wrapped else need)

    def code(self, node: dict[str, Any], class_name: str, where: str, part: Part, of: str) -> None:
        name = f"lambda:{of or class_name}"
        self.needs.append(Need(where, "lambda", name, class_name, None, part, of, node=node))

    def string(self, key: str, value: str, where: str, part: Part, around: _Around) -> None:
        if key in _PATHS and around.need is not None:
            self.path(key, value, where, part, around)
        named = key == "fn" or key.endswith(_NAMED_BY_STRING)
        qualified = 0 < value.find(">") < len(value) - 1
        if not (named or qualified) or value in IDENTIFIERS or value in CLASSES:
            return
        if where in self.lambda_functions:
            return
        optional = not (named and around.of_keras)
        plain = value.rpartition(">")[2]
        self.needs.append(Need(where, "function", value, plain, None, part, around.label, optional))

    def path(self, key: str, value: str, where: str, part: Part, around: _Around) -> None:
        name, optional = f"path:{value}", not around.of_keras
        self.needs.append(
            Need(where, "path", name, key, None, part, around.label, optional, owner=around.need)
        )

    def compile_config(self, config: Any, where: str, around: _Around) -> None:
        if config is None:
            return
        _require_arguments(config, where)
        for key, item in config.items():
            if key in _COMPILED_BY_STRING:
                self.compiled(item, _below(where, f".{key}"), around)
            else:
                self.value(item, _below(where, f".{key}"), "compile", around, key)

    def compiled(self, value: Any, where: str, around: _Around) -> None:
        if isinstance(value, str):
            if value not in IDENTIFIERS and value not in CLASSES:
                plain = value.rpartition(">")[2]
                self.needs.append(Need(where, "function", value, plain, None, "compile"))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.compiled(item, _below(where, f"[{index}]"), around)
        elif isinstance(value, dict) and "class_name" not in value:
            for key, item in value.items():
                self.compiled(item, _below(where, f".{key}"), around)
        else:
            self.value(value, where, "compile", around)


def _is_object(node: Mapping[str, Any]) -> bool:
    """Return whether Keras makes an object from a mapping, and compiles it if configured."""
    if "class_name" not in node or "config" not in node:
        return False
    name = node["class_name"]
    return not (isinstance(name, str) and name in _NO_OBJECTS)


def _is_operation(node: Mapping[str, Any]) -> bool:
    """Return whether a node of a graph is an operation whose module is not in the `.h5`.

    Keras 3 writes the module of layers only, and some layers have the same class name (`Add`).
    """
    name, config, calls = node["class_name"], node["config"], node.get("inbound_nodes")
    return (
        "module" not in node
        and name in _OPERATIONS
        and isinstance(config, dict)
        and not (name in CLASSES_IN["keras.layers"] and {"trainable", "dtype"} & config.keys())
        and isinstance(calls, list)
        and all(isinstance(call, dict) and "args" in call for call in calls)
    )


def _class_need(node: dict[str, Any], class_name: str, where: str, part: Part, label: str) -> Need:
    module = node.get("module")
    name = node.get("registered_name") or class_name
    plain = class_name.rpartition(">")[2]
    fault = ""
    if name != class_name and plain in CLASSES_IN.get(module or "", ()):
        fault = f"the file calls it both {module}.{plain} and {name!r}"
    return Need(where, "class", name, plain, module, part, label, False, fault, node)


def _require_names(node: dict[str, Any], where: str) -> None:
    if not isinstance(node["class_name"], str):
        raise MalformedConfigError(f"the class at {where} has no name")
    for key in ("module", "registered_name"):
        if not isinstance(name := node.get(key), str) and name is not None:
            raise MalformedConfigError(f"the {key} at {where} is not a name")


def _require_arguments(config: Any, where: str) -> None:
    # Keras would make an object from such a node, and compile the model with it.
    if not isinstance(config, Mapping) or ("class_name" in config and "config" in config):
        raise MalformedConfigError(f"the compile config at {where} is not a mapping of arguments")


def _require_plain_dtype(config: Any, where: str, needed: bool) -> None:
    # With a dtype such as "S1000000000", each element takes a gigabyte. Without a dtype, NumPy
    # chooses a type in which each text takes as much as the longest.
    dtype = config.get("dtype") if isinstance(config, dict) else None
    if (needed or dtype is not None) and not (isinstance(dtype, str) and _DTYPE.fullmatch(dtype)):
        raise MalformedConfigError(
            f"the dtype at {where} is not a tensor dtype: {str(dtype)[:40]!r}"
        )


def shortened(text: str, most: int = _LONGEST_PLACE) -> str:
    """Return text that is cut if it is longer than `most`.

    >>> shortened("abcdef", 3), shortened("abc", 3)
    ('abc...', 'abc')
    """
    return text if len(text) <= most else f"{text[:most]}..."


def _below(where: str, step: str) -> str:
    """Return the place of a member; very deep members share the place of their parent."""
    if len(where) + len(step) <= _LONGEST_PLACE:
        return where + step
    if len(where) > _LONGEST_PLACE:
        return where if where.endswith("...") else f"{where}..."
    return where + shortened(step, _LONGEST_STEP)


def _has_code(config: Any) -> bool:
    if not isinstance(config, dict):
        return True
    if any(config.get(f"{argument}_type") == "lambda" for argument in _LAMBDA_CODE):
        return True
    function = config.get("function")
    if not isinstance(function, (str, dict)):
        return True  # Keras 2 wrote bytecode, defaults and closure as a list.
    values = [config.get(argument) for argument in _LAMBDA_CODE]
    return any(isinstance(v, dict) and v.get("class_name") == "__lambda__" for v in values)
