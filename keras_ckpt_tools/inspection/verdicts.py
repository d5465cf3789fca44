"""Decide for each name in a file whether it may be used, and find its object.

`inspect` and `safe_load_model` use the same function, so they always agree. The order is fixed:
`custom_objects=`, open scopes, the registry, declared plug-ins, Keras. A class that is Keras' own
according to the file stays Keras' own, unless the caller overrides exactly that name: a registered
`my_package>Dense` must not replace every `Dense`. If the file has its own object of that name, the
caller's object is used for that one.

Objects in Keras' global registry are not trusted automatically, because any imported package can
register some. They are used only if the loading program defined them, or if `trusted=` names them.
Nothing is imported because a file names it. A declared plug-in is imported by a load, and only
named by an inspection.

A string that may be plain text is refused if an untrusted object is registered under that name.
Otherwise it is text. Whether an argument is a path depends on the class, so a subclass of a layer
that opens files is treated like that layer.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from keras_ckpt_tools.errors import RegistryError
from keras_ckpt_tools.inspection.builtin_names import CLASSES, IDENTIFIERS, KERAS_VERSIONS
from keras_ckpt_tools.inspection.configs import Need, Part, Role, own_names, strings_of
from keras_ckpt_tools.inspection.trust import REGISTERED_HERE, Trust
from keras_ckpt_tools.metadata import CustomObject, Record
from keras_ckpt_tools.registry import Entry, Registry, plugins
from keras_ckpt_tools.registry.names import bare, match
from keras_ckpt_tools.registry.scopes import checked_objects

_REFUSED = ("missing", "untrusted", "refused")
# A missing name is compared with all known names, and a file may have thousands of them.
_SUGGESTED = 100
_IF_YOURS = f"; if it is your own, pass trusted={REGISTERED_HERE!r}"
# Functions of this package in models that came from Keras 2, and their modules.
_OWN = {"keras_2_hard_sigmoid": "keras_ckpt_tools.loading.keras_2_activation"}

# Keras' own layers that run third-party code.
CODE_LAYERS = {
    "TFSMLayer": "runs the code of a SavedModel",
    "TorchModuleWrapper": "unpickles a torch module",
    "JaxLayer": "calls functions of JAX that the file chooses",
    "FlaxLayer": "calls functions of JAX that the file chooses",
}
# Keras' own layers that open files, by the argument with the path.
_PATH_LAYERS = {
    "vocabulary": ("StringLookup", "IntegerLookup", "TextVectorization"),
    "filepath": ("TFSMLayer",),
}


@dataclass(frozen=True)
class ObjectUse:
    """One place of a file that names an object, and the verdict.

    Attributes:
        where: JSONPath of the place in the config.
        role: `"class"`, `"function"`, `"lambda"` for code in the file, or `"path"` for a file that
            a layer would open.
        registered_name: Its registered name; `"lambda:<layer>"` for code, `"path:<file>"`.
        class_name: Its class, or the function's name.
        module: Module that defined it when the file was saved, if the file contains it.
        part: `"model"`, or `"compile"` for objects that only training needs.
        verdict: `"built-in"`, `"custom_objects"`, `"scope"`, `"registered"`, `"alias"`,
            `"plug-in"`, `"trusted"`, `"untrusted"`, `"missing"`, or `"refused"` for objects that
            are never loaded, even if trusted.
            note: The reason.
            nearest: For a missing object, the nearest registered names.
    """

    where: str
    role: Role
    registered_name: str
    class_name: str
    module: str | None
    part: Part
    verdict: str
    note: str = ""
    nearest: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether a load may use it."""
        return self.verdict not in _REFUSED


@dataclass(frozen=True)
class Resolved:
    """The verdicts on all needs, and their objects.

    Attributes:
        uses: One for each need, in order.
        objects: The object of each name in the file, without Keras' own.
        entries: The registry's entries for the needs that it resolved.
        runs_code: Whether code in the file was trusted by name.
        code: The strings in the configs of that code.
        renamed: Names of classes in the file, by their names here, if they differ.
        instead: The caller's objects that replace Keras' own, by the names of those.
    """

    uses: tuple[ObjectUse, ...]
    objects: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[tuple[Need, Entry], ...] = ()
    runs_code: bool = False
    code: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, Any] = field(default_factory=dict)

    def refused(self, part: Part | None = None) -> tuple[ObjectUse, ...]:
        """Return the uses that are not allowed, of one part or of both."""
        return tuple(u for u in self.uses if not u.usable and part in (None, u.part))


@dataclass(frozen=True)
class _Judgement:
    verdict: str
    note: str = ""
    obj: Any = None
    entry: Entry | None = None
    nearest: tuple[str, ...] = ()


class Resolver:
    """Decides which names may be used.

    Args:
        registry: The registry to look up names in.
        custom_objects: The caller's objects by name; they have precedence.
        trust: What the caller allows in addition.
        import_plugins: Whether a plug-in that declares a needed name may be imported.

    Raises:
        ArgumentError: `custom_objects` is not a mapping from names to classes and functions.
    """

    def __init__(
        self,
        registry: Registry,
        custom_objects: Mapping[str, Any] | None = None,
        trust: Trust | None = None,
        *,
        import_plugins: bool = False,
    ):
        self.registry = registry
        self._custom = checked_objects(custom_objects)
        self._trust = trust or Trust()
        self._import_plugins = import_plugins
        self._suggested: dict[str, tuple[str, ...]] = {}
        self._claimed: set[str] = set()
        # Names that the user's code has looked up.
        self._asked_for: set[str] = set()

    @property
    def has_custom(self) -> bool:
        """Whether the caller has passed `custom_objects`."""
        return bool(self._custom)

    @property
    def replaced(self) -> frozenset[str]:
        """The names of Keras' own objects that the caller replaces."""
        return frozenset(name for name in self._custom if name in CLASSES or name in IDENTIFIERS)

    def unused(self, used: Iterable[str], parts: Callable[[], Iterable[Any]]) -> tuple[str, ...]:
        """Return the names in `custom_objects` that a load did not use.

        Args:
            used: Names in the file, and those that the user's code has looked up.
            parts: Returns the live objects of the model, because code may create objects without
                a lookup.
        """
        found = {bare(name) for name in used}
        left = {name: obj for name, obj in self._custom.items() if bare(name) not in found}
        if not left:
            return ()
        kinds = {base for part in parts() for base in type(part).__mro__}
        return tuple(
            name for name, obj in left.items() if not (inspect.isclass(obj) and obj in kinds)
        )

    def unused_trust(self, needs: Collection[Need]) -> dict[str, tuple[str, ...]]:
        """Return the names in `trusted=` that a file does not have, and the nearest ones in it.

        A whole package is a rule for many files, so it may be unused.

        Args:
            needs: All that the file needs, including the compile config.
        """
        # A file may have the bare name of an object that is trusted by its qualified name.
        there = {bare(name) for name in (*(need.name for need in needs), *self._asked_for)}
        own = sorted({need.name for need in needs if not need.of_keras and not need.optional})
        return {
            name: tuple(get_close_matches(name, own, n=3, cutoff=0.4))
            for name in sorted(self._trust.names)
            if bare(name) not in there
        }

    def resolve(self, needs: Collection[Need], record: Record | None = None) -> Resolved:
        """Judge each need.

        Args:
            needs: What a file needs.
            record: The file's own record, which contains where objects were defined.
        """
        written = {o.registered_name: o for o in record.objects} if record else {}
        uses: list[ObjectUse] = []
        objects: dict[str, Any] = {}
        entries: list[tuple[Need, Entry]] = []
        renamed: dict[str, str] = {}
        instead: dict[str, Any] = {}
        self._claimed = own_names(needs)
        runs_code = False
        code: set[str] = set()
        for need in needs:
            judged = self._judge_optional(need, objects) if need.optional else self._judge(need)
            if judged is None:
                continue  # The string has a meaning for the custom class only.
            uses.append(_use(need, judged, written.get(need.name)))
            if judged.obj is not None:
                objects[need.name] = judged.obj
                if need.of_keras:
                    instead[need.class_name] = judged.obj
                called = getattr(judged.obj, "__name__", need.class_name)
                if need.role == "class" and called != need.class_name:
                    renamed[called] = need.class_name
            if judged.entry is not None:
                entries.append((need, judged.entry))
            if judged.verdict == "trusted" and judged.obj is None:
                runs_code = True
                code |= strings_of(need.node) if need.role == "lambda" else set()
        return Resolved(
            tuple(uses), objects, tuple(entries), runs_code, frozenset(code), renamed, instead
        )

    def vouches_for(self, name: str, obj: Any) -> bool:
        """Return whether trusted code may look up this object by this name.

        For names that the file does not contain: the caller's objects, those of the registry, and
        what `trusted=` allows.
        """
        try:
            found = self.registry.find(name, self._custom, plugins=False)
        except RegistryError:
            found = None  # Several objects have that bare name.
        self._asked_for.add(name)
        known = found is not None and found.obj is obj
        return known or self._trust.allows(name) or self._trust.is_own(obj)

    def trusts(self, name: str) -> bool:
        """Return whether `trusted=` allows a name."""
        self._asked_for.add(name)
        return self._trust.allows(name)

    def named_in(self, strings: Iterable[str]) -> dict[str, Any]:
        """Return the caller's objects whose names are among these strings."""
        return {name: self._custom[name] for name in strings if name in self._custom}

    def _judge(self, need: Need) -> _Judgement:
        if need.fault:
            return _Judgement("refused", need.fault)
        if need.role == "lambda":
            return self._judge_code(need.name, f"the Lambda code of {need.label!r}")
        if need.role == "path":
            return self._judge_path(need)
        if need.of_keras:
            return self._judge_built_in(need)
        judged = self._look_up(need) or self._judge_own(need) or self._judge_unknown(need)
        return _of_the_right_sort(need, judged)

    def _judge_optional(self, need: Need, objects: Mapping[str, Any]) -> _Judgement | None:
        if need.role == "path":
            owner = objects.get(need.owner.name) if need.owner is not None else None
            return self._judge_path(need) if _opens(owner, need.class_name) else None
        judged = self._look_up(need) if self._has(need.name) else None
        if judged is None:
            obj = _in_keras_registry(need.name, self._qualified)[1]
            if obj is not None and (">" in need.name or self._trust.is_own(obj)):
                judged = self._judge_unknown(need)
        return None if judged is None or judged.verdict == "missing" else judged

    @functools.cached_property
    def _qualified(self) -> dict[str, list[str]]:
        """The qualified names in Keras' global registry, by the bare name at their end."""
        found: dict[str, list[str]] = {}
        if "keras" in sys.modules:
            from keras_ckpt_tools import _keras_internals as internals

            for name in internals.GLOBAL_CUSTOM_OBJECTS:
                _, mark, bare = name.rpartition(">")
                if mark:
                    found.setdefault(bare, []).append(name)
        return found

    def _has(self, name: str) -> bool:
        """Return whether a name may be a known one; a quick check, as a file can have a million."""
        try:
            found = self.registry.find(name, self._custom, plugins=False)
            return found is not None or match(name, self._declared) is not None
        except RegistryError:
            return False  # Several objects have that bare name.

    @functools.cached_property  # Reading what is installed takes milliseconds.
    def _declared(self) -> dict[str, tuple[Any, ...]]:
        return {name: tuple(points) for name, points in plugins.declared().items()}

    def _judge_path(self, need: Need) -> _Judgement:
        what = f"its {need.class_name} is a path, which {need.label!r} would open"
        verdict = "trusted" if self._trust.allows(need.name) else "untrusted"
        return _Judgement(verdict, what)

    def _judge_code(self, name: str, what: str) -> _Judgement:
        if self._trust.allows(name):
            return _Judgement("trusted", f"{what} runs on load")
        return _Judgement("untrusted", f"{what} would run on load")

    def _judge_built_in(self, need: Need) -> _Judgement:
        if need.name in self._custom and need.name not in self._claimed:
            return _Judgement("custom_objects", "in place of Keras' own", self._custom[need.name])
        if need.class_name in CODE_LAYERS and need.role == "class":
            return self._judge_code(need.name, f"it {CODE_LAYERS[need.class_name]}; that")
        return _Judgement("built-in")

    def _look_up(self, need: Need) -> _Judgement | None:
        try:
            found = self.registry.find(need.name, self._custom, plugins=False)
            declared = found is None and match(need.name, self._declared) is not None
            if declared and self._import_plugins:
                found = self.registry.find(need.name, self._custom)
            point = plugins.plugin_for(need.name) if declared and found is None else None
        except RegistryError as error:
            return _Judgement("missing", str(error))
        if found is not None:
            entry = found.entry
            note = f"{entry.name}, defined at {entry.place}" if entry is not None else ""
            return _Judgement(found.how, note, found.obj, entry)
        if point is None:
            return None
        if self._import_plugins:
            return _Judgement("missing", f"{plugins.describe(point)} declares it, but lacks it")
        return _Judgement("plug-in", f"declared by {plugins.describe(point)}")

    def _judge_own(self, need: Need) -> _Judgement | None:
        bare = need.name.removeprefix("keras_ckpt_tools>")
        if need.role != "function" or bare not in _OWN or need.module not in (None, _OWN[bare]):
            return None
        # It needs Keras, which an inspection does not import.
        obj = getattr(import_module(_OWN[bare]), bare) if self._import_plugins else None
        return _Judgement("built-in", "as Keras 2 computed it", obj)

    def _judge_unknown(self, need: Need) -> _Judgement:
        name, obj = _in_keras_registry(need.name, self._qualified)
        if obj is not None and self._trust.allows(need.name, name):
            return _Judgement("trusted", "found in Keras' global registry", obj)
        if obj is not None:
            module = getattr(obj, "__module__", None)
            if self._trust.is_own(obj):
                note = f"registered with Keras by your own code, in {module}"
                return _Judgement("trusted", note, obj)
            note = f"registered with Keras as {name} by {module}, but not trusted by this load"
            own = self._trust.is_own_if_here(obj)
            return _Judgement("untrusted", f"{note}{_IF_YOURS if own else ''}")
        if need.from_keras:
            return _Judgement("refused", _not_of_models(need))
        note = _said_of_wrapped(need)
        if self._trust.allows(need.name):
            note = "trusted, but nothing in this process has that name"
        return _Judgement("missing", note, nearest=self._nearest(need.name))

    def _nearest(self, name: str) -> tuple[str, ...]:
        if name not in self._suggested and len(self._suggested) < _SUGGESTED:
            self._suggested[name] = tuple(self.registry.nearest(name, self._custom))
        return self._suggested.get(name, ())


def _of_the_right_sort(need: Need, judged: _Judgement) -> _Judgement:
    """Refuse a class where the config has a function, because Keras would call it."""
    if need.role == "function" and need.node is not None and inspect.isclass(judged.obj):
        return _Judgement("refused", f"the file has a function, but {need.name!r} is a class")
    return judged


def _opens(cls: Any, argument: str) -> bool:
    """Return whether a class is one of Keras' layers that open the file of this argument."""
    if not inspect.isclass(cls) or "keras" not in sys.modules:
        return False
    layers = sys.modules["keras"].layers
    return issubclass(cls, tuple(getattr(layers, name) for name in _PATH_LAYERS.get(argument, ())))


def _not_of_models(need: Need) -> str:
    module = need.module or ""
    if ".engine." in module or module.startswith(("keras.api._v", "keras.legacy_tf")):
        return "saved by Keras 2 in its own `.keras` format, which Keras 3 does not read"
    known = " and ".join(KERAS_VERSIONS)
    return f"{module} has nothing of that name for models (in Keras {known})"


def _said_of_wrapped(need: Need) -> str:
    if need.wrapped == "partial":
        return "a functools.partial, whose arguments are not in the file: pass the partial itself"
    return f"it was wrapped ({need.wrapped}); pass the function itself" if need.wrapped else ""


def _use(need: Need, judged: _Judgement, written: CustomObject | None) -> ObjectUse:
    module, note = need.module, judged.note
    if written is not None:
        module = written.module or module
        if judged.entry is not None and written.version > judged.entry.version:
            note += f"; the file has version {written.version}, this is {judged.entry.version}"
    return ObjectUse(
        need.where,
        need.role,
        need.name,
        need.class_name,
        module,
        need.part,
        judged.verdict,
        note,
        judged.nearest,
    )


def _in_keras_registry(name: str, qualified: Mapping[str, list[str]]) -> tuple[str, Any]:
    """Return an object of Keras' global registry by its qualified or bare name."""
    if "keras" not in sys.modules:
        return name, None
    from keras_ckpt_tools import _keras_internals as internals

    everything = internals.GLOBAL_CUSTOM_OBJECTS
    if name in everything:
        return name, everything[name]
    bare = name.rpartition(">")[2]
    if bare == name:
        matches = [key for key in qualified.get(name, ()) if key in everything]
        return (matches[0], everything[matches[0]]) if len(matches) == 1 else (name, None)
    return bare, everything.get(bare)
