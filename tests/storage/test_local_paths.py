"""Addresses are no paths, wherever a path is taken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import keras_ckpt_tools as kct
from keras_ckpt_tools.errors import ArgumentError
from keras_ckpt_tools.storage.commit import staged
from keras_ckpt_tools.storage.local_paths import local_path

ADDRESSES = [
    "gs://bucket/run",
    "s3://bucket/run",
    "hf://user/repo",
    "memory://run",
    "az://container/run",
    "abfss://container@account.dfs.core.windows.net/run",
    "dbfs:/run",
    "simplecache::s3://bucket/run",
    "https://example.com/run",
    "GS://bucket/run",
    "file:///tmp/run",
]


class Remote:
    """As `cloudpathlib` has it: an address to `str`, a file of its cache to `os.fspath`."""

    def __str__(self) -> str:
        return "gs://bucket/run"

    def __fspath__(self) -> str:
        raise AssertionError("this would fetch what is there")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_refused(address: str) -> None:
    """Whatever its scheme is, in letters of any size."""
    with pytest.raises(ArgumentError, match="is a URL"):
        local_path(address)


@pytest.mark.parametrize("make", [Path, lambda address: Path(address).absolute()], ids=range(2))
@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://b/run", "hf://a/b", "memory://a"])
def test_what_pathlib_makes_of_an_address_is_refused(
    address: str, make: Callable[[str], Path], empty: Path
) -> None:
    """`gs:/bucket/run`, also below the working directory."""
    with pytest.raises(ArgumentError, match="is a URL"):
        local_path(make(address))


def test_an_address_behind_a_local_copy_is_refused() -> None:
    """What is written into a cache never arrives."""
    with pytest.raises(ArgumentError, match="gs://bucket/run"):
        local_path(Remote())


def test_the_remedy_for_a_file_address_works(tmp_path: Path) -> None:
    """It names the path itself."""
    with pytest.raises(ArgumentError) as caught:
        local_path(f"file://{tmp_path}")
    assert caught.value.remedy == f"Pass the path itself: {str(tmp_path)!r}."


@pytest.mark.parametrize(
    "path", ["a.keras", "C:/runs", "runs/12:30:00", "runs:a/b", "{epoch:02d}.keras", "./gs:/a"]
)
def test_a_path_is_left_as_it_is(path: str) -> None:
    """Colons are no addresses."""
    if path == "./gs:/a":
        os.makedirs("gs:", exist_ok=True)
    try:
        assert local_path(path) == path
    finally:
        if path == "./gs:/a":
            os.rmdir("gs:")


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert local_path("~/runs") == "/home/somebody/runs"
    assert local_path(Path("~/runs")) == "/home/somebody/runs"
    assert local_path("runs/~") == "runs/~"


def _calls(address: str) -> dict[str, Callable[[], object]]:
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    return {
        "ModelCheckpoint": lambda: kct.ModelCheckpoint(f"{address}/a.keras"),
        "tensorboard": lambda: kct.ModelCheckpoint("a.keras", tensorboard=address),
        "BackupAndRestore": lambda: kct.BackupAndRestore(address),
        "CheckpointManager": lambda: kct.CheckpointManager(address, model=model),
        "restore": lambda: kct.CheckpointManager("run", model=model).restore(address),
        "safe_load_model": lambda: kct.safe_load_model(address),
        "load_weights": lambda: kct.load_weights(model, address),
        "compare": lambda: kct.compare(model, address),
        "inspect": lambda: kct.inspect(address),
        "verify": lambda: kct.verify(address),
        "training_progress": lambda: kct.training_progress(address),
        "plot": lambda: kct.plot(address),
        "staged": lambda: staged(address).__enter__(),
        "path-like": lambda: kct.ModelCheckpoint(Remote()),
        "path-like directory": lambda: kct.BackupAndRestore(Remote()),
        "path-like file": lambda: kct.inspect(Remote()),
    }


@pytest.mark.parametrize("address", ["gs://bucket/run", "memory://run", "s3:/bucket/run"])
def test_every_door_refuses_an_address(address: str, empty: Path) -> None:
    """With the same words, before anything is written."""
    for name, call in _calls(address).items():
        with pytest.raises(ArgumentError, match="local or mounted directory") as caught:
            call()
        assert "is a URL, not a path" in str(caught.value), name
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "gs://b/m.keras"],
        ["ls", "gs://b/run"],
        ["verify", "gs://b/run"],
        ["resume-info", "gs://b/run"],
        ["prune", "gs://b/run", "--keep-last", "1"],
        ["diff", "gs://b/a.keras", "gs://b/b.keras"],
        ["report", "gs://b/run"],
        ["export", "gs://b/a.keras", "a.safetensors"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_refuses_an_address(arguments: list[str], empty: Path) -> None:
    """As the functions do."""
    from click.testing import CliRunner

    from keras_ckpt_tools.cli import main

    found = CliRunner().invoke(main, arguments)
    assert found.exit_code > 0
    assert "is a URL, not a path" in found.output
    assert list(empty.iterdir()) == []


def test_a_tilde_works_at_every_door(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder called `~` is made."""
    import keras
    import numpy as np

    monkeypatch.setenv("HOME", str(empty / "home"))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(
        np.ones((4, 2)),
        np.ones((4, 1)),
        verbose=0,
        callbacks=[
            kct.ModelCheckpoint("~/a.keras", monitor="loss", tensorboard="~/logs"),
            kct.BackupAndRestore("~/backup", delete_checkpoint=False),
        ],
    )
    kct.CheckpointManager("~/run", model=model).save()
    for path in ("~/a.keras", "~/backup", "~/run"):
        assert kct.verify(path)
        assert kct.training_progress(path).step == 1
    assert kct.inspect("~/a.keras")
    kct.safe_load_model("~/a.keras")
    command = [sys.executable, "-m", "keras_ckpt_tools", "ls", "~/run"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert [path.name for path in empty.iterdir()] == ["home"]
