"""``python -m bench.gpu``: is every result on this GPU right, and how long does it take beside cuDNN?

It takes up to eight minutes and ends with the exit code 1 if a result was wrong, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from bench.gpu import ceilings, correctness, functions, rows
from bench.gpu.compilation import Task, compile_all
from bench.gpu.device import Device
from bench.gpu.overhead import launch_seconds
from bench.gpu.report import Report
from fastconv.core.problem import ConvProblem, Op

# The table is cut off so long after the start that the whole stays within eight minutes; correctness never is.
TABLE_ENDS = 450


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.gpu", description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="tiny problems on the CPU, to test this program")
    for kind in ("markdown", "json", "png"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write {kind} to this file")
    options = parser.parse_args(arguments)
    console = Console()
    if not options.rehearse and not torch.cuda.is_available():
        console.print("no GPU: PyTorch finds no CUDA device. --rehearse runs this program on the CPU.")
        return 2
    report = run(Device(options.rehearse), console)
    print(report.markdown())
    if options.markdown:
        options.markdown.write_text(report.markdown(), encoding="utf-8")
    if options.json:
        report.write_json(options.json)
    if options.png:
        report.write_png(options.png)
    return 0 if report.is_right else 1


def run(device: Device, console: Console) -> Report:
    """Everything, with a progress bar."""
    start = time.monotonic()
    problems, cases = list(correctness.problems(device)), list(rows.cases(device))
    if not device.is_rehearsal:
        count = compile_all([*_checked(device, problems), *_timed(cases)], torch.cuda.get_device_capability())
        console.print(f"{count} kernels compiled in {time.monotonic() - start:.0f} s")
    report = Report(device.name, _versions(), ceilings.measure(device))
    try:
        for problem in track(problems, "correctness", console=console):
            report.checks += correctness.checks(device, problem)
        report.checks += functions.checks(device)
        report.launches = launch_seconds(device)
        for case in track(cases, "times", console=console):
            if time.monotonic() - start < TABLE_ENDS:
                report.rows.append(rows.measured(device, report.ceilings, case))
    except Exception as failure:  # a kernel that goes astray leaves a device on which nothing works any more
        report.end = f"{type(failure).__name__}: {failure}"
    report.left_out = len(cases) - len(report.rows)
    return report


def _checked(device: Device, problems: list[ConvProblem]) -> Iterator[Task]:
    """What is computed to see whether it is right."""
    for problem in problems:
        for op in Op:
            for algorithm in correctness.serving(device, problem, op):
                yield problem, op, algorithm.name


def _timed(cases: list[rows.Case]) -> Iterator[Task]:
    """What is computed to see how long it takes."""
    for case in cases:
        for layout in rows.LAYOUTS:
            yield case.problem.replace(layout=layout), case.op, "auto"


def _versions() -> dict[str, str]:
    packages = ("fastconv", "torch", "numba", "numba-cuda", "cuda-core")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "cuDNN": str(torch.backends.cudnn.version())}


if __name__ == "__main__":
    sys.exit(main())
