"""Walk a config for the objects that it needs: source -> *needs* -> verdicts.

A config is JSON that Keras turns into objects by the names in it. This finds every such name, in
both dialects: Keras 3 (`module`, `class_name`, `registered_name`) and the legacy one of `.h5` files
(`class_name` alone, functions as bare strings). Nothing is looked up here; that is for `resolve`,
because what a file says and what this process makes of it are two questions.

A class is Keras' own only where module, class and registered name together say so: Keras goes by
the registered name first, so a config that says `keras.layers.Dense` and means something else would
pass a look at one of them.

Places are JSONPaths (`$.config.layers[1]`), so that a name can be found in the file again.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_ckpt_tools.loading.builtin_names import (
    CLASSES,
    CLASSES_IN,
    FUNCTIONS_IN,
    IDENTIFIERS,
)

__all__ = ["MalformedConfigError", "Need", "Part", "Role", "uncompiled", "walk"]

Role = Literal["class", "function", "lambda", "path"]
Part = Literal["model", "compile"]

# Arguments of layers that take a function or an object by its name alone.
_NAMED_BY_STRING = ("activation", "initializer", "regularizer", "constraint")
_COMPILED_BY_STRING = ("loss", "metrics", "weighted_metrics", "optimizer")
# Arguments of Keras' own layers that name a file, which the layer opens when it is built.
_PATHS = frozenset({"vocabulary", "filepath", "filename", "file", "path", "directory"})
# Who trusts the code that they run trusts the file that it comes from.
_OF_CODE = ("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper")
# Each name keeps its place and its label; a long key or name above many would be kept for each.
_LONGEST_PLACE = 400
_LONGEST_STEP = 100
# Values that Keras makes of a config, beside objects; all others that begin so are objects to it.
_VALUES = frozenset(
    {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
)
_WITHOUT_CONFIG = ("TypeSpec", "CompositeTensor")
# Of numbers: an element that is an object, a string or a record takes any amount of memory.
_DTYPE = re.compile(r"bool|string|complex\d+|u?int\d+|b?float\d+(_e\dm\d\w*)?")
_LAMBDA_CODE = ("function", "output_shape", "mask")


@dataclass(frozen=True)
class Need:
    """One object that a config needs.

    Attributes:
        where: JSONPath of the place that names it.
        role: `"class"`, `"function"`, `"lambda"` for code in the file, or `"path"` for a file that
            a layer of Keras' own would open.
        name: What it is looked up by: the registered name; `"lambda:<layer>"`, `"path:<file>"`.
        class_name: The class as the file names it; for a function, its name.
        module: Module it came from, where the file says so.
        part: `"model"`, or `"compile"` for losses, metrics and optimizers.
        label: Name of the layer (or metric ...) that the place describes; empty if it has none.
        optional: Whether the string may as well mean nothing: it stands in the config of a custom
            class, which alone knows.
        fault: Why it is refused whoever vouches for it; empty where it is not.
        node: The config itself, for migrations; `None` for a bare string.
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

    @property
    def of_keras(self) -> bool:
        """Whether it is one of Keras' own objects that a model may be made of."""
        if self.fault or self.name != self.class_name:
            return False
        if self.role == "class":
            known = CLASSES if self.module is None else CLASSES_IN.get(self.module, frozenset())
            return self.name in known
        if self.role == "function":
            if self.module is not None:
                return self.name in FUNCTIONS_IN.get(self.module, frozenset())
            return self.name in IDENTIFIERS or (self.node is None and self.name in CLASSES)
        return False

    @property
    def from_keras(self) -> bool:
        """Whether the file says that this comes from Keras, whatever it is."""
        return self.module is not None and (self.module + ".").startswith("keras.")


class MalformedConfigError(ValueError):
    """A config says something that Keras never writes."""


def walk(
    config: Mapping[str, Any] | None, training_config: Mapping[str, Any] | None = None
) -> list[Need]:
    """Return what a model's config needs, in the order of the config.

    Args:
        config: Config of a model, in either dialect.
        training_config: The `training_config` of an `.h5` file; its presence marks the legacy
            dialect, as does a config that names no module.

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

    >>> uncompiled({"class_name": "Model", "config": {}, "compile_config": {"loss": "mse"}})
    {'class_name': 'Model', 'config': {}, 'compile_config': None}
    """
    config = copy.deepcopy(config)
    todo: list[Any] = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if "compile_config" in value and "class_name" in value:
                value["compile_config"] = None
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
    return config


@dataclass(frozen=True)
class _Around:
    """What stands around a value: the nearest object, and whether it is one of Keras' own."""

    label: str
    of_keras: bool
    code_reported: bool = False


_OUTSIDE = _Around("", True)


class _Walker:
    def __init__(self) -> None:
        self.needs: list[Need] = []

    def value(self, value: Any, where: str, part: Part, around: _Around) -> None:
        if isinstance(value, list):
            for index, item in enumerate(value):
                self.value(item, _below(where, f"[{index}]"), part, around)
        elif isinstance(value, dict):
            class_name = value.get("class_name")
            if "class_name" in value and "config" in value:
                _require_names(value, where)
                self.node(value, str(class_name), where, part, around)
            else:
                if class_name in _WITHOUT_CONFIG:
                    name = str(class_name)
                    self.needs.append(Need(where, "class", name, name, None, part, around.label))
                self.members(value, where, part, around)

    def members(self, value: dict[str, Any], where: str, part: Part, around: _Around) -> None:
        for key, item in value.items():
            place = _below(where, f".{key}")
            if key == "compile_config" and isinstance(item, dict):
                self.compile_config(item, place, around)
            elif isinstance(item, str):
                self.string(key, item, place, part, around)
            else:
                self.value(item, place, part, around)

    def node(
        self, node: dict[str, Any], class_name: str, where: str, part: Part, around: _Around
    ) -> None:
        if class_name == "__lambda__":
            if not around.code_reported:
                self.code(node, "__lambda__", where, part, around.label)
            return
        if class_name == "__typespec__":
            spec = str(node.get("spec_name"))
            name = node.get("registered_name") or spec
            self.needs.append(Need(where, "class", name, spec, node.get("module"), part, node=node))
            return
        if class_name in _VALUES:
            _require_plain_dtype(node["config"], where)
            self.members(node, where, part, around)
            return
        if class_name == "function":
            self.function(node, where, part, around)
            return
        self.object(node, class_name, where, part)

    def object(self, node: dict[str, Any], class_name: str, where: str, part: Part) -> None:
        config = node["config"]
        label = shortened(str(config.get("name", ""))) if isinstance(config, dict) else ""
        need = _class_need(node, class_name, where, part, label)
        code = class_name == "Lambda" and need.of_keras and _has_code(config)
        if code:
            self.code(node, class_name, where, part, label)
        else:
            self.needs.append(need)
        around = _Around(label, need.of_keras and class_name not in _OF_CODE, code)
        for key, item in node.items():
            if key in ("class_name", "module", "registered_name"):
                continue
            if key == "compile_config":
                if isinstance(item, dict):
                    self.compile_config(item, _below(where, f".{key}"), around)
            elif key == "config" and class_name == "Lambda" and isinstance(item, dict):
                self.lambda_layer(item, _below(where, f".{key}"), part, around)
            elif isinstance(item, dict) and "class_name" not in item:
                self.members(item, _below(where, f".{key}"), part, around)
            else:
                self.value(item, _below(where, f".{key}"), part, around)

    def lambda_layer(self, config: dict[str, Any], where: str, part: Part, around: _Around) -> None:
        function = config.get("function")
        if isinstance(function, str) and around.of_keras and not around.code_reported:
            place = f"{where}.function"
            self.needs.append(Need(place, "function", function, function, None, part, around.label))
        self.members(config, where, part, around)

    def function(self, node: dict[str, Any], where: str, part: Part, around: _Around) -> None:
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
        self.needs.append(need)

    def code(self, node: dict[str, Any], class_name: str, where: str, part: Part, of: str) -> None:
        name = f"lambda:{of or class_name}"
        self.needs.append(Need(where, "lambda", name, class_name, None, part, of, node=node))

    def string(self, key: str, value: str, where: str, part: Part, around: _Around) -> None:
        if key in _PATHS and around.of_keras:
            name = f"path:{value}"
            self.needs.append(Need(where, "path", name, key, None, part, around.label))
            return
        named = key == "fn" or key.endswith(_NAMED_BY_STRING)
        qualified = ">" in value and key != "name"
        if not (named or qualified) or value in IDENTIFIERS or value in CLASSES:
            return
        optional = not (named and around.of_keras)
        plain = value.rpartition(">")[2]
        self.needs.append(Need(where, "function", value, plain, None, part, around.label, optional))

    def compile_config(self, config: Mapping[str, Any], where: str, around: _Around) -> None:
        for key, item in config.items():
            if key in _COMPILED_BY_STRING:
                self.compiled(item, _below(where, f".{key}"), around)
            else:
                self.value(item, _below(where, f".{key}"), "compile", around)

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
        if not isinstance(node.get(key), str | None):
            raise MalformedConfigError(f"the {key} at {where} is no name")


def _require_plain_dtype(config: Any, where: str) -> None:
    # A dtype such as "S1000000000" makes a gigabyte of each element.
    dtype = config.get("dtype") if isinstance(config, dict) else None
    if dtype is not None and not (isinstance(dtype, str) and _DTYPE.fullmatch(dtype)):
        raise MalformedConfigError(f"the dtype at {where} is none of a tensor: {str(dtype)[:40]!r}")


def shortened(text: str, most: int = _LONGEST_PLACE) -> str:
    """Return text that is not much longer than `most`, with its end left out where it is.

    >>> shortened("abcdef", 3), shortened("abc", 3)
    ('abc...', 'abc')
    """
    return text if len(text) <= most else f"{text[:most]}..."


def _below(where: str, step: str) -> str:
    """Return the place of a member; those that are very deep share the place of what is above."""
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
