"""Machine code is made once for all processes."""

from __future__ import annotations

import pytest

from fastconv.cuda import _cache
from fastconv.cuda._kernel import Kernel
from fastconv.cuda._sums import fill_zeros


@pytest.fixture(autouse=True)
def _empty(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    _cache._store.cache_clear()
    yield
    _cache._store.cache_clear()


def made_anew(monkeypatch):
    """The kernel as another process would make it, and what is compiled of it."""
    kernel = Kernel("fill_zeros", fill_zeros.__wrapped__("float32"))
    compiled = []
    monkeypatch.setattr(kernel, "machine_code", lambda capability: compiled.append(capability) or b"code")
    return kernel, compiled


def test_another_process_finds_it(monkeypatch):
    first, compiled = made_anew(monkeypatch)
    assert (first.kept_machine_code((9, 0)), compiled) == (b"code", [(9, 0)])
    second, compiled = made_anew(monkeypatch)
    assert (second.kept_machine_code((9, 0)), compiled) == (b"code", [])
    assert (second.kept_machine_code((8, 0)), compiled) == (b"code", [(8, 0)])


def test_a_directory_that_cannot_be_written_costs_a_compilation(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    _cache._store.cache_clear()
    kernel, compiled = made_anew(monkeypatch)
    assert kernel.kept_machine_code((9, 0)) == b"code"
    assert compiled == [(9, 0)]
