"""Initial values of parameters: functions that give an initializer, which makes a NumPy array of a shape.

Every initializer takes its random numbers from a generator that is given: equal seeds, equal values. Shapes are
those of PyTorch's layers, ``[out, in, ...]`` with the kernel's axes last; the *fan* is the number of terms of a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np

from ...errors import GraphError
from ..shapes import fail

__all__ = [
    "Initializer", "Seed", "constant", "gain", "generator", "glorot_normal", "glorot_uniform", "he_normal",
    "he_uniform", "lecun_normal", "lecun_uniform", "normal", "ones", "orthogonal", "seed", "truncated_normal",
    "uniform", "zeros",
]  # fmt: skip

Array = np.ndarray[Any, Any]
Initializer = Callable[[Sequence[int], "np.random.Generator"], Array]
"""From a shape and a generator to the first values (float64; layers cast them)."""
Seed = Union["np.random.Generator", int, None]

_shared: np.random.Generator | None = None  # made when needed: to import NumPy's generators takes a while


def seed(value: int) -> None:
    """Start anew the generator that layers use which are given none (it begins with seed 0)."""
    global _shared
    _shared = np.random.default_rng(value)


def generator(rng: Seed = None) -> np.random.Generator:
    """The generator of a seed, or the shared one."""
    if rng is not None:
        return np.random.default_rng(rng)
    if _shared is None:
        seed(0)
    assert _shared is not None
    return _shared


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """The fans of the product with a weight, and of that with its transpose."""
    if len(shape) < 2:
        fail("init", GraphError, f"a weight of shape {list(shape)} has no fan", (), "give at least two axes: [out, in]")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def _fan(shape: Sequence[int], mode: str) -> float:
    fans = dict(zip(("fan_in", "fan_out"), _fans(shape)))
    fans["fan_avg"] = sum(fans.values()) / 2  # type: ignore[assignment]
    if mode not in fans:
        fail("init", GraphError, f"mode must be 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}")
    return max(1, fans[mode])


def gain(nonlinearity: str, slope: float = 0.01) -> float:
    """The factor that keeps the variance through a nonlinearity (He et al. 2015; PyTorch's values).

    Parameters
    ----------
    nonlinearity : linear, sigmoid, tanh, relu, leaky_relu or selu.
    slope : of leaky_relu, for negative inputs.
    """
    gains = {
        "linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
        "leaky_relu": math.sqrt(2 / (1 + slope * slope)),
    }
    if nonlinearity not in gains:
        fail("gain", GraphError, f"unknown nonlinearity {nonlinearity!r}", (), f"there are {', '.join(gains)}")
    return gains[nonlinearity]


def constant(value: float) -> Initializer:
    """One value everywhere."""
    return lambda shape, rng: np.full(tuple(shape), float(value))


def zeros() -> Initializer:
    """Zeros."""
    return constant(0.0)


def ones() -> Initializer:
    """Ones."""
    return constant(1.0)


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """Evenly between two bounds."""
    return lambda shape, rng: rng.uniform(low, high, tuple(shape))


def normal(mean: float = 0.0, std: float = 1.0) -> Initializer:
    """The normal distribution."""
    return lambda shape, rng: rng.normal(mean, std, tuple(shape))


def truncated_normal(mean: float = 0.0, std: float = 1.0, bound: float = 2.0) -> Initializer:
    """The normal distribution within `bound` times `std` of its mean; what lies outside is drawn again.

    `std` is that before the cut: within two of them, 0.8796 times as much is left.
    """
    if not bound > 0:
        fail("truncated_normal", GraphError, f"bound must be positive, got {bound!r}")

    def make(shape: Sequence[int], rng: np.random.Generator) -> Array:
        values = rng.normal(size=math.prod(shape))
        while len(outside := np.flatnonzero(np.abs(values) > bound)):
            values[outside] = rng.normal(size=len(outside))
        return mean + std * values.reshape(tuple(shape))

    return make


def _scaled(scale: float, mode: str, spread: str) -> Initializer:
    """Variance ``scale / fan``."""

    def make(shape: Sequence[int], rng: np.random.Generator) -> Array:
        std = math.sqrt(scale / _fan(shape, mode))
        bound = math.sqrt(3) * std
        return rng.uniform(-bound, bound, tuple(shape)) if spread == "uniform" else rng.normal(0, std, tuple(shape))

    return make


def glorot_uniform(gain: float = 1.0) -> Initializer:
    """Variance ``2 gain^2 / (fan_in + fan_out)``, evenly (Glorot and Bengio 2010; PyTorch's xavier_uniform)."""
    return _scaled(gain * gain, "fan_avg", "uniform")


def glorot_normal(gain: float = 1.0) -> Initializer:
    """Variance ``2 gain^2 / (fan_in + fan_out)``, normal (Glorot and Bengio 2010)."""
    return _scaled(gain * gain, "fan_avg", "normal")


def he_uniform(mode: str = "fan_in", gain: float = math.sqrt(2)) -> Initializer:
    """Variance ``gain^2 / fan``, evenly (He et al. 2015; PyTorch's kaiming_uniform); the gain is that of relu."""
    return _scaled(gain * gain, mode, "uniform")


def he_normal(mode: str = "fan_in", gain: float = math.sqrt(2)) -> Initializer:
    """Variance ``gain^2 / fan``, normal (He et al. 2015)."""
    return _scaled(gain * gain, mode, "normal")


def lecun_uniform() -> Initializer:
    """Variance ``1 / fan_in``, evenly (LeCun et al. 1998)."""
    return _scaled(1.0, "fan_in", "uniform")


def lecun_normal() -> Initializer:
    """Variance ``1 / fan_in``, normal (LeCun et al. 1998; for selu Klambauer et al. 2017)."""
    return _scaled(1.0, "fan_in", "normal")


def orthogonal(gain: float = 1.0) -> Initializer:
    """Orthogonal rows or columns, whichever are fewer, each of length `gain` (Saxe et al. 2013).

    Axes after the first count as one. Evenly distributed among all such matrices (Mezzadri 2007).
    """

    def make(shape: Sequence[int], rng: np.random.Generator) -> Array:
        _fans(shape)
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
        return gain * (q if rows >= columns else q.T).reshape(tuple(shape))

    return make
