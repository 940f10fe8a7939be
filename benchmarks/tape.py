"""Reverse-mode differentiation in NumPy, as one would write it by hand: a row of functions and a tape.

Each function returns its value and, per operand, the map from the cotangent of the value to that of the
operand; maps of operands that need no gradient are not called. What is used for inference only has None for the maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from . import tape_recurrent
from .peer import Unsupported

__all__ = ["Plain", "Taped", "Value", "gradients"]


def _tanh(x):
    y = np.tanh(x)
    return y, (lambda g: g * (1 - y * y),)


def _exp(x):
    y = np.exp(x)
    return y, (lambda g: g * y,)


def _gelu(x):
    half = 0.5 * (1 + _erf(x * x.dtype.type(0.5**0.5)))
    density = (2 * math.pi) ** -0.5
    return x * half, (lambda g: g * (half + x * density * np.exp(-0.5 * x * x)),)


def _erf(x):
    try:
        from scipy.special import erf
    except ImportError:
        if x.dtype != np.float64:
            raise Unsupported("NumPy has no erf, and SciPy is not installed") from None
        erf = np.vectorize(math.erf, otypes=[float])
    return erf(x)


def _relu(x):
    return np.maximum(x, 0), (lambda g: g * (x > 0),)


def _rows(x):
    return x.reshape(-1, x.shape[-1])


def _linear(x, w, b):
    y = x @ w
    y += b
    return y, (lambda g: g @ w.T, lambda g: _rows(x).T @ _rows(g), lambda g: _rows(g).sum(0))


def _image(x):
    return x, (lambda g: g,)


def _flatten(x):
    return x.reshape(len(x), -1), (lambda g: g.reshape(x.shape),)


def _global_average(x):
    size = x.shape[2] * x.shape[3]
    return x.mean((2, 3)), (lambda g: np.broadcast_to(g[:, :, None, None] / size, x.shape),)


def _padded(x, padding, value=0):
    return np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2), constant_values=value) if padding else x


def _cropped(x, padding):
    return x[:, :, padding:-padding, padding:-padding] if padding else x


def _conv2d(x, w, b, stride=1, padding=0):
    outputs, channels, height, width = w.shape
    x = _padded(x, padding)
    windows = sliding_window_view(x, (height, width), axis=(2, 3))[:, :, ::stride, ::stride]
    windows = windows.transpose(0, 2, 3, 1, 4, 5)
    n, rows, columns = windows.shape[:3]
    patches, matrix = windows.reshape(n * rows * columns, -1), w.reshape(outputs, -1)
    y = patches @ matrix.T
    if b is not None:
        y += b

    def flat(g):
        return g.transpose(0, 2, 3, 1).reshape(-1, outputs)

    def by_image(g):
        spread = (flat(g) @ matrix).reshape(n, rows, columns, channels, height, width).transpose(4, 5, 0, 3, 1, 2)
        total = np.zeros_like(x)
        for i in range(height):
            for j in range(width):
                total[:, :, i:i + rows * stride:stride, j:j + columns * stride:stride] += spread[i, j]
        return _cropped(total, padding)

    return y.reshape(n, rows, columns, outputs).transpose(0, 3, 1, 2), (
        by_image, lambda g: (flat(g).T @ patches).reshape(w.shape), lambda g: flat(g).sum(0),
    )


def _max_pool2d(x, size, stride=None, padding=0):
    stride = stride or size
    x = _padded(x, padding, -np.inf)
    windows = sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    y = windows.max((4, 5))
    rows, columns = y.shape[2:]

    def by_image(g):
        # Equal largest elements of a window all get the cotangent: with random data they come only from
        # a saturated tanh, whose derivative is zero.
        total = np.zeros_like(x)
        for i in range(size):
            for j in range(size):
                chosen = np.where(windows[..., i, j] == y, g, x.dtype.type(0))
                total[:, :, i:i + rows * stride:stride, j:j + columns * stride:stride] += chosen
        return _cropped(total, padding)

    return y, (by_image,)


def _per_channel(v):
    return v[:, None, None]


def _batch_norm(x, scale, shift, mean, var):
    factor = scale / np.sqrt(var + x.dtype.type(1e-5))
    return x * _per_channel(factor) + _per_channel(shift - mean * factor), None


def _batch_norm_training(x, scale, shift, mean, var):
    axes = (0, 2, 3)
    center, spread = x.mean(axes), x.var(axes)
    factor = _per_channel(1 / np.sqrt(spread + x.dtype.type(1e-5)))
    normal = (x - _per_channel(center)) * factor

    def by_x(g):
        g = g * _per_channel(scale)
        return factor * (g - g.mean(axes, keepdims=True) - normal * (g * normal).mean(axes, keepdims=True))

    count = x.size // x.shape[1]
    statistics = 0.9 * mean + 0.1 * center, 0.9 * var + 0.1 * spread * (count / (count - 1))
    y = normal * _per_channel(scale) + _per_channel(shift)
    return (y, *statistics), (by_x, lambda g: (g * normal).sum(axes), lambda g: g.sum(axes))


def _layer_norm(x, w, b):
    centered = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((centered * centered).mean(-1, keepdims=True) + x.dtype.type(1e-5))
    normal = centered * scale

    def by_x(g):
        g = g * w
        return scale * (g - g.mean(-1, keepdims=True) - normal * (g * normal).mean(-1, keepdims=True))

    return normal * w + b, (by_x, lambda g: _rows(g * normal).sum(0), lambda g: _rows(g).sum(0))


def _self_attention(x, w, b, heads):
    n, steps, width = x.shape
    parts = (x @ w + b).reshape(n, steps, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
    scores = parts[0] @ parts[1].swapaxes(-1, -2)
    scores *= x.dtype.type((width // heads) ** -0.5)
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, scores)
    scores /= scores.sum(-1, keepdims=True)
    return (scores @ parts[2]).swapaxes(1, 2).reshape(x.shape), None


def _cross_entropy(logits, labels):
    at = np.arange(len(labels)), labels
    shifted = logits - logits.max(1, keepdims=True)
    powers = np.exp(shifted)
    totals = powers.sum(1, keepdims=True)

    def by_logits(g):
        result = powers / totals
        result[at] -= 1
        result *= g / len(labels)
        return result

    return np.mean(np.log(totals[:, 0]) - shifted[at]), (by_logits,)


_RNG = np.random.default_rng(0)


def _dropout(x, share):
    kept = _RNG.random(x.shape, np.float32) >= share
    return x * kept / x.dtype.type(1 - share), None


def _normal_like(x):
    return _RNG.standard_normal(x.shape, x.dtype), None


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "tanh": _tanh, "exp": _exp, "relu": _relu, "gelu": _gelu, "linear": _linear, "image": _image,
    "flatten": _flatten, "global_average": _global_average, "conv2d": _conv2d, "max_pool2d": _max_pool2d,
    "batch_norm": _batch_norm, "batch_norm_training": _batch_norm_training, "layer_norm": _layer_norm,
    "self_attention": _self_attention, "cross_entropy": _cross_entropy, "dropout": _dropout,
    "normal_like": _normal_like, **tape_recurrent.FUNCTIONS,
}


class Value:
    """An array on the tape, with the values it came from."""

    __slots__ = ("cotangent", "data", "pullbacks")

    def __init__(self, data: Any, pullbacks: Sequence[tuple[Value, Callable[..., Any]]] = ()) -> None:
        self.data, self.pullbacks, self.cotangent = data, pullbacks, None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    def __add__(self, other: Value) -> Value:
        return Value(self.data + other.data, [(self, lambda g: g), (other, lambda g: g)])


class Plain:
    """The functions on arrays."""

    def scan(self, step: Callable[..., Any], carry: Any, xs: Any) -> Any:
        results = []
        for x in xs:
            carry, y = step(carry, x)
            results.append(y)
        return np.stack(results)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = _function(name)
        return lambda *args: function(*args)[0]


class Taped:
    """The functions on `Value`; operands that are arrays are constants."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = _function(name)

        def taped(*args: Any) -> Any:
            data, pullbacks = function(*(a.data if isinstance(a, Value) else a for a in args))
            if not any(isinstance(a, Value) for a in args):
                return data
            if pullbacks is None:
                raise Unsupported(f"{name} is not differentiated by the tape")
            # Of several results the first is differentiated; the others are arrays.
            first, rest = (data[0], data[1:]) if isinstance(data, tuple) else (data, ())
            value = Value(first, [(a, f) for a, f in zip(args, pullbacks) if isinstance(a, Value)])
            return (value, *rest) if rest else value

        return taped


def _function(name: str) -> Callable[..., Any]:
    if name not in _FUNCTIONS:
        raise Unsupported(f"there is no {name} in NumPy's vocabulary")
    return _FUNCTIONS[name]


def gradients(loss: Value, leaves: Sequence[Value]) -> list[np.ndarray]:
    """The gradient of a scalar by the leaves."""
    loss.cotangent = loss.data.dtype.type(1)
    for value in reversed(_order(loss)):
        for operand, pullback in value.pullbacks:
            g = pullback(value.cotangent)
            operand.cotangent = g if operand.cotangent is None else operand.cotangent + g
    return [leaf.cotangent for leaf in leaves]


def _order(root: Value) -> list[Value]:
    """Values with their operands before them."""
    order: list[Value] = []
    seen: set[int] = set()
    stack = [(root, False)]
    while stack:  # no function that calls itself: it would hold the arrays until cycles of references are looked for
        value, entered = stack.pop()
        if entered:
            order.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            stack.append((value, True))
            stack.extend((operand, False) for operand, _ in value.pullbacks)
    return order
