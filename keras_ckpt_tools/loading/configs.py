"""Walk a config for the objects that it needs: source -> *needs* -> verdicts.

A config is JSON that Keras turns into objects by the names in it. This finds every such name, in
both dialects: Keras 3 (`module`, `class_name`, `registered_name`) and the legacy one of `.h5` files
(`class_name` alone, functions as bare strings). Nothing is looked up here; that is for `resolve`,
because what a file says and what this process makes of it are two questions.

Places are JSONPaths (`$.config.layers[1]`), so that a name can be found in the file again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_ckpt_tools.loading.builtin_names import CLASSES, IDENTIFIERS

__all__ = ["Need", "Part", "Role", "uncompiled", "walk"]

Role = Literal["class", "function", "lambda"]
Part = Literal["model", "compile"]

# Arguments of layers that take a function or an object by its name alone.
_NAMED_BY_STRING = ("activation", "initializer", "regularizer", "constraint")
_COMPILED_BY_STRING = ("loss", "metrics", "weighted_metrics", "optimizer")
_KNOWN = {"class": CLASSES, "function": CLASSES | IDENTIFIERS}
_LAMBDA_CODE = ("function", "output_shape", "mask")


@dataclass(frozen=True)
class Need:
    """One object that a config needs.

    Attributes:
        where: JSONPath of the place that names it.
        role: `"class"`, `"function"`, or `"lambda"` for code in the file.
        name: What it is looked up by: the registered name; for a lambda, the layer's name.
        class_name: The class as the file names it; for a function, its name.
        module: Module it came from, where the file says so.
        part: `"model"`, or `"compile"` for losses, metrics and optimizers.
        label: Name of the layer (or metric ...) that the place describes; empty if it has none.
        optional: Whether the string may as well mean nothing: it stands in the config of a custom
            class, which alone knows.
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
    node: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def of_keras(self) -> bool:
        """Whether the file says that this is Keras' own."""
        if self.role == "lambda":
            return False
        plain = self.name == self.class_name
        if self.module and (self.module == "keras" or self.module.startswith("keras.")):
            return plain
        return plain and self.module is None and (self.name in _KNOWN[self.role])


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
                self.value(item, f"{where}[{index}]", part, around)
        elif isinstance(value, dict):
            class_name = value.get("class_name")
            if isinstance(class_name, str) and "config" in value:
                self.node(value, class_name, where, part, around)
            else:
                self.members(value, where, part, around)

    def members(self, value: dict[str, Any], where: str, part: Part, around: _Around) -> None:
        for key, item in value.items():
            place = f"{where}.{key}"
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
            module = node.get("module")
            module = module if isinstance(module, str) else None
            self.needs.append(Need(where, "class", spec, spec, module, part, node=node))
            return
        if class_name.startswith("__"):
            # A value (`__tensor__`, `__slice__`, `__keras_tensor__`, ...), not an object.
            self.members(node, where, part, around)
            return
        if class_name == "function":
            self.function(node, where, part, around)
            return
        self.object(node, class_name, where, part)

    def object(self, node: dict[str, Any], class_name: str, where: str, part: Part) -> None:
        config = node["config"]
        label = str(config.get("name", "")) if isinstance(config, dict) else ""
        need = _class_need(node, class_name, where, part, label)
        code = class_name == "Lambda" and need.of_keras and _has_code(config)
        if code:
            self.code(node, class_name, where, part, label)
        else:
            self.needs.append(need)
        around = _Around(label, need.of_keras, code)
        for key, item in node.items():
            if key in ("class_name", "module", "registered_name"):
                continue
            if key == "compile_config":
                if isinstance(item, dict):
                    self.compile_config(item, f"{where}.{key}", around)
            elif key == "config" and class_name == "Lambda" and isinstance(item, dict):
                self.lambda_layer(item, f"{where}.{key}", part, around)
            elif isinstance(item, dict) and "class_name" not in item:
                self.members(item, f"{where}.{key}", part, around)
            else:
                self.value(item, f"{where}.{key}", part, around)

    def lambda_layer(self, config: dict[str, Any], where: str, part: Part, around: _Around) -> None:
        function = config.get("function")
        if isinstance(function, str) and around.of_keras and not around.code_reported:
            place = f"{where}.function"
            self.needs.append(Need(place, "function", function, function, None, part, around.label))
        self.members(config, where, part, around)

    def function(self, node: dict[str, Any], where: str, part: Part, around: _Around) -> None:
        name = node["config"] if isinstance(node["config"], str) else str(node["config"])
        module = node.get("module")
        module = module if isinstance(module, str) and module != "builtins" else None
        plain = name.rpartition(">")[2]
        self.needs.append(
            Need(where, "function", name, plain, module, part, around.label, node=node)
        )

    def code(self, node: dict[str, Any], class_name: str, where: str, part: Part, of: str) -> None:
        name = f"lambda:{of or class_name}"
        self.needs.append(Need(where, "lambda", name, class_name, None, part, of, node=node))

    def string(self, key: str, value: str, where: str, part: Part, around: _Around) -> None:
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
                self.compiled(item, f"{where}.{key}", around)
            else:
                self.value(item, f"{where}.{key}", "compile", around)

    def compiled(self, value: Any, where: str, around: _Around) -> None:
        if isinstance(value, str):
            if value not in IDENTIFIERS and value not in CLASSES:
                plain = value.rpartition(">")[2]
                self.needs.append(Need(where, "function", value, plain, None, "compile"))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.compiled(item, f"{where}[{index}]", around)
        elif isinstance(value, dict) and "class_name" not in value:
            for key, item in value.items():
                self.compiled(item, f"{where}.{key}", around)
        else:
            self.value(value, where, "compile", around)


def _class_need(node: dict[str, Any], class_name: str, where: str, part: Part, label: str) -> Need:
    module = node.get("module")
    registered = node.get("registered_name")
    name = registered if isinstance(registered, str) and registered else class_name
    plain = class_name.rpartition(">")[2]
    return Need(
        where,
        "class",
        name,
        plain,
        module if isinstance(module, str) else None,
        part,
        label,
        node=node,
    )


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
