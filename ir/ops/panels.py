"""Matrices and kernels stored in panels: groups of adjacent columns, row by row, as register tiles read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ShapeError
from ..batching import aligned, one_by_one
from ..dims import at_most, ceildiv, equal, floordiv, mod
from ..loops import Expr
from ..op import REQUIRED, Definition, Op, Read, Sample, Typing, register
from ..types import Type

__all__ = ["unpack", "unpack_kernel"]


def _infer_unpack(t: Typing) -> Type:
    (x,), columns = t.types, t["columns"]
    if x.rank < 3 or not isinstance(x.shape[-1], int) or x.shape[-1] < 1:
        t.fail(ShapeError, f"{x} has no panels: their axis, their rows, and a fixed number of columns")
    if not at_most(0, columns) or not equal(x.shape[-3], ceildiv(columns, x.shape[-1])):
        t.fail(ShapeError, f"{x.shape[-3]} panels of {x.shape[-1]} columns for {columns} columns")
    return x.with_shape((*x.shape[:-3], x.shape[-2], columns))


def _unpack(x: Any, columns: int) -> Any:
    whole = np.moveaxis(x, -3, -2)
    return whole.reshape(*whole.shape[:-2], whole.shape[-2] * whole.shape[-1])[..., :columns]


def _define_unpack(d: Definition, read: Read) -> Expr:
    *batch, k, column = d.index
    width = d.types[0].shape[-1]
    return read([*batch, floordiv(column, width), k, mod(column, width)])


unpack = register(Op(
    "unpack", "map", _infer_unpack, _unpack, _define_unpack, arity=1, attrs={"columns": REQUIRED}, cost=0,
    batch=aligned,
    samples=lambda: [
        Sample((np.random.default_rng(0).normal(size=shape),), {"columns": columns})
        for shape, columns in (((2, 3, 4), 7), ((2, 3, 1, 4), 12), ((0, 2, 4), 0), ((1, 1, 1), 1))
    ],
    doc="The matrices [..., K, columns] whose panels of C columns are x [..., ceil(columns / C), K, C].",
))


def _infer_kernel(t: Typing) -> Type:
    (x,), outputs = t.types, t["outputs"]
    if x.rank < 3 or not isinstance(x.shape[-1], int) or x.shape[-1] < 1:
        t.fail(ShapeError, f"{x} has no panels: their axis, those of a kernel, and a fixed number of its outputs")
    if not at_most(0, outputs) or not equal(x.shape[0], ceildiv(outputs, x.shape[-1])):
        t.fail(ShapeError, f"{x.shape[0]} panels of {x.shape[-1]} outputs for {outputs} outputs")
    return x.with_shape((outputs, *x.shape[1:-1]))


def _unpack_kernel(x: Any, outputs: int) -> Any:
    whole = np.moveaxis(x, -1, 1)
    return whole.reshape(whole.shape[0] * whole.shape[1], *whole.shape[2:])[:outputs]


def _define_kernel(d: Definition, read: Read) -> Expr:
    output, *rest = d.index
    width = d.types[0].shape[-1]
    return read([floordiv(output, width), *rest, mod(output, width)])


unpack_kernel = register(Op(
    "unpack_kernel", "map", _infer_kernel, _unpack_kernel, _define_kernel, arity=1, attrs={"outputs": REQUIRED},
    cost=0, batch=one_by_one,
    samples=lambda: [
        Sample((np.random.default_rng(0).normal(size=shape),), {"outputs": outputs})
        for shape, outputs in (((2, 3, 4), 7), ((3, 2, 3, 1, 4), 12), ((0, 2, 4), 0), ((1, 1, 1), 1))
    ],
    doc="The kernel [outputs, ...] whose panels of O outputs are x [ceil(outputs / O), ..., O].",
))
