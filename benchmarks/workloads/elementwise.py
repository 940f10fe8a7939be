"""Maps over 4 million elements: one function, and a chain that fuses."""

from __future__ import annotations

import numpy as np

from ..workload import Workload

ORDER = 20
SIZES, TINY = {"n": 1 << 22}, {"n": 37}

WORKLOADS = [
    Workload(
        "gelu", "gelu (erf), 4 M elements", "forward", SIZES, TINY,
        inputs=lambda rng, s: {"x": rng.standard_normal(s["n"], dtype=np.float32)},
        compute=lambda ops, p, x: ops.gelu(x), nbytes=lambda s: 8 * s["n"], aim=1.1,
    ),
    Workload(
        "tanh_exp", "tanh(a*x + 1)*exp(-x*x) + a, 4 M elements", "forward", SIZES, TINY,
        inputs=lambda rng, s: {n: rng.standard_normal(s["n"], dtype=np.float32) for n in ("a", "x")},
        compute=lambda ops, p, a, x: ops.tanh(a * x + 1) * ops.exp(-x * x) + a, nbytes=lambda s: 12 * s["n"],
        aim=2.5,
    ),
]
