"""Kernels: how they are compiled for a processor, kept on disk, loaded and launched.

A kernel is written as a factory: a function of compile-time constants that gives a `Body`. What is compiled is the
body, once for each tuple of constants; new shapes compile nothing. The way is that of CUDA's public tools: Numba
to PTX, nvJitLink to the machine code of a processor, both without a driver, so that tests walk it on any machine.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, wraps
from typing import Any

import numpy as np

from ._device import SIMULATED, cuda
from ._ready import OLDEST

ENTRY = "fastconv_kernel"
_THREE_DIMENSIONS = 3

_lock = threading.RLock()


@dataclass(frozen=True)
class Body:
    """What a factory of kernels gives.

    Attributes
    ----------
    code
        The function that each thread runs.
    arguments
        The types of its arguments: `pointer(dtype)`, `int32`, `int64`, `float32`, `float64`.
    threads
        Threads of a block, along one axis.
    resident
        Blocks that a multiprocessor is to hold at once: this bounds the registers of a thread.
    """

    code: Callable[..., None]
    arguments: tuple[Any, ...]
    threads: int
    resident: int = 1


class Kernel:
    """One compiled form of a kernel.

    Parameters
    ----------
    name
        The factory's name and its constants.
    body
        What the factory gave.
    """

    def __init__(self, name: str, body: Body) -> None:
        self.name, self.body = name, body
        self._loaded: dict[tuple[int, int], Any] = {}

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def ptx(self) -> str:
        """The kernel in PTX for every processor that there are kernels for, its entry named `ENTRY`."""
        text, _ = cuda.compile_ptx(
            self.body.code,
            self.body.arguments,
            device=False,
            abi="numba",
            cc=OLDEST,
            launch_bounds=(self.body.threads, self.body.resident),
        )
        mangled = re.search(r"\.entry (\S+?)\(", text)
        assert mangled is not None, f"no entry in the PTX of {self.name}"
        return str(text).replace(mangled[1], ENTRY)

    def machine_code(self, capability: tuple[int, int]) -> bytes:
        """The kernel's cubin for processors of this compute capability."""
        from cuda.core import Linker, LinkerOptions, ObjectCode

        options = LinkerOptions(arch="sm_{}{}".format(*capability))
        return bytes(Linker(ObjectCode.from_ptx(self.ptx.encode()), options=options).link("cubin").code)

    def kept_machine_code(self, capability: tuple[int, int]) -> bytes:
        """`machine_code`, from disk if it was made before."""
        from ._cache import kept

        bounds = self.body.threads, self.body.resident
        return kept(f"{self.name} {bounds} {capability}", lambda: self.machine_code(capability))

    def loaded(self, capability: tuple[int, int]) -> Any:
        """The kernel as `cuda.core.launch` takes it; the first call compiles or reads it."""
        kernel = self._loaded.get(capability)
        if kernel is None:
            from cuda.core import ObjectCode

            with _lock:
                code = ObjectCode.from_cubin(self.kept_machine_code(capability))
                kernel = self._loaded[capability] = code.get_kernel(ENTRY)
        return kernel

    @cached_property
    def _simulated(self) -> Any:
        return cuda.jit(self.body.code)


def kernels(factory: Callable[..., Body]) -> Callable[..., Kernel]:
    """Make a factory of bodies a factory of kernels, one kernel for each tuple of constants."""

    @cache
    def made(*constants: Any) -> Kernel:
        return Kernel(f"{factory.__module__}.{factory.__name__}{constants}", factory(*constants))

    return wraps(factory)(made)


class Launch:
    """A kernel with its grid and its numbers; what is left to give are the pointers.

    Parameters
    ----------
    kernel
        Which.
    grid
        Blocks along one to three axes; with none in it, nothing is launched.
    numbers
        The arguments after the pointers, in order: integers of 32 bits, NamedTuples of such, NumPy scalars of others.
    """

    def __init__(self, kernel: Kernel, grid: tuple[int, ...], *numbers: Any) -> None:
        self.kernel = kernel
        self.grid = grid + (1,) * (_THREE_DIMENSIONS - len(grid))
        self._numbers = tuple([_sized(number) for number in numbers])

    def __call__(self, queue: Any, *pointers: Any) -> None:
        """Queue it.

        Parameters
        ----------
        queue
            A `fastconv.cuda._queue.Queue`.
        pointers
            Addresses; flat arrays in the simulator.
        """
        if 0 in self.grid:
            return
        if SIMULATED:
            self.kernel._simulated[self.grid, self.kernel.body.threads](*pointers, *self._numbers)
        else:
            queue.launch(self.kernel, self._configuration, (*pointers, *self._flat))

    @cached_property
    def _flat(self) -> tuple[Any, ...]:
        """The numbers one by one, as the compiled kernel takes a record."""
        return tuple(
            [part for number in self._numbers for part in (number if isinstance(number, tuple) else (number,))]
        )

    @cached_property
    def _configuration(self) -> Any:
        from cuda.core import LaunchConfig

        return LaunchConfig(grid=self.grid, block=(self.kernel.body.threads, 1, 1))


def _sized(number: Any) -> Any:
    """A number as a kernel takes it: an int, or each of a NamedTuple, in 32 bits; others as they are."""
    if isinstance(number, tuple):
        kind: Any = type(number)
        return kind(*[np.int32(part) for part in number])
    return np.int32(number) if isinstance(number, int) else number


@cache
def stamp() -> str:
    """Digest of everything that the kernels are made of: these files and the compiler's version."""
    import numba
    import numba_cuda

    digest = hashlib.sha256(f"{numba.__version__} {numba_cuda.__version__}".encode())
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
