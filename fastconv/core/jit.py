"""The one JIT policy: how kernels are compiled, cached on disk and found by their address.

A kernel is a module-level function of one fixed signature::

    def kernel(task, x, w, y, residual, constants, workspace, geometry): ...

``task`` is an integer; the others are pointers, to elements of one type, ``geometry`` to int64. It is
compiled once for each element type, on first use, and called through its address by the drivers of
`fastconv.cpu._launch`, so that no driver compiles a kernel again. New shapes compile nothing.

Numba's own disk cache notices edits only in the file of a function, not in what it calls, and passes a
damaged file on as an exception. The cache here is stamped with every file that a kernel may call and treats
an unreadable file as absent.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import pathlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import _dynfunc
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

# Contraction to fused multiply-adds and reordering of sums; never the flags that assume away NaN or Inf.
FASTMATH = {"contract", "reassoc"}

# Division by zero gives Inf as in NumPy: a kernel cannot raise. Nothing is allocated, so that no reference is counted:
# an atomic instruction for each array that a subroutine is given took a third of the time of copying short rows.
OPTIONS = {"fastmath": FASTMATH, "error_model": "numpy", "nogil": True, "_nrt": False}

_lock = threading.RLock()


@contextmanager
def _compiling() -> Iterator[None]:
    """One compilation at a time. Most of what Numba makes stays: looking for garbage took 4 % of the time."""
    with _lock:
        collected = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collected:
                gc.enable()


class _KernelLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Code that is optimised once, after everything that it calls has been linked in.

    Numba would optimise function by function before, and everything in a cheaper round that brings counts of references
    together; there are none here. With both, optimising and compiling took 2.7 s of a first call, and takes 1.6 s
    without, on the machine of docs/performance.md.
    """

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


class _SubroutineLibrary(_KernelLibrary):
    """Code that is only ever linked into a kernel, where it is optimised and compiled with all else.

    Numba would do both for every subroutine as well, and again for each that calls it: 8.4 s instead of 3.2 s for the
    forward kernel of direct, on the machine of docs/performance.md.
    """

    def finalize(self) -> None:
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True


class _KernelCompiler(Compiler):  # type: ignore[misc]
    """Numba's pipeline, with a library of ours."""

    _library: type[_KernelLibrary] = _KernelLibrary

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.library = self._library(self.state.targetctx.codegen(), "fastconv")
        self.state.library.enable_object_caching()


class _SubroutineCompiler(_KernelCompiler):
    """Numba's pipeline, up to the code that is linked."""

    _library = _SubroutineLibrary

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        context = self.state.targetctx  # a copy for this compilation
        context.get_executable = self._unreachable

    @staticmethod
    def _unreachable(library: Any, description: Any, environment: Any) -> Any:
        """What Numba knows the function by. From Python it raises a TypeError, as there is no code for that."""
        address = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value
        name = description.qualname
        return _dynfunc.make_function(description.lookup_module(), name, "", address, environment, (library,))


# For functions that kernels call. What is not said here, a function would inherit from the first that calls it.
SUBROUTINE = {
    **OPTIONS,
    "pipeline_class": _SubroutineCompiler,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "forceinline": False,
}

# The same for functions whose sums must be formed in the order in which they are written.
IN_ORDER = {**SUBROUTINE, "fastmath": {"contract"}}


def subroutine(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call; LLVM inlines it where that pays."""
    return numba.njit(**SUBROUTINE)(function)


class Kernel:
    """A kernel body and the addresses of its compiled forms, one for each element type."""

    def __init__(self, body: Callable[..., None]) -> None:
        self._body = body
        self._compiled: dict[str, Any] = {}
        self.__doc__ = body.__doc__
        self.__name__ = body.__name__

    def address(self, dtype: str) -> int:
        """Machine address for elements of this NumPy type; compiles or loads on the first call."""
        compiled = self._compiled.get(dtype)
        if compiled is None:
            with _compiling():
                compiled = self._compiled.get(dtype) or self._compile(dtype)
                self._compiled[dtype] = compiled
        address: int = compiled.address
        return address

    def _compile(self, dtype: str) -> Any:
        element = numba.types.CPointer(numba.from_dtype(np.dtype(dtype)))
        integer = numba.types.int64
        return _compiled(self._body, numba.types.void(integer, *[element] * 6, numba.types.CPointer(integer)))


def _compiled(function: Callable[..., None], signature: Any) -> Any:
    """A function compiled for calls from C, through the cache."""
    compiled: Any = CFunc(
        function, (signature.args, signature.return_type), {}, dict(OPTIONS), pipeline_class=_KernelCompiler
    )
    compiled._cache = _package_cache(function)
    compiled.compile()
    return compiled


def kernel(body: Callable[..., None]) -> Kernel:
    """Make a function of the kernels' signature a `Kernel`."""
    return Kernel(body)


_callable: list[Any] = []  # what is called without Numba's knowledge; as long as it is known, so is its code


def driver(function: Callable[..., Any], signature: Any) -> Any:
    """Compile a function that launches kernels, for one signature, through the same cache.

    It is called past Numba's dispatcher, which would look for a signature that fits: 0.4 us in place of 0.16 for
    thirteen arguments.
    """
    with _compiling():
        dispatcher = numba.njit(nogil=True, error_model="numpy", _nrt=False)(function)
        dispatcher._cache = _package_cache(function)
        _callable.append(dispatcher)
        return dispatcher.compile(signature)


def callback(function: Callable[..., None], signature: Any) -> int:
    """Machine address of a function, for calls from C; compiled or loaded through the same cache, and kept for good."""
    with _compiling():
        compiled = _compiled(function, signature)
        _callable.append(compiled)
    address: int = compiled.address
    return address


class _PackageCache(FunctionCache):  # type: ignore[misc]
    """Numba's function cache, stamped with every source file that the function may call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=_stamp(function.__code__.co_filename),
        )

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(signature, target_context)
        except Exception:  # a truncated or foreign file may raise anything; it only costs a compilation
            return self._discard()

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except Exception:  # an unreadable index stands in the way, or the disk is full or read-only
            self._discard()

    def _discard(self) -> None:
        try:
            self.flush()
        except OSError:
            self.disable()


def _package_cache(function: Callable[..., Any]) -> Any:
    try:
        return _PackageCache(function)
    except RuntimeError:  # no writable place for a cache
        from numba.core.caching import NullCache

        return NullCache()


@cache
def _stamp(filename: str) -> str:
    """Digest of this file, of all files beside the function's, and of what the processor can do."""
    digest = hashlib.sha256(pathlib.Path(__file__).read_bytes())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    for path in sorted(pathlib.Path(filename).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
