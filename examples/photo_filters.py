"""Filter a photograph with every algorithm of fastconv, and see that they agree.

A photograph of 427 x 640 pixels is blurred, sharpened and searched for edges. Each filter is one call of
`fastconv.conv2d`, which computes a cross-correlation; the three colours are groups, so none mixes with another.
The algorithms are different ways to the same sums: the direct one adds up the products where they stand, im2col
turns them into a product of matrices, and fft multiplies spectra. Which one is fastest depends on the size of the
filter, so `algorithm="auto"`, the default, decides by a prediction that `fastconv.explain` shows.

The table gives the time of each algorithm and how far its result is from that of the direct one, in grey levels of
a photograph from 0 to 255. The script fails if that is further than rounding can explain.

    python examples/photo_filters.py --output demo
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_sample_image

import fastconv

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Array = NDArray[np.float32]

ALGORITHMS = ("direct", "im2col", "fft", "auto")
COLOURS = 3
# Beyond its edge the photograph goes on as in a mirror; zeros would darken the rim.
OPTIONS: dict[str, Any] = {"padding": "same", "padding_mode": "reflect", "groups": COLOURS}
SECONDS_PER_MEASUREMENT = 0.25
FEWEST_CALLS = 3


# ---- the filters


@dataclass(frozen=True)
class PhotoFilter:
    """Taps to apply to each colour, and how to look at the result.

    Attributes
    ----------
    name
        What it does.
    taps
        (results for each colour, height, width).
    picture
        Makes grey levels (colours, height, width) from the results (colours, results for each colour, height, width).
    """

    name: str
    taps: Array
    picture: Callable[[Array], Array]

    @property
    def size(self) -> str:
        """Height and width of the taps, for people to read."""
        return "×".join(map(str, self.taps.shape[1:]))

    @property
    def weight(self) -> Array:
        """The weight of `conv2d`, (colours * results for each colour, 1, height, width): the same for each colour."""
        return np.tile(self.taps[:, np.newaxis], (COLOURS, 1, 1, 1))


def gaussian(size: int, sigma: float) -> Array:
    """A bell that sums to one, so that flat areas keep their brightness."""
    place = np.arange(size) - size // 2
    bell = np.exp(-((place / sigma) ** 2) / 2)
    taps = np.outer(bell, bell)
    return (taps / taps.sum()).astype(np.float32)


def unsharp(size: int, sigma: float, amount: float) -> Array:
    """The photograph, and `amount` times what a blur takes away from it."""
    identity = np.zeros((size, size), np.float32)
    identity[size // 2, size // 2] = 1
    return (1 + amount) * identity - amount * gaussian(size, sigma)


def laplacian_of_gaussian(size: int, sigma: float) -> Array:
    """The curvature of a blurred photograph; it sums to zero, so that flat areas vanish."""
    place = np.arange(size) - size // 2
    radius_squared = place[:, np.newaxis] ** 2 + place**2
    taps = gaussian(size, sigma) * (radius_squared / sigma**2 - 2)
    return (taps - taps.mean()).astype(np.float32)


def sobel() -> Array:
    """The slope to the right and the slope downwards: a difference one way, a little blur the other way."""
    slope = np.outer([1, 2, 1], [-1, 0, 1])
    return np.stack([slope, slope.T]).astype(np.float32)


def as_it_is(result: Array) -> Array:
    return result[:, 0]


def magnitude(slopes: Array) -> Array:
    """Steepness in any direction, at half its size: the taps make a step between two pixels four times as large."""
    return np.hypot(slopes[:, 0], slopes[:, 1]) / 2


def around_grey(curvature: Array) -> Array:
    """No curvature in the middle of the scale, so that both signs can be seen."""
    return 128 + 3 * curvature[:, 0]


FILTERS = (
    PhotoFilter("Blur", gaussian(15, sigma=3)[np.newaxis], as_it_is),
    PhotoFilter("Wide blur", gaussian(63, sigma=12)[np.newaxis], as_it_is),
    PhotoFilter("Sharpen", unsharp(9, sigma=1.5, amount=1.5)[np.newaxis], as_it_is),
    PhotoFilter("Sobel edges", sobel(), magnitude),
    PhotoFilter("Laplacian edges", laplacian_of_gaussian(15, sigma=2)[np.newaxis], around_grey),
)


# ---- the measurements


@dataclass(frozen=True)
class Measurement:
    """One filter by one algorithm."""

    photo_filter: PhotoFilter
    algorithm: str
    chosen: str
    milliseconds: float
    difference: float
    tolerance: float
    picture: Array

    @property
    def label(self) -> str:
        """The algorithm, and what `auto` took."""
        return f"auto → {self.chosen}" if self.algorithm == "auto" else self.algorithm

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the difference from the direct algorithm."""
        return self.difference <= self.tolerance


def load_photo() -> Array:
    """A photograph (1, colours, height, width) in grey levels from 0 to 255."""
    pixels = load_sample_image("china.jpg")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis], np.float32)


def tolerance(photo: Array, weight: Array, algorithm: str) -> float:
    """Largest difference from the direct algorithm that rounding can explain, in grey levels.

    `explain` gives the error to expect of each algorithm, as a part of the size of the result. No result is
    greater than the sum of the magnitudes of the taps times the brightest pixel, and the two errors may add up.
    """
    candidates = fastconv.explain(photo, weight, **OPTIONS).candidates
    greatest_result = np.abs(weight).sum(axis=(1, 2, 3)).max() * photo.max()
    return float((candidates[algorithm].error_bound + candidates["direct"].error_bound) * greatest_result)


def median_milliseconds(call: Callable[[], Array]) -> float:
    """Median time of several calls, of which there are more if they are short."""
    seconds: list[float] = []
    while len(seconds) < FEWEST_CALLS or sum(seconds) < SECONDS_PER_MEASUREMENT:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)


def measure(photo: Array, photo_filter: PhotoFilter, algorithm: str, expected: Array) -> Measurement:
    weight = photo_filter.weight
    call = partial(fastconv.conv2d, photo, weight, algorithm=algorithm, **OPTIONS)
    result = call()  # The first call also compiles the algorithm, so it is not timed.
    chosen = fastconv.explain(photo, weight, **OPTIONS).algorithm if algorithm == "auto" else algorithm
    return Measurement(
        photo_filter,
        algorithm,
        chosen,
        milliseconds=median_milliseconds(call),
        difference=float(np.abs(result - expected).max()),
        tolerance=tolerance(photo, weight, chosen),
        picture=photo_filter.picture(result.reshape(COLOURS, -1, *result.shape[2:])),
    )


def measure_all(photo: Array, console: Console) -> list[list[Measurement]]:
    """One row for each filter, in it one measurement for each algorithm."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[list[Measurement]] = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(FILTERS) * len(ALGORITHMS))
        for photo_filter in FILTERS:
            expected = fastconv.conv2d(photo, photo_filter.weight, algorithm="direct", **OPTIONS)
            rows.append([])
            for algorithm in ALGORITHMS:
                progress.update(task, description=f"{photo_filter.name}, {algorithm}")
                rows[-1].append(measure(photo, photo_filter, algorithm, expected))
                progress.advance(task)
        progress.update(task, description="Photograph filtered")
    return rows


# ---- the output


def table_of(rows: list[list[Measurement]]) -> Table:
    table = Table(title="One photograph, every algorithm", caption="Differences from direct in grey levels of 0 to 255")
    for heading in ("filter", "size", "algorithm"):
        table.add_column(heading)
    for heading in ("median ms", "difference", "tolerance"):
        table.add_column(heading, justify="right")
    for row in rows:
        fastest = min(row, key=lambda each: each.milliseconds)
        for position, each in enumerate(row):
            name, size = (each.photo_filter.name, each.photo_filter.size) if position == 0 else ("", "")
            colour = "green" if each.agrees else "bold red"
            table.add_row(
                name,
                size,
                each.label,
                f"{'[bold]' if each is fastest else ''}{each.milliseconds:.2f}",
                f"[{colour}]{each.difference:.1e}",
                f"{each.tolerance:.1e}",
                end_section=each is row[-1],
            )
    return table


def show(axes: Any, picture: Array) -> None:
    """Draw grey levels (colours, height, width) without axes."""
    axes.imshow(np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    axes.set_axis_off()


def draw(photo: Array, rows: list[list[Measurement]], path: Path) -> None:
    """One row for each filter, one column for each algorithm, and the original before them."""
    figure, panels = plt.subplots(
        len(rows), 1 + len(ALGORITHMS), figsize=(16, 0.5 + 2.5 * len(rows)), layout="constrained"
    )
    figure.suptitle("The photograph with the filter in its corner, and the result of each algorithm", fontsize=15)
    for row, (original, *results) in zip(rows, panels, strict=True):
        show(original, photo[0])
        original.set_title(
            f"{row[0].photo_filter.name}, {row[0].photo_filter.size}", loc="left", weight="bold", fontsize=11
        )
        inset = original.inset_axes((0.02, 0.03, 0.27, 0.4))
        inset.imshow(row[0].photo_filter.taps[0], cmap="gray")
        inset.set(xticks=[], yticks=[])
        inset.spines[:].set_color("white")
        for axes, each in zip(results, row, strict=True):
            show(axes, each.picture)
            axes.set_title(f"{each.label}, {each.milliseconds:.1f} ms", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description="Filter a photograph with every algorithm of fastconv.")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where to put the picture")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)

    console = Console()
    photo = load_photo()
    rows = measure_all(photo, console)
    console.print(table_of(rows))
    path = folder / "photo_filters.png"
    draw(photo, rows, path)
    console.print(f"Pictures in {path}")

    disagreeing = [each for row in rows for each in row if not each.agrees]
    for each in disagreeing:
        console.print(
            f"[bold red]{each.photo_filter.name} by {each.label} is {each.difference:.1e} from direct, "
            f"more than {each.tolerance:.1e}"
        )
    return 1 if disagreeing else 0


if __name__ == "__main__":
    sys.exit(main())
