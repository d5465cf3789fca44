"""`keras-ckpt plot` and `keras-ckpt report`: from the shell to a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile.records import our_weights

ROOT = Path(__file__).parents[2]
RECORD = {
    "epochs_completed": 2,
    "step": 8,
    "run_id": "r",
    "history": {"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]},
    "saves": [[1, 0, 4, 1, 1, 0, 4]],
}


@pytest.fixture
def run(tmp_path):
    """A run in a folder with a space and with letters of other scripts in its name."""
    folder = tmp_path / "ein Lauf π"
    folder.mkdir()
    data = our_weights(lambda record: record.update(kind="checkpoint", progress=RECORD))
    (folder / "ckpt-00000002.weights.h5").write_bytes(data)
    return folder


def test_plot_writes_a_picture(keras_ckpt, run, tmp_path):
    """By default named like the run, where the shell is."""
    done = keras_ckpt("plot", run, "--metric", "loss", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "good: ein Lauf π.png: loss\n"), done
    assert (tmp_path / "ein Lauf π.png").read_bytes().startswith(b"\x89PNG")
    done = keras_ckpt(
        "plot", run, run, "-o", tmp_path / "a.svg", "--by", "step", "--side-by-side", "--json"
    )
    assert done.returncode == 0, done
    (file,) = json.loads(done.stdout)["files"]
    assert (file["metrics"], file["path"]) == (["loss"], str(tmp_path / "a.svg"))


def test_report_writes_a_page(keras_ckpt, run, tmp_path):
    """Likewise."""
    done = keras_ckpt("report", f"{run}/", "--title", "Ein <Lauf>", cwd=tmp_path)
    assert done.returncode == 0, done
    assert "<h1>Ein &lt;Lauf&gt;</h1>" in (tmp_path / "ein Lauf π.html").read_text("utf-8")


@pytest.mark.parametrize("command", ["plot", "report"])
def test_what_cannot_be_drawn_exits_with_2(keras_ckpt, command, run, tmp_path):
    """And leaves nothing behind: no run, no such metric, no such place for the output."""
    for arguments in (
        [tmp_path / "nowhere"],
        [tmp_path],
        [run, "-o", run / "ckpt-00000002.weights.h5/a.png"],
    ):
        done = keras_ckpt(command, *arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (2, ""), done
        assert done.stdout.startswith("unreadable: "), done
    assert [path.name for path in tmp_path.iterdir()] == [run.name]


@pytest.mark.parametrize(("command", "loaded"), [("plot", ["numpy"]), ("report", [])])
def test_no_framework_is_imported(command, loaded, run, tmp_path):
    """A page needs none of what is heavy, a figure only what Matplotlib needs."""
    code = (
        "import sys\nfrom keras_ckpt_tools.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'keras', 'tensorflow', 'h5py', 'rich', 'numpy', 'matplotlib.pyplot'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command, str(run)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == repr(loaded)
