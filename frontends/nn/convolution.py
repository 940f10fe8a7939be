"""Layers that are one contraction: linear, convolution, transposed convolution."""

from __future__ import annotations

from ...errors import GraphError, ShapeError
from ...ir.dims import Dim
from ..array_api import asarray, matmul, transpose
from ..shapes import fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .common import IntOrTuple, along_channels, floating, tuple_of

__all__ = [
    "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
]

Padding = IntOrTuple | str


@located
def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Tensor:
    """``x @ weight.T + bias``, for a weight ``[out, in]`` (or ``[in]``, which drops the last axis)."""
    weight = asarray(weight)
    if weight.ndim not in (1, 2):
        fail("linear", ShapeError, f"the weight must be [out, in] or [in], got rank {weight.ndim}", [weight])
    y = matmul(x, transpose(weight))
    return y if bias is None else y + bias


@located
def bilinear(x1: ArrayLike, x2: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Tensor:
    """``x1^T weight[o] x2`` for each output o, for 2-d inputs and a weight ``[out, in1, in2]``."""
    from ..array_api import einsum

    y = einsum("ni,oij,nj->no", x1, weight, x2)
    return y if bias is None else y + bias


def _pairs(
    name: str, padding: Padding, stride: tuple[int, ...], dilation: tuple[int, ...], kernel: tuple[Dim, ...],
) -> tuple[tuple[int, int], ...]:
    """Padding before and after, per axis; ``"same"`` puts the odd element after."""
    n = len(stride)
    if padding == "valid":
        return ((0, 0),) * n
    if padding == "same":
        if any(s != 1 for s in stride):
            fail(name, GraphError, f"padding 'same' needs stride 1, got {stride}")
        totals = [d * (k - 1) for d, k in zip(dilation, kernel)]
        if not all(isinstance(t, int) for t in totals):
            fail(name, ShapeError, f"padding 'same' needs a kernel of known size, got {kernel}")
        return tuple((t // 2, t - t // 2) for t in totals)  # type: ignore[misc]
    if isinstance(padding, str):
        fail(name, GraphError, f"padding must be integers, 'same' or 'valid', got {padding!r}")
    return tuple((p, p) for p in tuple_of(name, "padding", padding, n, 0))


def _operands(name: str, n: int, x: ArrayLike, weight: ArrayLike) -> tuple[Tensor, Tensor]:
    x, weight = floating(name, x), floating(name, weight)
    axes = "L" if n == 1 else "DHW"[3 - n:]
    if x.ndim not in (n + 1, n + 2) or weight.ndim != n + 2:
        fail(
            name, ShapeError, f"got an input of rank {x.ndim} and a weight of rank {weight.ndim}", [x, weight],
            f"the input must be [N, C, {', '.join(axes)}] or without N, the weight of rank {n + 2}",
        )
    return x, weight


def _batched(n: int, x: Tensor) -> Tensor:
    return x if x.ndim == n + 2 else x[None]


def _finish(n: int, x: Tensor, y: Tensor, bias: ArrayLike | None) -> Tensor:
    if bias is not None:
        bias = asarray(bias)
        if bias.ndim != 1:
            fail(f"conv{n}d", ShapeError, f"the bias must be [out channels], got rank {bias.ndim}", [bias])
        y = y + along_channels(bias, n + 2)
    return y if x.ndim == n + 2 else y[0]


def _conv(
    n: int, x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None,
    stride: IntOrTuple, padding: Padding, dilation: IntOrTuple, groups: int,
) -> Tensor:
    name = f"conv{n}d"
    x, weight = _operands(name, n, x, weight)
    strides = tuple_of(name, "stride", stride, n, 1)
    dilations = tuple_of(name, "dilation", dilation, n, 1)
    pairs = _pairs(name, padding, strides, dilations, weight.shape[2:])
    y = apply(
        "conv", _batched(n, x), weight, stride=strides, padding=pairs, dilation=dilations, groups=groups,
    )
    return _finish(n, x, y, bias)


@located
def conv1d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1,
) -> Tensor:
    """Convolution over one axis: ``[N, C, L]`` with ``[O, C / groups, K]``; see `conv2d`."""
    return _conv(1, x, weight, bias, stride, padding, dilation, groups)


@located
def conv2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1,
) -> Tensor:
    """Convolution over two axes (the kernel is not flipped).

    Parameters
    ----------
    x : ``[N, C, H, W]``, or ``[C, H, W]``.
    weight : ``[O, C / groups, KH, KW]``.
    bias : ``[O]``.
    stride, dilation : one integer, or one per axis.
    padding : zeros on both sides: one integer, one per axis, ``"valid"`` for none, or ``"same"`` for the
        input's size (with stride 1).
    groups : input and output channels are split into so many groups that do not mix.

    Returns
    -------
    ``[N, O, (H + 2*padding - dilation*(KH - 1) - 1) // stride + 1, ...]``

    Raises
    ------
    ShapeError
        If ranks or channels do not fit, or the kernel exceeds the padded input.
    """
    return _conv(2, x, weight, bias, stride, padding, dilation, groups)


@located
def conv3d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1,
) -> Tensor:
    """Convolution over three axes: ``[N, C, D, H, W]`` with ``[O, C / groups, KD, KH, KW]``; see `conv2d`."""
    return _conv(3, x, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(
    n: int, x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None, stride: IntOrTuple, padding: IntOrTuple,
    output_padding: IntOrTuple, groups: int, dilation: IntOrTuple,
) -> Tensor:
    name = f"conv_transpose{n}d"
    x, weight = _operands(name, n, x, weight)
    strides = tuple_of(name, "stride", stride, n, 1)
    dilations = tuple_of(name, "dilation", dilation, n, 1)
    pads = tuple_of(name, "padding", padding, n, 0)
    extra = tuple_of(name, "output_padding", output_padding, n, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations)):
        fail(name, GraphError, f"output_padding {extra} must be smaller than the stride or the dilation")
    batched = _batched(n, x)
    shape = tuple(
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, d, k, e in zip(batched.shape[2:], strides, pads, dilations, weight.shape[2:], extra)
    )
    # A transposed convolution is what carries the cotangent of a convolution back to its input.
    y = apply(
        "conv_input_grad", batched, weight, shape=shape, stride=strides, padding=tuple((p, p) for p in pads),
        dilation=dilations, groups=groups,
    )
    return _finish(n, x, y, bias)


@located
def conv_transpose1d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: IntOrTuple = 1, padding: IntOrTuple = 0,
    output_padding: IntOrTuple = 0, groups: int = 1, dilation: IntOrTuple = 1,
) -> Tensor:
    """Transposed convolution of ``[N, C, L]`` with ``[C, O / groups, K]``; see `conv_transpose2d`."""
    return _conv_transpose(1, x, weight, bias, stride, padding, output_padding, groups, dilation)


@located
def conv_transpose2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: IntOrTuple = 1, padding: IntOrTuple = 0,
    output_padding: IntOrTuple = 0, groups: int = 1, dilation: IntOrTuple = 1,
) -> Tensor:
    """Transposed convolution: the transpose of `conv2d` with the same arguments.

    Parameters
    ----------
    x : ``[N, C, H, W]``, or ``[C, H, W]``.
    weight : ``[C, O / groups, KH, KW]``.
    bias : ``[O]``.
    output_padding : added to one side of the result's size, which the stride leaves ambiguous.

    Returns
    -------
    ``[N, O, (H - 1)*stride - 2*padding + dilation*(KH - 1) + output_padding + 1, ...]``
    """
    return _conv_transpose(2, x, weight, bias, stride, padding, output_padding, groups, dilation)


@located
def conv_transpose3d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: IntOrTuple = 1, padding: IntOrTuple = 0,
    output_padding: IntOrTuple = 0, groups: int = 1, dilation: IntOrTuple = 1,
) -> Tensor:
    """Transposed convolution of ``[N, C, D, H, W]`` with ``[C, O / groups, KD, KH, KW]``; see `conv_transpose2d`."""
    return _conv_transpose(3, x, weight, bias, stride, padding, output_padding, groups, dilation)
