"""Launching a kernel: one driver for each element type, which calls the kernel for every task.

Every thread has its own part of the tasks, which follow each other: neighbours often read and write the same lines and
pages of memory, and two threads that took them by turns were held up by each other (16x570x570 to 16, 3x3, by F(4, 3)
took 7.1 ms in place of 5.8). Tasks are handed out by atomic counters, and a thread that is through with its own takes
some of those that are held up. Every thread has its own slice of the workspace. Results do not depend on which thread
runs a task.

The threads are those of Numba's parallel loops, which are started through the function that such loops call.
"""

from __future__ import annotations

import threading
from functools import cache, cached_property
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from ..core import jit
from ..core.arrays import LINE_BYTES, on_a_line, on_large_pages
from ..core.threads import team

Array = NDArray[Any]

INTEGER, POINTER = ir.IntType(64), ir.IntType(8).as_pointer()


class Shared(NamedTuple):
    """What all threads of a launch know: numbers and addresses."""

    kernel: int
    tasks: int
    x: int
    w: int
    y: int
    residual: int
    constants: int
    geometry: int
    workspace: int
    slice: int  # bytes of the workspace for each thread
    threads: int
    counters: int  # of the tasks that are taken in each thread's part, a cache line for each


@intrinsic
def _shared_at(typing_context, pointer):
    """What the threads know, from where a pointer points."""
    known = types.NamedUniTuple(types.int64, len(Shared._fields), Shared)

    def codegen(context, builder, signature, arguments):
        return builder.load(builder.bitcast(arguments[0], context.get_value_type(known).as_pointer()))

    return known(pointer), codegen


@intrinsic
def _address(typing_context, array):
    """Where the elements of an array are."""

    def codegen(context, builder, signature, arguments):
        return builder.ptrtoint(make_array(array)(context, builder, arguments[0]).data, INTEGER)

    return types.int64(array), codegen


@intrinsic
def _zeros(typing_context, lines):
    """So many cache lines of zeros, for as long as the function runs that asks for them."""

    def codegen(context, builder, signature, arguments):
        bytes = builder.mul(arguments[0], INTEGER(LINE_BYTES))
        memory = builder.alloca(ir.IntType(8), bytes)
        memory.align = LINE_BYTES
        cgutils.memset(builder, memory, bytes, 0)
        return builder.ptrtoint(memory, INTEGER)

    return types.int64(types.int64), codegen


@intrinsic
def _call(typing_context, launch, task, workspace):
    """Run one task of a launch, with the workspace at an address."""

    def codegen(context, builder, signature, arguments):
        known = Shared(*cgutils.unpack_tuple(builder, arguments[0]))
        tensors = (known.x, known.w, known.y, known.residual, known.constants, arguments[2], known.geometry)
        function = ir.FunctionType(ir.VoidType(), [INTEGER, *[POINTER] * 7]).as_pointer()
        pointers = [builder.inttoptr(address, POINTER) for address in tensors]
        builder.call(builder.inttoptr(known.kernel, function), [arguments[1], *pointers])
        return context.get_dummy_value()

    return types.void(launch, task, workspace), codegen


@intrinsic
def _next_task(typing_context, launch, part):
    """How many tasks of a part were taken before this one, which is taken now."""

    def codegen(context, builder, signature, arguments):
        known = Shared(*cgutils.unpack_tuple(builder, arguments[0]))
        at = builder.add(known.counters, builder.mul(arguments[1], INTEGER(LINE_BYTES)))
        return builder.atomic_rmw("add", builder.inttoptr(at, INTEGER.as_pointer()), INTEGER(1), "monotonic")

    return types.int64(launch, types.int64), codegen


@intrinsic
def _start(typing_context, start, share, launch):
    """Have `share` called by Numba's threads, each for some of the numbers below that of the threads.

    Numba's function takes those arguments of a generalized ufunc: addresses that grow by a step from one number to the
    next, here from 0 by 1, so that they are the numbers; and what is passed on.
    """

    def codegen(context, builder, signature, arguments):
        known = Shared(*cgutils.unpack_tuple(builder, arguments[2]))
        given = [INTEGER(0), known.threads, INTEGER(1), arguments[2]]
        places = [builder.bitcast(cgutils.alloca_once_value(builder, value), POINTER) for value in given]
        function = ir.FunctionType(ir.VoidType(), [POINTER] * 5 + [INTEGER] * 3).as_pointer()
        builder.call(
            builder.inttoptr(arguments[0], function),
            [builder.inttoptr(arguments[1], POINTER), *places, INTEGER(0), INTEGER(1), known.threads],
        )
        return context.get_dummy_value()

    return types.void(start, share, launch), codegen


def _share(first, count, step, shared):
    """The share of each of `count` threads, from number `first` on: its own part of the tasks, then others'."""
    launch = _shared_at(shared)
    for thread in range(first[0], first[0] + count[0]):
        workspace = launch.workspace + thread * launch.slice
        for further in range(launch.threads):
            part = (thread + further) % launch.threads
            begin, end = part * launch.tasks // launch.threads, (part + 1) * launch.tasks // launch.threads
            task = begin + _next_task(launch, part)
            while task < end:
                _call(launch, task, workspace)
                task = begin + _next_task(launch, part)


def _launch(kernel, tasks, x, w, y, residual, constants, geometry, workspace, slice, threads, start, share):
    launch = Shared(
        kernel, tasks, _address(x), _address(w), _address(y), _address(residual), _address(constants),
        _address(geometry), _address(workspace), slice, threads, _zeros(threads),
    )  # fmt: skip
    if threads > 1:
        _start(start, share, launch)
    else:
        for task in range(tasks):
            _call(launch, task, launch.workspace)


@cache
def _driver(dtype: str) -> Any:
    integer = types.int64
    # The driver only passes addresses on, and which tensor is written is the kernel's business: declared read-only,
    # all of them may be.
    tensor = types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C", readonly=True)
    geometry = types.Array(integer, 1, "C", readonly=True)
    return jit.driver(_launch, types.void(integer, integer, *[tensor] * 5, geometry, tensor, *[integer] * 4))


@cache
def _threads() -> tuple[int, int]:
    """Addresses of the function of Numba that starts its threads, and of what each of them shall do."""
    numba.get_num_threads()  # the function is there from then on
    numbers = types.CPointer(types.int64)
    return binding.address_of_symbol("numba_parallel_for"), jit.callback(_share, types.void(*[numbers] * 4))


class _Scratch(threading.local):
    """Workspaces that a Python thread keeps from call to call, so that their pages are touched once."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Array] = {}


# Elements above which a workspace is not kept; 32 MiB of float32.
KEPT_ELEMENTS = 8 << 20
_scratch = _Scratch()


def scratch(elements: int, dtype: str, purpose: str) -> Array:
    """Memory that holds anything, until this thread asks for the same type and purpose again."""
    if elements > KEPT_ELEMENTS:
        return on_a_line(elements, dtype)
    kept = _scratch.kept.get((dtype, purpose))
    if kept is None or kept.size < elements:
        kept = _scratch.kept[dtype, purpose] = on_large_pages(elements, dtype)
    return kept


class Launch:
    """A kernel with all that does not depend on the data; calling it runs every task.

    Parameters
    ----------
    kernel, tasks
        What to call and how often; tasks are numbered from 0 and write disjoint memory.
    dtype
        Type of the elements.
    geometry
        Integers for the kernel.
    workspace_elements
        Scratch elements of one thread.
    """

    def __init__(
        self, kernel: jit.Kernel, tasks: int, dtype: str, geometry: NDArray[np.int64], workspace_elements: int
    ) -> None:
        self._kernel, self._tasks, self._dtype, self._geometry = kernel, tasks, dtype, geometry
        self._workspace_elements, self._slice = workspace_elements, workspace_elements * np.dtype(dtype).itemsize

    def __call__(self, x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        """Run every task.

        Parameters
        ----------
        x, w, y, residual, constants
            C-contiguous arrays of one type; which are read and which written is the kernel's business.
        threads
            Most threads to use.
        """
        if self._tasks == 0:
            return
        threads, elements = min(threads, self._tasks), self._workspace_elements
        workspace = scratch(threads * elements, self._dtype, "workspace") if elements else constants
        given = (
            self._address, self._tasks, x.ravel(), w.ravel(), y.ravel(), residual.ravel(), constants,
            self._geometry, workspace, self._slice,
        )  # fmt: skip
        if threads == 1:
            self._driver(*given, 1, 0, 0)
            return
        with team(threads) as running:
            self._driver(*given, running, *_threads())

    @cached_property
    def _address(self) -> int:
        return self._kernel.address(self._dtype)

    @cached_property
    def _driver(self) -> Any:
        return _driver(self._dtype)


class SummedLaunch:
    """A GRAD_WEIGHT kernel whose tasks write `parts` weights, which are then added up in their order."""

    def __init__(self, launch: Launch, parts: int) -> None:
        self._launch, self._parts = launch, parts

    def __call__(self, x: Array, w: Array, y: Array, residual: Array, constants: Array, threads: int) -> None:
        """Run every task and add up; the arguments are those of `Launch`."""
        if self._parts == 1:
            self._launch(x, w, y, residual, constants, threads)
            return
        elements = self._parts * w.size
        partial = scratch(elements, w.dtype.str, "parts")[:elements].reshape(self._parts, *w.shape)
        self._launch(x, partial, y, residual, constants, threads)
        with np.errstate(all="ignore"):  # Inf minus Inf is NaN here as in the kernels
            np.add(partial[0], partial[1], out=w)  # by turns it takes two thirds of the time of `np.sum`
            for part in partial[2:]:
                w += part
