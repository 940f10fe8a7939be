"""The neural functions against formulas in NumPy, their gradients against differences and compiled code."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import graphwright as gw
from graphwright import nn

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape)


def erf(x):
    return np.vectorize(math.erf, otypes=[float])(x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def build(function, arrays):
    """Placeholders for arrays, the function of them, and its gradients by the floating-point ones."""
    inputs = [gw.placeholder(f"x{k}", a.dtype, a.shape) for k, a in enumerate(arrays)]
    y = function(*inputs)
    weights = np.cos(np.arange(int(np.prod(y.shape)))).reshape(y.shape)
    loss = gw.sum(y * weights)
    wrt = [x for x in inputs if x.dtype == gw.float64]
    return inputs, y, loss, gw.grad(loss, wrt, disconnected="zero")


def differences(loss, arrays, k, h=1e-5):
    """The derivative of a function of arrays by one of them, by central differences."""
    result = np.zeros(arrays[k].shape)
    for i in np.ndindex(*arrays[k].shape):
        moved = [[np.array(a) for a in arrays] for _ in range(2)]
        moved[0][k][i] += h
        moved[1][k][i] -= h
        result[i] = (loss(*moved[0]) - loss(*moved[1])) / (2 * h)
    return result


def check(function, reference, *arrays, differentiable=True):
    """Value against NumPy; gradient against differences; compiled code against the interpreter."""
    arrays = [np.asarray(a) for a in arrays]
    inputs, y, loss, gradients = build(function, arrays)
    outputs = [y, *gradients]
    interpreted = gw.function(inputs, outputs, target="interpreter")(*arrays)
    wanted = np.asarray(reference(*arrays))
    assert interpreted[0].shape == wanted.shape
    np.testing.assert_allclose(interpreted[0], wanted, rtol=1e-7, atol=1e-9)
    if differentiable:
        value = gw.function(inputs, loss, target="interpreter")
        floats = [k for k, a in enumerate(arrays) if a.dtype == np.float64]
        for k, got in zip(floats, interpreted[1:], strict=True):
            np.testing.assert_allclose(got, differences(value, arrays, k), rtol=1e-4, atol=1e-7)
    compiled = gw.function(inputs, outputs)(*arrays)
    for got, expected in zip(compiled, interpreted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


# --- activations ---------------------------------------------------------------------------------

ACTIVATIONS = {
    "relu": (nn.relu, lambda x: np.maximum(x, 0)),
    "relu6": (nn.relu6, lambda x: x.clip(0, 6)),
    "leaky_relu": (lambda x: nn.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    "elu": (lambda x: nn.elu(x, 0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0)))),
    "celu": (lambda x: nn.celu(x, 2.0), lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0) / 2))),
    "selu": (nn.selu, lambda x: 1.0507009873554805 * np.where(
        x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))),
    "gelu": (nn.gelu, lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2)))),
    "gelu tanh": (lambda x: nn.gelu(x, approximate="tanh"),
                  lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    "silu": (nn.silu, lambda x: x * sigmoid(x)),
    "mish": (nn.mish, lambda x: x * np.tanh(np.logaddexp(x, 0))),
    "softplus": (lambda x: nn.softplus(x, 2.0), lambda x: np.logaddexp(2 * x, 0) / 2),
    "softplus threshold": (lambda x: nn.softplus(x, 1.0, 1.0), lambda x: np.where(x > 1, x, np.logaddexp(x, 0))),
    "sigmoid": (nn.sigmoid, sigmoid),
    "logsigmoid": (nn.logsigmoid, lambda x: -np.logaddexp(-x, 0)),
    "tanh": (nn.tanh, np.tanh),
    "hardtanh": (nn.hardtanh, lambda x: x.clip(-1, 1)),
    "hardsigmoid": (nn.hardsigmoid, lambda x: (x / 6 + 0.5).clip(0, 1)),
    "hardswish": (nn.hardswish, lambda x: x * (x / 6 + 0.5).clip(0, 1)),
    "softsign": (nn.softsign, lambda x: x / (1 + abs(x))),
    "tanhshrink": (nn.tanhshrink, lambda x: x - np.tanh(x)),
    "threshold": (lambda x: nn.threshold(x, 0.5, -2.0), lambda x: np.where(x > 0.5, x, -2)),
    "glu": (nn.glu, lambda x: x[:, :2] * sigmoid(x[:, 2:])),
    "softmax": (lambda x: nn.softmax(x, axis=0), lambda x: softmax(x, 0)),
    "softmin": (nn.softmin, lambda x: softmax(-x)),
    "log_softmax": (nn.log_softmax, lambda x: np.log(softmax(x))),
    "logsumexp": (lambda x: nn.logsumexp(x, 1), lambda x: np.log(np.exp(x).sum(1))),
}


@pytest.mark.parametrize("case", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activations(case):
    check(*case, 2 * normal(3, 4) + 0.01)


def test_prelu():
    check(nn.prelu, lambda x, w: np.where(x > 0, x, x * w[:, None]), normal(2, 3, 4), normal(3))


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_extreme_arguments_stay_exact(target):
    x = gw.placeholder("x", "float64", ("N", 2))
    a = np.array([[800.0, -800.0], [-800.0, -800.0], [0.0, 800.0]])
    outputs = [nn.softmax(x), nn.log_softmax(x), nn.logsumexp(x, 1), nn.logsigmoid(x), nn.softplus(x)]
    gradients = [gw.grad(gw.sum(y), x) for y in outputs[1:]]
    got = gw.function([x], [outputs, gradients], target=target)(a)
    np.testing.assert_allclose(got[0][0], [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(got[0][1], [[0, -1600], [-np.log(2)] * 2, [-800, 0]])
    np.testing.assert_allclose(got[0][2], [800, -800 + np.log(2), 800])
    np.testing.assert_allclose(got[0][3], [[0, -800], [-800, -800], [-np.log(2), 0]])
    np.testing.assert_allclose(got[0][4], [[800, 0], [0, 0], [np.log(2), 800]], atol=1e-300)
    assert all(np.isfinite(g).all() for g in got[1])


# --- convolution and pooling ---------------------------------------------------------------------


def conv2d(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """Convolution from its definition, one output element at a time."""
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    size = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *size))
    own, per = w.shape[1], w.shape[0] // groups
    for o, i, j in itertools.product(range(w.shape[0]), range(size[0]), range(size[1])):
        rows = slice(i * stride[0], i * stride[0] + reach[0], dilation[0])
        columns = slice(j * stride[1], j * stride[1] + reach[1], dilation[1])
        first = o // per * own
        y[:, o, i, j] = (x[:, first:first + own, rows, columns] * w[o]).sum((1, 2, 3))
    return y


CONVOLUTIONS = {
    "plain": ({}, {}, 2, 3, 1),
    "stride and padding": ({"stride": 2, "padding": 1}, {"stride": (2, 2), "padding": (1, 1)}, 2, 3, 1),
    "uneven": ({"stride": (2, 1), "padding": (0, 2)}, {"stride": (2, 1), "padding": (0, 2)}, 2, 2, 1),
    "dilation": ({"dilation": 2}, {"dilation": (2, 2)}, 2, 3, 1),
    "same": ({"padding": "same"}, {"padding": (1, 1)}, 2, 2, 1),
    "valid": ({"padding": "valid"}, {}, 1, 2, 1),
    "groups": ({"groups": 2}, {"groups": 2}, 4, 4, 2),
    "depthwise": ({"groups": 3, "padding": 1}, {"groups": 3, "padding": (1, 1)}, 3, 3, 3),
}


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_conv2d(case):
    arguments, plain, channels, out, groups = case
    check(
        lambda x, w, b: nn.conv2d(x, w, b, **arguments),
        lambda x, w, b: conv2d(x, w, **plain) + b[:, None, None],
        normal(2, channels, 6, 5), normal(out, channels // groups, 3, 3), normal(out),
    )


def test_conv_of_other_ranks():
    check(lambda x, w: nn.conv1d(x, w, stride=2), lambda x, w: conv2d(x[:, :, None], w[:, :, None], (1, 2))[:, :, 0],
          normal(2, 3, 7), normal(2, 3, 2))
    check(nn.conv2d, lambda x, w: conv2d(x[None], w)[0], normal(2, 4, 4), normal(3, 2, 2, 3))
    x, w = normal(1, 2, 3, 4, 3), normal(2, 2, 1, 2, 2)
    check(nn.conv3d, lambda x, w: np.stack([conv2d(x[:, :, d], w[:, :, 0]) for d in range(3)], 2), x, w)


@pytest.mark.parametrize("arguments", [
    {}, {"stride": 2}, {"stride": 2, "padding": 1, "output_padding": 1}, {"dilation": 2}, {"groups": 2},
])
def test_a_transposed_convolution_is_the_transpose_of_a_convolution(arguments):
    x, w = normal(2, 4, 3, 3), normal(4, 2, 3, 2)
    forward = {k: v for k, v in arguments.items() if k != "output_padding"}
    a, b = gw.placeholder("a", "float64", x.shape), gw.placeholder("b", "float64", w.shape)
    y = nn.conv_transpose2d(a, b, **arguments)
    v = gw.placeholder("v", "float64", y.shape)
    z = normal(*y.shape)
    f = gw.function([a, b, v], [gw.sum(y * v), gw.sum(a * nn.conv2d(v, b, **forward))], target="interpreter")
    np.testing.assert_allclose(*f(x, w, z), rtol=1e-9)


def test_transposed_convolutions():
    x, w, b = normal(1, 2, 4), normal(2, 3, 3), normal(3)

    def reference(x, w, b):
        y = np.zeros((1, 3, 9))
        for c, o, i, k in itertools.product(range(2), range(3), range(4), range(3)):
            y[:, o, 2 * i + k] += x[:, c, i] * w[c, o, k]
        return y + b[:, None]

    check(lambda x, w, b: nn.conv_transpose1d(x, w, b, stride=2), reference, x, w, b)


def windows(x, kernel, stride, padding, dilation, fill):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    reach = dilation * (kernel - 1) + 1
    rows, columns = ((n - reach) // stride + 1 for n in x.shape[2:])
    return np.array([[
        x[:, :, i * stride:i * stride + reach:dilation, j * stride:j * stride + reach:dilation]
        for j in range(columns)] for i in range(rows)]).transpose(2, 3, 0, 1, 4, 5)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [
    (2, None, 0, 1), (3, 2, 1, 1), (3, 1, 0, 1), (2, 2, 1, 2),
])
def test_max_pool2d(kernel, stride, padding, dilation):
    check(
        lambda x: nn.max_pool2d(x, kernel, stride, padding, dilation),
        lambda x: windows(x, kernel, stride or kernel, padding, dilation, -np.inf).max((4, 5)), normal(2, 2, 6, 5),
    )


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, None, 0), (3, 2, 1), (3, 1, 0)])
def test_avg_pool2d(kernel, stride, padding):
    x = normal(2, 2, 6, 5)
    sums = lambda x: windows(x, kernel, stride or kernel, padding, 1, 0).sum((4, 5))  # noqa: E731
    check(lambda x: nn.avg_pool2d(x, kernel, stride, padding), lambda x: sums(x) / kernel**2, x)
    check(lambda x: nn.avg_pool2d(x, kernel, stride, padding, count_include_pad=False),
          lambda x: sums(x) / sums(np.ones_like(x)), x)
    check(lambda x: nn.avg_pool2d(x, kernel, stride, padding, divisor_override=5), lambda x: sums(x) / 5, x)


def test_pools_of_one_axis():
    x = normal(2, 3, 7)
    parts = x[:, :, :6].reshape(2, 3, 3, 2)
    check(lambda x: nn.max_pool1d(x, 2), lambda _: parts.max(-1), x)
    check(lambda x: nn.avg_pool1d(x, 2), lambda _: parts.mean(-1), x)


@pytest.mark.parametrize("size", [1, 2, 3, (4, 2)])
def test_adaptive_avg_pool2d(size):
    rows, columns = (size, size) if isinstance(size, int) else size

    def reference(x):
        y = np.zeros((*x.shape[:2], rows, columns))
        for i, j in np.ndindex(rows, columns):
            a, b = (slice(k * n // m, -(-(k + 1) * n // m)) for k, n, m in (
                (i, x.shape[2], rows), (j, x.shape[3], columns)))
            y[:, :, i, j] = x[:, :, a, b].mean((2, 3))
        return y

    x = gw.placeholder("x", "float64", (2, 3, 6, 5))
    a = normal(2, 3, 6, 5)
    got = gw.function([x], nn.adaptive_avg_pool2d(x, size), target="interpreter")(a)
    np.testing.assert_allclose(got, reference(a), rtol=1e-6)


def test_linear():
    check(nn.linear, lambda x, w, b: x @ w.T + b, normal(2, 3, 4), normal(5, 4), normal(5))
    check(nn.bilinear, lambda a, b, w, c: np.einsum("ni,oij,nj->no", a, w, b) + c,
          normal(3, 2), normal(3, 4), normal(2, 2, 4), normal(2))


# --- normalization -------------------------------------------------------------------------------


def standardized(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def test_layer_norm_and_rms_norm():
    x, w, b = normal(2, 3, 4), normal(3, 4), normal(3, 4)
    check(lambda x, w, b: nn.layer_norm(x, (3, 4), w, b), lambda x, w, b: standardized(x, (1, 2)) * w + b, x, w, b)
    check(lambda x, w: nn.rms_norm(x, 4, w, 1e-3),
          lambda x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3) * w, x, normal(4))


def test_layer_norm_of_a_symbolic_axis():
    x = gw.placeholder("x", "float64", ("N", "D"))
    a = normal(3, 5)
    f = gw.function([x], nn.layer_norm(x, x.shape[-1]), target="interpreter")
    np.testing.assert_allclose(f(a), standardized(a, (1,)), rtol=1e-9)


def test_batch_norm():
    x, w, b = normal(3, 2, 4), normal(2), normal(2)
    m, v = normal(2), rng.uniform(0.5, 2, 2)
    at = np.s_[:, None]
    check(lambda x, w, b: nn.batch_norm(x, m, v, w, b),
          lambda x, w, b: (x - m[at]) / np.sqrt(v[at] + 1e-5) * w[at] + b[at], x, w, b)
    check(lambda x, w, b: nn.batch_norm(x, m, v, w, b, training=True)[0],
          lambda x, w, b: standardized(x, (0, 2)) * w[at] + b[at], x, w, b)


def test_batch_norm_updates_its_statistics():
    mean, variance = gw.Variable(np.zeros(2), name="mean"), gw.Variable(np.ones(2), name="variance")
    x = gw.placeholder("x", "float64", ("N", 2))
    y, new_mean, new_variance = nn.batch_norm(x, mean, variance, training=True, momentum=0.3)
    f = gw.function([x], y, updates={mean: new_mean, variance: new_variance}, target="interpreter")
    a = normal(5, 2)
    f(a)
    np.testing.assert_allclose(mean.value, 0.3 * a.mean(0))
    np.testing.assert_allclose(variance.value, 0.7 + 0.3 * a.var(0, ddof=1))
    _, none, also_none = nn.batch_norm(x, None, None, training=True)
    assert none is None and also_none is None


def test_group_norm_and_instance_norm():
    x, w, b = normal(2, 4, 3), normal(4), normal(4)
    check(lambda x, w, b: nn.group_norm(x, 2, w, b),
          lambda x, w, b: standardized(x.reshape(2, 2, 2, 3), (2, 3)).reshape(x.shape) * w[:, None] + b[:, None],
          x, w, b)
    check(lambda x, w, b: nn.instance_norm(x, w, b),
          lambda x, w, b: standardized(x, (2,)) * w[:, None] + b[:, None], x, w, b)


def test_normalize_and_cosine_similarity():
    x, y = normal(3, 4), normal(3, 4)
    for p in (1, 2, 3, np.inf):
        check(lambda x, p=p: nn.normalize(x, p), lambda x, p=p: x / np.linalg.norm(x, p, 1, keepdims=True), x)
    check(nn.cosine_similarity,
          lambda x, y: (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1), x, y)


# --- losses --------------------------------------------------------------------------------------

REDUCTIONS = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_differences(reduction):
    x, t = 2 * normal(3, 4), 2 * normal(3, 4)
    reduce = REDUCTIONS[reduction]

    def huber(x, t, delta):
        d = abs(x - t)
        return np.where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta))

    check(lambda x, t: nn.mse_loss(x, t, reduction), lambda x, t: reduce((x - t) ** 2), x, t)
    check(lambda x, t: nn.l1_loss(x, t, reduction), lambda x, t: reduce(abs(x - t)), x, t)
    check(lambda x, t: nn.huber_loss(x, t, reduction, 1.5), lambda x, t: reduce(huber(x, t, 1.5)), x, t)
    check(lambda x, t: nn.smooth_l1_loss(x, t, reduction, 0.5), lambda x, t: reduce(huber(x, t, 0.5) / 0.5), x, t)


def binary(p, t):
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


def test_binary_cross_entropy():
    p, t, x, w = rng.uniform(0.1, 0.9, (3, 4)), rng.uniform(0, 1, (3, 4)), normal(3, 4), rng.uniform(0, 2, (3, 4))
    check(lambda p, t: nn.binary_cross_entropy(p, t, w), lambda p, t: (w * binary(p, t)).mean(), p, t)
    check(lambda x, t: nn.binary_cross_entropy_with_logits(x, t), lambda x, t: binary(sigmoid(x), t).mean(), x, t)
    check(lambda x, t: nn.binary_cross_entropy_with_logits(x, t, reduction="none", pos_weight=w[0]),
          lambda x, t: -(w[0] * t * np.log(sigmoid(x)) + (1 - t) * np.log(sigmoid(-x))), x, t)
    zero = gw.asarray(np.array([0.0, 1.0]))
    assert nn.binary_cross_entropy(zero, 1 - zero).eval() == 100


def test_kl_div():
    p, logs = rng.dirichlet(np.ones(5), 4), np.log(rng.dirichlet(np.ones(5), 4))
    terms = lambda x, t: t * (np.log(t) - x)  # noqa: E731
    check(nn.kl_div, lambda x, t: terms(x, t).mean(), logs, p)
    check(lambda x, t: nn.kl_div(x, t, "batchmean"), lambda x, t: terms(x, t).sum() / 4, logs, p)
    check(lambda x, t: nn.kl_div(x, t, log_target=True), lambda x, t: terms(x, np.exp(t)).mean(), logs, np.log(p))
    assert nn.kl_div(gw.asarray([0.0]), gw.asarray([0.0])).eval() == 0


def cross_entropy(x, probabilities, weight, reduction, total=None):
    """From the definition, for classes on axis 1."""
    shape = (-1, *(1,) * (x.ndim - 2))
    values = -(probabilities * np.log(softmax(x, 1)) * np.reshape(weight, shape)).sum(1)
    if reduction == "mean":
        return values.sum() / (values.size if total is None else total)
    return values.sum() if reduction == "sum" else values


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3)])
def test_cross_entropy_with_labels(reduction, smoothing, weighted, shape):
    x, labels = normal(*shape), rng.integers(0, 5, (shape[0], *shape[2:]))
    w = rng.uniform(0.5, 2, 5) if weighted else np.ones(5)
    hot = np.moveaxis(np.eye(5)[labels], -1, 1)
    smooth = (1 - smoothing) * hot + smoothing / 5
    check(
        lambda x, t: nn.cross_entropy(x, t, w if weighted else None, reduction=reduction, label_smoothing=smoothing),
        lambda x, t: cross_entropy(x, smooth, w, reduction, w[labels].sum()), x, labels,
        differentiable=reduction == "mean",
    )


def test_cross_entropy_ignores_a_label():
    x, labels = normal(5, 3), np.array([0, 2, 1, 2, 0])
    kept = labels != 2
    for reduction in ("mean", "sum"):
        check(lambda x, t, r=reduction: nn.cross_entropy(x, t, ignore_index=2, reduction=r),
              lambda x, t, r=reduction: cross_entropy(x[kept], np.eye(3)[t[kept]], 1, r), x, labels)
    check(lambda x, t: nn.nll_loss(x, t, ignore_index=2, reduction="none"),
          lambda x, t: np.where(kept, -x[np.arange(5), t], 0), x, labels)


def test_cross_entropy_with_probabilities():
    x, p, w = normal(4, 5), rng.dirichlet(np.ones(5), 4), rng.uniform(0.5, 2, 5)
    check(nn.cross_entropy, lambda x, p: cross_entropy(x, p, 1, "mean"), x, p)
    check(lambda x, p: nn.cross_entropy(x, p, w, label_smoothing=0.2, reduction="none"),
          lambda x, p: cross_entropy(x, 0.8 * p + 0.04, w, "none"), x, p)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_cross_entropy_of_extreme_logits_and_labels(target):
    x, t = gw.placeholder("x", "float32", ("N", 3)), gw.placeholder("t", "uint8", ("N",))
    loss = nn.cross_entropy(x, t, reduction="none")
    f = gw.function([x, t], [loss, gw.grad(gw.sum(loss), x)], target=target)
    logits = np.float32([[800, -800, 0], [-800, 800, 0], [0, 0, 800]])
    values, gradient = f(logits, np.uint8([0, 0, 200]))  # a label out of range is clamped
    np.testing.assert_allclose(values, [0, 1600, 0])
    np.testing.assert_allclose(gradient, [[0, 0, 0], [-1, 1, 0], [0, 0, 0]], atol=1e-30)


def test_a_vector_of_logits():
    check(nn.cross_entropy, lambda x, t: -np.log(softmax(x)[t]), normal(5), np.array(3))
    check(nn.nll_loss, lambda x, t: -x[t], normal(5), np.array(3))


# --- embedding and attention ---------------------------------------------------------------------


def test_embedding_adds_up_gradients_of_equal_positions():
    check(nn.embedding, lambda i, w: w[i], np.array([[1, 1], [0, -1]]), normal(4, 3))


def attention(q, k, v, mask):
    return softmax(np.where(mask, q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -np.inf)) @ v


def test_scaled_dot_product_attention():
    q, k, v = normal(2, 4, 3), normal(2, 5, 3), normal(2, 5, 2)
    mask = rng.random((4, 5)) < 0.7
    mask[:, 0] = True
    check(nn.scaled_dot_product_attention, lambda q, k, v: attention(q, k, v, True), q, k, v)
    check(lambda q, k, v: nn.scaled_dot_product_attention(q, k, v, mask),
          lambda q, k, v: attention(q, k, v, mask), q, k, v)
    check(lambda q, k, v: nn.scaled_dot_product_attention(q, k, v, np.where(mask, 0, -np.inf)),
          lambda q, k, v: attention(q, k, v, mask), q, k, v, differentiable=False)
    check(lambda q, k, v: nn.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5),
          lambda q, k, v: attention(q * 0.5 * np.sqrt(3), k, v, np.tri(4, 5, dtype=bool)), q, k, v)


def test_one_hot():
    i = gw.placeholder("i", "uint8", ("N",))
    got = gw.function([i], nn.one_hot(i, 300), target="interpreter")(np.uint8([0, 255]))
    assert got.dtype == np.int64 and got.sum() == 2 and got[0, 0] == got[1, 255] == 1
