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


def _plain(ax: Axes, xlabel: str, title: str) -> None:
    """Axes without a frame: a light grid, small quiet labels, the title as the vertical axis's label."""
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=MUTED, labelsize=9, length=0)
    ax.set_xlabel(xlabel, color=MUTED, fontsize=9)
    ax.set_title(title, color=INK, fontsize=11, loc="left", pad=10)


def _label(ax: Axes, x: float, y: float, text: str, color: str, dy: float = 0) -> None:
    """A name beside the end of a curve, in its colour."""
    ax.annotate(
        text, (x, y), (6, dy), textcoords="offset points", color=color, fontsize=9, va="center", annotation_clip=False,
    )


def plot_curves(path: Path, losses: Sequence[float], epochs: Sequence[Sequence[float]], test_accuracy: float) -> None:
    """Loss and accuracy by epoch, on training and validation images.

    Parameters
    ----------
    losses : of every step.
    epochs : for each epoch the loss and the accuracy, then both on the validation images.
    """
    figure = Figure(figsize=(9.6, 3.6), dpi=160, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    n, values = len(epochs), np.array(epochs)
    x = np.arange(1, n + 1)

    _plain(left, "epoch", "Cross-entropy")
    left.plot(np.arange(1, len(losses) + 1) * n / len(losses), losses, color=BLUE, alpha=0.18, linewidth=0.7)
    left.plot(x, values[:, 0], color=BLUE, linewidth=1.8)
    left.plot(x, values[:, 2], color=ORANGE, linewidth=1.8)
    left.set_yscale("log")
    low = min(values[-1, [0, 2]])
    apart = np.sign(values[-1, 0] - values[-1, 2]) * 6 if max(values[-1, [0, 2]]) < 1.4 * low else 0
    _label(left, n, values[-1, 0], "training", BLUE, apart)
    _label(left, n, values[-1, 2], "validation", ORANGE, -apart)

    _plain(right, "epoch", "Accuracy")
    right.plot(x, values[:, 1], color=BLUE, linewidth=1.8)
    right.plot(x, values[:, 3], color=ORANGE, linewidth=1.8)
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set_ylim(max(0.0, min(0.9, float(np.sort(values[:, 3])[min(2, n - 1)]) - 0.02)), 1.004)
    right.plot([n], [test_accuracy], "o", color=RED, markersize=5, clip_on=False, zorder=5)
    ends = {"training": (values[-1, 1], BLUE), "validation": (values[-1, 3], ORANGE), f"test {test_accuracy:.1%}": (test_accuracy, RED)}
    _label_apart(right, n, ends)
    figure.savefig(path)


def _label_apart(ax: Axes, x: float, ends: dict[str, tuple[float, str]]) -> None:
    """Labels of curves that may end close together, spread so that none covers another."""
    low, high = ax.get_ylim()
    gap = 0.075 * (high - low)
    place = high + gap
    for text, (y, color) in sorted(ends.items(), key=lambda item: -item[1][0]):
        place = min(y, place - gap)
        ax.text(
            x, place, f"  {text}", transform=ax.transData, color=color, fontsize=9, va="center", clip_on=False,
        )


def plot_digits(path: Path, images: Array, labels: Array, digits: Array, probabilities: Array) -> None:
    """Test images at random, and those of which the network is least certain."""
    columns, rows = 12, 3
    sure = probabilities[np.arange(len(digits)), digits]
    order = np.random.default_rng(0).permutation(len(digits))
    doubtful = np.argsort(sure)[:columns]
    figure = Figure(figsize=(9.6, 4.6), dpi=160, facecolor="white")
    figure.subplots_adjust(left=0.02, right=0.98, top=0.9, bottom=0.03, hspace=0.5, wspace=0.15)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1] * (rows + 1))
    chosen = [*order[: rows * columns], *doubtful]
    for k, index in enumerate(chosen):
        row, column = divmod(k, columns)
        ax = figure.add_subplot(grid[row, column])
        _digit(ax, images[index], int(labels[index]), int(digits[index]), float(sure[index]), row == rows)
    figure.text(0.02, 0.955, "Test images at random, and what the network says", color=INK, fontsize=11)
    figure.savefig(path)


def _digit(ax: Axes, image: Array, label: int, digit: int, sure: float, with_doubt: bool) -> None:
    ax.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    right = digit == label
    for spine in ax.spines.values():
        spine.set_color(GRID if right else RED)
    text = str(digit) if right else f"{digit}, is {label}"
    ax.set_title(f"{text}  {sure:.0%}" if with_doubt else text, color=INK if right else RED, fontsize=9, pad=3)
