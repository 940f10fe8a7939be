"""Square matrix products."""

from __future__ import annotations

import numpy as np

from ..workload import Workload

ORDER = 24


def _product(n, aim):
    return Workload(
        f"matmul_{n}", f"matmul {n}x{n}", "forward", {"n": n}, {"n": n // 32 + 4}, batched=False,
        inputs=lambda rng, s: {m: rng.standard_normal((s["n"], s["n"]), dtype=np.float32) for m in ("a", "b")},
        compute=lambda ops, p, a, b: a @ b, flops=lambda s: 2 * s["n"] ** 3, aim=aim,
    )


WORKLOADS = [_product(n, aim) for n, aim in ((32, 2.5), (64, 1.8), (256, 1.1), (1024, 1.0))]
