"""Keys: where a stream of random numbers begins, and how to make more of them.

A key has four uint32 words: two that key the cipher, and the upper half of the 128-bit position in its stream.
`split` and `fold_in` encrypt a key at positions that no draw uses, so what they give is as good as random.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.dims import equal
from ...ir.dtypes import DType, uint32
from ...ir.types import Shape
from ..array_api import asarray, astype, concat, where
from ..shapes import as_dim, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply

__all__ = ["fold_in", "key", "split"]

SPLIT, FOLD, STEP = (2**32 - n for n in (1, 2, 3))
"""The streams of derived keys; those of draws are counted from 0."""

WORDS = 4


class Source(NamedTuple):
    """Where one draw gets its bits: a key, and the number of the stream under it that is the draw's own."""

    key: Tensor
    stream: int = 0

    def bits(self, shape: Shape, dtype: DType = uint32) -> Tensor:
        """Uniformly distributed integers of all bits: uint32 or uint64."""
        return apply("random_bits", self.key, shape=shape, dtype=dtype, stream=self.stream)

    def parts(self, n: int) -> list[Source]:
        """Sources for the parts of a draw that needs several."""
        words = self.bits((n, WORDS))
        return [Source(words[k]) for k in range(n)]


def seed_words(function: str, seed: object) -> tuple[int, int]:
    """The two words of a seed."""
    try:
        number = operator.index(None if isinstance(seed, (bool, np.bool_)) else seed)  # type: ignore[arg-type]
    except TypeError:
        advice = "give an integer from 0 to 2**64 - 1"
        fail(function, DTypeError, f"the seed is {seed!r}, not an integer", [seed], advice)
    if not 0 <= number < 2**64:
        fail(function, GraphError, f"the seed {number} is not in 0 .. 2**64 - 1")
    return number & 0xFFFFFFFF, number >> 32


@located
def key(seed: Any) -> Tensor:
    """The key of a seed.

    Parameters
    ----------
    seed : an integer from 0 to 2**64 - 1, or an integer scalar that is known when the function runs.

    Returns
    -------
    u32[4].

    Raises
    ------
    DTypeError, ShapeError
        If the seed is no integer, or no scalar.
    GraphError
        If the seed is out of range.
    """
    if isinstance(seed, Tensor):
        low, high = halves("key", "the seed", seed)
        return concat([low, high, np.zeros(2, np.uint32)])
    return asarray(np.array([*seed_words("key", seed), 0, 0], np.uint32))


def halves(function: str, what: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper 32 bits of an integer scalar, each a vector of one word."""
    if not x.dtype.is_integer:
        fail(function, DTypeError, f"{what} must be an integer, got {x.dtype!r}", [x])
    if x.ndim:
        fail(function, ShapeError, f"{what} must be a scalar", [x])
    wide = apply("reshape", astype(x, "int64" if x.dtype.is_signed else "uint64"), shape=(1,))
    return astype(wide & 0xFFFFFFFF, "uint32"), astype((wide >> 32) & 0xFFFFFFFF, "uint32")


def as_key(function: str, x: Any) -> Tensor:
    """A tensor that must be a key."""
    if not isinstance(x, (Tensor, np.ndarray)):
        advice = "make one with gw.random.key(seed), or draw from a gw.random.Generator"
        fail(function, DTypeError, f"the key is {x!r}, of type {type(x).__name__}", (), advice)
    x = asarray(x)
    if x.dtype != uint32 or x.ndim != 1 or not equal(x.shape[0], WORDS):
        error = DTypeError if x.dtype != uint32 else ShapeError
        advice = "make one with gw.random.key(seed); of keys from gw.random.split take one, keys[k]"
        fail(function, error, f"a key is u32[{WORDS}], got {x._value.type}", [x], advice)
    return x


def plain_key(function: str, source: Any) -> Tensor:
    """The key, if it is one; of a `Generator` a key of its own for this use."""
    from .generator import Generator

    return source.key() if isinstance(source, Generator) else as_key(function, source)


@located
def split(key: ArrayLike, n: Any = 2) -> Tensor:
    """`n` keys from one, each independent of the others and of what is drawn with the first.

    Parameters
    ----------
    key : u32[4].
    n : an integer or a dimension.

    Returns
    -------
    u32[n, 4].
    """
    return Source(plain_key("split", key), SPLIT).bits((as_dim(n, "split: n"), WORDS))


@located
def fold_in(key: ArrayLike, data: Any) -> Tensor:
    """A key from a key and an integer: the number of a step, a layer, a sample.

    Parameters
    ----------
    key : u32[4].
    data : an integer below 2**64, or an integer scalar. Different ones give independent keys.

    Raises
    ------
    DTypeError, ShapeError
        If `key` is none, or `data` no integer scalar.
    """
    source = plain_key("fold_in", key)
    if not isinstance(data, Tensor):
        try:
            number = operator.index(data) & (2**64 - 1)
        except TypeError:
            fail("fold_in", DTypeError, f"data must be an integer, got {data!r}")
        data = asarray(np.array(number, np.uint64))
    return folded(source, data, FOLD)


def folded(key: Tensor, number: Tensor, stream: int) -> Tensor:
    """The words of a new key, the position of which is changed by a number.

    Of several numbers the keys differ in position only, so in a loop the encryption is done before it.
    """
    low, high = halves("fold_in", "data", number)
    place = apply("iota", shape=(WORDS,), axis=0, dtype=uint32)
    return Source(key, stream).bits((WORDS,)) ^ where(place == 2, low, where(place == 3, high, 0))
