"""Custom objects that always load, and training that always resumes.

The public names of the package, imported as `kct` by convention. Each name is loaded when it is
first used (PEP 562), so `import keras_ckpt_tools` takes milliseconds and imports neither Keras nor
TensorFlow. Programs that only read files do not need them.

The names are listed three times: in `__all__` for `import *`, under `TYPE_CHECKING` for type
checkers, and in `_HOMES` for the imports at run time. A test compares the lists.

`registry` is both a public name (the default `Registry`) and a folder. The import system would
replace `kct.registry` by the module as soon as anything imports `keras_ckpt_tools.registry`. The
class of this module prevents that. `from keras_ckpt_tools.registry import Registry` still works.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools._version import __version__

if TYPE_CHECKING:
    from keras_ckpt_tools import data, errors
    from keras_ckpt_tools.inspection.inspect import inspect
    from keras_ckpt_tools.inspection.verify import verify
    from keras_ckpt_tools.loading.compare import compare
    from keras_ckpt_tools.loading.model import safe_load_model
    from keras_ckpt_tools.loading.restore import load_weights
    from keras_ckpt_tools.matching.report import RestoreReport
    from keras_ckpt_tools.metadata import TrainingProgress
    from keras_ckpt_tools.pictures.plot import plot
    from keras_ckpt_tools.registry import check_serializable, register, registry, scope
    from keras_ckpt_tools.runs.retention import KeepBest, KeepEvery, KeepLast, Policy
    from keras_ckpt_tools.training.backup_and_restore import BackupAndRestore
    from keras_ckpt_tools.training.manager import CheckpointManager
    from keras_ckpt_tools.training.model_checkpoint import ModelCheckpoint
    from keras_ckpt_tools.training.progress import training_progress

__all__ = [
    "BackupAndRestore",
    "CheckpointManager",
    "KeepBest",
    "KeepEvery",
    "KeepLast",
    "ModelCheckpoint",
    "Policy",
    "RestoreReport",
    "TrainingProgress",
    "__version__",
    "check_serializable",
    "compare",
    "data",
    "errors",
    "inspect",
    "load_weights",
    "plot",
    "register",
    "registry",
    "safe_load_model",
    "scope",
    "training_progress",
    "verify",
]

# The module that defines each name; `None` where the name is itself a module of this package.
_HOMES: dict[str, str | None] = {
    "BackupAndRestore": "training.backup_and_restore",
    "CheckpointManager": "training.manager",
    "KeepBest": "runs.retention",
    "KeepEvery": "runs.retention",
    "KeepLast": "runs.retention",
    "ModelCheckpoint": "training.model_checkpoint",
    "Policy": "runs.retention",
    "RestoreReport": "matching.report",
    "TrainingProgress": "metadata",
    "check_serializable": "registry",
    "compare": "loading.compare",
    "data": None,
    "errors": None,
    "inspect": "inspection.inspect",
    "load_weights": "loading.restore",
    "plot": "pictures.plot",
    "register": "registry",
    "registry": "registry",
    "safe_load_model": "loading.model",
    "scope": "registry",
    "training_progress": "training.progress",
    "verify": "inspection.verify",
}


def _load(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    module = importlib.import_module(f"{__name__}.{home or name}")
    value = globals()[name] = module if home is None else getattr(module, name)
    return value


if not TYPE_CHECKING:  # With it, type checkers would accept any name.
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """A module whose public names are not replaced by submodules of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) is not None:
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
