"""Square matrix products."""

from __future__ import annotations

import numpy as np

from ..workload import Workload

ORDER = 24


def _product(n):
    return Workload(
        f"matmul_{n}", f"matmul {n}x{n}", "forward", {"n": n}, {"n": n // 32 + 4}, batched=False,
        inputs=lambda rng, s: {m: rng.standard_normal((s["n"], s["n"]), dtype=np.float32) for m in ("a", "b")},
        compute=lambda ops, p, a, b: a @ b, flops=lambda s: 2 * s["n"] ** 3,
    )


WORKLOADS = [_product(n) for n in (32, 64, 256, 1024)]
