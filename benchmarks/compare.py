"""Whether a peer computed what the reference did."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .workload import Arrays, Workload

__all__ = ["worst_error"]


def worst_error(workload: Workload, found: Path, reference: Path, initial: Arrays) -> tuple[float, str]:
    """The largest error in units of what the workload allows, and of what: at most 1 is right.

    Errors are relative to the largest absolute value of an array. Of a parameter its change by the training
    steps is compared, which a wrong gradient or optimizer cannot hide behind the initial values.
    """
    worst = (0.0, "")
    with np.load(found) as ours, np.load(reference) as theirs:
        if set(ours.files) != set(theirs.files):
            return np.inf, f"results {sorted(ours.files)} instead of {sorted(theirs.files)}"
        for name in theirs.files:
            a, b, tolerance = ours[name].astype(np.float64), theirs[name].astype(np.float64), workload.tolerance
            if a.shape != b.shape:
                return np.inf, f"{name} has shape {a.shape} instead of {b.shape}"
            if name.startswith("parameter "):
                start = initial[name.removeprefix("parameter ")]
                a, b, tolerance = a - start, b - start, workload.change_tolerance
            error = np.max(np.abs(a - b), initial=0) / (tolerance * max(np.max(np.abs(b), initial=0), 1e-30))
            if not error <= worst[0]:  # NaN is the worst
                worst = (float(error), name)
    return worst
