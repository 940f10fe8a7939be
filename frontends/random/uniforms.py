"""From bits to numbers between 0 and 1: which of them have a place, and how exactly."""

from __future__ import annotations

from ...ir.dtypes import DType, float32, int32, int64, uint32, uint64
from ...ir.types import Shape
from ..array_api import astype, where
from ..tensor import Tensor, apply
from .keys import Source

__all__ = ["half_open", "minus_log", "signed_tail"]


def _whole(bits: Tensor, dtype: DType) -> Tensor:
    """Bits, the highest of which is 0, as a float: vector units convert signed integers."""
    return astype(astype(bits, int32 if dtype == float32 else int64), dtype)


def _word(dtype: DType) -> DType:
    return uint32 if dtype == float32 else uint64


def half_open(source: Source, shape: Shape, dtype: DType) -> Tensor:
    """Multiples of 2**-24 (float64: 2**-53) from 0, below 1."""
    digits = 24 if dtype == float32 else 53
    return _whole(source.bits(shape, _word(dtype)) >> (dtype.bits - digits), dtype) * 2.0**-digits


def signed_tail(source: Source, shape: Shape, dtype: DType) -> tuple[Tensor, Tensor]:
    """A probability above 0 and up to 1/2, of full relative precision, and whether it is that of the upper tail.

    The least is 2**-33 (float64: 2**-65).
    """
    bits = source.bits(shape, _word(dtype))
    n = dtype.bits
    return _whole(bits >> 1, dtype) * 2.0**-n + 2.0 ** -(n + 1), (bits & 1) == 1


def minus_log(source: Source, shape: Shape, dtype: DType) -> Tensor:
    """Numbers above 0, exponentially distributed with rate 1: ``-log(u)``, exact at both ends."""
    tail, upper = signed_tail(source, shape, dtype)
    return -where(upper, apply("log", tail), apply("log1p", -tail))
