"""Machine code on disk, so that a kernel is compiled once for all processes."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable
from functools import cache
from typing import Any

from ._kernel import stamp

MOST_BYTES = 256 << 20


def kept(key: str, make: Callable[[], bytes]) -> bytes:
    """What was made for this key by the present files, or what `make` gives now.

    A directory that cannot be written costs a compilation in each process and nothing else.
    """
    store = _store()
    digest = hashlib.sha256(f"{stamp()} {key}".encode()).digest()
    if store is not None:
        found = store.get(digest)
        if found is not None:
            return bytes(found)
    code = make()
    if store is not None:
        try:
            store[digest] = code
        except OSError:
            _store.cache_clear()
    return code


@cache
def _store() -> Any:
    from cuda.core.utils import FileStreamProgramCache

    try:
        return FileStreamProgramCache(_directory(), max_size_bytes=MOST_BYTES)
    except OSError:
        return None


def _directory() -> pathlib.Path:
    """Beside Numba's cache where that was given a place, else where the system keeps caches."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        return pathlib.Path(given) / "fastconv-cuda"
    from platformdirs import user_cache_path

    return pathlib.Path(user_cache_path("fastconv")) / "cuda"
