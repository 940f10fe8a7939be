"""Products of tensors: one general contraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, ShapeError
from ..batching import shifted, to_front
from ..dims import Dim, equal
from ..graph import Value, make
from ..loops import Expr, Reduce
from ..op import MULTILINEAR, OPS, REQUIRED, Definition, Lanes, Op, Read, Sample, Typing, register
from ..scalars import apply
from ..types import TensorType, Type

__all__ = ["dot"]

Axes = tuple[tuple[int, ...], tuple[int, ...]]


def _free(rank: int, *used: tuple[int, ...]) -> list[int]:
    return [k for k in range(rank) if not any(k in axes for axes in used)]


def _infer_dot(t: Typing) -> Type:
    (a, b), contract, batch = t.types, t["contract"], t["batch"]
    if a.dtype != b.dtype:
        t.fail(DTypeError, "operands must have one dtype", "cast with astype")
    if a.dtype.is_bool:
        t.fail(DTypeError, "does not take bool operands", "cast with astype")
    for p, q in (*zip(*contract), *zip(*batch)):
        if not equal(a.shape[p], b.shape[q]):
            t.fail(
                ShapeError,
                f"axis {p} of the left operand ({a.shape[p]}) and {q} of the right ({b.shape[q]}) differ",
                "the contracted and the batch dimensions must be equal",
            )
    kept = [a.shape[k] for k in batch[0]]
    kept += [a.shape[k] for k in _free(a.rank, contract[0], batch[0])]
    kept += [b.shape[k] for k in _free(b.rank, contract[1], batch[1])]
    return TensorType(a.dtype, tuple(kept))


def _dot(a: Any, b: Any, contract: Axes, batch: Axes) -> Any:
    letters = iter(range(52))
    names_a, names_b = [next(letters) for _ in a.shape], [next(letters) for _ in b.shape]
    for p, q in (*zip(*contract), *zip(*batch)):
        names_b[q] = names_a[p]
    out = [names_a[k] for k in batch[0]]
    out += [names_a[k] for k in _free(a.ndim, contract[0], batch[0])]
    out += [names_b[k] for k in _free(b.ndim, contract[1], batch[1])]
    if not a.size or not b.size:  # of sums of nothing, NumPy has been seen to return what memory held
        sizes = dict(zip(names_a, a.shape)) | dict(zip(names_b, b.shape))
        return np.zeros([sizes[n] for n in out], np.result_type(a, b))
    return np.einsum(a, names_a, b, names_b, out)


def _define_dot(d: Definition, left: Read, right: Read) -> Expr:
    (a, b), contract, batch = d.types, d["contract"], d["batch"]
    index = iter(d.index)
    ia: dict[int, Dim] = {}
    ib: dict[int, Dim] = {}
    for p, q in zip(*batch):
        ia[p] = ib[q] = next(index)
    for p in _free(a.rank, contract[0], batch[0]):
        ia[p] = next(index)
    for q in _free(b.rank, contract[1], batch[1]):
        ib[q] = next(index)
    for p, q in zip(*contract):
        ia[p] = ib[q] = d.axis(a.shape[p])
    product = apply("mul", left([ia[k] for k in range(a.rank)]), right([ib[k] for k in range(b.rank)]))
    return Reduce("add", tuple(d.axes), product, d.out.dtype)


def _vjp_dot(
    ct: Value, out: Value, a: Value, b: Value, contract: Axes, batch: Axes
) -> tuple[Value, Value]:
    nb = len(batch[0])
    free_a = _free(a.tensor.rank, contract[0], batch[0])
    free_b = _free(b.tensor.rank, contract[1], batch[1])
    ct_batch = tuple(range(nb))
    ct_a = tuple(range(nb, nb + len(free_a)))
    ct_b = tuple(range(nb + len(free_a), nb + len(free_a) + len(free_b)))
    # d a: contract the cotangent's b-axes with b; the axes come out as batch, free a, contracted.
    ga = dot(ct, b, contract=(ct_b, tuple(free_b)), batch=(ct_batch, batch[1]))
    made_a = [*batch[0], *free_a, *_by_position(contract[0], contract[1])]
    gb = dot(ct, a, contract=(ct_a, tuple(free_a)), batch=(ct_batch, batch[0]))
    made_b = [*batch[1], *free_b, *_by_position(contract[1], contract[0])]
    return _arrange(ga, made_a), _arrange(gb, made_b)


def _by_position(axes: tuple[int, ...], partner: tuple[int, ...]) -> list[int]:
    """`axes` in the order in which their partners stand in the other operand."""
    return [a for _, a in sorted(zip(partner, axes))]


def _arrange(x: Value, axes: list[int]) -> Value:
    """`x`, whose axis k is axis ``axes[k]`` of the wanted result, in that result's order."""
    return _in_order(x, [int(k) for k in np.argsort(axes)])


def _in_order(x: Value, axes: Sequence[int]) -> Value:
    """`x` with its axes in another order."""
    from .movement import transpose

    perm = tuple(axes)
    return x if perm == tuple(range(len(perm))) else transpose(x, perm=perm)


def _batch_dot(value: Value, operands: Sequence[Lanes], size: Dim) -> Value:
    """Lanes of both operands are a further batch axis; lanes of one are rows of it."""
    (a, a_lanes), (b, b_lanes) = operands
    (ca, cb), (ba, bb) = value.attrs["contract"], value.attrs["batch"]
    if a_lanes and b_lanes:
        batch = (0, *shifted(ba)), (0, *shifted(bb))
        return dot(a, b, contract=(shifted(ca), shifted(cb)), batch=batch)
    if a_lanes:
        return to_front(_rows(a, b, (ca, cb), (ba, bb)), len(ba))
    product = _rows(b, a, (cb, ca), (bb, ba))  # batch, lanes, free axes of b, free axes of a
    nb, n = len(ba), len(_free(b.tensor.rank - 1, cb, bb))
    ends = range(nb + 1, nb + 1 + n), range(nb + 1 + n, product.tensor.rank)
    return _in_order(product, [nb, *range(nb), *ends[1], *ends[0]])


def _rows(x: Value, other: Value, contract: Axes, batch: Axes) -> Value:
    """The product of an operand that has lanes with one that has none; they come before its own free axes."""
    shape = x.tensor.shape
    if len(shape) == 3 and contract[0] == (1,):  # one matrix with the rows of all lanes
        flat = make(OPS["reshape"], (x,), {"shape": (shape[0] * shape[1], shape[2])})
        product = dot(flat, other, contract=((1,), contract[1]))
        return make(OPS["reshape"], (product,), {"shape": (*shape[:2], *product.tensor.shape[1:])})
    return dot(x, other, contract=(shifted(contract[0]), contract[1]), batch=(shifted(batch[0]), batch[1]))


def _samples_dot() -> list[Sample]:
    rng = np.random.default_rng(0)

    def x(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(size=shape)

    none: Axes = ((), ())
    return [
        Sample((x(3, 5), x(5, 4)), {"contract": ((1,), (0,)), "batch": none}),
        Sample((x(19, 33), x(33, 37)), {"contract": ((1,), (0,)), "batch": none}),
        Sample((x(5, 3), x(4, 5)), {"contract": ((0,), (1,)), "batch": none}),
        Sample((x(2, 3, 5), x(2, 5, 4)), {"contract": ((2,), (1,)), "batch": ((0,), (0,))}),
        Sample((x(3, 2, 5), x(5, 4, 2)), {"contract": ((2,), (0,)), "batch": ((1,), (2,))}),
        Sample((x(3, 4, 5), x(5, 4)), {"contract": ((1, 2), (1, 0)), "batch": none}),
        Sample((x(3), x(4)), {"contract": none, "batch": none}),
        Sample((x(0, 3), x(3, 4)), {"contract": ((1,), (0,)), "batch": none}),
        Sample((x(2, 0), x(0, 4)), {"contract": ((1,), (0,)), "batch": none}),
    ]


dot: Op = register(Op(
    "dot", "contract", _infer_dot, _dot, _define_dot, vjp=_vjp_dot, jvp=MULTILINEAR, batch=_batch_dot, arity=2,
    attrs={"contract": REQUIRED, "batch": ((), ())}, cost=2, samples=_samples_dot,
    doc="Sum of products over the contracted axes; the result has the batch, left free and right free axes.",
))
