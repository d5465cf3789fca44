"""Read batches ahead in threads or processes, and return them in order.

Keras' own queue for `PyDataset` keeps batches that it has read ahead when an epoch ends early, and
returns them at the start of the next one. Here, each pass has its own workers.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

Read = Callable[[int], Any]


def in_order(
    read: Read, count: int, *, workers: int, use_multiprocessing: bool, ahead: int
) -> Iterator[Any]:
    """Yield `read(0)`, `read(1)`, ... `read(count - 1)`.

    Args:
        read: Has to be picklable where processes are not forked.
        count: How often.
        workers: With one thread or none, nothing is read ahead; as Keras has it.
        use_multiprocessing: Processes in place of threads.
        ahead: How many results may wait.
    """
    if workers > 1 or (workers == 1 and use_multiprocessing):
        yield from _by_workers(read, count, workers, use_multiprocessing, ahead)
    else:
        yield from map(read, range(count))


def _by_workers(
    read: Read, count: int, workers: int, use_multiprocessing: bool, ahead: int
) -> Iterator[Any]:
    executor: Executor
    if use_multiprocessing:
        # Handed over once for each process, not once for each batch.
        executor = ProcessPoolExecutor(workers, initializer=_adopt, initargs=(read,))
        task: Read = _read_adopted
    else:
        executor = ThreadPoolExecutor(workers)
        task = read
    waiting: collections.deque[Future[Any]] = collections.deque()
    try:
        for index in range(count):
            waiting.append(executor.submit(task, index))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Also where the pass is left early, or a batch could not be read.
        executor.shutdown(cancel_futures=True)


_adopted: list[Read] = []


def _adopt(read: Read) -> None:
    _adopted[:] = [read]


def _read_adopted(index: int) -> Any:
    return _adopted[0](index)
