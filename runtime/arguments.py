"""What may be passed where an array of a given dtype is expected."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphwrightError

__all__ = ["as_array"]

_RANK = {"b": 0, "u": 1, "i": 1, "f": 2}  # a Python value may become one of its own rank or higher


def as_array(value: Any, dtype: np.dtype[Any], what: str, error: type[Exception]) -> NDArray[Any]:
    """`value` as an array of `dtype` in this machine's byte order, aligned and row-major.

    An array must have that dtype already. Python numbers, and lists of them, are converted where
    this is safe: an integer that fits, a float for a floating dtype.

    Raises
    ------
    error
        With a message that starts with `what` and says what would be right.
    """
    if isinstance(value, np.ndarray) and hasattr(value, "mask"):
        raise error(f"{what} is a masked array; fill it first, with .filled(value)")
    typed = isinstance(value, (np.ndarray, np.generic)) or not _is_plain(value)
    try:
        array = np.asarray(value)
    except GraphwrightError:  # of a symbolic tensor
        raise error(f"{what} needs an array, got a {type(value).__name__}, which has no value") from None
    except (TypeError, ValueError, OverflowError) as e:
        raise error(f"{what} of {type(value).__name__} is not an array: {e}") from None
    if typed and array.dtype.newbyteorder("=") != dtype:
        advice = "" if array.dtype.kind in "OSUVmM" else f"; pass x.astype({dtype.name!r})"
        found = f"a {type(value).__name__}" if array.dtype.kind == "O" else array.dtype.name
        raise error(f"{what} needs an array of dtype {dtype.name}, got {found}{advice}")
    if not typed:
        return _convert(array, dtype, what, error)
    shape = array.shape  # ascontiguousarray makes 0-d arrays 1-d
    return np.ascontiguousarray(np.require(array, dtype, "A")).reshape(shape)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex, list, tuple, range, str, bytes))


def _convert(array: NDArray[Any], dtype: np.dtype[Any], what: str, error: type[Exception]) -> NDArray[Any]:
    """An array made of Python numbers, converted if no value is lost."""
    if array.size == 0:
        return array.astype(dtype)
    if _RANK.get(array.dtype.kind, 9) > _RANK[dtype.kind]:
        kind = {"b": "booleans", "i": "integers", "u": "integers", "f": "floats", "c": "complex numbers", "U": "text"}
        found = kind.get(array.dtype.kind, "no numbers, numbers beyond 64 bits, or rows of unequal length")
        raise error(f"{what} has dtype {dtype.name}, but the value holds {found}")
    if dtype.kind in "iu" and array.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise error(
                f"{what} has dtype {dtype.name}, which {low if low < limits.min else high} does not fit"
            )
    if array.dtype.kind != "f":
        return array.astype(dtype)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if not np.array_equal(np.isinf(array), np.isinf(converted)):
        raise error(f"{what} has dtype {dtype.name}, in which a value would become infinite")
    return converted
