"""Work along rows: layer norm, and softmax cross-entropy with its gradient."""

from __future__ import annotations

import numpy as np

from ..workload import Workload

ORDER = 22


def _rows(rng, s):
    return rng.standard_normal((s["rows"], s["columns"]), dtype=np.float32)


def _affine(rng, s):
    w, b = rng.standard_normal((2, s["columns"]), dtype=np.float32)
    return {"w": 1 + w, "b": b}


WORKLOADS = [
    Workload(
        "layer_norm", "layer norm 4096x1024", "forward", {"rows": 4096, "columns": 1024}, {"rows": 5, "columns": 21},
        parameters=_affine, inputs=lambda rng, s: {"x": _rows(rng, s)},
        compute=lambda ops, p, x: ops.layer_norm(x, p["w"], p["b"]), nbytes=lambda s: 8 * s["rows"] * s["columns"],
        aim=1.1,
    ),
    Workload(
        "cross_entropy", "softmax cross-entropy and gradient, 4096x1000", "gradient",
        {"rows": 4096, "columns": 1000}, {"rows": 5, "columns": 21}, wrt=("x",),
        inputs=lambda rng, s: {"x": _rows(rng, s), "y": rng.integers(0, s["columns"], s["rows"])},
        compute=lambda ops, p, x, y: ops.cross_entropy(x, y), nbytes=lambda s: 8 * s["rows"] * s["columns"],
        aim=2.5,
    ),
]
