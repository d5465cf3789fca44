"""Read third-party HDF5 files, after a scan in a child process.

The scan (`scan.py`) returns where the tensors are. Tensors stored as plain bytes, which is how
Keras writes them, are read directly. libhdf5 reads the others in this process, if the scan found no
problem.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

from keras_ckpt_tools.formats.common.limits import Limits, over_budget
from keras_ckpt_tools.formats.hdf5.scan import Survey, survey
from keras_ckpt_tools.formats.hdf5.window import Window
from keras_ckpt_tools.formats.keras_zip import reader
from keras_ckpt_tools.metadata import TensorInfo
from keras_ckpt_tools.showing.byte_counts import advance

if TYPE_CHECKING:
    from concurrent.futures import Future

    import h5py
    import numpy as np

Place = tuple[int, int, int]
"""The descriptor of a file, and where in it an HDF5 file begins and ends."""


class ForeignHdf5:
    """An HDF5 file between two offsets of an open file.

    Args:
        find: Returns where it is; asked once, when something is to be read.
        path: The artefact, for messages.
        limits: What reading it may take.
        stack: Closes what is opened here.
        known: What another process found in it, where one has looked already.
    """

    def __init__(
        self,
        find: Callable[[], Place],
        path: str,
        limits: Limits,
        stack: ExitStack,
        known: Survey | None = None,
    ):
        self._find, self._path, self._limits, self._stack = find, path, limits, stack
        self._known = known
        self._looking: Future[Survey] | None = None

    @cached_property
    def _place(self) -> Place:
        return self._find()

    def begin(self) -> None:
        """Let the other process begin; this one may have checksums to compute meanwhile."""
        if self._known is None and self._looking is None:
            from concurrent.futures import ThreadPoolExecutor

            place = self._place
            waiting = self._stack.enter_context(ThreadPoolExecutor(1, "kct-survey"))
            self._looking = waiting.submit(survey, *place, self._path, self._limits)

    @property
    def survey(self) -> Survey:
        """What the other process found."""
        if self._known is None:
            self.begin()
            assert self._looking is not None
            self._known = self._looking.result()
        return self._known

    @cached_property
    def file(self) -> h5py.File:
        """The file as h5py has it, for readers of Keras that ask for one.

        Raises:
            OSError: libhdf5 cannot read it.
        """
        self.require_survey()
        import h5py

        stream = io.BufferedReader(Window(*self._place))
        return self._stack.enter_context(h5py.File(stream, "r"))

    def require_survey(self) -> None:
        """Raise the error of the other process, if it found one."""
        _ = self.survey

    def read(self, info: TensorInfo) -> np.ndarray[Any, Any] | None:
        """Return a tensor, or `None` if the file ends before it does."""
        array = self._read(info)
        advance(info.nbytes)
        return array

    def _read(self, info: TensorInfo) -> np.ndarray[Any, Any] | None:
        from keras_ckpt_tools.formats.hdf5 import tensors as hdf5_tensors

        layout = self.survey.plain.get(info.path)
        if layout is None:
            return hdf5_tensors.read_tensor(self.file, info)
        descriptor, start, _ = self._place
        return hdf5_tensors.read_plain(descriptor, start, info, layout)

    def place_of(self, info: TensorInfo) -> tuple[int, int, str] | None:
        """Return descriptor, offset and NumPy's type of a tensor whose bytes lie there as they are.

        `None` where it is packed, or of a type that needs converting.
        """
        layout = self.survey.plain.get(info.path)
        if layout is None or info.offset is None:
            return None
        descriptor, start, _ = self._place
        return descriptor, start + info.offset, layout


def unpacked(opened: zipfile.ZipFile, name: str, path: str, stack: ExitStack) -> Place:
    """Return where a packed member is, in a copy of our own that goes with its descriptor.

    Raises:
        OverBudgetError: there is no space for it.
        zipfile.BadZipFile: it is not what the archive says.
    """
    info = opened.getinfo(name)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if info.file_size > free:
        what = "unpacking its weights into the temporary directory takes"
        remedy = "Free some space there, or set TMPDIR to a directory with more."
        raise over_budget(path, what, "bytes", info.file_size, free, remedy)
    copy = stack.enter_context(tempfile.TemporaryFile(prefix=".kct-"))
    with opened.open(info) as member:
        reader.copy_member(member, copy)
    copy.flush()
    return copy.fileno(), 0, info.file_size
