"""The demo's pictures: the course of training, and test images with what the network says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

__all__ = ["plot_curves", "plot_digits"]

Array = NDArray[Any]

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e6e8ec"
BLUE, ORANGE, RED = "#2563a8", "#d9822b", "#c0312b"


def _plain(ax: Axes, epochs: int, title: str) -> None:
    """Axes by epoch without a frame: a light grid, quiet ticks, and the title in place of a vertical label."""
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", colors=MUTED, labelsize=9, length=0)
    ax.set_xlim(0, epochs)
    ax.set_xlabel("epoch", color=MUTED, fontsize=9)
    ax.set_title(title, color=INK, fontsize=11, loc="left", pad=10)


def _label_ends(ax: Axes, x: float, ends: dict[str, tuple[float, str]]) -> None:
    """Names of curves at their ends, in their colours, spread so that none covers another."""
    to_axes = ax.transData + ax.transAxes.inverted()
    place = 2.0
    for text, (y, color) in sorted(ends.items(), key=lambda item: -item[1][0]):
        place = min(to_axes.transform((x, y))[1], place - 0.075)
        ax.text(1.02, place, text, transform=ax.transAxes, color=color, fontsize=9, va="center")


def plot_curves(path: Path, losses: Sequence[float], epochs: Sequence[Sequence[float]], test_accuracy: float) -> None:
    """Loss and accuracy by epoch, on training and validation images.

    Parameters
    ----------
    losses : of every step.
    epochs : for each epoch the loss and the accuracy, then both on the validation images.
    test_accuracy : in the end.
    """
    figure = Figure(figsize=(9.6, 3.5), dpi=160, facecolor="white")
    figure.subplots_adjust(left=0.055, right=0.915, top=0.88, bottom=0.14, wspace=0.36)
    left, right = figure.subplots(1, 2)
    n = len(epochs)
    loss, accuracy, validation_loss, validation_accuracy = np.array(epochs).T
    x = np.arange(1, n + 1)

    _plain(left, n, "Cross-entropy")
    left.set_yscale("log")
    left.plot(np.arange(1, len(losses) + 1) * n / len(losses), losses, color=BLUE, alpha=0.16, linewidth=0.6)
    left.plot(x, loss, color=BLUE, linewidth=1.8)
    left.plot(x, validation_loss, color=ORANGE, linewidth=1.8)
    left.set_ylim(0.4 * min(loss.min(), validation_loss.min()), 1.5 * max(losses[:10]))
    _label_ends(left, n, {"training": (loss[-1], BLUE), "validation": (validation_loss[-1], ORANGE)})

    _plain(right, n, "Accuracy")
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.plot(x, accuracy, color=BLUE, linewidth=1.8)
    right.plot(x, validation_accuracy, color=ORANGE, linewidth=1.8)
    right.plot([n], [test_accuracy], "o", color=RED, markersize=5, clip_on=False, zorder=5)
    right.set_ylim(min(0.9, np.sort(validation_accuracy)[n // 10] - 0.02), 1.003)
    ends = {"training": (accuracy[-1], BLUE), "validation": (validation_accuracy[-1], ORANGE)}
    _label_ends(right, n, {**ends, f"test {test_accuracy:.1%}": (test_accuracy, RED)})
    figure.savefig(path)


def plot_digits(path: Path, images: Array, labels: Array, digits: Array, probabilities: Array) -> None:
    """Test images at random, and those of which the network is least certain."""
    columns, rows = 12, 3
    sure = probabilities[np.arange(len(digits)), digits]
    at_random = np.random.default_rng(0).permutation(len(digits))[: rows * columns]
    doubtful = np.argsort(sure)[:columns]
    figure = Figure(figsize=(9.6, 5.2), dpi=160, facecolor="white")
    spacing = {"left": 0.025, "right": 0.975, "hspace": 0.55, "wspace": 0.2}
    above = figure.add_gridspec(rows, columns, top=0.885, bottom=0.335, **spacing)
    below = figure.add_gridspec(1, columns, top=0.185, bottom=0.055, **spacing)
    title = {"color": INK, "fontsize": 11}
    figure.text(0.025, 0.95, "Test images, drawn at random, and what the network takes them for", title)
    figure.text(0.025, 0.25, "Those of which it is least certain, and how certain it is", title)
    for chosen, grid, confident in ((at_random, above, False), (doubtful, below, True)):
        for k, index in enumerate(chosen):
            ax = figure.add_subplot(grid[divmod(k, columns)])
            certainty = f"  {sure[index]:.0%}" if confident else ""
            _digit(ax, images[index], int(labels[index]), int(digits[index]), certainty)
    figure.savefig(path)


def _digit(ax: Axes, image: Array, label: int, digit: int, certainty: str) -> None:
    """An image, the network's answer above it, and below it the truth where the answer is wrong."""
    color = INK if digit == label else RED
    ax.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(GRID if digit == label else RED)
    ax.set_title(f"{digit}{certainty}", color=color, fontsize=9, pad=3)
    if digit != label:
        ax.set_xlabel(f"is {label}", color=RED, fontsize=9, labelpad=2)
