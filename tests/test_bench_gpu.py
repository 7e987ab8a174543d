"""The program that has the last word on a GPU, rehearsed where there is none."""

from __future__ import annotations

import importlib.util
import json

import pytest

if any(importlib.util.find_spec(package) is None for package in ("matplotlib", "rich", "torch")):
    pytest.skip("PyTorch, rich and Matplotlib are not installed (pip install fastconv[bench])", allow_module_level=True)

from bench.gpu import __main__ as program
from bench.gpu import correctness, functions, rows

LINE = "x=1x2x6x7 w=4x2x3x3 p=1"


@pytest.fixture(autouse=True)
def _few_problems(monkeypatch):
    monkeypatch.setattr(correctness, "LINES", (LINE,))
    monkeypatch.setattr(rows, "FAMILIES", {"small": (LINE,)})


def run(*arguments):
    return program.main(["--rehearse", *map(str, arguments)])


def test_everything_is_checked_timed_and_written(tmp_path, capsys):
    paths = {kind: tmp_path / f"gpu.{kind}" for kind in ("markdown", "json", "png")}
    assert run(*[word for kind, path in paths.items() for word in (f"--{kind}", path)]) == 0
    found = json.loads(paths["json"].read_text())
    assert found["left_out"] == 0
    done = [each["what"] for each in found["checks"]]
    assert {"direct forward", "direct grad_weight"} <= {" ".join(what.split()[:2]) for what in done}
    assert {*functions.FUNCTIONS, "NumPy's arrays"} < set(done)
    assert all(each["ratio"] > 0 for each in found["rows"])
    assert paths["markdown"].read_text() in capsys.readouterr().out
    assert paths["png"].read_bytes().startswith(b"\x89PNG")


def test_a_wrong_result_is_told_and_the_exit_code(monkeypatch, capsys):
    monkeypatch.setitem(correctness.TOLERANCE, "float64", 1e-30)
    assert run() == 1
    assert "WRONG: direct forward of" in capsys.readouterr().out


def raising(error):
    def call(*arguments, **options):
        raise error

    return call


def test_what_fails_is_wrong_and_the_rest_goes_on(monkeypatch, capsys):
    call = raising(MemoryError("no room"))
    monkeypatch.setattr(correctness, "ours", lambda *arguments: call)
    monkeypatch.setattr(rows, "cudnn", lambda *arguments: call)
    assert run() == 1
    page = capsys.readouterr().out
    assert "MemoryError: no room" in page
    assert "nothing computed" in page
    assert "left out" not in page


def test_a_device_that_is_lost_ends_the_run(monkeypatch, capsys):
    monkeypatch.setattr(correctness, "reference", raising(RuntimeError("illegal memory access")))
    assert run() == 1
    assert "3 more rows were left out: RuntimeError: illegal memory access." in capsys.readouterr().out


def test_the_table_ends_in_time(monkeypatch, capsys):
    monkeypatch.setattr(program, "TABLE_ENDS", 0)
    assert run() == 0
    assert "3 more rows were left out: the time was up." in capsys.readouterr().out
