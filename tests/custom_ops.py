"""Custom ops that have a kernel for the CPU and one for CUDA; used with and without Numba's simulator."""

from __future__ import annotations

import math

from numba import cuda

import graphwright as gw


def leaky_sum_cpu(out, x, decay):
    """A recurrence along rows: ``out[i, j] = x[i, j] + decay * out[i, j - 1]``."""
    for i in range(x.shape[0]):
        total = 0.0
        for j in range(x.shape[1]):
            total = total * decay[()] + x[i, j]
            out[i, j] = total


def leaky_sum_cuda(out, x, decay):
    i = cuda.grid(1)
    if i < x.shape[0]:
        total = 0.0
        for j in range(x.shape[1]):
            total = total * decay[()] + x[i, j]
            out[i, j] = total


def leaky_sum():
    """``f(x, decay)`` of a matrix and a scalar; differentiable by the matrix."""
    op = gw.custom_op(
        "leaky_sum", lambda x, decay: (x.dtype, x.shape), leaky_sum_cpu, cuda_kernel=leaky_sum_cuda, arity=2,
        vjp=lambda ct, out, x, decay: [gw.flip(op(gw.flip(ct, axis=1), decay), axis=1), None],
    )  # fmt: skip
    return op


def matches_cpu(out, x, keys, wanted):
    for k in range(keys.shape[0]):
        out[k] = wanted[()] and x.shape[0] > 0 and x[keys[k] % x.shape[0], 1] > 0


def matches_cuda(out, x, keys, wanted):
    k = cuda.grid(1)
    if k < out.shape[0]:
        out[k] = wanted[()] and x.shape[0] > 0 and x[keys[k] % x.shape[0], 1] > 0


def matches():
    """``f(x, keys, wanted)``: bools, by lookups in a matrix that may have no rows."""
    return gw.custom_op(
        "matches", lambda x, keys, wanted: ("bool", keys.shape), matches_cpu, cuda_kernel=matches_cuda, arity=3
    )


def block_sums_cpu(out, x):
    for b in range(out.shape[0]):
        out[b] = 0.0
        for k in range(b * 4, min(b * 4 + 4, x.shape[0])):
            out[b] += math.exp(x[k])


def block_sums_cuda(out, x):
    """Spares threads beyond the result, and takes more than one step through it with a stride."""
    for b in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        total = 0.0
        for k in range(b * 4, min(b * 4 + 4, x.shape[0])):
            total += math.exp(x[k])
        out[b] = total


def block_sums():
    """``f(x)``: sums of the exponentials of each four elements."""
    return gw.custom_op(
        "block_sums", lambda x: (x.dtype, ((x.shape[0] + 3) // 4,)), block_sums_cpu, arity=1,
        cuda_kernel=block_sums_cuda,
    )  # fmt: skip
