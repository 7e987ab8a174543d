"""The threading policy: when a launch may use several threads.

Numba runs parallel loops on one of three layers. What each cannot do, and what happens here instead:

- ``workqueue`` aborts the process when two Python threads launch at once: the second one runs serially.
- ``omp`` (GNU OpenMP) kills a forked child at its first parallel launch: a child that was forked after a
  parallel launch runs serially, on every layer.
- ``tbb`` has neither fault.

Serial means the same kernel, called for one task after the other. This module watches for forks from the moment that
fastconv is imported, and imports Numba only when it is asked for threads.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

_workqueue = threading.Lock()
_inherited = False


def _after_fork() -> None:
    global _inherited, _workqueue
    layers = sys.modules.get("numba.np.ufunc.parallel")
    _inherited = _inherited or bool(layers and layers._is_initialized)
    _workqueue = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def allowed_threads(requested: int | None) -> int:
    """Threads that a launch may use: the caller's wish within Numba's number, 1 where threads are unsafe."""
    if requested == 1 or _inherited:
        return 1
    available: int = _asked()()
    return available if requested is None else min(requested, available)


@cache
def _asked() -> Any:
    """What says `numba.get_num_threads()`. That makes sure each time that the threads are there: 0.7 us, and 0.1 so."""
    import numba
    from numba.np.ufunc import parallel

    numba.get_num_threads()
    return parallel._get_num_threads


def team(threads: int) -> AbstractContextManager[int]:
    """Hold a team of threads for one launch; gives the number that may run."""
    return _of_any_caller(threads) if threads == 1 or _layer() != "workqueue" else _of_one_caller(threads)


@cache
def _of_any_caller(threads: int) -> AbstractContextManager[int]:
    """The team of a layer that serves all callers: there is nothing to hold, and one context is enough."""
    return nullcontext(threads)


@cache
def _layer() -> str:
    """The name of Numba's threading layer, which is started for that: it has none before, and never another one."""
    import numba

    numba.get_num_threads()
    return str(numba.threading_layer())


@contextmanager
def _of_one_caller(threads: int) -> Iterator[int]:
    """The team of a layer that serves one caller at a time."""
    if _workqueue.acquire(blocking=False):
        try:
            yield threads
        finally:
            _workqueue.release()
    else:
        yield 1
