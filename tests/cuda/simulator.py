"""What runs kernels as plain Python: Numba's simulator with threads that take turns.

Numba's own gives each thread of a block an operating system's thread, and has no warps. Here they are greenlets: fifty
times as fast, in an order that is shuffled but the same in every run, each warp as far as it goes before the next, so
that a missing barrier shows. Memory of a block and of a thread starts as NaN, or 0x7A bytes. `install` has to be called
under NUMBA_ENABLE_CUDASIM=1 before a kernel is imported.
"""

from __future__ import annotations

import random

import greenlet
import numpy as np
from numba import cuda

WARP = 32
BARRIER, COLLECTIVE = "barrier", "collective"


class Thread:
    """One thread of a block, while it runs."""

    def __init__(self, block, number, code):
        self.block, self.number = block, number
        self.arrays = 0  # of the block's memory that this thread has asked for
        self.greenlet = greenlet.greenlet(quiet(code))
        self.waits_for = None
        self.given = self.received = None


def quiet(code):
    """The code of a thread, without NumPy's warnings of what GPUs do silently; each greenlet has its own context."""

    def run(*arguments):
        with np.errstate(all="ignore"):
            code(*arguments)

    return run


class Block:
    """One block of threads."""

    running: Thread

    def __init__(self, place, count, code, arguments, order):
        self.place, self.order = place, order
        self.memory = []
        self.threads = [Thread(self, number, code) for number in range(count)]
        self.warps = [self.threads[first : first + WARP] for first in range(0, count, WARP)]
        self.arguments = arguments

    def run(self):
        self.hub = greenlet.getcurrent()
        while any(not thread.greenlet.dead for thread in self.threads):
            for warp in self.order.sample(self.warps, len(self.warps)):
                self._run_warp(warp)
            self._open_the_barrier()

    def _run_warp(self, warp):
        """Until every thread of it is done or at the barrier."""
        while True:
            for thread in self.order.sample(warp, len(warp)):
                if not thread.greenlet and not thread.greenlet.dead:
                    self._resume(thread, *self.arguments)
                elif thread.waits_for is None and not thread.greenlet.dead:
                    self._resume(thread)
            alive = [thread for thread in warp if not thread.greenlet.dead]
            meeting = [thread for thread in alive if thread.waits_for is COLLECTIVE]
            if not meeting:
                return
            assert len(meeting) == len(alive), f"block {self.place}: threads of a warp wait for one another apart"
            function = meeting[0].given[0]
            for thread, value in zip(meeting, function([thread.given[1] for thread in meeting]), strict=True):
                thread.received, thread.waits_for = value, None

    def _open_the_barrier(self):
        for thread in self.threads:
            thread.waits_for = None

    def _resume(self, thread, *arguments):
        Block.running = thread
        try:
            thread.greenlet.switch(*arguments)
        except Exception as error:
            error.add_note(f"thread {thread.number} of block {self.place}")
            raise


def wait(for_what):
    thread = Block.running
    thread.waits_for = for_what
    thread.block.hub.switch()
    return thread


def collective(function, value):
    """What a function of the values of all threads of the warp, in order, gives to this one."""
    Block.running.given = (function, value)
    return wait(COLLECTIVE).received


class _Number:
    """`threadIdx` and `blockIdx`: numbers that depend on who asks."""

    def __init__(self, of):
        self.of = of

    x = property(lambda self: np.int32(self.of(Block.running)[0]))
    y = property(lambda self: np.int32(self.of(Block.running)[1]))
    z = property(lambda self: np.int32(self.of(Block.running)[2]))


def _poisoned(shape, dtype):
    array = np.empty(shape, np.dtype(getattr(dtype, "name", dtype)))
    array.fill(np.nan) if array.dtype.kind == "f" else array.view(np.uint8).fill(0x7A)
    return array


class _Shared:
    @staticmethod
    def array(shape, dtype, alignment=None):
        thread = Block.running
        memory = thread.block.memory
        thread.arrays += 1
        if len(memory) < thread.arrays:
            memory.append(_poisoned(shape, dtype))
        return memory[thread.arrays - 1]


class _Local:
    @staticmethod
    def array(shape, dtype, alignment=None):
        return _poisoned(shape, dtype)


class SimulatedKernel:
    def __init__(self, code):
        self.code = code

    def __getitem__(self, configuration):
        grid, threads = configuration

        def launch(*arguments):
            order = random.Random(0)
            for place in np.ndindex(*grid):
                Block(place, int(threads), self.code, arguments, order).run()

        return launch


def _jit(function=None, *, device=False, **options):
    if function is None:
        return lambda each: _jit(each, device=device)
    return function if device else SimulatedKernel(function)


def _shuffled(partner):
    """A shuffle in which each lane reads the one that `partner` names; itself where there is none."""

    def shuffle(mask, value, number):
        def exchanged(values):
            lanes = [partner(lane, number) for lane in range(len(values))]
            return [values[lane if 0 <= lane < len(values) else own] for own, lane in enumerate(lanes)]

        return collective(exchanged, value)

    return shuffle


def install():
    """Put this in the place of Numba's simulator."""
    cuda.jit = _jit
    cuda.threadIdx = _Number(lambda thread: (thread.number, 0, 0))
    cuda.blockIdx = _Number(lambda thread: thread.block.place)
    cuda.shared, cuda.local = _Shared, _Local
    cuda.syncthreads = lambda: wait(BARRIER) and None
    cuda.collective = collective
    cuda.syncwarp = lambda mask=None: collective(lambda values: values, None)
    cuda.shfl_sync = _shuffled(lambda lane, source: source % WARP)
    cuda.shfl_xor_sync = _shuffled(lambda lane, bits: lane ^ bits)
    cuda.shfl_up_sync = _shuffled(lambda lane, distance: lane - distance)
    cuda.shfl_down_sync = _shuffled(lambda lane, distance: lane + distance)
