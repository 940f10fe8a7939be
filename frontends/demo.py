"""The demo: a small convolutional network, from its declaration to an artifact that needs no compiler.

``graphwright demo`` trains a network in the manner of LeNet-5 (LeCun et al., 1998) on scikit-learn's handwritten
digits, or on the 28x28 digits of MNIST, writes what the compiler made of it at each stage, and ships it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import graphwright as gw

from ..errors import ArgumentError

__all__ = ["DIGITS", "MNIST", "Data", "Network", "Plan", "build", "load_digits", "load_npz", "run"]

Array = NDArray[Any]

FILES = {  # of each stage's text
    "graph": "00-graph.gwir",
    "optimized": "01-optimized.gwir",
    "program": "02-program.gwir",
    "loops": "03-loops.gwir",
    "llvm": "04-llvm.ll",
    "asm": "05-asm.s",
}


@dataclass(frozen=True)
class Plan:
    """The sizes of a network, and how it is trained."""

    channels: tuple[int, int]
    kernel: int
    padding: int
    hidden: int
    shift: int  # images are moved by up to so many pixels, as augmentation
    epochs: int
    batch: int = 64
    rate: float = 0.05
    momentum: float = 0.9
    decay: float = 5e-4  # how strongly weights are drawn to 0


DIGITS = Plan(channels=(32, 64), kernel=3, padding=1, hidden=128, shift=1, epochs=40, batch=32, decay=2e-3)
MNIST = Plan(channels=(20, 50), kernel=5, padding=0, hidden=500, shift=2, epochs=8)


# --- data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Images ``float32[N, 1, H, W]`` from 0 to 1, and their labels ``int64[N]``."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """A data set in three parts: the network sees the second only to be judged, the third only at the end."""

    name: str
    train: Split
    validation: Split
    test: Split

    @property
    def size(self) -> int:
        """Height and width of the images."""
        return int(self.test.images.shape[-1])


def load_digits(seed: int = 0) -> Data:
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn; 7/10 of them to train, 2/10 to test."""
    from sklearn.datasets import load_digits as load

    raw = load()
    images, labels = _images(raw.images / 16), raw.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    parts = np.split(order, [len(order) * 7 // 10, len(order) * 8 // 10])
    return Data("digits", *(Split(images[p], labels[p]) for p in parts))


def load_npz(path: str, seed: int = 0) -> Data:
    """Digits in a file with the arrays x_train, y_train, x_test, y_test; images are ``uint8[N, 28, 28]``.

    Raises
    ------
    ArgumentError
        If the file does not hold them.
    """
    with open(path, "rb") as f:
        try:
            arrays = dict(np.load(f, allow_pickle=False))
        except (ValueError, OSError, EOFError, TypeError) as e:
            raise ArgumentError(f"{path} is not a .npz file of arrays") from e
    missing = [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in arrays]
    if missing:
        raise ArgumentError(f"{path} lacks {', '.join(missing)}; it has {', '.join(arrays)}")
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.shape != (len(y), 28, 28) or y.ndim != 1 or not np.isin(y, range(10)).all():
            raise ArgumentError(
                f"{path}: x_{part} is {x.dtype}{list(x.shape)} and y_{part} is {y.dtype}{list(y.shape)}; "
                "they must be uint8[N, 28, 28] and digits from 0 to 9, [N]"
            )
    images, labels = _images(arrays["x_train"] / 255), arrays["y_train"].astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    validation, train = np.split(order, [len(order) // 20])
    test = Split(_images(arrays["x_test"] / 255), arrays["y_test"].astype(np.int64))
    learned, judged = (Split(images[rows], labels[rows]) for rows in (train, validation))
    return Data(Path(path).stem, learned, judged, test)


def _images(pixels: Array) -> Array:
    return np.ascontiguousarray(pixels[:, None], dtype=np.float32)


def shifted(images: Array, by: int, rng: np.random.Generator) -> Array:
    """Each image moved by up to `by` pixels along both axes; what comes in is 0."""
    n, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (by, by), (by, by)))
    rows, columns = rng.integers(0, 2 * by + 1, (2, n, 1))
    rows, columns = rows + np.arange(height), columns + np.arange(width)
    return np.ascontiguousarray(padded[np.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None])


# --- the network ---------------------------------------------------------------------------------


class Network:
    """Two convolutions, each with bias, ReLU and max-pooling, and two dense layers."""

    def __init__(self, plan: Plan, size: int, seed: int = 0) -> None:
        self.plan = plan
        rng = np.random.default_rng(seed)
        first, second = plan.channels
        for _ in range(2):
            size = (size + 2 * plan.padding - plan.kernel + 1) // 2
        shapes = {
            "conv1": (first, 1, plan.kernel, plan.kernel),
            "conv2": (second, first, plan.kernel, plan.kernel),
            "dense1": (plan.hidden, second * size * size),
            "dense2": (10, plan.hidden),
        }
        self.parameters: dict[str, Any] = {}
        for name, shape in shapes.items():
            scale = np.sqrt(2 / np.prod(shape[1:]))  # He et al., 2015
            weight = rng.standard_normal(shape, np.float32) * np.float32(scale)
            self.parameters[f"{name}_weight"] = gw.Variable(weight, name=f"{name}_weight")
            self.parameters[f"{name}_bias"] = gw.Variable(np.zeros(shape[0], np.float32), name=f"{name}_bias")

    def logits(self, x: Any) -> Any:
        """Scores ``[N, 10]`` of images ``[N, 1, H, W]``."""
        p, padding = self.parameters, self.plan.padding
        h = gw.nn.relu(gw.nn.conv2d(x, p["conv1_weight"], p["conv1_bias"], padding=padding))
        h = gw.nn.max_pool2d(h, 2)
        h = gw.nn.relu(gw.nn.conv2d(h, p["conv2_weight"], p["conv2_bias"], padding=padding))
        h = gw.nn.max_pool2d(h, 2)
        h = gw.reshape(h, (h.shape[0], p["dense1_weight"].shape[1]))
        h = gw.nn.relu(gw.nn.linear(h, p["dense1_weight"], p["dense1_bias"]))
        return gw.nn.linear(h, p["dense2_weight"], p["dense2_bias"])


def build(network: Network, size: int) -> tuple[Any, Any]:
    """The two functions that are shipped: ``train(x, y, rate)`` and ``predict(x)``."""
    x = gw.placeholder("x", "float32", ("N", 1, size, size))
    y = gw.placeholder("y", "int64", ("N",))
    rate = gw.placeholder("rate", "float32", ())

    logits = network.logits(x)
    loss = gw.nn.cross_entropy(logits, y)
    accuracy = gw.mean((gw.argmax(logits, axis=-1) == y).astype("float32"))

    parameters = list(network.parameters.values())
    updates = {}
    for parameter, gradient in zip(parameters, gw.grad(loss, parameters)):
        velocity = gw.Variable(np.zeros(parameter.shape, np.float32), name=f"{parameter.name}_velocity")
        decayed = gradient + network.plan.decay * parameter
        updates[velocity] = network.plan.momentum * velocity + decayed
        updates[parameter] = parameter - rate * updates[velocity]

    train = gw.function([x, y, rate], {"loss": loss, "accuracy": accuracy}, updates=updates, name="train")
    answer = {"digit": gw.argmax(logits, axis=-1), "probability": gw.nn.softmax(logits)}
    # what an artifact has, to the bit: it does not prepare weights
    return train, gw.function([x], answer, name="predict", prepare=False)


# --- training ------------------------------------------------------------------------------------


@dataclass
class History:
    """What training went through; a row of `epochs`: loss, accuracy, and both on the validation images."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    epochs: list[tuple[float, float, float, float]] = field(default_factory=list)


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[Array]:
    """Indices of one epoch's batches: every image once, in a new order."""
    order = rng.permutation(count)
    yield from (order[k : k + size] for k in range(0, count, size))


def train_epochs(train: Any, predict: Any, data: Data, plan: Plan, seed: int, epochs: int) -> History:
    """Train with a learning rate that falls to 0 along half a cosine (Loshchilov and Hutter, 2017)."""
    from tqdm import tqdm

    rng = np.random.default_rng(seed)
    history = History()
    steps = epochs * -(-len(data.train) // plan.batch)
    with tqdm(total=steps, unit=" steps", desc="training", leave=False, mininterval=0.2) as bar:
        for _ in range(epochs):
            images, seen = shifted(data.train.images, plan.shift, rng), []
            for rows in batches(len(data.train), plan.batch, rng):
                rate = plan.rate * (1 + math.cos(math.pi * len(history.losses) / steps)) / 2
                x, y = images[rows], data.train.labels[rows]
                start = time.perf_counter()
                result = train(x, y, rate)
                history.seconds.append(time.perf_counter() - start)
                history.losses.append(float(result["loss"]))
                seen.append((float(result["loss"]), float(result["accuracy"]), len(rows)))
                bar.update()
            losses, accuracies, counts = zip(*seen)
            mean = float(np.average(losses, weights=counts)), float(np.average(accuracies, weights=counts))
            judged = judge(predict(data.validation.images), data.validation.labels)
            history.epochs.append((*mean, *judged))
            bar.set_postfix_str(f"loss {mean[0]:.3f}, validation {judged[1]:.1%}", refresh=False)
    return history


def judge(answer: dict[str, Array], labels: Array) -> tuple[float, float]:
    """Cross-entropy and accuracy of predictions."""
    right = answer["probability"][np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, 1e-30)).mean()), float((answer["digit"] == labels).mean())


# --- the whole demo ------------------------------------------------------------------------------


def run(out: str, data: str | None = None, epochs: int | None = None, seed: int = 0) -> float:
    """Do all of it, print what was measured, write the results to a folder; the accuracy on the test images."""
    plan = MNIST if data else DIGITS
    epochs = epochs or plan.epochs
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found = load_npz(data, seed) if data else load_digits(seed)
    _say(
        "data", f"{found.name}, {found.size}x{found.size} pixels: {len(found.train):,} images to train, "
        f"{len(found.validation):,} to validate, {len(found.test):,} to test",
    )

    train, predict = _compile(Network(plan, found.size, seed), found.size)
    nbytes = train.memory(N=plan.batch)
    _say("memory", f"{nbytes:,} bytes of scratch for a step of {plan.batch} images, known before it runs")

    history = train_epochs(train, predict, found, plan, seed, epochs)
    _say(
        "training", f"{epochs} epochs, {len(history.losses):,} steps of {plan.batch} images; "
        f"{np.median(history.seconds) * 1e3:.2f} ms a step (median)",
    )
    answer = predict(found.test.images)
    accuracy = judge(answer, found.test.labels)[1]
    _say("accuracy", f"{accuracy:.2%} of the test images, {history.epochs[-1][3]:.2%} of the validation images")

    _write(folder, train, predict, history, found, answer, accuracy)
    _deploy(folder / "lenet.gwa", found, answer, plan)
    return accuracy


def _say(what: str, text: str) -> None:
    print(f"{what:<10} {text}", flush=True)


def _compile(network: Network, size: int) -> tuple[Any, Any]:
    """Compile once from nothing and once from the cache, and print how long both took."""
    with tempfile.TemporaryDirectory() as folder, _environment("GRAPHWRIGHT_CACHE_DIR", folder):
        times = []
        for _ in range(2):
            start = time.perf_counter()
            functions = build(network, size)
            times.append(time.perf_counter() - start)
    cold, warm = times
    _say("compile", f"{cold:.2f} s for train and predict, any batch size; {warm * 1e3:.0f} ms when in the cache")
    return functions


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """An environment variable, set for a while."""
    saved = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if saved is None:
            del os.environ[name]
        else:
            os.environ[name] = saved


def _write(
    folder: Path, train: Any, predict: Any, history: History, data: Data, answer: dict[str, Array], accuracy: float,
) -> None:
    from .demo_plots import plot_curves, plot_digits

    for stage, name in FILES.items():
        (folder / name).write_text(train.ir(stage))
    plot_curves(folder / "curves.png", history.losses, history.epochs, accuracy)
    plot_digits(folder / "digits.png", data.test.images[:, 0], data.test.labels, answer["digit"], answer["probability"])
    gw.export(folder / "lenet.gwa", {"train": train, "predict": predict})
    first, *_, last = FILES.values()
    _say("written", f"{folder}{os.sep}: {first} to {last}, curves.png, digits.png, lenet.gwa")


def _deploy(artifact: Path, data: Data, answer: dict[str, Array], plan: Plan) -> None:
    """Use the artifact in a new process that has no compiler, and print what it found."""
    arrays: dict[str, Any] = {
        "images": data.train.images,
        "labels": data.train.labels,
        "test_images": data.test.images,
        "test_labels": data.test.labels,
        "batch": np.array(plan.batch),
        "rate": np.array(plan.rate / 50),
        **answer,
    }
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **arrays)
        report = _child([str(artifact), str(inputs)])
    if not report["identical"]:
        raise ArgumentError(f"{artifact}: predictions in a new process differ from those before")
    _say("artifact", f"{artifact.stat().st_size:,} bytes, {report['code']:,} of them machine code")
    _say("shipped", f"in a new process without {', '.join(report['absent'][:3])} and the compiler:")
    _say("", f"loaded in {report['load'] * 1e3:.1f} ms; {len(data.test):,} test images predicted to the bit as before;")
    _say("", f"one more epoch in {report['train']:.2f} s: loss {report['loss']:.4f}, {report['accuracy']:.2%} on test")


def _child(arguments: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "graphwright.frontends.demo_child", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ArgumentError(f"the process that loads the artifact failed with exit code {done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report
