"""Random numbers: dropout, and normal variates. Their moments are compared, not their values."""

from __future__ import annotations

import numpy as np

from ..workload import Workload

ORDER = 95
MILLION = 1 << 20


def _dropout_moments(results):
    """The share that is kept, the mean, and the mean square, of ones half of which are dropped."""
    (y,) = results
    return [np.mean(y != 0), np.mean(y, dtype=np.float64), np.mean(np.square(y, dtype=np.float64))]


def _normal_moments(results):
    """Mean and variance, of which each is moved from 0 to 1, and the fourth moment: 2, 1, 3."""
    (y,) = results
    y = y.astype(np.float64)
    return [2 + np.mean(y), np.mean(y * y), np.mean(y**4)]


WORKLOADS = [
    Workload(
        "dropout", "dropout of a half, 4 M elements", "forward", {"size": 4 * MILLION}, {"size": MILLION},
        inputs=lambda rng, s: {"x": np.ones(s["size"], np.float32)}, compute=lambda ops, p, x: ops.dropout(x, 0.5),
        nbytes=lambda s: 8 * s["size"], summary=_dropout_moments, tolerance=1e-2, aim=1.5,
    ),
    Workload(
        "normal", "16 M normal variates", "forward", {"size": 16 * MILLION}, {"size": MILLION},
        inputs=lambda rng, s: {"x": np.zeros(s["size"], np.float32)}, compute=lambda ops, p, x: ops.normal_like(x),
        nbytes=lambda s: 4 * s["size"], summary=_normal_moments, tolerance=1e-2, aim=1.0,
    ),
]
