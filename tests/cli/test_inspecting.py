"""`keras-ckpt inspect` says what `inspect` says, and its exit status is what a script needs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import runs_on_disk
from hostile.parts import PAYLOAD, archive, members, node, sequential, weights, written, zipped
from hostile.records import our_archive
from runs_on_disk import progress_of, sealed

from keras_ckpt_tools.metadata import Best

ODD = "a model, größer 模型.keras"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A good model of stock Keras', in a folder with spaces and letters of several scripts."""
    folder = tmp_path / "my models ünï"
    folder.mkdir()
    return written(folder / ODD, zipped(members()))


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """A model that needs a class of somebody else's."""
    layer = {**node("Scale", "my_package.layers"), "registered_name": "my_package>Scale"}
    folder = tmp_path / "custom"
    folder.mkdir()
    return archive(folder, sequential(layer), weights({}))


def test_good_file_exits_with_0(keras_ckpt, good):
    """A path with spaces and other scripts' letters is one path."""
    done = keras_ckpt("inspect", good)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"good: {good}: keras, ")
    assert "3 of 3 objects are Keras' own" in done.stdout
    assert done.stderr == ""


def test_missing_class_exits_with_1(keras_ckpt, custom):
    """What `safe_load_model` would refuse is a problem, with the name and the module."""
    done = keras_ckpt("inspect", custom)
    assert done.returncode == 1
    assert "my_package>Scale" in done.stdout
    assert "saved from my_package.layers" in done.stdout


@pytest.mark.parametrize("name", ["my_package>Scale", "my_package>*"])
def test_trusted_name_is_no_problem(keras_ckpt, custom, name):
    """Whoever loads the file has the class; a job can say so."""
    assert keras_ckpt("inspect", "--trusted", name, custom).returncode == 0
    assert keras_ckpt("inspect", "--trusted", "other>*", custom).returncode == 1


def test_trust_in_everything_is_a_usage_error(keras_ckpt, good):
    """There is no name for everything."""
    done = keras_ckpt("inspect", "--trusted", "*", good)
    assert done.returncode == 2
    assert "--trusted" in done.stderr


def test_what_cannot_be_read_exits_with_2(keras_ckpt, tmp_path):
    """Nothing there, and something else than a model."""
    done = keras_ckpt("inspect", tmp_path / "nothing.keras")
    assert done.returncode == 2
    assert "There is nothing at the path" in done.stdout
    page = written(tmp_path / "page.keras", "<!DOCTYPE html>")
    done = keras_ckpt("inspect", page)
    assert done.returncode == 2
    assert "web page" in done.stdout


def test_damaged_model_exits_with_1(keras_ckpt, tmp_path):
    """It is a model, and something is wrong with it."""
    data = our_archive()
    path = written(tmp_path / "a.keras", data[: len(data) // 2])
    done = keras_ckpt("inspect", path)
    assert done.returncode == 1, done
    assert "truncated" in done.stdout


def test_the_worst_of_several_paths_counts(keras_ckpt, good, custom, tmp_path):
    """Each is reported, whatever the others are."""
    done = keras_ckpt("inspect", good, custom)
    assert done.returncode == 1
    assert done.stdout.count("keras, ") == 2
    done = keras_ckpt("inspect", tmp_path / "nothing", custom, good)
    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")] \
        == ["unreadable", "problems", "good"]  # fmt: skip


def test_folder_stands_for_the_models_in_it_and_below(keras_ckpt, good, custom, tmp_path):
    """Hidden folders, other files and links to folders are passed over."""
    (tmp_path / ".hidden").mkdir()
    written(tmp_path / ".hidden" / "a.keras", b"x")
    written(tmp_path / "notes.txt", "x")
    os.symlink(tmp_path, tmp_path / "again")
    done = keras_ckpt("inspect", "--json", tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert {Path(f["path"]) for f in found["files"]} == {good, custom}
    assert found["status"] == "problems"


def test_a_file_of_a_run_is_named_by_what_it_is(keras_ckpt, tmp_path):
    """As in `diff` and `export`; what is not there is said."""
    (tmp_path / "run").mkdir()
    for number in (1, 2, 3):
        best = Best("val_loss", "min", 1 / number if number < 3 else 0.01, number - 1)
        file = runs_on_disk.archive("{epoch}.keras", **progress_of(number), best=best)
        sealed(tmp_path / "run" / f"{number}.keras", file)
    for which, name in (("best", "3.keras"), ("latest", "3.keras"), (0, "1.keras")):
        done = keras_ckpt("inspect", f"{tmp_path / 'run'}@{which}")
        assert done.stdout.startswith(f"good: {tmp_path / 'run' / name}"), done
    done = keras_ckpt("inspect", f"{tmp_path / 'run'}@7", tmp_path / "run" / "2.keras")
    assert done.returncode == 2
    assert "No file in the directory was saved at the end of epoch 7" in done.stdout
    assert f"{tmp_path / 'run' / '2.keras'}" in done.stdout


def test_folder_without_models_exits_with_2(keras_ckpt, tmp_path):
    """A job that looks at nothing must not be green."""
    done = keras_ckpt("inspect", tmp_path)
    assert done.returncode == 2
    assert "without a model" in done.stdout


def test_unzipped_model_is_one_artefact(keras_ckpt, tmp_path):
    """Its parts are not reported for themselves."""
    folder = tmp_path / "models" / "net"
    folder.mkdir(parents=True)
    for name, data in members().items():
        written(folder / name, data)
    done = keras_ckpt("inspect", "--json", tmp_path / "models")
    assert [f["kind"] for f in json.loads(done.stdout)["files"]] == ["keras directory"]


def test_json_has_objects_tensors_and_verdicts(keras_ckpt, good, custom):
    """A program reads the same facts, and nothing else is on its input."""
    done = keras_ckpt("inspect", "--json", good, custom)
    first, second = json.loads(done.stdout)["files"]
    assert (first["status"], second["status"]) == ("good", "problems")
    assert first["tensors"][0] == {
        "path": "layers/dense/vars/0", "shape": [4, 2], "dtype": "float32", "nbytes": 32,
        "variable": "dense/kernel",
    }  # fmt: skip
    assert first["versions"] == {"keras": "3.10.0"}
    assert first["problems"] == []
    assert [o["verdict"] for o in second["objects"] if o["class_name"] == "Scale"] == ["missing"]


def test_warning_is_shown_and_is_no_problem(keras_ckpt, tmp_path):
    """A newer Keras wrote it: whoever loads it may want to know, and it may well load."""
    metadata = b'{"keras_version": "3.999.0"}'
    path = written(tmp_path / "new.keras", zipped({**members(), "metadata.json": metadata}))
    done = keras_ckpt("inspect", "--json", path)
    assert done.returncode == 0, done
    (problem,) = json.loads(done.stdout)["files"][0]["problems"]
    assert problem["severity"] == "warning"
    assert "3.999.0" in problem["what"]
    assert "3.999.0" in keras_ckpt("inspect", path).stdout


def test_text_in_a_file_cannot_write_to_the_terminal(keras_ckpt, tmp_path):
    """Control characters of a file's own are shown, not sent."""
    layer = {**node("Scale\x1b[2J", PAYLOAD), "registered_name": "Scale\x1b[2J[red]"}
    path = archive(tmp_path, sequential(layer), weights({}))
    assert "\x1b" not in keras_ckpt("inspect", path).stdout
    shown = _on_a_terminal("inspect", str(path))
    assert "\x1b[2J" not in shown
    assert r"Scale\x1b[2J[red]" in shown


def _on_a_terminal(*arguments: str) -> str:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "400", "PYTHONPATH": os.getcwd()}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_ckpt_tools", *arguments], stdout=theirs, env=environment
    )
    os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 4096):
            text += data
    except OSError:
        pass  # So Linux says that the other end is closed.
    finally:
        os.close(ours)
        process.wait(60)
    return text.decode()


def test_colours_are_for_terminals_only(keras_ckpt, good):
    """A log gets plain text in the same words."""
    assert "\x1b" not in keras_ckpt("inspect", good).stdout
    shown = _on_a_terminal("inspect", str(good))
    assert "\x1b[" in shown
    assert "3 of 3 objects are Keras' own" in shown


def test_output_survives_an_encoding_without_the_letters(keras_ckpt, good):
    """A log in ASCII gets escapes in place of a traceback."""
    done = keras_ckpt("inspect", good, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done
    assert "\\xf6" in done.stdout


def test_no_framework_is_imported(tmp_path, good):
    """Neither by the program nor by a command; rich and h5py neither, where they are not needed."""
    ours = written(tmp_path / "ours.keras", our_archive())
    code = (
        "import sys\nfrom keras_ckpt_tools.cli import main\n"
        "for command in ('inspect', 'verify'):\n"
        "    try:\n"
        f"        main([command, {str(ours)!r}])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0, end.code\n"
        "found = {'keras', 'tensorflow', 'h5py', 'rich', 'numpy'} & set(sys.modules)\n"
        "print(sorted(found))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "['numpy']", done.stdout


def test_help_lists_every_command(keras_ckpt):
    """And says what the exit status means."""
    done = keras_ckpt("--help")
    assert done.returncode == 0
    for word in ("inspect", "verify", "2 if a file cannot be read"):
        assert word in " ".join(done.stdout.split())
    assert keras_ckpt("--version").stdout.startswith("keras-ckpt, version ")
    assert keras_ckpt("nonsense").returncode == 2


def test_an_orbax_checkpoint_is_read(cli):
    """Its exit status is that of any model: names that are not there are a problem, not trouble."""
    path = Path(__file__).parents[1] / "files" / "orbax" / "whole"
    done = cli("inspect", "--trusted", "paints>Tint", path)
    assert done.exit_code == 0, done.stdout
    assert cli("inspect", path).exit_code == 1
    assert cli("verify", path).exit_code == 0
