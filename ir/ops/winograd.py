"""The transforms of Winograd's convolution, for tiles of m x m results of a 3 x 3 kernel without strides.

Each tile of the result is ``A^T [(G w G^T) * (B^T x B)] A``, where ``*`` is elementwise: ``(m + 2)**2`` products
instead of ``9 m**2``, and for all channels and tiles together so many matrix products (Winograd, "Arithmetic complexity
of computations", 1980; the matrices are those of Lavin and Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016). The input has to be known for ``m + 2`` positions each way; beyond its edges it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as product_of
from typing import Any

import numpy as np

from ...errors import DTypeError, ShapeError
from ..batching import one_by_one
from ..dims import Dim, at_most, ceildiv, equal, symbol
from ..dtypes import DType
from ..loops import Expr, For, If, Index, Let, Load, Stmt, Store, Temp
from ..op import REQUIRED, Lowering, Op, Sample, Typing, register
from ..scalars import apply, conjunction, const, less
from ..types import Type

__all__ = ["MATRICES", "winograd_input", "winograd_output"]

Matrix = tuple[tuple[float, ...], ...]

MATRICES: dict[int, tuple[Matrix, Matrix, Matrix]] = {
    2: (
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: (
        (
            (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
        ),
        (
            (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
        ),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}  # fmt: skip
"""By m: B^T, G and A^T."""

LANES = 16
"""Channels that are transformed at once."""


def _check(t: Typing) -> int:
    (x,), m = t.types, t["tile"]
    if not x.dtype.is_float:
        t.fail(DTypeError, f"tiles of {x.dtype}, which is no float")
    if m not in MATRICES or x.rank != 4:
        t.fail(ShapeError, f"tiles of {m} for {x}; there are tiles of {' and '.join(map(str, MATRICES))}, of rank 4")
    return int(m)


def _tiles(shape: Sequence[Dim], m: int) -> tuple[Dim, Dim]:
    """The tiles of a result along its two axes."""
    high, wide = (ceildiv(n, m) for n in shape)
    return high, wide


# --- of the input --------------------------------------------------------------------------------


def _infer_input(t: Typing) -> Type:
    m = _check(t)
    (x,), (high, wide) = t.types, _tiles(t["shape"], m)
    return x.with_shape(((m + 2) ** 2, x.shape[0], high * wide, x.shape[1]))


def _input(x: Any, tile: int, shape: tuple[int, int], low: tuple[int, int]) -> Any:
    size, (high, wide) = tile + 2, _tiles(shape, tile)
    n, c, *own = x.shape
    room = [(high * tile + 2, low[0], own[0]), (wide * tile + 2, low[1], own[1])]
    padded = np.zeros((n, c, *(max(count, before + size) for count, before, size in room)), x.dtype)
    padded[:, :, low[0] : low[0] + own[0], low[1] : low[1] + own[1]] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    windows = windows[:, :, : high * tile : tile, : wide * tile : tile]
    b = np.array(MATRICES[tile][0], x.dtype)
    return np.einsum("ai,ncyxij,bj->abnyxc", b, windows, b).reshape(size**2, n, high * wide, c)


def _lower_input(kernel: Lowering) -> Sequence[Stmt]:
    (x,), (out,) = kernel.inputs, kernel.outputs
    m, low = kernel.attrs["tile"], kernel.attrs["low"]
    high, wide = _tiles(kernel.attrs["shape"], m)
    n, c, ty, tx = (kernel.fresh(name) for name in ("image", "channel", "row", "column"))
    lets = _Lets(kernel, x.dtype)
    window: list[list[Expr]] = []
    for i in range(m + 2):
        window.append([])
        for j in range(m + 2):
            places = [symbol(t) * m + (k - at) for t, k, at in ((ty, i, low[0]), (tx, j, low[1]))]
            reach = zip(places, x.shape[2:], (high, wide), (i, j), low)
            guard = conjunction([g for p, size, count, k, at in reach for g in _inside(p, size, count, m, k - at)])
            load = Load(x, (Index(symbol(n)), Index(symbol(c)), *map(Index, places)), guard)
            window[-1].append(lets.bind(load))
    values = lets.both_ways(MATRICES[m][0], window)
    at = (Index(symbol(n)), Index(symbol(ty) * wide + symbol(tx)), Index(symbol(c)))
    stores = [Store(out, (Index(i * (m + 2) + j), *at), v) for i, row in enumerate(values) for j, v in enumerate(row)]
    inner = For(c, x.shape[1], (*lets.statements, *stores), "vector", LANES)
    return [For(n, x.shape[0], (For(ty, high, (For(tx, wide, (inner,)),)),))]


def _inside(place: Dim, size: Dim, count: Dim, m: int, first: int) -> list[Expr]:
    """The conditions for a position to exist, as far as it is in question."""
    conditions: list[Expr] = []
    if first < 0:
        conditions.append(less(-1, place))
    if not at_most((count - 1) * m + first + 1, size):
        conditions.append(less(place, size))
    return conditions


# --- of the result -------------------------------------------------------------------------------


def _infer_output(t: Typing) -> Type:
    m = _check(t)
    (x,), shape = t.types, t["shape"]
    high, wide = _tiles(shape, m)
    if not equal(x.shape[0], (m + 2) ** 2) or not equal(x.shape[2], high * wide):
        t.fail(ShapeError, f"{x} is not [{(m + 2) ** 2}, images, {high * wide} tiles, channels]")
    return x.with_shape((x.shape[1], x.shape[3], *shape))


def _output(x: Any, tile: int, shape: tuple[int, int]) -> Any:
    size, (high, wide) = tile + 2, _tiles(shape, tile)
    n, o = x.shape[1], x.shape[3]
    a = np.array(MATRICES[tile][2], x.dtype)
    y = np.einsum("ai,ijnyxo,bj->noyaxb", a, x.reshape(size, size, n, high, wide, o), a)
    return y.reshape(n, o, high * tile, wide * tile)[:, :, : shape[0], : shape[1]]


def _lower_output(kernel: Lowering) -> Sequence[Stmt]:
    (x,), (out,) = kernel.inputs, kernel.outputs
    m = kernel.attrs["tile"]
    high, wide = _tiles(out.shape[2:], m)
    n, c, ty, tx = (kernel.fresh(name) for name in ("image", "channel", "row", "column"))
    lets = _Lets(kernel, x.dtype)
    at = (Index(symbol(n)), Index(symbol(ty) * wide + symbol(tx)), Index(symbol(c)))
    tile = [[lets.bind(Load(x, (Index(i * (m + 2) + j), *at))) for j in range(m + 2)] for i in range(m + 2)]
    values = lets.both_ways(MATRICES[m][2], tile)
    stores: list[Stmt] = []
    size, wide_size = out.shape[2:]
    for i, j in product_of(range(m), range(m)):
        row, column = symbol(ty) * m + i, symbol(tx) * m + j
        store: Stmt = Store(out, (Index(symbol(n)), Index(symbol(c)), Index(row), Index(column)), values[i][j])
        conditions = _inside(row, size, high, m, i) + _inside(column, wide_size, wide, m, j)
        guard = conjunction(conditions)
        stores.append(store if guard is None else If(guard, (store,)))
    inner = For(c, x.shape[3], (*lets.statements, *stores), "vector", LANES)
    return [For(n, x.shape[1], (For(ty, high, (For(tx, wide, (inner,)),)),))]


class _Lets:
    """Values bound to names, and sums of multiples of them."""

    def __init__(self, kernel: Lowering, dtype: DType) -> None:
        self.kernel, self.dtype = kernel, dtype
        self.statements: list[Stmt] = []

    def bind(self, value: Expr) -> Temp:
        name = self.kernel.fresh("t")
        self.statements.append(Let(name, value))
        return Temp(name, self.dtype)

    def both_ways(self, matrix: Matrix, x: Sequence[Sequence[Expr]]) -> list[list[Expr]]:
        """``matrix @ x @ matrix.T``."""
        columns = [[self.sum(row, [x[k][j] for k in range(len(x))]) for row in matrix] for j in range(len(x[0]))]
        return [[self.sum(row, [c[i] for c in columns]) for row in matrix] for i in range(len(matrix))]

    def sum(self, factors: Sequence[float], values: Sequence[Expr]) -> Temp:
        """The sum of the values' multiples."""
        total: Expr | None = None
        for factor, value in sorted(zip(factors, values), key=lambda pair: pair[0] != 1):
            if factor == 0:
                continue
            if total is None:
                total = value if factor == 1 else apply("mul", value, const(factor, self.dtype))
            elif abs(factor) == 1:
                total = apply("add" if factor > 0 else "sub", total, value)
            else:
                total = apply("fma", value, const(factor, self.dtype), total)
        assert total is not None
        return self.bind(total)


# --- samples -------------------------------------------------------------------------------------


def _samples(output: bool) -> list[Sample]:
    rng = np.random.default_rng(0)
    found = []
    for tile, (n, c), shape, low in (
        (4, (2, 3), (8, 12), (1, 1)), (2, (1, 2), (7, 5), (1, 0)), (4, (2, 1), (7, 3), (0, 1)),
        (2, (0, 2), (4, 4), (0, 0)), (4, (1, 1), (1, 1), (0, 0)), (4, (1, 20), (6, 9), (1, 1)),
    ):
        x = rng.normal(size=(n, c, *(s + 2 - 2 * p for s, p in zip(shape, low))))
        if output:
            count = -(-shape[0] // tile) * -(-shape[1] // tile)
            x = rng.normal(size=((tile + 2) ** 2, n, count, c))
        attrs = {"tile": tile, "shape": shape}
        found.append(Sample((x,), attrs if output else {**attrs, "low": low}))
    return found


winograd_input: Op = register(Op(
    "winograd_input", "opaque", _infer_input, _input, lower=_lower_input, arity=1, batch=one_by_one,
    attrs={"tile": REQUIRED, "shape": REQUIRED, "low": REQUIRED}, cost=8, samples=lambda: _samples(False),
    doc="Tiles of x [N, C, H, W] for a result of spatial `shape`, transformed: [(tile + 2)**2, N, tiles, C]; "
    "`low` is the padding before each axis.",
))
winograd_output: Op = register(Op(
    "winograd_output", "opaque", _infer_output, _output, lower=_lower_output, arity=1, batch=one_by_one,
    attrs={"tile": REQUIRED, "shape": REQUIRED}, cost=8, samples=lambda: _samples(True),
    doc="The result [N, O, *shape] of the tiles [(tile + 2)**2, N, tiles, O].",
))
