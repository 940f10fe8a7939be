"""Matrices in panels, in terms of the graph: what a product's tiles read as it stands (`ir.ops.panels`)."""

from __future__ import annotations

from ..ir.dims import Dim, at_most, ceildiv
from ..ir.graph import Value
from ..ir.op import OPS
from .cpu_model import CpuModel
from .predicates import is_static

__all__ = ["LEAST", "in_panels", "kernel_in_panels", "panels_of", "tile_columns", "worth_panels"]

LEAST = 1 << 14
"""Elements of a matrix from which it is worth to have it twice in memory."""


def kernel_in_panels(w: Value, cpu: CpuModel) -> Value:
    """A kernel ``[O, ...]`` of fixed size by way of panels of its outputs, of which the last is padded with zeros."""
    outputs, *rest = w.tensor.shape
    width, none = tile_columns(w, outputs, cpu), (0,) * len(rest)
    count = ceildiv(outputs, width)
    if outputs != count * width:
        high = (count * width - outputs, *none)
        w = OPS["pad"](w, low=(0, *none), high=high, interior=(0, *none), value=0)
    split = OPS["reshape"](w, shape=(count, width, *rest))
    panels = OPS["transpose"](split, perm=(0, *range(2, 2 + len(rest)), 1))
    return OPS["unpack_kernel"](panels, outputs=outputs)


def tile_columns(b: Value, columns: Dim, cpu: CpuModel) -> int:
    """The columns of a register tile."""
    return 2 * cpu.tile_lanes(b.tensor.dtype, columns)


def worth_panels(b: Value, columns: Dim, cpu: CpuModel) -> bool:
    """Whether a value is a matrix of fixed size that is worth to have twice in memory, with several panels."""
    t = b.tensor
    fits = t.rank == 2 and t.dtype.is_float and is_static(t.shape) and at_most(LEAST, t.size)
    return fits and not at_most(columns, tile_columns(b, columns, cpu))


def panels_of(b: Value, cpu: CpuModel) -> Value:
    """The panels of matrices ``[..., K, N]`` of fixed size, of which the last is padded with zeros."""
    *batch, depth, columns = b.tensor.shape
    width, k = tile_columns(b, columns, cpu), len(batch)
    count = ceildiv(columns, width)
    if b.op.name == "transpose" and not batch and columns == count * width:  # of what lies transposed, in one step
        split = OPS["reshape"](b.operands[0], shape=(count, width, depth))
        return OPS["transpose"](split, perm=(0, 2, 1))
    none = (0,) * k
    if columns != count * width:
        high = (*none, 0, count * width - columns)
        b = OPS["pad"](b, low=(*none, 0, 0), high=high, interior=(*none, 0, 0), value=0)
    split = OPS["reshape"](b, shape=(*batch, depth, count, width))
    return OPS["transpose"](split, perm=(*range(k), k + 1, k, k + 2))


def in_panels(b: Value, cpu: CpuModel) -> Value:
    """Matrices ``[..., K, N]`` of fixed size by way of their panels."""
    return OPS["unpack"](panels_of(b, cpu), columns=b.tensor.shape[-1])
