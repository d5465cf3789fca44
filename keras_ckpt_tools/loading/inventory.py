"""What went and what stayed behind: material + selection -> *inventory* -> report.

A format has no place for something, or it was not asked for; whoever finds out only when training
goes on without its optimizer has lost a run. So each part is listed, on one side or the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from keras_ckpt_tools.formats.comparison import OPTIMIZER_GROUP, RANDOM_GROUP
from keras_ckpt_tools.formats.sorting import is_raw
from keras_ckpt_tools.formats.tensor_source import state_of_optimizers_in
from keras_ckpt_tools.loading.exported import Format, Part, Wish
from keras_ckpt_tools.loading.material import Material
from keras_ckpt_tools.loading.selection import Places
from keras_ckpt_tools.metadata import Record
from keras_ckpt_tools.showing.tables import plural

__all__ = ["inventory"]

_RANDOM = RANDOM_GROUP.rstrip("/")
_WITH_CONFIG = ("keras", "safetensors")


def inventory(
    material: Material, places: Places, format: Format, wish: Wish
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return what goes, and what is left behind and why.

    Args:
        material: What there is.
        places: The tensors that go, and where they stand.
        format: The format of the new file.
        wish: What was asked for.
    """
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
            left.append(Part(name, what, f"there is no place for it in {format}"))
    if format == "tf" and material.model is not None and not wish.bare:
        # What is saved are the objects, and TensorFlow walks past the seed generators.
        left += [Part(p.name, p.what, "TensorFlow saves none") for p in went if p.name == _RANDOM]
        went = [part for part in went if part.name != _RANDOM]
        went.append(Part("objects", "the model's own, for `tf.train.Checkpoint(model=model)`"))
    return tuple(went), tuple(left)


def _beside(material: Material, format: Format) -> Iterator[tuple[str, str, bool]]:
    """Yield what there is beside tensors, how much of it, and whether the format takes it."""
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
