"""Products of vectors, matrices and tensors; all are one contraction with axes in some order."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.broadcasting import broadcast_shapes
from ...ir.dims import equal
from ...ir.dtypes import promote
from ...ir.types import shape_text
from ..shapes import as_axis, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .creation import asarray, iota
from .manipulation import broadcast_to, moveaxis, permute_dims

__all__ = ["diagonal", "dot", "einsum", "matmul", "matrix_transpose", "outer", "tensordot", "trace", "vecdot"]


def _pair(name: str, a: ArrayLike, b: ArrayLike) -> tuple[Tensor, Tensor]:
    """Two tensors of one dtype; a number or list takes the other's dtype."""
    if isinstance(a, Tensor) and not isinstance(b, Tensor):
        b = asarray(b) if hasattr(b, "dtype") else asarray(b, a.dtype)
    if isinstance(b, Tensor) and not isinstance(a, Tensor):
        a = asarray(a) if hasattr(a, "dtype") else asarray(a, b.dtype)
    a, b = asarray(a), asarray(b)
    try:
        dtype = promote(a.dtype, b.dtype)
    except DTypeError as error:
        fail(name, DTypeError, str(error), [a, b])
    return asarray(a, dtype), asarray(b, dtype)


@located
def matmul(x1: ArrayLike, x2: ArrayLike) -> Tensor:
    """The matrix product over the last axis of `x1` and the one before the last of `x2`.

    1-d tensors are a row on the left and a column on the right; leading axes broadcast.

    Raises
    ------
    ShapeError
        If the contracted dimensions differ, the leading ones do not broadcast, or one has no axes.
    """
    a, b = _pair("matmul", x1, x2)
    if a.ndim == 0 or b.ndim == 0:
        fail("matmul", ShapeError, "needs tensors with at least one axis", [a, b], "multiply by a number with *")
    inner = max(b.ndim - 2, 0)
    if not equal(a.shape[-1], b.shape[inner]):
        fail(
            "matmul", ShapeError, f"cannot contract {a.shape[-1]} with {b.shape[inner]}", [a, b],
            "the last dimension of the left operand must equal the right operand's dimension before the last",
        )
    if a.ndim <= 2 and b.ndim <= 2 or b.ndim <= 2:  # leading axes only on the left: they stay in front
        return apply("dot", a, b, contract=((a.ndim - 1,), (inner,)), batch=((), ()))
    if a.ndim == 1:
        return apply("dot", a, b, contract=((0,), (inner,)), batch=((), ()))
    if a.ndim == 2:
        product = apply("dot", a, b, contract=((1,), (inner,)), batch=((), ()))
        return moveaxis(product, 0, -2)
    lead = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if lead is None:
        fail(
            "matmul", ShapeError,
            f"the leading dimensions [{shape_text(a.shape[:-2])}] and [{shape_text(b.shape[:-2])}] do not broadcast",
            [a, b], "they must be equal or 1, aligned at the last of them",
        )
    rank, axes = len(lead), tuple(range(len(lead)))
    a, b = broadcast_to(a, (*lead, *a.shape[-2:])), broadcast_to(b, (*lead, *b.shape[-2:]))
    return apply("dot", a, b, contract=((rank + 1,), (rank,)), batch=(axes, axes))


@located
def matrix_transpose(x: ArrayLike) -> Tensor:
    """The last two axes exchanged."""
    x = asarray(x)
    if x.ndim < 2:
        fail("matrix_transpose", ShapeError, "needs at least two axes", [x])
    return permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


@located
def tensordot(x1: ArrayLike, x2: ArrayLike, axes: int | Sequence[Sequence[int]] = 2) -> Tensor:
    """Products summed over pairs of axes: the last `axes` of `x1` with the first of `x2`, or those given."""
    a, b = _pair("tensordot", x1, x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            fail("tensordot", ShapeError, f"cannot contract {axes} axes", [a, b])
        left, right = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        left, right = (
            tuple(as_axis(k, t.ndim, "tensordot") for k in ([ks] if isinstance(ks, int) else ks))
            for ks, t in zip(axes, (a, b))
        )
    if len(left) != len(right) or len(set(left)) < len(left) or len(set(right)) < len(right):
        fail("tensordot", GraphError, f"axes {axes} are not pairs of distinct axes", [a, b])
    return apply("dot", a, b, contract=(left, right), batch=((), ()))


@located
def vecdot(x1: ArrayLike, x2: ArrayLike, axis: int = -1) -> Tensor:
    """The products of two tensors, which broadcast, summed along one axis."""
    from .statistical import reduce

    a, b = _pair("vecdot", x1, x2)
    product = a * b
    return reduce("sum", product, (as_axis(axis, product.ndim, "vecdot"),), False)


@located
def outer(x1: ArrayLike, x2: ArrayLike) -> Tensor:
    """All products of an element of each vector."""
    a, b = _pair("outer", x1, x2)
    if a.ndim != 1 or b.ndim != 1:
        fail("outer", ShapeError, "needs two 1-d tensors", [a, b])
    return a[:, None] * b[None, :]


@located
def dot(x1: ArrayLike, x2: ArrayLike) -> Tensor:
    """`matmul`; the product with a 0-d tensor."""
    a, b = _pair("dot", x1, x2)
    return matmul(a, b) if a.ndim and b.ndim else a * b


@located
def diagonal(x: ArrayLike, axis1: int = -2, axis2: int = -1) -> Tensor:
    """The elements whose indices on two axes of one size are equal, as a new last axis."""
    x = asarray(x)
    a, b = as_axis(axis1, x.ndim, "diagonal"), as_axis(axis2, x.ndim, "diagonal")
    if a == b or not equal(x.shape[a], x.shape[b]):
        fail("diagonal", ShapeError, f"axes {axis1} and {axis2} are not two axes of one size", [x])
    x = moveaxis(x, (a, b), (-2, -1))
    on = iota(x.shape, x.ndim - 2) == iota(x.shape, x.ndim - 1)
    return apply("sum", apply("where", on, x, asarray(0, x.dtype)), axes=(x.ndim - 2,))


@located
def trace(x: ArrayLike) -> Tensor:
    """The sum of the diagonals of the matrices in the last two axes."""
    from .statistical import sum

    return sum(diagonal(x), -1)


# --- einsum --------------------------------------------------------------------------------------


def _labels(equation: str, operands: Sequence[Tensor]) -> tuple[list[str], str]:
    """The axis letters of each operand and of the result."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    letters = left.replace(",", "")
    if not all(c.isalpha() for c in letters + out):
        fail("einsum", GraphError, f"{equation!r} has other signs than letters, commas and ->", operands)
    if len(terms) != len(operands) or any(len(t) != x.ndim for t, x in zip(terms, operands)):
        fail("einsum", ShapeError, f"{equation!r} does not name each axis of each operand", operands)
    if not arrow:
        out = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if len(set(out)) < len(out) or not set(out) <= set(letters):
        fail(
            "einsum", GraphError, f"the result {out!r} of {equation!r} repeats or invents an axis", operands,
            "each letter of the result stands once, and in an operand",
        )
    sizes: dict[str, object] = {}
    for term, x in zip(terms, operands):
        for c, size in zip(term, x.shape):
            if not equal(sizes.setdefault(c, size), size):  # type: ignore[arg-type]
                fail(
                    "einsum", ShapeError, f"axis {c!r} has the sizes {sizes[c]} and {size}", operands,
                    "axes with one letter must have one size",
                )
    return terms, out


def _reduced(x: Tensor, term: str, needed: set[str]) -> tuple[Tensor, str]:
    """An operand with each letter once, and without those that nothing else needs."""
    for c in dict.fromkeys(term):
        while term.count(c) > 1:
            first, second = term.index(c), term.rindex(c)
            x = diagonal(x, first, second)
            term = "".join(t for k, t in enumerate(term) if k not in (first, second)) + c
    gone = tuple(k for k, c in enumerate(term) if c not in needed)
    return (apply("sum", x, axes=gone) if gone else x), "".join(c for c in term if c in needed)


def _contract(a: Tensor, left: str, b: Tensor, right: str, needed: set[str]) -> tuple[Tensor, str]:
    shared = [c for c in left if c in right]
    batch, summed = [c for c in shared if c in needed], [c for c in shared if c not in needed]
    product = apply(
        "dot", a, b,
        contract=(tuple(map(left.index, summed)), tuple(map(right.index, summed))),
        batch=(tuple(map(left.index, batch)), tuple(map(right.index, batch))),
    )
    free = [c for c in left + right if c not in shared]
    return product, "".join(batch + free)


@located
def einsum(equation: str, *operands: ArrayLike) -> Tensor:
    """The sum of products that an Einstein summation names, such as ``"bij,bjk->bik"``.

    Operands are contracted from left to right. An ellipsis is not supported.

    Raises
    ------
    GraphError, ShapeError
        If the equation is malformed or does not fit the operands.
    """
    tensors = [asarray(x) for x in operands]
    if not tensors:
        fail("einsum", GraphError, "needs at least one tensor")
    terms, out = _labels(equation, tensors)
    result, term = _reduced(tensors[0], terms[0], set(out).union(*terms[1:]))
    for k in range(1, len(tensors)):
        needed = set(out).union(*terms[k + 1:])
        other, label = _reduced(tensors[k], terms[k], needed | set(term))
        result, other = _pair("einsum", result, other)
        result, term = _reduced(result, term, needed | set(label))
        result, term = _contract(result, term, other, label, needed)
    return permute_dims(result, [term.index(c) for c in out])
