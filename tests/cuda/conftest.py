"""Kernels as plain Python, or compiled: in processes of their own, as Numba is the one or the other from its import on.

`tests/test_cuda.py` starts the first.
"""

from __future__ import annotations

import importlib.util
import os

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    from . import simulator

    simulator.install()
    collect_ignore = ["compiled"]
elif importlib.util.find_spec("numba_cuda") is None:
    collect_ignore = ["simulated", "compiled"]
else:
    collect_ignore = ["simulated"]
