"""The process of one library: ``python -m bench.worker SOURCE LIBRARY THREADS``, requests and replies as lines of JSON.

SOURCE is a module whose ``prepare(library, details, threads)`` makes the calls. Each request names what to do; each
reply holds the answer, or "refused" or "failed" with a reason:

- ``prepare`` with the details of a case makes its call and gives a note on the way of computing;
- ``verify`` with points, flat indices, gives the shape of the result, its elements there and the time of the call;
- ``time`` with seconds runs one round of calls and gives the time of its fastest.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, TextIO

import numpy as np

from bench.prepared import Prepared, RefusedError

Message = dict[str, Any]
Prepare = Callable[[str, Message, int], Prepared]

# A first call as long as this many rounds is a measurement; a shorter one only warms the caches.
_LONG = 10


class Worker:
    """One library and the call that it prepared last."""

    def __init__(self, prepare: Prepare, library: str, threads: int) -> None:
        self._prepare, self._library, self._threads = prepare, library, threads
        self._prepared: Prepared | None = None

    def answer(self, request: Message) -> Message:
        """Do what is asked; a reason takes the place of an exception."""
        try:
            if request["do"] == "prepare":
                return self._make(request["details"])
            assert self._prepared is not None, "the first request is to prepare"
            return _verify(self._prepared, request) if request["do"] == "verify" else _time(self._prepared, request)
        except RefusedError as refusal:
            return {"refused": str(refusal)}
        except ModuleNotFoundError as error:
            return {"refused": f"{error.name} is not installed"}
        except Exception as error:  # whatever a library raises is a finding about it
            return {"failed": " ".join(f"{type(error).__name__}: {error}".split())}

    def _make(self, details: Message) -> Message:
        self._prepared = None  # releases the tensors of the last case first
        self._prepared = self._prepare(self._library, details, self._threads)
        return {"note": self._prepared.note}


def _verify(prepared: Prepared, request: Message) -> Message:
    start = perf_counter()
    result = prepared.call()
    seconds = perf_counter() - start
    result = prepared.to_array(result)
    points = np.unravel_index(np.minimum(request["points"], result.size - 1), result.shape)
    return {"shape": result.shape, "values": result[points].tolist(), "seconds": seconds}


def _time(prepared: Prepared, request: Message) -> Message:
    start = perf_counter()
    prepared.call()
    best = perf_counter() - start
    if best >= _LONG * request["seconds"]:
        return {"seconds": best}
    best, start = float("inf"), perf_counter()
    now = start
    while now - start < request["seconds"]:
        prepared.call()
        before, now = now, perf_counter()
        best = min(best, now - before)
    return {"seconds": best}


def main(source: str, library: str, threads: int) -> None:
    replies = _own_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    worker = Worker(importlib.import_module(source).prepare, library, threads)
    print(json.dumps({}), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=replies, flush=True)


def _own_stdout() -> TextIO:
    """Standard output for the replies alone: what a library prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
