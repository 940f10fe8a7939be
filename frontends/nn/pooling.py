"""Pooling: the maximum or the mean of windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import GraphError, ShapeError
from ..array_api import matmul, mean, ones, transpose
from ..shapes import fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .common import IntOrTuple, floating, tuple_of

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d",
    "max_pool2d", "max_pool3d",
]

Attrs = dict[str, tuple[int, ...] | tuple[tuple[int, int], ...]]


def _window(
    name: str, n: int, x: Tensor, kernel_size: IntOrTuple, stride: IntOrTuple | None, padding: IntOrTuple,
    dilation: IntOrTuple = 1,
) -> Attrs:
    """The attributes of a window op."""
    if x.ndim not in (n + 1, n + 2):
        fail(name, ShapeError, f"needs an input of rank {n + 2} (or {n + 1} without a batch), got {x.ndim}", [x])
    kernel = tuple_of(name, "kernel_size", kernel_size, n, 1)
    pads = tuple_of(name, "padding", padding, n, 0)
    if any(2 * p > k for p, k in zip(pads, kernel)):
        fail(name, GraphError, f"padding {pads} must be at most half of the kernel {kernel}", [x])
    return {
        "kernel": kernel,
        "stride": kernel if stride is None else tuple_of(name, "stride", stride, n, 1),
        "padding": tuple((p, p) for p in pads),
        "dilation": tuple_of(name, "dilation", dilation, n, 1),
    }


def _max_pool(
    n: int, x: ArrayLike, kernel_size: IntOrTuple, stride: IntOrTuple | None, padding: IntOrTuple,
    dilation: IntOrTuple,
) -> Tensor:
    x = floating(f"max_pool{n}d", x)
    return apply("window_max", x, **_window(f"max_pool{n}d", n, x, kernel_size, stride, padding, dilation))


@located
def max_pool1d(
    x: ArrayLike, kernel_size: IntOrTuple, stride: IntOrTuple | None = None, padding: IntOrTuple = 0,
    dilation: IntOrTuple = 1,
) -> Tensor:
    """The largest element of windows over the last axis; see `max_pool2d`."""
    return _max_pool(1, x, kernel_size, stride, padding, dilation)


@located
def max_pool2d(
    x: ArrayLike, kernel_size: IntOrTuple, stride: IntOrTuple | None = None, padding: IntOrTuple = 0,
    dilation: IntOrTuple = 1,
) -> Tensor:
    """The largest element of each window over the last two axes.

    Parameters
    ----------
    x : ``[N, C, H, W]``, or ``[C, H, W]``.
    kernel_size, stride, dilation : one integer, or one per axis; the stride is by default the kernel's size.
    padding : on both sides, with elements that are never the largest.

    Returns
    -------
    ``[N, C, (H + 2*padding - dilation*(K - 1) - 1) // stride + 1, ...]``; the gradient goes to the first
    largest element.
    """
    return _max_pool(2, x, kernel_size, stride, padding, dilation)


@located
def max_pool3d(
    x: ArrayLike, kernel_size: IntOrTuple, stride: IntOrTuple | None = None, padding: IntOrTuple = 0,
    dilation: IntOrTuple = 1,
) -> Tensor:
    """The largest element of windows over the last three axes; see `max_pool2d`."""
    return _max_pool(3, x, kernel_size, stride, padding, dilation)


def _avg_pool(
    n: int, x: ArrayLike, kernel_size: IntOrTuple, stride: IntOrTuple | None, padding: IntOrTuple,
    count_include_pad: bool, divisor_override: int | None,
) -> Tensor:
    name = f"avg_pool{n}d"
    x = floating(name, x)
    attrs = _window(name, n, x, kernel_size, stride, padding)
    total = apply("window_sum", x, **attrs)
    if divisor_override is not None:
        return total / tuple_of(name, "divisor_override", divisor_override, 1, 1)[0]
    if count_include_pad or not any(p for pair in attrs["padding"] for p in pair):  # type: ignore[union-attr]
        return total / int(np.prod(attrs["kernel"]))  # a Python number does not change the dtype
    return total / apply("window_sum", ones(x.shape[x.ndim - n:], x.dtype), **attrs)


@located
def avg_pool1d(
    x: ArrayLike, kernel_size: IntOrTuple, stride: IntOrTuple | None = None, padding: IntOrTuple = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of windows over the last axis; see `avg_pool2d`."""
    return _avg_pool(1, x, kernel_size, stride, padding, count_include_pad, None)


@located
def avg_pool2d(
    x: ArrayLike, kernel_size: IntOrTuple, stride: IntOrTuple | None = None, padding: IntOrTuple = 0,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window over the last two axes.

    Parameters
    ----------
    x : ``[N, C, H, W]``, or ``[C, H, W]``.
    kernel_size, stride : one integer, or one per axis; the stride is by default the kernel's size.
    padding : zeros on both sides.
    count_include_pad : whether the zeros count in the mean.
    divisor_override : divide by this number instead of the window's size.
    """
    return _avg_pool(2, x, kernel_size, stride, padding, count_include_pad, divisor_override)


@located
def avg_pool3d(
    x: ArrayLike, kernel_size: IntOrTuple, stride: IntOrTuple | None = None, padding: IntOrTuple = 0,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:
    """The mean of windows over the last three axes; see `avg_pool2d`."""
    return _avg_pool(3, x, kernel_size, stride, padding, count_include_pad, divisor_override)


def _averaging(size: int, outputs: int) -> np.ndarray[Any, Any]:
    """The matrix that averages ``floor(i*size/outputs) .. ceil((i+1)*size/outputs)`` for each output i."""
    matrix = np.zeros((size, outputs), np.float32)
    for i in range(outputs):
        start, stop = i * size // outputs, -(-(i + 1) * size // outputs)
        matrix[start:stop, i] = 1 / (stop - start)
    return matrix


def _adaptive(n: int, x: ArrayLike, output_size: IntOrTuple) -> Tensor:
    name = f"adaptive_avg_pool{n}d"
    x = floating(name, x)
    if x.ndim not in (n + 1, n + 2):
        fail(name, ShapeError, f"needs an input of rank {n + 2} (or {n + 1} without a batch), got {x.ndim}", [x])
    outputs = tuple_of(name, "output_size", output_size, n, 1)
    axes = tuple(range(x.ndim - n, x.ndim))
    if all(o == 1 for o in outputs):
        return mean(x, axes, keepdims=True)
    sizes = x.shape[x.ndim - n:]
    if not all(isinstance(size, int) for size in sizes):
        fail(name, ShapeError, f"an output size other than 1 needs a known input size, got {sizes}", [x])
    if all(size % o == 0 for size, o in zip(sizes, outputs)):
        kernel = tuple(size // o for size, o in zip(sizes, outputs))
        return _avg_pool(n, x, kernel, None, 0, True, None)  # type: ignore[arg-type]
    for axis, size, o in zip(axes, sizes, outputs):
        order = (*(k for k in range(x.ndim) if k != axis), axis)
        averaged = matmul(transpose(x, order), _averaging(size, o).astype(x.dtype.numpy))  # type: ignore[arg-type]
        x = transpose(averaged, tuple(int(k) for k in np.argsort(order)))
    return x


@located
def adaptive_avg_pool1d(x: ArrayLike, output_size: IntOrTuple) -> Tensor:
    """The means of `output_size` windows that cover the last axis; see `adaptive_avg_pool2d`."""
    return _adaptive(1, x, output_size)


@located
def adaptive_avg_pool2d(x: ArrayLike, output_size: IntOrTuple) -> Tensor:
    """The means of windows that cover the last two axes, as many as `output_size` says.

    Window i of n covers ``floor(i*H/n)`` to ``ceil((i+1)*H/n)``. Sizes other than 1 need axes of known size.
    """
    return _adaptive(2, x, output_size)
