"""Take a photograph with a shaking camera, and compute what it would have been with a steady one.

Every pixel of a shaken photograph is the mean of the pixels along the path of the camera, and that is a convolution,
a linear map A. The camera adds a little noise: b = A x + noise. Solving A x = b would blow the noise up, because A all
but loses the fine detail; so the script minimises, with a small damping,

    |A x - b|^2 + damping^2 |x|^2,    that is, it solves    (A^H A + damping^2 I) x = A^H b.

A has a row and a column for each of 819,840 numbers. `fastconv.conv_operator` multiplies by A and by its adjoint
without ever storing it, which is all that the conjugate gradients of `scipy.sparse.linalg.cg` ask for. Beyond its edge
the photograph goes on as in a mirror (docs/operators.md tells what that does to A).

The script fails if the recovered photograph is not nearer to the original than the blurred one by 3 dB.

    python examples/deblur.py --output demo
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scipy.sparse import eye_array
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg
from sklearn.datasets import load_sample_image

import fastconv

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Array = NDArray[np.float32]

COLOURS = 3
PATH_LENGTH = 17  # pixels that the camera moves
PATH_ANGLE = 30.0  # degrees above the horizon
NOISE = 1.0  # grey levels, of 0 to 255
DAMPING = 0.03
STEPS = 30
LEAST_GAIN = 3.0  # dB
DETAIL = (slice(165, 285), slice(95, 275))


# ---- the camera


def motion_blur(length: int, degrees: float) -> Array:
    """The part of its time that a camera spends in each pixel of its path, a straight one; the parts sum to one."""
    size = length | 1
    centre, angle = size // 2, np.deg2rad(degrees)
    taps = np.zeros((size, size))
    for along in np.linspace(-length / 2, length / 2, 20 * length):
        # Between four pixels, each gets the more the nearer it is.
        h, w = centre - along * np.sin(angle), centre + along * np.cos(angle)
        for row in (int(np.floor(h)), int(np.floor(h)) + 1):
            for column in (int(np.floor(w)), int(np.floor(w)) + 1):
                if 0 <= row < size and 0 <= column < size:
                    taps[row, column] += (1 - abs(h - row)) * (1 - abs(w - column))
    return (taps / taps.sum()).astype(np.float32)


def load_photo() -> Array:
    """A photograph (colours, height, width) in grey levels from 0 to 255."""
    return np.ascontiguousarray(load_sample_image("china.jpg").transpose(2, 0, 1), np.float32)


def camera_of(taps: Array, photo: Array) -> LinearOperator:
    """The operator that shakes each colour alike."""
    weight = np.tile(taps, (COLOURS, 1, 1, 1))
    return fastconv.conv_operator(weight, photo.shape, padding="same", groups=COLOURS, padding_mode="symmetric")


# ---- the recovery


def recovered(camera: LinearOperator, blurred: Array, console: Console) -> Array:
    """The damped least-squares solution, by conjugate gradients on its normal equations."""
    identity = aslinearoperator(eye_array(camera.shape[1], dtype=np.float32))
    normal = camera.H @ camera + DAMPING**2 * identity
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Conjugate gradients", total=STEPS)
        solution, _ = cg(
            normal, camera.rmatvec(blurred.ravel()), maxiter=STEPS, rtol=0, callback=lambda _: progress.advance(task)
        )
    return np.asarray(solution, np.float32).reshape(blurred.shape)


def psnr(photo: Array, other: Array) -> float:
    """Peak signal-to-noise ratio, 10 log10(255^2 / mean squared difference), in dB."""
    return float(10 * np.log10(255**2 / np.mean((np.clip(other, 0, 255) - photo) ** 2)))


# ---- the output


def show(axes: Any, picture: Array) -> None:
    """Draw grey levels (colours, height, width) without axes."""
    axes.imshow(np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    axes.set_axis_off()


def draw(pictures: dict[str, Array], taps: Array, path: Path) -> None:
    """The pictures side by side, and a detail of each below."""
    figure, panels = plt.subplots(2, len(pictures), figsize=(16, 7.6), layout="constrained")
    for (title, picture), (whole, detail) in zip(pictures.items(), panels.T, strict=True):
        show(whole, picture)
        whole.set_title(title, fontsize=12)
        show(detail, picture[(slice(None), *DETAIL)])
    inset = panels[0, 1].inset_axes((0.02, 0.03, 0.2, 0.3))
    inset.imshow(taps, cmap="gray")
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set_color("white")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description="Recover a photograph that a shaking camera has blurred.")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where to put the picture")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)

    console = Console()
    photo, taps = load_photo(), motion_blur(PATH_LENGTH, PATH_ANGLE)
    camera = camera_of(taps, photo)
    noise = NOISE * np.random.default_rng(0).standard_normal(photo.shape, np.float32)
    blurred = (camera @ photo.ravel()).reshape(photo.shape) + noise
    start = time.perf_counter()
    solution = recovered(camera, blurred, console)
    seconds = time.perf_counter() - start

    before, after = psnr(photo, blurred), psnr(photo, solution)
    console.print(f"A: {camera}")
    table = Table(title=f"{STEPS} steps in {seconds:.1f} s")
    for heading in ("photograph", "PSNR"):
        table.add_column(heading)
    table.add_row("blurred, with noise", f"{before:.2f} dB")
    table.add_row("recovered", f"{after:.2f} dB")
    console.print(table)
    path = folder / "deblur.png"
    titles = ("As it was", f"Blurred, with noise: {before:.1f} dB", f"Recovered: {after:.1f} dB")
    draw(dict(zip(titles, (photo, blurred, solution), strict=True)), taps, path)
    console.print(f"Pictures in {path}")

    if after < before + LEAST_GAIN:
        console.print(f"[bold red]Recovered by less than {LEAST_GAIN} dB")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
