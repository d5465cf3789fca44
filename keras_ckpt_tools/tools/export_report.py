"""Define the options of an export, and the report of what was exported and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_ckpt_tools.formats.kinds import Kind
from keras_ckpt_tools.formats.tensor_source import state_of_optimizers_in
from keras_ckpt_tools.loading.tensor_selection import Places
from keras_ckpt_tools.matching.compare import OPTIMIZER_GROUP, RANDOM_GROUP, is_raw
from keras_ckpt_tools.metadata import Record, TensorInfo
from keras_ckpt_tools.showing.tables import as_html, as_text, plural
from keras_ckpt_tools.tools.export_source import Material

Format = Literal["keras", "weights.h5", "safetensors", "tf"]
_SHOWN = 20


@dataclass(frozen=True)
class Wish:
    """What to export, and how.

    Attributes:
        to: The format. Default: by the ending of the target.
        which: Of a folder of a run, which file: `"latest"`, `"best"` or a zero-based epoch.
        object: Of a run's checkpoint, the object. Default: its one model with its optimizer.
        include: Patterns of paths; where there are any, only these tensors go.
        exclude: Patterns of paths of tensors that stay.
        rename: `(old, new)`, see `selection.renamed`.
        optimizer: Whether to export the state of the optimizer.
        config_from: A file with the config of the model, if the source has none.
        trusted: As for `kct.safe_load_model`, where the model has to be built.
        bare: Whether a TensorFlow checkpoint is to have variables by path, without the objects.
        force: Whether a file at the target may be replaced.
        dry_run: Whether nothing is to be written.
        max_bytes: What reading may take.
    """

    to: Format | None = None
    which: str | int = "latest"
    object: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    optimizer: bool = True
    config_from: str | None = None
    trusted: tuple[str, ...] = ()
    bare: bool = False
    force: bool = False
    dry_run: bool = False
    max_bytes: int | None = None

    @property
    def picks(self) -> bool:
        """Whether single tensors or objects are meant, and not the model as a whole."""
        return bool(self.object or self.include or self.exclude or self.rename)


@dataclass(frozen=True)
class Part:
    """Something of the source that is no tensor that went, or a group of those that did.

    Attributes:
        name: What it is: `"optimizer"`, `"progress"`, `"config"`.
        what: How much of it there is.
        why: Why it was left behind; empty for what went.
    """

    name: str
    what: str
    why: str = ""


@dataclass(frozen=True)
class Exported:
    """What an export took along and what it left behind.

    Attributes:
        source: The file that was read.
        kind: What it is.
        target: What was written.
        format: In which format.
        written: Whether it was: a dry run writes nothing.
        tensors: The tensors that went, by the name that each has now.
        places: Where each stood in the source.
        went: What went along, in groups.
        left: What did not, and why.
    """

    source: str
    kind: Kind
    target: str
    format: Format
    written: bool
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    went: tuple[Part, ...] = ()
    left: tuple[Part, ...] = ()

    @property
    def renamed(self) -> dict[str, str]:
        """Where tensors stood that have another name now."""
        return {name: place for name, place in self.places.items() if name != place}

    def rows(self, most: int | None = None) -> list[tuple[str, str, str, str]]:
        """Return `(went or left, name, what, why)`, and at most so many renamed tensors."""
        rows = [("went", part.name, part.what, "") for part in self.went]
        rows += [("left", part.name, part.what, part.why) for part in self.left]
        names = list(self.renamed.items())
        rows += [("renamed", place, f"-> {name}", "") for name, place in names[:most]]
        if most is not None and len(names) > most:
            rows.append(("...", f"{len(names) - most} more renamed", "", ""))
        return rows

    def caption(self) -> str:
        """Return one line with what was written."""
        verb = "written" if self.written else "would be written"
        size = sum(info.nbytes for info in self.tensors.values())
        return (
            f"{self.source} -> {self.target}: {self.format} {verb}, "
            f"{plural(len(self.tensors), 'tensor')} of {size:,} bytes"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it: dicts, lists, strings and numbers."""
        return {
            "source": self.source,
            "kind": str(self.kind),
            "target": self.target,
            "format": self.format,
            "written": self.written,
            "tensors": [
                {"name": name, "was": self.places[name], "shape": list(t.shape), "dtype": t.dtype}
                for name, t in self.tensors.items()
            ],
            "went": [{"name": part.name, "what": part.what} for part in self.went],
            "left": [{"name": part.name, "what": part.what, "why": part.why} for part in self.left],
        }

    def __str__(self) -> str:
        return as_text(self.caption(), self.rows(_SHOWN))

    def _repr_html_(self) -> str:
        header = ("what", "name", "how much", "why")
        return as_html(self.caption(), header, self.rows(_SHOWN))


_RANDOM = RANDOM_GROUP.rstrip("/")
_WITH_CONFIG = ("keras", "safetensors")


def inventory(
    material: Material, places: Places, format: Format, wish: Wish
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return what goes, and what is left behind and why."""
    went = [Part(name, what) for name, what in _groups(places)]
    stay = material.weights.tensors.keys() - set(places.values())
    state = frozenset() if wish.optimizer else state_of_optimizers_in(material.weights) & stay
    left = [Part(name, what, "--no-optimizer") for name, what in _groups(state)]
    raw = frozenset(filter(is_raw, stay))
    why = "variables as layers have them in training, which only a run's checkpoints hold"
    left += [Part(name, what, why) for name, what in _groups(raw)]
    left += [Part(name, what, _why(name, wish)) for name, what in _groups(stay - state - raw)]
    for name, what, goes in _beside(material, format):
        if goes:
            went.append(Part(name, what))
        else:
            left.append(Part(name, what, f"{format} cannot hold it"))
    if format == "tf" and material.model is not None and not wish.bare:
        # What is saved are the objects, and TensorFlow walks past the seed generators.
        left += [Part(p.name, p.what, "TensorFlow saves none") for p in went if p.name == _RANDOM]
        went = [part for part in went if part.name != _RANDOM]
        went.append(Part("objects", "the model's own, for `tf.train.Checkpoint(model=model)`"))
    return tuple(went), tuple(left)


def _beside(material: Material, format: Format) -> Iterator[tuple[str, str, bool]]:
    """Yield the parts other than tensors, their size, and whether the format holds them."""
    assets = len(material.documents.assets) if material.documents else 0
    found = (
        ("progress", _progress(material.record), format != "tf"),
        ("custom objects", _count(len(material.record.objects), "name"), format != "tf"),
        ("config", "what the model is" if material.documents else "", format in _WITH_CONFIG),
        ("assets", _count(assets, "file"), format == "keras"),
    )
    return (part for part in found if part[1])


def _groups(names: Iterable[str]) -> list[tuple[str, str]]:
    counts = Counter(name.partition("/")[0] for name in sorted(names))
    return [(group, _count(number, "tensor")) for group, number in counts.items()]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}" if number else ""


def _progress(record: Record) -> str:
    done = record.progress
    if not done.trained:
        return ""
    return f"{plural(done.epochs_completed, 'epoch')} completed, step {done.step}"


def _why(group: str, wish: Wish) -> str:
    if group.startswith("_"):
        return "the state of the run, which only its own checkpoints have"
    if f"{group}/" == OPTIMIZER_GROUP and not wish.optimizer:
        return "--no-optimizer"
    if wish.picks:
        return "not among what was asked for"
    return "another object of the run: export it with `--object`"
