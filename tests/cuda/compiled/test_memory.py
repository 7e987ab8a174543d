"""Whose context is current, and when memory is given back: with a driver that only takes notes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from cuda.bindings import driver

from fastconv.cuda import _queue
from fastconv.cuda._queue import KEPT_BYTES, Queue

OURS, CALLERS, STREAM = 7, 1, 0x70


class Driver:
    """Notes what it is asked for, and does not know memory without a context."""

    def __init__(self, monkeypatch):
        self.local, self.notes, self.room = threading.local(), [], 1 << 40
        for name in ("cuCtxPushCurrent", "cuCtxPopCurrent", "cuMemAlloc", "cuMemAllocAsync", "cuMemFree"):
            monkeypatch.setattr(driver, name, getattr(self, name))
        monkeypatch.setattr(driver, "cuMemFreeAsync", self.cuMemFree)
        monkeypatch.setattr(driver, "cuMemcpyHtoDAsync", self.cuMemcpyHtoDAsync)

    @property
    def contexts(self):
        return self.local.__dict__.setdefault("contexts", [])

    def cuCtxPushCurrent(self, handle):  # noqa: N802
        self.contexts.append(handle)
        return (driver.CUresult.CUDA_SUCCESS,)

    def cuCtxPopCurrent(self):  # noqa: N802
        return driver.CUresult.CUDA_SUCCESS, self.contexts.pop()

    def cuMemAlloc(self, size):  # noqa: N802
        return self.cuMemAllocAsync(size)

    def cuMemAllocAsync(self, size, stream=None):  # noqa: N802
        assert self.contexts[-1] == OURS
        if size > self.room:
            return driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY, None
        self.notes.append(("taken", size, stream))
        return driver.CUresult.CUDA_SUCCESS, 1 << 20

    def cuMemFree(self, address, stream=None):  # noqa: N802
        assert self.contexts[-1] == OURS
        self.notes.append(("given back", stream))
        return (driver.CUresult.CUDA_SUCCESS,)

    def cuMemcpyHtoDAsync(self, to, from_, size, stream):  # noqa: N802
        assert self.contexts[-1] == OURS
        self.notes.append(("copied", size, stream))
        return (driver.CUresult.CUDA_SUCCESS,)


@pytest.fixture
def notes(monkeypatch):
    noting = Driver(monkeypatch)
    monkeypatch.setattr(_queue, "ready_device", lambda number: ((9, 0), OURS))
    monkeypatch.setattr(Queue, "wait", lambda queue: noting.notes.append("waited"))
    return noting


def test_the_callers_context_is_current_again(notes):
    notes.contexts.append(CALLERS)
    queue = Queue(0, STREAM)
    with queue, queue:
        assert notes.contexts == [CALLERS, OURS, OURS]
    queue.upload(np.zeros(4))
    queue.scratch(("float32", 8))
    assert notes.contexts == [CALLERS]


def test_another_thread_has_no_context_and_needs_none(notes):
    queue = Queue(0, STREAM)
    thread = threading.Thread(target=lambda: queue.upload(np.zeros(4)))
    thread.start()
    thread.join()
    assert ("copied", 32, STREAM) in notes.notes


def test_what_other_streams_may_read_is_there_and_is_kept_until_all_are_done(notes):
    memory = Queue(0, STREAM).upload(np.zeros(100))
    assert notes.notes == [("taken", 800, None), ("copied", 800, STREAM), "waited"]
    del memory
    assert notes.notes[-1] == ("given back", None)


def test_scratch_memory_comes_and_goes_in_the_order_of_its_stream(notes):
    queue = Queue(0, STREAM)
    first = queue.scratch(("float32", 100), ("float64", 3))
    assert first == (1 << 20, (1 << 20) + 512)
    assert queue.scratch(("float32", 100)) == first[:1]
    assert notes.notes == [("taken", 768, STREAM)]
    for _ in range(2):
        queue.scratch(("int8", KEPT_BYTES + 1))
        assert notes.notes[-2:] == [("given back", STREAM), ("taken", KEPT_BYTES + 256, STREAM)]


def test_memory_that_the_device_has_not_is_a_memory_error(notes):
    notes.room = 4095
    with pytest.raises(MemoryError, match="cuda:1 has no 4096 bytes left"):
        Queue(1, STREAM).allocate(("float32", 1024))
