"""Find where an object was defined, and detect a definition that ran twice.

A notebook cell that runs again, or a reloaded module, creates a new class from the same definition.
It must replace the old one without an error, but a different class with the same name must not.
Module and qualified name distinguish the two, with two exceptions: a module that was imported under
two names is identified by its file; and a copied class that was not renamed (both definitions are
in the source, on different lines) is a different one. The file alone is not enough, because each
run of a notebook cell has its own file.
"""

from __future__ import annotations

import ast
import functools
import linecache
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from keras_ckpt_tools.errors import NotSerializableError, RegistryError

UNKNOWN = ("<unknown>", 0)

# Keras' own default package, for code that belongs to no package.
_CUSTOM = "Custom"
# The second is what a spawned worker process calls the script of its parent.
_SCRIPTS = ("__main__", "__mp_main__", "builtins", "")


def default_package(obj: Any) -> str:
    """Return the package for a bare `@register`: the top-level package of the module.

    >>> import json
    >>> script = type("FromScript", (), {"__module__": "__main__"})
    >>> default_package(json.JSONEncoder), default_package(script)
    ('json', 'Custom')
    """
    module = str(getattr(obj, "__module__", None) or "")
    return _CUSTOM if module in _SCRIPTS else module.partition(".")[0]


def require_nameable(obj: Any) -> None:
    """Refuse what a saved file could not refer to by name.

    Raises:
        NotSerializableError: `obj` is a lambda.
        RegistryError: `obj` is neither a class nor a plain Python function.
    """
    if isinstance(obj, FunctionType) and obj.__name__ == "<lambda>":
        file, line = place_of(obj)
        raise NotSerializableError(
            "A lambda cannot be registered: it has no name, and Keras saves its bytecode instead, "
            "which a safe load refuses.",
            received=f"the lambda at {file}:{line}",
            remedy="Write it as a function, `def my_function(x): return ...`, and decorate that.",
            name="<lambda>",
            lost=(),
        )
    if isinstance(obj, (type, FunctionType)):
        return
    kind = type(obj)
    if hasattr(obj, "get_config"):
        remedy = f"Register its class: register(...)({kind.__name__})."
    else:
        remedy = "Put the decorator innermost, right above `def` or `class`."
    raise RegistryError(
        "Only classes and plain Python functions can be registered.",
        received=f"an object of type {kind.__module__}.{kind.__qualname__}",
        remedy=remedy,
        name=str(getattr(obj, "__name__", kind.__name__)),
    )


def place_of(obj: Any, caller: tuple[str, int] = UNKNOWN) -> tuple[str, int]:
    """Return file and one-based line of the definition of a class or function.

    Args:
        obj: The class or function.
        caller: File and line that registered it: all there is to know about a class without
            methods in a notebook.
    """
    if isinstance(obj, FunctionType):
        return obj.__code__.co_filename, obj.__code__.co_firstlineno
    # In a notebook no module has a file; the methods know theirs.
    codes = list(_codes(obj))
    real = [code for code in codes if code.co_filename != "<string>"] or codes
    module = sys.modules.get(str(getattr(obj, "__module__", "")))
    module_file = getattr(module, "__file__", None)
    if real and module_file not in {code.co_filename for code in real}:
        file = real[0].co_filename
    else:
        file = module_file or caller[0]
    hints = [min(c.co_firstlineno for c in real)] if real else []
    if caller[0] == file:
        hints.append(caller[1])
    first = getattr(obj, "__firstlineno__", None)  # Python 3.13 and newer
    if isinstance(first, int):
        return file, first
    spans = _definitions(file, obj.__qualname__)
    for hint in hints:
        for start, end in spans:
            if start <= hint <= end:
                return file, start
    if spans:
        return file, spans[-1][0]
    return file, hints[-1] if hints else 0


def same_definition(
    old: Any, new: Any, old_place: tuple[str, int], new_place: tuple[str, int]
) -> bool:
    """Return whether `new` is the definition of `old`, run again."""
    if old is new:
        return True
    if type(old) is not type(new) and not (isinstance(old, type) and isinstance(new, type)):
        return False
    qualname = getattr(new, "__qualname__", None)
    if getattr(old, "__qualname__", None) != qualname or qualname is None:
        return False
    same_file = old_place[0] == new_place[0] and not new_place[0].startswith("<")
    if getattr(old, "__module__", None) != getattr(new, "__module__", None) and not same_file:
        return False
    if same_file and old_place[1] != new_place[1]:
        # Either the file was edited and reloaded, or the definition stands in it twice.
        starts = {start for start, _ in _definitions(new_place[0], qualname)}
        return not {old_place[1], new_place[1]} <= starts
    return True


def _codes(cls: type) -> Iterator[CodeType]:
    for value in vars(cls).values():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(function, FunctionType) and function.__module__ == cls.__module__:
            if function.__qualname__.startswith(f"{cls.__qualname__}."):
                yield function.__code__


def _definitions(file: str, qualname: str) -> list[tuple[int, int]]:
    linecache.checkcache(file)
    return _index("".join(linecache.getlines(file))).get(qualname, [])


@functools.lru_cache(maxsize=16)
def _index(source: str) -> dict[str, list[tuple[int, int]]]:
    """Return first (decorators included) and last lines of all definitions, by qualified name."""
    found: dict[str, list[tuple[int, int]]] = {}

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                name = prefix + child.name
                start = min(n.lineno for n in (child, *child.decorator_list))
                found.setdefault(name, []).append((start, child.end_lineno or start))
                inner = "." if isinstance(child, ast.ClassDef) else ".<locals>."
                walk(child, name + inner)
            else:
                walk(child, prefix)

    try:
        walk(ast.parse(source), "")
    except SyntaxError:
        # A notebook cell may hold magics; then the line that the methods give has to do.
        return {}
    return found
