"""Train a small neural network to read handwritten digits, with fastconv and NumPy alone.

The data are 1797 real digits of 8 x 8 pixels. The network is

    convolution 3 x 3 -> ReLU -> average pooling -> convolution 3 x 3 -> ReLU -> average pooling -> dense layer

and it shows the two directions of training. Forward, `fastconv.conv2d` computes the cross-correlations. Backward,
`fastconv.grad.conv2d_backward` takes the gradient of the loss for the output of a convolution and gives those for its
input, its weight and its bias. Average pooling is a convolution too, with a constant weight, a stride, and a group
for each channel, and its gradient is `fastconv.grad.conv2d_input`. The rest, with the Adam optimiser, is NumPy.

The script fails if fewer than 97 % of the digits that were kept out of training are read correctly.

    python examples/digits_cnn.py --output demo
"""

from __future__ import annotations

import argparse
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastconv

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

SEED = 0
CLASSES = 10
EPOCHS = 25
BATCH = 64
LEARNING_RATE = 1e-2
LEAST_ACCURACY = 0.97
# Each call takes about a millisecond, too short to be worth waking a second thread on a busy machine.
THREADS = 1


# ---- the layers


@dataclass
class Parameter:
    """Numbers to learn, their gradient, and what Adam remembers of the gradients before."""

    value: Array
    gradient: Array = field(init=False)
    mean: Array = field(init=False)
    mean_square: Array = field(init=False)

    def __post_init__(self) -> None:
        self.gradient, self.mean, self.mean_square = (np.zeros_like(self.value) for _ in range(3))


@dataclass
class Stopwatch:
    """Adds up the time that is spent inside `with` blocks."""

    seconds: float = 0.0
    start: float = 0.0

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self.start


class Layer(ABC):
    """A function with a gradient; `forward` keeps what `backward` needs."""

    parameters: tuple[Parameter, ...] = ()

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """The output."""

    @abstractmethod
    def backward(self, grad_output: Array) -> Array:
        """The gradient of the loss for x, given that for the output; sets those for the parameters."""


def random_weight(generator: np.random.Generator, shape: tuple[int, ...], inputs: int) -> Parameter:
    """Random numbers that keep the variance through a layer with a ReLU: He et al., ICCV 2015."""
    return Parameter(generator.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32))


class Convolution(Layer):
    """3 x 3 filters over all channels, with an output as large as the input."""

    def __init__(self, channels: int, filters: int, generator: np.random.Generator, stopwatch: Stopwatch) -> None:
        self.weight = random_weight(generator, (filters, channels, 3, 3), inputs=channels * 9)
        self.bias = Parameter(np.zeros(filters, np.float32))
        self.parameters = (self.weight, self.bias)
        self.options: dict[str, Any] = {"padding": "same", "num_threads": THREADS}
        self.stopwatch = stopwatch

    def forward(self, x: Array) -> Array:
        """The cross-correlation of x and the filters."""
        self.x = x
        with self.stopwatch:
            return fastconv.conv2d(x, self.weight.value, self.bias.value, **self.options)

    def backward(self, grad_output: Array) -> Array:
        """All three gradients at once."""
        with self.stopwatch:
            grad_x, self.weight.gradient, self.bias.gradient = fastconv.grad.conv2d_backward(
                grad_output, self.x, self.weight.value, **self.options
            )
        return grad_x


class AveragePooling(Layer):
    """The mean of every 2 x 2 pixels: one constant filter for each channel, moved on by its own size."""

    def __init__(self, channels: int, stopwatch: Stopwatch) -> None:
        self.weight = np.full((channels, 1, 2, 2), 1 / 4, np.float32)
        self.options: dict[str, Any] = {"stride": 2, "groups": channels, "num_threads": THREADS}
        self.stopwatch = stopwatch

    def forward(self, x: Array) -> Array:
        """Half as many pixels each way."""
        self.shape = x.shape
        with self.stopwatch:
            return fastconv.conv2d(x, self.weight, **self.options)

    def backward(self, grad_output: Array) -> Array:
        """A quarter of the gradient goes to each of the four pixels."""
        with self.stopwatch:
            return fastconv.grad.conv2d_input(self.shape, self.weight, grad_output, **self.options)


class ReLU(Layer):
    """The rectified linear unit, max(x, 0)."""

    def forward(self, x: Array) -> Array:
        """Zero takes the place of what is negative."""
        self.positive = x > 0
        return x * self.positive

    def backward(self, grad_output: Array) -> Array:
        """What was set to zero has no influence."""
        return grad_output * self.positive


class Dense(Layer):
    """A linear function of all pixels of all channels."""

    def __init__(self, inputs: int, outputs: int, generator: np.random.Generator) -> None:
        self.weight = random_weight(generator, (inputs, outputs), inputs)
        self.bias = Parameter(np.zeros(outputs, np.float32))
        self.parameters = (self.weight, self.bias)

    def forward(self, x: Array) -> Array:
        """One product of matrices for the batch."""
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        return self.x @ self.weight.value + self.bias.value

    def backward(self, grad_output: Array) -> Array:
        """The product differentiated for each of its factors."""
        self.weight.gradient = self.x.T @ grad_output
        self.bias.gradient = grad_output.sum(axis=0)
        return (grad_output @ self.weight.value.T).reshape(self.shape)


# ---- the network


@dataclass
class Network:
    """Layers one after the other, and the time that their convolutions have taken."""

    layers: list[Layer]
    convolutions: Stopwatch

    @property
    def parameters(self) -> list[Parameter]:
        """All that is to be learned."""
        return [parameter for layer in self.layers for parameter in layer.parameters]

    def forward(self, x: Array) -> Array:
        """A score for each class."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, grad_output: Array) -> None:
        """Set the gradient of each parameter, from the last layer to the first."""
        for layer in reversed(self.layers):
            grad_output = layer.backward(grad_output)


def build_network(generator: np.random.Generator) -> Network:
    stopwatch = Stopwatch()
    layers: list[Layer] = [
        Convolution(1, 16, generator, stopwatch),
        ReLU(),
        AveragePooling(16, stopwatch),
        Convolution(16, 32, generator, stopwatch),
        ReLU(),
        AveragePooling(32, stopwatch),
        Dense(32 * 2 * 2, CLASSES, generator),
    ]
    return Network(layers, stopwatch)


def cross_entropy(scores: Array, labels: Labels) -> tuple[float, Array]:
    """The mean of -log(softmax(scores)) at the labels, and its gradient for the scores."""
    shifted = scores - scores.max(axis=1, keepdims=True)  # The same softmax, and exp cannot overflow.
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    wanted = np.eye(CLASSES, dtype=np.float32)[labels]
    loss = -(log_probabilities * wanted).sum() / len(labels)
    return float(loss), (np.exp(log_probabilities) - wanted) / len(labels)


def adam_step(parameters: list[Parameter], step: int, rate: float) -> None:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1; steps count from 1."""
    keep_mean, keep_square, least = 0.9, 0.999, 1e-8
    for each in parameters:
        each.mean += (1 - keep_mean) * (each.gradient - each.mean)
        each.mean_square += (1 - keep_square) * (each.gradient**2 - each.mean_square)
        mean = each.mean / (1 - keep_mean**step)
        mean_square = each.mean_square / (1 - keep_square**step)
        each.value -= rate * mean / (np.sqrt(mean_square) + least)


# ---- the training


@dataclass(frozen=True)
class Digits:
    """Pictures (number, 1, 8, 8) and what they show."""

    pictures: Array
    labels: Labels

    def batches(self, generator: np.random.Generator) -> Iterator[Digits]:
        """All digits once, in random order."""
        order = generator.permutation(len(self.labels))
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            yield Digits(self.pictures[some], self.labels[some])


@dataclass
class History:
    """What happened in each epoch."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def load() -> tuple[Digits, Digits]:
    """Three quarters of the digits to train with and one quarter to test with, each class with its share in both.

    The grey levels are brought to mean 0 and variance 1 by those of the training, as the test is not known then.
    """
    pictures, labels = load_digits(return_X_y=True)
    pictures = pictures.astype(np.float32).reshape(-1, 1, 8, 8)
    train_x, test_x, train_y, test_y = train_test_split(
        pictures, labels, test_size=0.25, stratify=labels, random_state=SEED
    )
    mean, deviation = train_x.mean(), train_x.std()
    return Digits((train_x - mean) / deviation, train_y), Digits((test_x - mean) / deviation, test_y)


def predict(network: Network, digits: Digits) -> Labels:
    return network.forward(digits.pictures).argmax(axis=1)


def train(network: Network, digits: Digits, test: Digits, generator: np.random.Generator, console: Console) -> History:
    """Go through the digits again and again, in smaller and smaller steps."""
    history, step = History(), 0
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.4f}, test accuracy {task.fields[accuracy]:.2%}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=EPOCHS, loss=float("nan"), accuracy=0.0)
        for epoch in range(EPOCHS):
            rate = LEARNING_RATE * (1 + np.cos(np.pi * epoch / EPOCHS)) / 2
            losses = []
            for batch in digits.batches(generator):
                loss, grad_scores = cross_entropy(network.forward(batch.pictures), batch.labels)
                network.backward(grad_scores)
                step += 1
                adam_step(network.parameters, step, rate)
                losses.append(loss)
            history.losses.append(float(np.mean(losses)))
            history.accuracies.append(float(np.mean(predict(network, test) == test.labels)))
            progress.update(task, advance=1, loss=history.losses[-1], accuracy=history.accuracies[-1])
    return history


# ---- the output


def draw_curves(loss_axes: Any, accuracy_axes: Any, history: History) -> None:
    epochs = range(1, EPOCHS + 1)
    loss_axes.semilogy(epochs, history.losses, color="tab:blue")
    loss_axes.set(title="Training loss", xlabel="epoch", ylabel="cross-entropy")
    accuracy_axes.plot(epochs, [100 * each for each in history.accuracies], color="tab:green")
    accuracy_axes.axhline(100 * LEAST_ACCURACY, color="grey", linestyle="--", linewidth=1)
    accuracy_axes.set(title=f"Test accuracy, at the end {history.accuracies[-1]:.2%}", xlabel="epoch", ylabel="%")
    accuracy_axes.set_ylim(90, 100.3)
    for axes in (loss_axes, accuracy_axes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)


def draw_digits(panels: Any, test: Digits, predictions: Labels) -> None:
    """The digits that were misread come first."""
    misread_first = np.argsort(predictions == test.labels, kind="stable")
    for axes, place in zip(panels.flat, misread_first, strict=False):
        right = predictions[place] == test.labels[place]
        axes.imshow(test.pictures[place, 0], cmap="gray_r")
        axes.set_title(
            f"{predictions[place]}" if right else f"{predictions[place]}, not {test.labels[place]}",
            color="tab:green" if right else "tab:red",
            fontsize=11,
        )
        axes.set_axis_off()


def draw(history: History, test: Digits, predictions: Labels, path: Path) -> None:
    figure = plt.figure(figsize=(13, 7.5), layout="constrained")
    curves, digits = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    draw_curves(*curves.subplots(1, 2), history)
    digits.suptitle("Digits of the test and what the network reads")
    draw_digits(digits.subplots(2, 12), test, predictions)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a small neural network on handwritten digits with fastconv.")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where to put the picture")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)

    console = Console()
    generator = np.random.default_rng(SEED)
    digits, test = load()
    network = build_network(generator)
    training = Stopwatch()
    with training:
        history = train(network, digits, test, generator, console)
    accuracy = history.accuracies[-1]
    console.print(f"Test accuracy: [bold]{accuracy:.2%}[/bold] of {len(test.labels)} digits")
    console.print(
        f"Time: {training.seconds:.1f} s, of which {network.convolutions.seconds:.1f} s in convolutions and pooling"
    )
    path = folder / "digits_cnn.png"
    draw(history, test, predict(network, test), path)
    console.print(f"Pictures in {path}")
    return 0 if accuracy >= LEAST_ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
