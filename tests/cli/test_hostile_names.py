"""Names that move the cursor or turn the text, at every place of a file: none is shown as it is."""

from __future__ import annotations

import ast
import contextlib
import html
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hostile.parts import archive, compiled, dense, directory, h5_model, node, sequential, weights
from runs_on_disk import manager_run, progress_of
from runs_on_disk import weights as checkpoint

import keras_ckpt_tools as kct
from keras_ckpt_tools.metadata import Best, CustomObject, TrackedObject
from keras_ckpt_tools.showing.messages import as_name, harmless, literal

# Escape sequences, C1, both kinds of bidirectional marks, invisible letters, ends of lines.
ODD = (
    "\x1b[2J\x9b5m\x07\x08\x7f\x85\r\u202e\u202a\u2066\u2069"
    "\u200e\u200f\u061c\u200b\u2060\ufeff\u2028\u2029"
)
QUOTES = "\"'`]}); import os; os.system('x') #\\"
EVIL = f"evil{ODD}{QUOTES}"
LONE = f"{EVIL}\ud800"
RAW = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def weights_with_evil_paths() -> bytes:
    """Return a weights file of others with such a path in it."""
    return weights({f"layers/{EVIL}/vars/0": np.zeros((4, 2), "float32")})


def evil_safetensors() -> bytes:
    """Return a `.safetensors` file with such names."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({EVIL: entry, "__metadata__": {EVIL: EVIL}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def evil_run(folder: Path) -> Path:
    """Return the directory of a run with such names in each part of the records."""
    values = progress_of(1, run_id=LONE)
    values |= {
        "logs": {LONE: 0.5, "loss": 1.0},
        "history": {LONE: (0.5,)},
        "history_epochs": {LONE: (0,)},
        "best": Best(LONE, "min", 0.5, 0),
    }
    state = {LONE: {"attributes": {LONE: 1}}, "EarlyStopping": {"attributes": {LONE: LONE}}}
    record = {
        "versions": {"keras": LONE, LONE: LONE, "python": LONE},
        "objects": (CustomObject(LONE, LONE, LONE, LONE),),
        "tracked": {
            "model": TrackedObject("model"),
            EVIL: TrackedObject("optimizer"),
            "_loop": TrackedObject("run", state={LONE: 1}),
            "_callbacks": TrackedObject("run", state=state),
        },
        "state": {LONE: LONE},
        "names": {"": LONE, "layers/dense": LONE},
    }
    run = manager_run(folder, (), "one")
    (run / "ckpt-00000001.weights.h5").write_bytes(checkpoint(**values, record=record))
    (run / f"{EVIL.replace('/', '')}.keras").write_bytes(b"not one")
    return run


def made(name: str) -> Any:
    """Return the config of an object with such names."""
    return {**node(name, name, name=name), "registered_name": f"{name}>{name}"}


def evil_config() -> dict[str, Any]:
    """Return a config with such names wherever a config has names."""
    layers = (
        made(LONE),
        made(f"{EVIL}2"),
        made(f"{QUOTES}{'x' * 700}"),
        dense(activation=EVIL),
        {**dense(**{EVIL: made(LONE)}), LONE: 3},
        node("Lambda", name=LONE, function=LONE),
        node("StringLookup", name=LONE, vocabulary=f"/{EVIL}"),
        {**dense(), "config": {"name": LONE, "units": 2}},
    )
    training = {"optimizer": made(LONE), "loss": LONE, "metrics": [LONE, made(EVIL)]}
    return {**sequential(*layers), "compile_config": training}


MAKERS: dict[str, Callable[[Path], Path]] = {
    "config": lambda p: archive(p, evil_config()),
    "optimizer": lambda p: archive(p, compiled(optimizer=made(LONE))),
    "members": lambda p: archive(p, None, None, **{f"assets/{EVIL}": b""}),
    "paths": lambda p: archive(p, None, weights_with_evil_paths()),
    "whole h5": lambda p: _written(p / "a.h5", h5_model(sequential(made(EVIL)))),
    "unzipped": lambda p: directory(p, evil_config(), None, **{EVIL.replace("/", ""): b""}),
    "safetensors": lambda p: _written(p / "a.safetensors", evil_safetensors()),
    "file name": lambda p: _written(p / f"{EVIL}.keras", b"no model"),
    "missing": lambda p: p / f"{EVIL}.keras",
    "run": lambda p: evil_run(p / "run"),
}


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def all_that_is_said() -> Iterator[list[str]]:
    """Collect warnings and logs."""
    said: list[str] = []
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log = logging.getLogger("keras_ckpt_tools")
    log.addHandler(handler)
    level, log.level = log.level, logging.DEBUG
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield said
        finally:
            log.removeHandler(handler)
            log.level = level
            said += [str(one.message) for one in caught] + [stream.getvalue()]


def small() -> Any:
    """Return a model of one layer."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    model.compile("sgd", "mse")
    return model


def shown(value: Any) -> list[str]:
    """Return all that a report shows."""
    made_html = [value._repr_html_()] if hasattr(value, "_repr_html_") else []
    problems = [str(one) for one in getattr(value, "problems", ())]
    return [str(value), repr(value), *made_html, *problems]


def reads(path: Path) -> Iterator[Callable[[], Any]]:
    """Yield every public call that reads."""
    name = str(path)
    yield lambda: kct.inspect(name)
    yield lambda: kct.safe_load_model(name)
    yield lambda: kct.safe_load_model(name, compile=True)
    yield lambda: kct.load_weights(small(), name)
    yield lambda: kct.load_weights(small(), name, strict=False)
    yield lambda: kct.compare(small(), name)
    yield lambda: kct.verify(name)
    yield lambda: kct.training_progress(name)
    if path.is_dir() and path.name == "run":
        stopping = keras.callbacks.EarlyStopping("loss")

        def resume() -> Any:
            manager = kct.CheckpointManager(name, model=small(), callbacks=[stopping])
            manager.restore_or_initialize()
            return manager

        yield resume


@pytest.mark.parametrize("what", MAKERS)
def test_no_call_shows_a_name_as_it_is(what: str, tmp_path: Path) -> None:
    """Reports, their HTML, errors, warnings and logs; and the code in them is code."""
    path = MAKERS[what](tmp_path)
    for call in reads(path):
        with all_that_is_said() as said:
            try:
                texts = shown(call())
            except kct.errors.CkptError as error:
                texts = [str(error), repr(error), *shown(getattr(error, "report", ""))]
        for text in [*texts, *said]:
            assert not RAW.search(text), ascii(text)
        for text in texts[:1]:
            suggested(text)


COMMANDS = (
    "inspect",
    "ls",
    "verify",
    "resume-info",
    "prune",
    "diff",
    "ls --sort",
    "export",
    "report",
)


@pytest.mark.parametrize("what", MAKERS)
def test_no_command_shows_a_name_as_it_is(what: str, tmp_path: Path, cli: Any) -> None:
    """As text and as JSON, on both streams; JSON has the very names."""
    path = MAKERS[what](tmp_path)
    for command in COMMANDS:
        name, _, option = command.partition(" ")
        arguments = [name, path]
        arguments += [option, "x"] if option else []
        arguments += [path] if name == "diff" else []
        arguments += ["--keep", "last 1", "--dry-run"] if name == "prune" else []
        arguments += ["-o", tmp_path / "out.safetensors"] if name == "export" else []
        arguments += ["-o", tmp_path / "page.html"] if name == "report" else []
        for more in ([], ["--json"]):
            done = cli(*arguments, *more)
            for text in (done.stdout, done.stderr):
                assert not RAW.search(text), (command, more, ascii(text))
            if more and done.exit_code == 0:
                json.loads(done.stdout)
    page = tmp_path / "page.html"
    if page.exists():
        assert not RAW.search(page.read_text("utf-8", "surrogateescape"))


def suggested(text: str) -> list[Any]:
    """Return the names in the code that a message suggests; each piece has to be code."""
    found: list[Any] = []
    text = html.unescape(text)
    for match in re.finditer(r"(?m)^ +(?:add|or): (?:or )?(.*)$", text):
        line = match[1]
        if line.startswith("@"):
            head, _, rest = line.partition(") above `")
            called, _, objects = rest.partition("`, or ")
            keyword, _, name = called.partition(" ")
            body = f"{head})\n{keyword} {name}{'()' if keyword == 'def' else ''}: pass"
            (definition,) = ast.parse(body).body
            assert len(definition.decorator_list) == 1  # type: ignore[attr-defined]
            found.append(_names_in(objects))
        elif line.startswith("`import "):
            ast.parse(line.split("`")[1])
            ast.literal_eval(re.search(r"trusted=(\[.*?\]) if", line)[1])  # type: ignore[index]
        elif line.startswith(("trusted=", "aliases=")):
            found.append(_names_in(f"{line.rpartition(']')[0]}]"))
    calls = re.finditer(r"(?s)call `(kct\.safe_load_model\(.*\))`\.", text)
    found += [ast.parse(match[1], mode="eval").body for match in calls]
    for match in re.finditer(r"pass `rename=(\{.*\})`\.", text):
        ast.literal_eval(match[1])
    return found


def _names_in(argument: str) -> Any:
    call = ast.parse(f"f({argument})", mode="eval").body
    assert isinstance(call, ast.Call)
    assert len(call.keywords) == 1
    assert not call.args
    value = call.keywords[0].value
    names = value.keys if isinstance(value, ast.Dict) else value.elts  # type: ignore[attr-defined]
    return [ast.literal_eval(name) for name in names]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [LONE, QUOTES, f"{QUOTES}{'x' * 700}", "class", "Ordinary", ""])
def test_suggested_code_is_code_and_means_the_very_name(name: str, tmp_path: Path) -> None:
    """Whatever a class is called; a name that code cannot have stands in no definition."""
    path = archive(tmp_path, sequential(made(name) if name else made("x y")))
    with pytest.raises(kct.errors.ObjectsNotFoundError) as caught:
        kct.safe_load_model(path)
    names = suggested(str(caught.value))
    bare = name or "x y"
    (call,) = (one for one in names if isinstance(one, ast.Call))
    assert ast.literal_eval(call.args[0]) == str(path)
    (objects,) = (k.value for k in call.keywords if k.arg == "custom_objects")
    assert isinstance(objects, ast.Dict)
    assert [ast.literal_eval(key) for key in objects.keys] == [bare.rpartition(">")[2]]
    assert [bare.rpartition(">")[2]] in names
    expected = name if name == "Ordinary" else "TheClass"
    assert [value.id for value in objects.values] == [expected]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", [LONE, QUOTES, "plain", "größer 模型", "a\nb", "\\", ""])
def test_a_literal_reads_back(text: str) -> None:
    """And shows nothing raw, so a message may hold it."""
    assert ast.literal_eval(literal(text)) == text
    assert not RAW.search(literal(text))
    assert as_name(text, "TheClass") == (text if text == "plain" else "TheClass")
    assert not RAW.search(harmless(text))


def test_every_warning_goes_through_the_one_place() -> None:
    """`showing.messages.warn`, which escapes; so a new one cannot forget it."""
    package = Path(kct.__file__).parent
    own = package / "showing" / "messages.py"
    found = [
        str(path.relative_to(package))
        for path in sorted(package.rglob("*.py"))
        if path != own and "warnings.warn(" in path.read_text("utf-8")
    ]
    assert found == []
