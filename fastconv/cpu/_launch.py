"""Launching a kernel: one parallel and one serial driver for each element type.

Every thread has its own part of the tasks, which follow each other: neighbours often read and write the same lines and
pages of memory, and two threads that took them by turns were held up by each other (16x570x570 to 16, 3x3, by F(4, 3)
took 7.1 ms in place of 5.8). Tasks are handed out by atomic counters, and a thread that is through with its own takes
some of those that are held up. Every thread has its own slice of the workspace. Results do not depend on which thread
runs a task.
"""

from __future__ import annotations

import threading
from functools import cache, cached_property
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from ..core import jit
from ..core.arrays import LINE_BYTES, on_a_line
from ..core.threads import team

Array = NDArray[Any]

# Integers from one counter to the next: each has a cache line of its own.
LINE = LINE_BYTES // 8


@intrinsic
def _call(typing_context, address, task, x, w, y, residual, constants, workspace, geometry):
    """Call a kernel through its address, with the data pointers of the arrays."""
    signature = types.void(types.int64, types.int64, x, w, y, residual, constants, workspace, geometry)

    def codegen(context, builder, signature, arguments):
        pointers = [
            make_array(kind)(context, builder, array).data
            for kind, array in zip(signature.args[2:], arguments[2:], strict=True)
        ]
        function = ir.FunctionType(ir.VoidType(), [ir.IntType(64), *[pointer.type for pointer in pointers]])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), [arguments[1], *pointers])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _next_task(typing_context, taken, part):
    """Take one number from taken[part], of an int64 array."""

    def codegen(context, builder, signature, arguments):
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.gep(data, [arguments[1]])
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(taken, types.int64), codegen


def _parallel(address, tasks, x, w, y, residual, constants, workspace, geometry, threads, stride, taken):
    for thread in prange(threads):
        scratch = workspace[thread * stride :]
        for further in range(threads):
            part = (thread + further) % threads
            begin, end = part * tasks // threads, (part + 1) * tasks // threads
            task = begin + _next_task(taken, part * LINE)
            while task < end:
                _call(address, task, x, w, y, residual, constants, scratch, geometry)
                task = begin + _next_task(taken, part * LINE)


def _serial(address, tasks, x, w, y, residual, constants, workspace, geometry):
    for task in range(tasks):
        _call(address, task, x, w, y, residual, constants, workspace, geometry)


@cache
def _driver(dtype: str, parallel: bool) -> Any:
    element = numba.from_dtype(np.dtype(dtype))
    integer = types.int64
    # The driver only passes pointers on, and which tensor is written is the kernel's business: declared read-only,
    # all of them may be.
    tensor = types.Array(element, 1, "C", readonly=True)
    geometry = types.Array(integer, 1, "C", readonly=True)
    arguments = [integer, integer, *[tensor] * 6, geometry]
    if not parallel:
        return jit.driver(_serial, types.void(*arguments), parallel=False)
    taken = types.Array(integer, 1, "C")
    return jit.driver(_parallel, types.void(*arguments, integer, integer, taken), parallel=True)


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
        kept = _scratch.kept[dtype, purpose] = on_a_line(elements, dtype)
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
        self._kernel, self._tasks, self._dtype = kernel, tasks, dtype
        self._geometry, self._workspace_elements = geometry, workspace_elements

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
        x, w, y, residual = x.ravel(), w.ravel(), y.ravel(), residual.ravel()
        address, elements = self._address, self._workspace_elements
        if threads > 1 and self._tasks > 1:
            with team(min(self._tasks, threads)) as running:
                if running > 1:
                    workspace, taken = (
                        scratch(running * elements, self._dtype, "workspace"),
                        np.zeros(running * LINE, np.int64),
                    )
                    self._parallel(
                        address, self._tasks, x, w, y, residual, constants, workspace, self._geometry,
                        running, elements, taken,
                    )  # fmt: skip
                    return
        workspace = scratch(elements, self._dtype, "workspace")
        self._serial(address, self._tasks, x, w, y, residual, constants, workspace, self._geometry)

    @cached_property
    def _address(self) -> int:
        return self._kernel.address(self._dtype)

    @cached_property
    def _serial(self) -> Any:
        return _driver(self._dtype, False)

    @cached_property
    def _parallel(self) -> Any:
        return _driver(self._dtype, True)


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
