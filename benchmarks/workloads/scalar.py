"""The smallest function: what a call costs."""

from __future__ import annotations

import numpy as np

from ..workload import Workload

ORDER = 10

WORKLOADS = [
    Workload(
        "scalar", "scalar a*b + b", "forward", sizes={}, tiny={}, batched=False,
        inputs=lambda rng, s: {"a": np.array(1.5, np.float32), "b": np.array(0.25, np.float32)},
        compute=lambda ops, p, a, b: a * b + b, aim=2,
    ),
]
