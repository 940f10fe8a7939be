"""What an array holds, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Statistics", "statistics"]


@dataclass(frozen=True)
class Statistics:
    """An array in a few numbers; minimum, maximum, mean and deviation are those of its finite elements.

    Attributes
    ----------
    dtype, shape : the array's.
    minimum, maximum, mean, std : NaN if no element is finite.
    nans, infinities : how many elements are NaN, or infinite.
    """

    dtype: str
    shape: tuple[int, ...]
    minimum: float
    maximum: float
    mean: float
    std: float
    nans: int
    infinities: int

    @property
    def finite(self) -> bool:
        """Whether every element is finite."""
        return not self.nans and not self.infinities

    def __str__(self) -> str:
        text = f"min {self.minimum:.6g}, max {self.maximum:.6g}, mean {self.mean:.6g}, std {self.std:.6g}"
        counts = f", {self.nans} NaN, {self.infinities} infinite" if not self.finite else ""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]: {text}{counts}"


def statistics(array: Any) -> Statistics:
    """The statistics of an array; bools count as 0 and 1."""
    array = np.asarray(array)
    numbers = array.astype(np.float64).reshape(-1)
    finite = numbers[np.isfinite(numbers)]
    nans = int(np.isnan(numbers).sum())
    measures = (np.min, np.max, np.mean, np.std)
    low, high, mean, std = (float(f(finite)) for f in measures) if finite.size else [float("nan")] * 4
    infinities = numbers.size - finite.size - nans
    return Statistics(array.dtype.name, array.shape, low, high, mean, std, nans, infinities)
