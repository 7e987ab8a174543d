"""``python -m bench.gpu``: is every result on this GPU right, and how long does it take beside cuDNN?

It takes up to eight minutes and ends with the exit code 1 if a result was wrong, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from bench.gpu import ceilings, correctness, rows
from bench.gpu.device import Device
from bench.gpu.overhead import launch_seconds
from bench.gpu.report import Report

# The table is cut off here, so that the whole stays within eight minutes; correctness never is.
TABLE_SECONDS = 330


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
    console.print(report.markdown(), markup=False, highlight=False)
    if options.markdown:
        options.markdown.write_text(report.markdown(), encoding="utf-8")
    if options.json:
        report.write_json(options.json)
    if options.png:
        report.write_png(options.png)
    return 1 if report.wrong else 0


def run(device: Device, console: Console) -> Report:
    """Everything, with a progress bar."""
    report = Report(device.name, _versions(), ceilings.measure(device))
    for problem in track(list(correctness.problems(device)), "correctness", console=console):
        report.checks += correctness.checks(device, problem)
    report.launches = launch_seconds(device)
    end = time.monotonic() + TABLE_SECONDS
    for case in track(list(rows.cases(device)), "times", console=console):
        if time.monotonic() < end:
            report.rows.append(rows.measured(device, report.ceilings, case))
    return report


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
