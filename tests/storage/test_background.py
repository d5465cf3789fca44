"""Writing in the background: one under way, one waiting, and every error told once."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_ckpt_tools.errors import CommitError
from keras_ckpt_tools.storage import background, throttle
from keras_ckpt_tools.storage.background import BackgroundWriter, Foreground
from keras_ckpt_tools.storage.commit import staged

_PATIENCE_S = 20


class _Held:
    """A job that waits until it is let go."""

    def __init__(self, done: list[str], name: str):
        self._done, self._name = done, name
        self.begun, self._free = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self._free.wait(_PATIENCE_S)
        self._done.append(self._name)

    def let_go(self) -> None:
        self._free.set()


def _failing(error: Exception) -> Callable[[], None]:
    def job() -> None:
        raise error

    return job


def test_one_is_under_way_and_one_waits_and_the_third_is_held_up() -> None:
    """Memory does not grow without bound, and no save is dropped."""
    done: list[str] = []
    first, second, third = (_Held(done, name) for name in "abc")
    writer = BackgroundWriter()
    writer.run(first)
    assert first.begun.wait(_PATIENCE_S)
    writer.run(second)
    handed_over = threading.Event()

    def hand_over() -> None:
        writer.run(third)
        handed_over.set()

    threading.Thread(target=hand_over, daemon=True).start()
    assert not handed_over.wait(0.2)
    assert not second.begun.is_set()
    first.let_go()
    assert handed_over.wait(_PATIENCE_S)
    assert second.begun.wait(_PATIENCE_S)
    assert not third.begun.is_set()
    second.let_go()
    third.let_go()
    writer.wait()
    assert done == ["a", "b", "c"]


def test_jobs_run_in_the_order_in_which_they_came() -> None:
    """A later save never overtakes an earlier one."""
    done: list[int] = []
    with BackgroundWriter() as writer:
        for number in range(200):
            writer.run(lambda number=number: done.append(number))
    assert done == list(range(200))


def test_run_does_not_wait_for_the_job() -> None:
    """Training goes on at once."""
    job = _Held([], "a")
    writer = BackgroundWriter()
    started = time.perf_counter()
    writer.run(job)
    assert time.perf_counter() - started < _PATIENCE_S / 2
    job.let_go()
    writer.wait()


def _by_run(writer: BackgroundWriter) -> None:
    while writer._busy or writer._waiting is not None:
        time.sleep(0.001)
    writer.run(lambda: None)


def _by_exit(writer: BackgroundWriter) -> None:
    with writer:
        pass


@pytest.mark.parametrize("ask", [_by_run, BackgroundWriter.wait, _by_exit])
def test_an_error_is_raised_once_with_its_cause(ask: Callable[[BackgroundWriter], None]) -> None:
    """At the next save, at `wait`, or at the end of a `with` block."""
    error = CommitError("No space.", remedy="Free some.", errno=28, path="a")
    error.__cause__ = cause = OSError(28, "No space left on device")
    writer = BackgroundWriter()
    writer.run(_failing(error))
    with pytest.raises(CommitError) as caught:
        ask(writer)
    assert caught.value is error
    assert caught.value.__cause__ is cause
    ask(writer)
    writer.wait()


def test_a_job_handed_over_when_an_error_is_told_runs_all_the_same() -> None:
    """The error belongs to the save before it."""
    done: list[str] = []
    writer = BackgroundWriter()
    writer.run(_failing(ValueError("first")))
    while writer._busy or writer._waiting is not None:
        time.sleep(0.001)
    with pytest.raises(ValueError, match="first"):
        writer.run(lambda: done.append("second"))
    writer.wait()
    assert done == ["second"]


def test_of_several_errors_none_is_lost() -> None:
    """The first is raised, and says what else went wrong before anybody asked."""
    writer = BackgroundWriter()
    gate = _Held([], "gate")

    def fail_when_let_go() -> None:
        gate()
        raise ValueError("one")

    writer.run(fail_when_let_go)
    writer.run(_failing(KeyError("two")))
    gate.let_go()
    with pytest.raises(ValueError, match="one") as caught:
        writer.wait()
    assert caught.value.__notes__ == ["A later save failed too: KeyError: 'two'"]
    writer.wait()


def test_what_a_job_holds_is_released_when_it_is_done() -> None:
    """A snapshot takes memory for as long as it is being written, no longer."""

    class Snapshot:
        def __init__(self) -> None:
            self.array = np.zeros(1000)

    writer = BackgroundWriter()
    snapshot = Snapshot()
    gone = weakref.ref(snapshot)
    writer.run(lambda held=snapshot: held.array.sum())
    del snapshot
    writer.wait()
    gc.collect()
    assert gone() is None


def test_what_a_failed_job_held_is_released_when_its_error_is_told() -> None:
    """The traceback holds it until then."""

    class Snapshot:
        pass

    def fail(held: Any) -> None:
        raise ValueError(type(held).__name__)

    writer = BackgroundWriter()
    snapshot = Snapshot()
    gone = weakref.ref(snapshot)
    writer.run(lambda held=snapshot: fail(held))
    del snapshot
    with pytest.raises(ValueError, match="Snapshot"):
        writer.wait()
    gc.collect()
    assert gone() is None


def test_its_thread_goes_when_there_is_nothing_to_do_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A forgotten writer costs nothing."""
    monkeypatch.setattr(background, "_IDLE_S", 0.2)
    done: list[int] = []
    writer = BackgroundWriter()
    for number in range(2):
        writer.run(lambda number=number: done.append(number))
        deadline = time.monotonic() + _PATIENCE_S
        while writer._thread is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert writer._thread is None
    assert done == [0, 1]


class _Gentle:
    """A job that rests, which takes for ever while nobody is in a hurry."""

    def __init__(self) -> None:
        self.begun, self.done = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        for _ in range(3):
            _work()
            throttle.rest()
        self.done.set()


def _work() -> None:
    end = time.thread_time() + 0.005
    while time.thread_time() < end:
        pass


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rest lasts until somebody hurries."""
    monkeypatch.setattr(throttle, "_SHARE", 1e6)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("ask", [BackgroundWriter.wait, _by_exit])
def test_a_job_is_gentle_until_somebody_waits_for_it(
    ask: Callable[[BackgroundWriter], None],
) -> None:
    """Training is not disturbed for nobody's sake, and nobody is kept waiting for its sake."""
    job = _Gentle()
    writer = BackgroundWriter()
    writer.run(job)
    assert not job.done.wait(0.2)
    _in_time(lambda: ask(writer))
    assert job.done.is_set()


@pytest.mark.usefixtures("endless")
def test_a_job_in_the_queue_hurries_the_one_under_way_and_is_gentle_itself() -> None:
    """A save that waits is not held up by politeness, and the hurry ends with the queue."""
    first, second = _Gentle(), _Gentle()
    writer = BackgroundWriter()
    writer.run(first)
    assert not first.done.wait(0.2)
    writer.run(second)
    assert first.done.wait(_PATIENCE_S)
    assert second.begun.wait(_PATIENCE_S)
    assert not second.done.wait(0.2)
    _in_time(writer.wait)


@pytest.mark.usefixtures("endless")
def test_a_job_after_one_that_was_waited_for_is_gentle_again() -> None:
    """The hurry is over when nobody waits any more."""
    writer = BackgroundWriter()
    for _ in range(2):
        job = _Gentle()
        writer.run(job)
        assert not job.done.wait(0.2)
        _in_time(writer.wait)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("another_waits", [True, False])
def test_whoever_stops_waiting_takes_only_their_own_hurry_along(
    another_waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in `wait` neither leaves the next job in a hurry nor another thread in the lurch."""
    job, gate = _Gentle(), _Held([], "gate")
    writer = BackgroundWriter()
    writer.run(lambda: (gate(), job()))
    assert gate.begun.wait(_PATIENCE_S)
    waited = threading.Event()
    if another_waits:
        waited = _in_a_thread(writer.wait)
        while not writer._hurry.is_set():
            time.sleep(0.001)
    with monkeypatch.context() as patch:
        patch.setattr(writer._turn, "wait", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.wait()
    gate.let_go()
    if another_waits:
        assert waited.wait(_PATIENCE_S)
    else:
        assert job.begun.wait(_PATIENCE_S)
        assert not job.done.wait(0.2)
        _in_time(writer.wait)


def _interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("endless")
def test_the_foreground_is_never_gentle() -> None:
    """Training stands still for as long as it takes."""
    job = _Gentle()
    _in_time(lambda: Foreground().run(job))


def _in_a_thread(run: Callable[[], object]) -> threading.Event:
    """Run something in a thread; what is returned is set when it is done."""
    done = threading.Event()

    def run_and_tell() -> None:
        run()
        done.set()

    threading.Thread(target=run_and_tell, daemon=True).start()
    return done


def _in_time(run: Callable[[], object]) -> None:
    """Run something that would take for ever if it were wrong."""
    assert _in_a_thread(run).wait(_PATIENCE_S)


def test_the_foreground_raises_at_once() -> None:
    """The other way to write, behind the same two verbs."""
    writer = Foreground()
    with pytest.raises(ValueError, match="now"):
        writer.run(_failing(ValueError("now")))
    writer.wait()


def test_a_forked_child_can_write_too(tmp_path: Path) -> None:
    """It has a copy of the writer, and no copy of its thread."""
    program = _PROGRAM + (
        "writer.run(lambda: save('a'))\n"
        "writer.wait()\n"
        "child = os.fork()\n"
        "writer.run(lambda: save('child' if child == 0 else 'parent'))\n"
        "writer.wait()\n"
        "if child: os.waitpid(child, 0)\n"
    )
    _run(program, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "child", "parent"}


_PROGRAM = """
import os, sys, time
from keras_ckpt_tools.storage.background import BackgroundWriter
from keras_ckpt_tools.storage.commit import remove_files, staged

def save(name, pause=0.0):
    with staged(os.path.join(sys.argv[1], name)) as file:
        time.sleep(pause)
        file.write(b"whole")

def fail():
    raise OSError(28, "No space left on device")

writer = BackgroundWriter()
"""


_GENTLE = (
    _PROGRAM
    + """
import threading
from keras_ckpt_tools.storage import throttle

throttle._SHARE = 1e6

def gentle(name):
    end = time.thread_time() + 0.005
    while time.thread_time() < end: pass
    throttle.rest()
    save(name)

def is_there(name):
    return os.path.exists(os.path.join(sys.argv[1], name))
"""
)


def _run(program: str, folder: Path, expected: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(folder)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("ending", "status"), [("", 0), ("raise KeyError('in training')", 1), ("sys.exit(3)", 3)]
)
def test_what_is_under_way_is_finished_at_exit(ending: str, status: int, tmp_path: Path) -> None:
    """Both the save under way and the one that waits; also after an error in training."""
    program = _PROGRAM + (
        f"writer.run(lambda: save('a', 0.3))\nwriter.run(lambda: save('b', 0.1))\n{ending}\n"
    )
    told = _run(program, tmp_path, status)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"whole", "b": b"whole"}
    assert ("in training" in told) == ("KeyError" in ending)
    assert "keras_ckpt_tools" not in told


def test_at_exit_no_job_is_gentle_be_it_waited_for_or_not(tmp_path: Path) -> None:
    """Of two writers one is waited for first, and the other is in nobody's way any more."""
    program = _GENTLE + (
        "other = BackgroundWriter()\n"
        "def job(name, needs):\n"
        "    gentle(name)\n"
        "    while not is_there(needs): time.sleep(0.01)\n"
        "writer.run(lambda: job('a', needs='b'))\n"
        "other.run(lambda: job('b', needs='a'))\n"
        "time.sleep(0.2)\n"
        "assert not is_there('a') and not is_there('b')\n"
    )
    assert _run(program, tmp_path) == ""
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_forked_child_is_gentle_though_somebody_waits_in_its_parent(tmp_path: Path) -> None:
    """The thread that waits is not in the child."""
    program = _GENTLE + (
        "gate = threading.Event()\n"
        "writer.run(gate.wait)\n"
        "waiting = threading.Thread(target=writer.wait)\n"
        "waiting.start()\n"
        "while not writer._hurry.is_set(): time.sleep(0.001)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    writer.run(lambda: gentle('child'))\n"
        "    time.sleep(0.2)\n"
        "    if is_there('child'): os._exit(1)\n"
        "    writer.wait()\n"
        "    os._exit(0 if is_there('child') else 2)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "gate.set()\n"
        "waiting.join()\n"
        "sys.exit(status)\n"
    )
    _run(program, tmp_path)


def test_an_error_nobody_asked_for_is_told_at_exit(tmp_path: Path) -> None:
    """On stderr, once, with its cause."""
    told = _run(_PROGRAM + "writer.run(lambda: save('b'))\nwriter.run(fail)\n", tmp_path)
    assert told.count("a save in the background failed") == 1
    assert told.count("No space left on device") == 1
    assert (tmp_path / "b").exists()


def test_an_error_that_was_raised_is_not_told_again_at_exit(tmp_path: Path) -> None:
    """Exactly once."""
    told = _run(_PROGRAM + "writer.run(fail)\ntry: writer.wait()\nexcept OSError: pass\n", tmp_path)
    assert told == ""


def test_an_error_is_told_even_if_the_writer_is_forgotten(tmp_path: Path) -> None:
    """A callback that goes out of scope does not take the error with it."""
    program = (
        "import gc\n" + _PROGRAM + "writer.run(fail)\ntime.sleep(1.5)\ndel writer\ngc.collect()\n"
    )
    assert _run(program, tmp_path).count("No space left on device") == 1


def test_nothing_is_deleted_before_its_successor_is_committed(tmp_path: Path) -> None:
    """Removal is part of the job: where the save fails, the old file stays."""
    program = _PROGRAM + (
        "save('old')\n"
        "def job(name, write):\n"
        "    write()\n"
        "    assert os.path.exists(os.path.join(sys.argv[1], name))\n"
        "    remove_files([os.path.join(sys.argv[1], 'old')])\n"
        "writer.run(lambda: job('new', fail))\n"
        "try: writer.wait()\n"
        "except OSError: pass\n"
        "assert os.listdir(sys.argv[1]) == ['old']\n"
        "writer.run(lambda: job('new', lambda: save('new', 0.3)))\n"
        "time.sleep(0.1)\n"
        "assert 'old' in os.listdir(sys.argv[1]) and 'new' not in os.listdir(sys.argv[1])\n"
        "writer.wait()\n"
        "assert os.listdir(sys.argv[1]) == ['new']\n"
    )
    assert _run(program, tmp_path) == ""


def test_a_save_of_the_package_deletes_after_its_commit(tmp_path: Path) -> None:
    """A manager that keeps one: while the second save is under way, the first is there."""
    keras = pytest.importorskip("keras")
    import keras_ckpt_tools as kct
    from keras_ckpt_tools.training import writing

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    manager = kct.CheckpointManager(tmp_path, model=model, max_to_keep=1, background=True)
    first = manager.save()
    manager.wait()
    gate = _Held([], "gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "staged", lambda path: gate() or staged(path))
        second = manager.save()
        assert gate.begun.wait(_PATIENCE_S)
        assert Path(first).exists()
        assert not Path(second).exists()
        gate.let_go()
        manager.wait()
    assert Path(second).exists()
    assert not Path(first).exists()


def test_a_signal_handler_may_wait_in_the_middle_of_anything() -> None:
    """A program that saves on SIGTERM in a handler of its own must not wait for itself."""
    writer, through = BackgroundWriter(), threading.Event()

    def interrupted() -> None:
        # Where the handler comes, in the same thread: while the other threads are being told.
        with writer._turn, writer._hurry._turn:
            writer.run(lambda: None)
            writer.wait()
        through.set()

    threading.Thread(target=interrupted, daemon=True).start()
    assert through.wait(_PATIENCE_S)
