"""The other end of `bench.worker`: a library in a process of its own that runs only while it is asked.

Thread pools spin for a while after their last task, each library's in its own way and for its own time. Between
requests the process is therefore stopped by a signal. Telling the pools to sleep instead would slow down what is
measured: waking a sleeping thread took longer than many of the convolutions. Stopping a process needs a POSIX system.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.machine import environment

Message = dict[str, Any]


class RefusalError(Exception):
    """The library has no way to do this; the message is the reason."""


class FailureError(Exception):
    """The library raised or crashed; the message says how."""


class Process:
    """A library in a process of its own, with the calls that a module makes of it (`bench.worker`)."""

    def __init__(self, source: str, name: str, threads: int) -> None:
        self._source, self.name, self._threads = source, name, threads
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", self._source, self.name, str(self._threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            cwd=Path(__file__).parents[1],
            env=environment(self._threads),
        )
        self._read()
        self._process.send_signal(signal.SIGSTOP)

    def ask(self, do: str, **details: Any) -> Message:
        """Send a request and wait for its reply.

        Raises
        ------
        RefusalError
            If the library has no way to do it.
        FailureError
            If it raised, or crashed; the next request starts it again.
        """
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        print(json.dumps({"do": do, **details}), file=self._process.stdin, flush=True)
        try:
            return self._read()
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def _read(self) -> Message:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise FailureError(f"its process ended with code {self._process.wait()}")
        reply: Message = json.loads(line)
        if "refused" in reply:
            raise RefusalError(reply["refused"])
        if "failed" in reply:
            raise FailureError(reply["failed"])
        return reply

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.communicate()
