"""What reads imports neither Keras nor TensorFlow: seen in a fresh interpreter.

The import contracts in `setup.cfg` read the sources, and so cannot tell an import that runs from
one inside a function that never does. This looks at what is loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FRAMEWORKS = ("jax", "keras", "tensorflow", "torch")
FRAMEWORK_FREE = [
    "keras_ckpt_tools",
    "keras_ckpt_tools.cli",
    "keras_ckpt_tools.cli.completing",
    "keras_ckpt_tools.cli.diffing",
    "keras_ckpt_tools.cli.exporting",
    "keras_ckpt_tools.cli.inspecting",
    "keras_ckpt_tools.cli.listing",
    "keras_ckpt_tools.cli.places",
    "keras_ckpt_tools.cli.plotting",
    "keras_ckpt_tools.cli.printing",
    "keras_ckpt_tools.cli.pruning",
    "keras_ckpt_tools.cli.reporting",
    "keras_ckpt_tools.cli.resuming",
    "keras_ckpt_tools.cli.verifying",
    "keras_ckpt_tools.data",
    "keras_ckpt_tools.data.orders",
    "keras_ckpt_tools.data.parallel",
    "keras_ckpt_tools.data.positions",
    "keras_ckpt_tools.errors",
    "keras_ckpt_tools.formats.chunks",
    "keras_ckpt_tools.formats.contents",
    "keras_ckpt_tools.formats.distance",
    "keras_ckpt_tools.formats.comparison",
    "keras_ckpt_tools.formats.file_objects",
    "keras_ckpt_tools.formats.kinds",
    "keras_ckpt_tools.formats.orbax_checkpoint",
    "keras_ckpt_tools.formats.report",
    "keras_ckpt_tools.formats.safetensors_file",
    "keras_ckpt_tools.formats.safetensors_writer",
    "keras_ckpt_tools.formats.source",
    "keras_ckpt_tools.formats.tf_bundle_writer",
    "keras_ckpt_tools.formats.tf_checkpoint",
    "keras_ckpt_tools.formats.tf_paths",
    "keras_ckpt_tools.formats.tf_run",
    "keras_ckpt_tools.formats.tf_run_source",
    "keras_ckpt_tools.formats.userblock",
    "keras_ckpt_tools.loading",
    "keras_ckpt_tools.loading.diff",
    "keras_ckpt_tools.loading.export",
    "keras_ckpt_tools.loading.inspect",
    "keras_ckpt_tools.loading.orbax",
    "keras_ckpt_tools.loading.runs",
    "keras_ckpt_tools.metadata",
    "keras_ckpt_tools.pictures.plot",
    "keras_ckpt_tools.pictures.report_page",
    "keras_ckpt_tools.registry",
    "keras_ckpt_tools.showing.bars",
    "keras_ckpt_tools.showing.tables",
    "keras_ckpt_tools.storage",
    "keras_ckpt_tools.storage.commit",
    "keras_ckpt_tools.storage.commit_set",
    "keras_ckpt_tools.storage.file_systems",
    "keras_ckpt_tools.storage.local_paths",
    "keras_ckpt_tools.storage.retention",
    "keras_ckpt_tools.training",
]


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys, json; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", FRAMEWORK_FREE)
def test_module_is_imported_without_a_framework(module):
    """Importing the module loads neither Keras nor any of its backends."""
    loaded = loaded_after(f"import {module}")
    assert "keras_ckpt_tools" in loaded
    assert not loaded & set(FRAMEWORKS)


def test_inspecting_a_file_of_ours_needs_no_numpy_either():
    """What reads a record is the standard library and a digest."""
    loaded = loaded_after("import keras_ckpt_tools as kct; kct.inspect, kct.verify")
    assert not loaded & {*FRAMEWORKS, "h5py", "ml_dtypes", "numpy", "rich"}


def test_names_that_need_no_framework_load_none():
    """Looking at the names for reading, retention and registering is free, too."""
    loaded = loaded_after(
        "import keras_ckpt_tools as kct\n"
        "kct.inspect, kct.TrainingProgress, kct.KeepLast, kct.errors, kct.registry, kct.register"
    )
    assert not loaded & set(FRAMEWORKS)


def test_the_probe_sees_keras_where_it_is_imported():
    """The check above can fail: a callback, which derives from Keras' own, brings Keras in."""
    assert "keras" in loaded_after("import keras_ckpt_tools as kct; kct.ModelCheckpoint")
