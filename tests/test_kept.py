"""Memory of large results is given out again, once nobody can see what is in it."""

from __future__ import annotations

import gc
import os
import signal

import numpy as np
import pytest

from fastconv import conv1d
from fastconv.core import arrays, kept
from fastconv.core.arrays import LINE_BYTES, allocate

SIZE = 1000  # bytes from which on memory is kept here


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(arrays, "LARGE_BYTES", SIZE)
    monkeypatch.setattr(kept, "LEAST_BYTES", SIZE)
    monkeypatch.setattr(kept, "MOST_BYTES", 10 * SIZE)
    monkeypatch.setattr(kept, "_blocks", [])


def address(array):
    return array.__array_interface__["data"][0]


def test_the_next_result_has_the_place_of_one_that_is_gone():
    first = allocate((10, 50), "float32")
    place = address(first)
    assert address(allocate((10, 50), "float32")) != place
    del first
    assert address(allocate(250, "float64")) == place


@pytest.mark.parametrize(
    "part", [lambda y: y[3:, ::2], lambda y: y.T, lambda y: y.view("int32"), memoryview, lambda y: iter(y.ravel())]
)
def test_whoever_sees_a_part_keeps_all_of_it(part):
    result = allocate((10, 50), "float32")
    place, seen = address(result), part(result)
    del result
    gc.collect()
    assert address(allocate((10, 50), "float32")) != place
    del seen
    assert address(allocate((10, 50), "float32")) == place


def test_results_are_not_written_over():
    x, w = np.ones((1, 1, SIZE), np.float32), np.ones((1, 1, 1), np.float32)
    results = [conv1d(x, w * k) for k in range(6)]
    for k, result in enumerate(results):
        np.testing.assert_array_equal(result, k)


def test_a_block_is_not_wasted_on_what_is_much_smaller():
    place = address(allocate(3 * SIZE, "int8"))
    assert address(allocate(SIZE, "int8")) != place
    assert address(allocate(2 * SIZE, "int8")) == place


@pytest.mark.parametrize("dtype", ["int8", "float32", "complex128"])
def test_large_results_begin_with_a_cache_line(dtype):
    held = [allocate((SIZE + number, 3), dtype) for number in range(4)]
    assert all(address(each) % LINE_BYTES == 0 and each.flags.c_contiguous for each in held)


def test_small_results_are_left_to_the_c_library():
    allocate(SIZE - 1, "int8")
    assert kept._blocks == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have():
    with kept._lock:  # as another thread would hold it
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # ends the child if it waits
            os._exit(allocate(SIZE, "int8").size != SIZE)
    assert os.waitpid(child, 0)[1] == 0


def test_no_more_than_so_many_bytes_are_kept():
    def total():
        return sum(block.nbytes for block in kept._blocks)

    held = [allocate(4 * SIZE, "int8") for _ in range(3)]  # the third has no room, and is the caller's alone
    assert total() == 2 * (4 * SIZE + LINE_BYTES)
    del held
    allocate(9 * SIZE, "int8")  # both free blocks make room
    assert total() == 9 * SIZE + LINE_BYTES
    allocate(11 * SIZE, "int8")  # never has room
    assert total() <= 10 * SIZE
