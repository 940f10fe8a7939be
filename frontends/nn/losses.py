"""Losses, as differences, as probabilities with logits, and between distributions."""

from __future__ import annotations

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.dims import equal
from .. import array_api
from ..array_api import asarray, clip, log, maximum, where, zeros_like
from ..array_api.creation import iota
from ..array_api.statistical import logsumexp, spread
from ..shapes import fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .activations import log_softmax
from .common import along_channels, floating, reduced, same_shape

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss", "kl_div", "l1_loss",
    "mse_loss", "nll_loss", "smooth_l1_loss",
]


def _pair(name: str, input: ArrayLike, target: ArrayLike) -> tuple[Tensor, Tensor]:
    """Two floating-point tensors of one shape; a target of another float dtype takes the input's."""
    x, t = floating(name, input), floating(name, target)
    same_shape(name, x, t)
    return x, t


@located
def mse_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Tensor:
    """``(input - target)^2``."""
    x, t = _pair("mse_loss", input, target)
    return reduced("mse_loss", array_api.square(x - t), reduction)


@located
def l1_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Tensor:
    """``|input - target|``; the gradient at 0 is 0."""
    x, t = _pair("l1_loss", input, target)
    return reduced("l1_loss", abs(x - t), reduction)


@located
def huber_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """``d^2 / 2`` for a difference below `delta`, ``delta * (|d| - delta / 2)`` above (Huber 1964)."""
    x, t = _pair("huber_loss", input, target)
    if delta <= 0:
        fail("huber_loss", GraphError, f"delta must be positive, got {delta}")
    d = abs(x - t)
    return reduced("huber_loss", where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta)), reduction)


@located
def smooth_l1_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """``d^2 / (2 beta)`` for a difference below `beta`, ``|d| - beta / 2`` above (Girshick 2015)."""
    x, t = _pair("smooth_l1_loss", input, target)
    if beta < 0:
        fail("smooth_l1_loss", GraphError, f"beta must not be negative, got {beta}")
    d = abs(x - t)
    values = where(d < beta, (0.5 / beta) * d * d, d - 0.5 * beta) if beta else d
    return reduced("smooth_l1_loss", values, reduction)


def _weighted(values: Tensor, weight: ArrayLike | None) -> Tensor:
    return values if weight is None else values * weight


@located
def binary_cross_entropy(
    input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, reduction: str = "mean",
) -> Tensor:
    """``-(t log p + (1 - t) log(1 - p))`` of probabilities; logarithms below -100 count as -100.

    Of a sigmoid, take `binary_cross_entropy_with_logits`, which is exact.
    """
    p, t = _pair("binary_cross_entropy", input, target)
    values = -(t * maximum(log(p), -100) + (1 - t) * maximum(array_api.log1p(-p), -100))
    return reduced("binary_cross_entropy", _weighted(values, weight), reduction)


@located
def binary_cross_entropy_with_logits(
    input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
) -> Tensor:
    """`binary_cross_entropy` of ``sigmoid(input)``, exact for all logits.

    `pos_weight` multiplies the loss of positive targets.
    """
    x, t = _pair("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        values = apply("softplus", x) - x * t
    else:
        values = (1 - t) * x + (1 + (asarray(pos_weight) - 1) * t) * apply("softplus", -x)
    return reduced("binary_cross_entropy_with_logits", _weighted(values, weight), reduction)


@located
def kl_div(input: ArrayLike, target: ArrayLike, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """``target * (log target - input)``: the divergence of distributions, the input given as logarithms.

    ``"batchmean"`` sums and divides by the first dimension, which is the divergence per example.
    """
    x, t = _pair("kl_div", input, target)
    if log_target:
        values = array_api.exp(t) * (t - x)
    else:
        values = where(t > 0, t * (log(where(t > 0, t, 1)) - x), 0)
    if reduction == "batchmean":
        return array_api.sum(values) / x.shape[0]
    return reduced("kl_div", values, reduction)


# --- classes -------------------------------------------------------------------------------------


def _check_labels(name: str, scores: Tensor, labels: Tensor) -> None:
    """Require labels shaped as the scores without the class axis (axis 1, or 0 of a vector)."""
    axis = _class_axis(scores)
    wanted = scores.shape[:axis] + scores.shape[axis + 1:]
    if labels.ndim != len(wanted) or not all(map(equal, labels.shape, wanted)):
        fail(
            name, ShapeError, "the labels must have the shape of the scores without the class axis", [scores, labels],
            f"class axis {axis}; labels of shape {wanted}, or probabilities of shape {scores.shape}",
        )


def _class_axis(scores: Tensor) -> int:
    return 0 if scores.ndim == 1 else 1


def _at_labels(labels: Tensor, scores: Tensor) -> Tensor:
    """Where the class of a score is the label (clamped into the classes)."""
    axis = _class_axis(scores)
    labels = asarray(labels, "int64") if labels.dtype.bits < 32 else labels  # all positions must fit the dtype
    label = spread(clip(labels, 0, scores.shape[axis] - 1), scores, (axis,))
    return iota(scores.shape, axis, labels.dtype) == label


def _picked(scores: Tensor, at: Tensor) -> Tensor:
    """The scores where `at` holds, without the class axis.

    A masked sum, not a gather: it joins the other passes over the row, and its gradient needs no scatter.
    """
    return apply("sum", where(at, scores, 0), axes=(_class_axis(scores),))


def _mean_over_labels(
    name: str, values: Tensor, at: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None,
    reduction: str,
) -> Tensor:
    """Losses weighted by class and without the ignored labels; the mean is over the weights that remain."""
    counts: Tensor | None = None
    if weight is not None:
        counts = apply("sum", where(at, along_channels(weight, at.ndim, _class_axis(at)), 0), axes=(_class_axis(at),))
    if ignore_index is not None:
        kept = labels != ignore_index
        counts = where(kept, 1 if counts is None else counts, zeros_like(values))
    if counts is None:
        return reduced(name, values, reduction)
    values = where(counts != 0, values, 0) * counts
    total = reduced(name, values, "sum" if reduction == "mean" else reduction)
    return total / array_api.sum(counts) if reduction == "mean" else total


def _class_weight(name: str, scores: Tensor, weight: ArrayLike | None) -> Tensor | None:
    if weight is None:
        return None
    tensor = floating(name, weight)
    if tensor.ndim != 1 or not equal(tensor.shape[0], scores.shape[_class_axis(scores)]):
        fail(name, ShapeError, "the weight must have one element per class", [scores, tensor])
    return tensor


@located
def nll_loss(
    input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-input[n, target[n]]``: the negative log-likelihood of labels, given logarithms of probabilities.

    See `cross_entropy` for the parameters.
    """
    x, labels = floating("nll_loss", input), asarray(target)
    if not labels.dtype.is_integer:
        fail("nll_loss", DTypeError, f"the labels must be integers, got {labels.dtype!r}", [x, labels])
    _check_labels("nll_loss", x, labels)
    at = _at_labels(labels, x)
    class_weight = _class_weight("nll_loss", x, weight)
    return _mean_over_labels("nll_loss", -_picked(x, at), at, labels, class_weight, ignore_index, reduction)


@located
def cross_entropy(
    input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, ignore_index: int | None = None,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy of ``softmax(input)`` with labels or probabilities, exact for all logits.

    Parameters
    ----------
    input : logits ``[N, C]``, ``[N, C, ...]`` (the classes on axis 1), or ``[C]``.
    target : integer labels, shaped as the input without the class axis; a label outside ``0 .. C - 1`` is
        clamped to the nearest. Or floating-point probabilities, shaped as the input.
    weight : ``[C]``, a factor for each class.
    ignore_index : a label that counts neither in the loss nor in its mean (default: none).
    reduction : ``"mean"``, ``"sum"`` or ``"none"``. A mean over labels divides by their weights.
    label_smoothing : the share of each target that is spread evenly over the classes.

    Raises
    ------
    ShapeError, DTypeError
        If the target does not fit the input.
    """
    x, t = floating("cross_entropy", input), asarray(target)
    if x.ndim == 0:
        fail("cross_entropy", ShapeError, "the logits need a class axis", [x, t])
    if not 0 <= label_smoothing <= 1:
        fail("cross_entropy", GraphError, f"label_smoothing must be between 0 and 1, got {label_smoothing}")
    class_weight = _class_weight("cross_entropy", x, weight)
    if t.dtype.is_float:
        if ignore_index is not None:
            fail("cross_entropy", GraphError, "ignore_index needs integer labels", [x, t])
        if t.ndim < x.ndim:
            fail(
                "cross_entropy", DTypeError, f"labels must be integers, got {t.dtype!r}", [x, t],
                "cast with astype; probabilities have the shape of the scores",
            )
        return _soft(x, t, class_weight, reduction, label_smoothing)
    if not t.dtype.is_integer:
        fail("cross_entropy", DTypeError, f"needs integer labels or probabilities, got {t.dtype!r}", [x, t])
    _check_labels("cross_entropy", x, t)
    if label_smoothing:
        return _smoothed(x, t, class_weight, ignore_index, reduction, label_smoothing)
    at = _at_labels(t, x)
    values = logsumexp(x, _class_axis(x)) - _picked(x, at)
    return _mean_over_labels("cross_entropy", values, at, t, class_weight, ignore_index, reduction)


def _per_class(x: Tensor, weight: Tensor | None) -> Tensor | None:
    return None if weight is None else along_channels(weight, x.ndim, _class_axis(x))


def _soft(x: Tensor, t: Tensor, weight: Tensor | None, reduction: str, smoothing: float) -> Tensor:
    """The loss with target probabilities; its mean divides by the number of examples."""
    same_shape("cross_entropy", x, t)
    axis = _class_axis(x)
    if smoothing:
        t = (1 - smoothing) * t + asarray(smoothing, t.dtype) / x.shape[axis]
    logs = log_softmax(x, axis)
    factor = _per_class(x, weight)
    values = -array_api.sum(t * (logs if factor is None else logs * factor), axis)
    return reduced("cross_entropy", values, reduction)


def _smoothed(
    x: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None, reduction: str, smoothing: float,
) -> Tensor:
    """The loss with labels of which a share is spread over the classes (Szegedy et al. 2015)."""
    axis = _class_axis(x)
    logs, at = log_softmax(x, axis), _at_labels(labels, x)
    hard = _mean_over_labels("cross_entropy", -_picked(logs, at), at, labels, weight, ignore_index, reduction)
    factor = _per_class(x, weight)
    even = -array_api.sum(logs if factor is None else logs * factor, axis)
    if ignore_index is not None:
        even = where(labels != ignore_index, even, 0)
    if reduction != "mean":
        even = reduced("cross_entropy", even, reduction)
    else:  # divided by the same weights as the hard part
        ones = zeros_like(even) + 1
        even = array_api.sum(even) / _total(at, labels, weight, ignore_index, ones)
    return (1 - smoothing) * hard + smoothing * (even / x.shape[axis])


def _total(at: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None, ones: Tensor) -> Tensor:
    """The sum of the weights of the labels that count."""
    return _mean_over_labels("cross_entropy", ones, at, labels, weight, ignore_index, "sum")
