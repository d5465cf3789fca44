"""Define the records in a file: training progress, versions, custom objects and tensors.

Frozen dataclasses that convert to plain JSON and back, and need neither Keras nor files. All entry
points (callbacks, manager, loader, command line) read their counters from one `TrainingProgress`.

`from_json` ignores unknown keys and has a default for each field, so older and later versions of
this package can read a record.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from keras_ckpt_tools.showing.tables import as_text, facts_as_html

FORMAT_VERSION = 1


def epoch_number(epoch: int) -> int:
    """Return the one-based number of a zero-based epoch.

    Keras passes zero-based epochs to callbacks, and prints one-based ones. The only conversions are
    this function, `TrainingProgress.epoch_index` and `ended_epoch`.

    >>> epoch_number(0)
    1
    """
    return epoch + 1


@dataclass(frozen=True)
class _Value:
    """Base of all records: converts to JSON, and reads JSON with unknown or missing keys."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        known = _names_of(cls)
        return cls(**{name: value for name, value in data.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(getattr(self, name)) for name in _names_of(type(self))}


_names: dict[type[_Value], dict[str, None]] = {}


def _names_of(kind: type[_Value]) -> dict[str, None]:
    """Return the names of the fields in the order in which they are written."""
    # Called for each record of a directory with thousands.
    if kind not in _names:
        _names[kind] = dict.fromkeys(one.name for one in dataclasses.fields(kind))
    return _names[kind]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, _Value):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no such numbers, so they are strings.
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value


def _number(value: Any) -> Any:
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def _numbers(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _number(value) for key, value in data.items()}


@dataclass(frozen=True)
class Best(_Value):
    """The best value of the monitored metric so far.

    Attributes:
        monitor: Name of the metric in the logs, `"val_loss"` for example.
        mode: `"min"` or `"max"`.
        value: The best value so far, or `None`.
        epoch: Zero-based epoch that reached it, or `None`.
    """

    monitor: str = "val_loss"
    mode: str = "min"
    value: float | None = None
    epoch: int | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return super().from_json({**data, "value": _number(data.get("value"))})

    def improved_by(self, value: float) -> bool:
        """Return whether `value` is better. NaN and infinity never are.

        >>> Best(value=0.5).improved_by(0.4), Best(value=None).improved_by(float("nan"))
        (True, False)
        """
        if not math.isfinite(value):
            return False
        if self.value is None or math.isnan(self.value):
            return True
        return value > self.value if self.mode == "max" else value < self.value


@dataclass(frozen=True)
class TrainingProgress(_Value):
    """The progress of a training run.

    Attributes:
        epochs_completed: Epochs that have ended. Pass it to `fit()` as `initial_epoch` to resume.
        batches_completed: Batches completed in the current epoch; 0 between epochs.
        step: Optimizer updates since the run began.
        logs: The last logs, as a mapping from metric names to numbers.
        history: The logs of each epoch, in the shape of `keras.callbacks.History.history`.
        history_epochs: The zero-based epoch of each value in `history`; a metric need not have one
            in every epoch (`validation_freq`).
        best: Best value of the monitored metric, or `None` where nothing is monitored.
        run_id: Name of the run, the same after restarts; empty for a model that was never trained.
        started_at: When the run began, in seconds since 1970 (UTC); 0.0 if it never did.
        saved_at: When this record was written, in the same unit; 0.0 if it never was.
        elapsed_s: Seconds of training, restarts not counted.
        restarts: Where and when the run was resumed: epochs completed, batches, step, and seconds
            since 1970 (UTC). Only restarts after which something was saved.
        saves: The steps of its saves, as progressions.

    Example:

    >>> progress = TrainingProgress(epochs_completed=3, step=120)
    >>> progress.epochs_completed, progress.trained
    (3, True)
    >>> TrainingProgress().trained
    False
    """

    epochs_completed: int = 0
    batches_completed: int = 0
    step: int = 0
    logs: Mapping[str, float] = field(default_factory=dict)
    # The history of a thousand epochs would fill the screen.
    history: Mapping[str, tuple[float, ...]] = field(default_factory=dict, repr=False)
    history_epochs: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    best: Best | None = None
    run_id: str = ""
    started_at: float = 0.0
    saved_at: float = 0.0
    elapsed_s: float = 0.0
    restarts: tuple[tuple[int, int, int, float], ...] = ()
    saves: tuple[tuple[int, ...], ...] = ()

    @property
    def place(self) -> tuple[int, int, int]:
        """The position in training: epochs, batches and steps."""
        return self.epochs_completed, self.batches_completed, self.step

    @property
    def epoch_index(self) -> int:
        """The zero-based epoch that this belongs to: the current one, or else the last one.

        >>> TrainingProgress(3, batches_completed=5).epoch_index, TrainingProgress(3).epoch_index
        (3, 2)
        """
        return max(self.epochs_completed - (not self.batches_completed), 0)

    @property
    def ended_epoch(self) -> int | None:
        """The zero-based epoch that ended last, or `None` where none has."""
        return self.epochs_completed - 1 if self.epochs_completed else None

    @property
    def trained(self) -> bool:
        """Whether any training is recorded."""
        return bool(self.epochs_completed or self.batches_completed or self.step)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        best = data.get("best")
        history = data.get("history") or {}
        epochs = data.get("history_epochs") or {}
        return super().from_json(
            {
                **data,
                "logs": _numbers(data.get("logs") or {}),
                "history": {k: tuple(_number(v) for v in values) for k, values in history.items()},
                "history_epochs": {
                    name: tuple(epochs.get(name) or range(len(values)))
                    for name, values in history.items()
                },
                "best": Best.from_json(best) if best else None,
                "restarts": tuple(tuple(one) for one in data.get("restarts") or ()),
                "saves": tuple(tuple(one) for one in data.get("saves") or ()),
            }
        )

    def __str__(self) -> str:
        return as_text("Training progress", self._facts().items())

    def _repr_html_(self) -> str:
        return facts_as_html("Training progress", self._facts())

    def _facts(self) -> dict[str, str]:
        facts = {
            "epochs completed": str(self.epochs_completed),
            "batches of the next epoch": str(self.batches_completed),
            "step": str(self.step),
        }
        facts |= {name: f"{value:.4g}" for name, value in self.logs.items()}
        if self.best and self.best.value is not None:
            epoch = "?" if self.best.epoch is None else str(self.best.epoch)
            facts[f"best {self.best.monitor}"] = f"{self.best.value:.4g} (epoch index {epoch})"
        if self.elapsed_s:
            facts["time in training"] = f"{datetime.timedelta(seconds=round(self.elapsed_s))}"
        if self.run_id:
            facts["run"] = self.run_id
        return facts


@dataclass(frozen=True)
class TensorInfo(_Value):
    """One tensor of a file.

    Attributes:
        path: Its HDF5 path, `"layers/dense/vars/0"` for example.
        shape: Its dimensions.
        dtype: Name of its NumPy or ml_dtypes type, `"float32"` or `"bfloat16"` for example.
        offset: Bytes from the start of the HDF5 file to its data; `None` where unknown.
        nbytes: Length of its data.
        digest: XXH3 (128 bits) of its data, in hexadecimal; empty where unknown.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    offset: int | None = None
    nbytes: int = 0
    digest: str = ""

    # A file has thousands of these, so both methods are written out for speed.

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            data["path"],
            tuple(data["shape"]),
            data["dtype"],
            data.get("offset"),
            data.get("nbytes", 0),
            data.get("digest", ""),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "shape": self.shape,
            "dtype": self.dtype,
            "offset": self.offset,
            "nbytes": self.nbytes,
            "digest": self.digest,
        }


@dataclass(frozen=True)
class CustomObject(_Value):
    """A class or function outside Keras that a file needs.

    Attributes:
        registered_name: `package>name`, as Keras writes it into configs.
        module: Module that defined it when the file was saved.
        qualname: Its name within that module.
        package_version: Version of the installed package that defined it, if any.
        version: The `version=` it was registered with; 1 by default.
    """

    registered_name: str
    module: str | None = None
    qualname: str | None = None
    package_version: str | None = None
    version: int = 1


@dataclass(frozen=True)
class OptimizerState(_Value):
    """The optimizer whose state is in a file.

    Attributes:
        class_name: Name of its class, `"Adam"` for example; empty where unknown.
        built_on: Paths of the variables it was built on, in order; empty where unknown.
    """

    class_name: str = ""
    built_on: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return super().from_json({**data, "built_on": tuple(data.get("built_on") or ())})

    def to_json(self) -> dict[str, Any]:
        # Each save may have thousands of paths.
        return {"class_name": self.class_name, "built_on": self.built_on}


@dataclass(frozen=True)
class TrackedObject(_Value):
    """One tracked object of a manager's checkpoint.

    Attributes:
        kind: `"model"`, `"optimizer"`, `"keras"`, `"variable"`, `"module"`, `"container"`,
            `"random"`, `"state"`, or `"run"` for the state of the run itself.
        build_config: What a Keras model or layer was built with, or `None`.
        built_on: For an optimizer, the paths of the variables it was built on, in order.
        state: The JSON part of the state of an object that is not made of variables.
        parts: Build configs of the layers that the model does not build itself, by the path of
            their group below its name.
        flags: Whether quantized layers have been calibrated: their attributes, by group.
    """

    kind: str
    build_config: Mapping[str, Any] | None = None
    built_on: tuple[str, ...] | None = None
    state: Any = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        built_on = data.get("built_on")
        return super().from_json(
            {
                **data,
                "built_on": None if built_on is None else tuple(built_on),
                "parts": data.get("parts") or {},
                "flags": data.get("flags") or {},
            }
        )


@dataclass(frozen=True)
class Record(_Value):
    """The record in a file that this package wrote.

    Attributes:
        kind: `"model"` (`.keras` and whole-model `.h5`), `"weights"` or `"checkpoint"`.
        versions: Versions of Python and the packages that wrote the file.
        progress: Where training was.
        objects: The custom objects that the file needs.
        tracked: For a checkpoint, the tracked objects by name.
        state: Further JSON state, by the name of what it belongs to.
        names: Names of layers and optimizers, by the path of their group
            (`"layers/dense_1"`); the empty path is the model itself.
        optimizers: The optimizer whose state a group holds, by its path.
        not_finite: Paths of the first few weights and optimizer variables with NaN, or with
            infinity where it is not valid. `None` if the writer did not check.
        tensors: Every tensor, in the order of the file.
        skeleton_digest: XXH3 (128 bits) of all bytes of the HDF5 file after the record that belong
            to no tensor.
        size: Length of the HDF5 file in bytes, the record included.
        format_version: Version of this record.
    """

    kind: str = "weights"
    versions: Mapping[str, str] = field(default_factory=dict)
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    objects: tuple[CustomObject, ...] = ()
    tracked: Mapping[str, TrackedObject] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    optimizers: Mapping[str, OptimizerState] = field(default_factory=dict)
    not_finite: tuple[str, ...] | None = None
    tensors: Sequence[TensorInfo] = ()
    skeleton_digest: str = ""
    size: int = 0
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        # These may be other sequences than tuples.
        return {**super().to_json(), "tensors": [one.to_json() for one in self.tensors]}

    @property
    def objects_tracked(self) -> dict[str, TrackedObject]:
        """The objects that the user tracks, without the state of the run itself."""
        return {name: one for name, one in self.tracked.items() if one.kind != "run"}

    @property
    def model(self) -> str | None:
        """The name of the default tracked model: `model`, or the only one."""
        models = [name for name, one in self.tracked.items() if one.kind == "model"]
        return "model" if "model" in models else models[0] if len(models) == 1 else None

    def optimizers_of(self, model: str) -> list[str]:
        """Return the names of the tracked optimizers of variables of one tracked model."""
        return [
            name
            for name, one in self.tracked.items()
            if one.kind == "optimizer"
            and one.built_on
            and all(path.startswith(f"{model}/") for path in one.built_on)
        ]

    @property
    def phase(self) -> Mapping[str, Any]:
        """Which `fit()` of the program wrote a checkpoint, as `training.phases` records it."""
        for one in self.tracked.values():
            if one.kind == "run" and isinstance(one.state, Mapping):
                phase = one.state.get("phase")
                if isinstance(phase, Mapping):
                    return phase
        return {}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        tracked = data.get("tracked") or {}
        return super().from_json(
            {
                **data,
                "progress": TrainingProgress.from_json(data.get("progress") or {}),
                "objects": tuple(CustomObject.from_json(o) for o in data.get("objects") or ()),
                "tracked": {name: TrackedObject.from_json(o) for name, o in tracked.items()},
                "names": data.get("names") or {},
                "state": data.get("state") or {},
                "versions": data.get("versions") or {},
                "optimizers": {
                    group: OptimizerState.from_json(o)
                    for group, o in (data.get("optimizers") or {}).items()
                },
                "not_finite": _paths(data.get("not_finite")),
                "tensors": tuple(TensorInfo.from_json(t) for t in data.get("tensors") or ()),
            }
        )


def _paths(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(map(str, value))
