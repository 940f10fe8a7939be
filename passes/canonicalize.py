"""Canonical form: one spelling for each meaning, so that later rules and the fuser see few cases.

- constants stand right in commutative ops, and those without effect are gone; ``square``,
  ``reciprocal`` and powers with a known exponent are products, quotients and roots;
- movement ops are merged, dropped where they do nothing, and absorbed by contractions;
- a broadcast stands after elementwise ops (which then compute fewer elements), its operand without
  axes of size 1, and reductions of it are scaled reductions of its operand;
- a reshape stands on the result of a reduction, a contraction or an input, where it is free, not
  between elementwise ops (`hoist_reshapes`); one that only adds axes of size 1 stands after them.
"""

from __future__ import annotations

from itertools import pairwise

from ..ir.broadcasting import broadcast_to, full
from ..ir.dims import Dim, at_most, equal, product
from ..ir.graph import Graph, Value, make, source_location, users
from ..ir.op import Op
from ..ir.ops import OPS
from ..ir.types import Shape
from .predicates import complement, compose, full_like, nonnegative, power_of_two, same_shape, splat, value_of
from .rewrite import RuleSet, rewrite, rules

__all__ = ["CANONICALIZE", "canonicalize", "hoist_reshapes"]

Axes = tuple[int, ...]


# --- rows ----------------------------------------------------------------------------------------


def inverse(c: Value) -> Value:
    """The reciprocal of a splat power of two."""
    return full_like(c.tensor, 1 / value_of(c))


def identity(perm: Axes) -> bool:
    """Whether a permutation moves nothing."""
    return perm == tuple(range(len(perm)))


def permuted(shape: Shape, perm: Axes) -> Shape:
    """A shape with its axes permuted."""
    return tuple(shape[p] for p in perm)


def moves_ones(x: Value, perm: Axes) -> bool:
    """Whether a permutation moves axes of size 1 only, so that the elements keep their order."""
    moved = [p for p in perm if x.tensor.shape[p] != 1]
    return moved == sorted(moved)


def only_ones(x: Value, axes: Axes) -> bool:
    """Whether all these axes have size 1 (or there are none)."""
    return all(x.tensor.shape[a] == 1 for a in axes)


def without(x: Value, axes: Axes) -> Shape:
    """The shape of `x` without some axes."""
    return tuple(d for k, d in enumerate(x.tensor.shape) if k not in axes)


def symmetric_difference(a: Axes, b: Axes) -> Axes:
    """The axes in one of two sets only."""
    return tuple(sorted(set(a) ^ set(b)))


_ROWS = rules("canonical forms", """
    x * 1                       -> x
    x / 1                       -> x
    x - 0                       -> x
    x + -0.0                    -> x
    square(x)                   -> x * x
    reciprocal(x)               -> 1 / x
    neg(neg(x))                 -> x
    x / c                       -> x * inverse(c)               if power_of_two(c)
    pow(x, 0)                   -> 1
    pow(x, 1)                   -> x
    pow(x, 2)                   ~> x * x
    pow(x, 3)                   ~> x * x * x
    pow(x, 4)                   ~> (x * x) * (x * x)
    pow(x, -1.0)                ~> 1 / x
    pow(x, -2.0)                ~> 1 / (x * x)
    pow(x, 0.5)                 ~> sqrt(x)                      if nonnegative(x)
    pow(x, 0.5)                 ~> where(x == -inf, inf, sqrt(x + 0.0))
    pow(x, -0.5)                ~> 1 / sqrt(x)                  if nonnegative(x)
    pow(x, 1.5)                 ~> x * sqrt(x)                  if nonnegative(x)

    cast(x, dtype=d)            -> x                            if x.dtype == d
    reshape(x, shape=s)         -> x                            if same_shape(x.shape, s)
    reshape(reshape(x, shape=t), shape=s)                   -> reshape(x, shape=s)
    transpose(x, perm=p)        -> x                            if identity(p)
    transpose(transpose(x, perm=p), perm=q)                 -> transpose(x, perm=compose(p, q))
    transpose(x, perm=p)        -> reshape(x, shape=permuted(x.shape, p))  if moves_ones(x, p)
    broadcast(x, shape=s, dims=d)                           -> x  if len(s) == len(d)
    broadcast(broadcast(x, shape=t, dims=d), shape=s, dims=e)
        -> broadcast(x, shape=s, dims=compose(e, d))
    reverse(x, axes=a)          -> x                            if only_ones(x, a)
    reverse(reverse(x, axes=a), axes=b)                     -> reverse(x, axes=symmetric_difference(a, b))
    slice(x, start=b, shape=s, step=t)                      -> x  if same_shape(x.shape, s)
    concat(x, axis=a)           -> x

    sum(x, axes=a)              ~> reshape(x, shape=without(x, a))  if only_ones(x, a)
    prod(x, axes=a)             -> reshape(x, shape=without(x, a))  if only_ones(x, a)
    amax(x, axes=a)             -> reshape(x, shape=without(x, a))  if only_ones(x, a)
    amin(x, axes=a)             -> reshape(x, shape=without(x, a))  if only_ones(x, a)
    any(x, axes=a)              -> reshape(x, shape=without(x, a))  if only_ones(x, a)
    all(x, axes=a)              -> reshape(x, shape=without(x, a))  if only_ones(x, a)
""", [
    compose, identity, inverse, moves_ones, nonnegative, only_ones, permuted, power_of_two, same_shape,
    symmetric_difference, without,
])

CANONICALIZE: RuleSet = RuleSet("canonicalize", _ROWS)
"""Rules that give each value one spelling."""


# --- splats, order of operands -------------------------------------------------------------------


@CANONICALIZE.rule(("reshape", "transpose", "broadcast", "slice", "reverse", "take"), "moved(full) -> full")
def _moved_full(value: Value) -> Value | None:
    x = value.operands[0]
    return full_like(value.tensor, value_of(x)) if splat(x) else None


@CANONICALIZE.rule("pad", "pad by nothing, or of a full by its own number -> operand, full")
def _trivial_pad(value: Value) -> Value | None:
    (x,) = value.operands
    if all(amount == 0 for name in ("low", "high", "interior") for amount in value.attrs[name]):
        return x
    number = value.attrs["value"]
    if splat(x) and full(value.shape, number, x.tensor.dtype) is full_like(value.tensor, value_of(x)):
        return full_like(value.tensor, number)
    return None


@CANONICALIZE.rule("concat", "concat of equal fulls -> full; empty and nested operands merged")
def _merged_concat(value: Value) -> Value | None:
    axis = value.attrs["axis"]
    parts: list[Value] = []
    for x in value.operands:
        nested = x.op.name == "concat" and x.attrs["axis"] == axis
        parts.extend(p for p in (x.operands if nested else (x,)) if p.tensor.shape[axis] != 0)
    if all(splat(p) and full_like(value.tensor, value_of(p)) is full_like(value.tensor, value_of(parts[0]))
           for p in parts):
        return full_like(value.tensor, value_of(parts[0]) if parts else 0)
    return make(value.op, parts, value.attrs) if len(parts) < len(value.operands) or _nested(value) else None


def _nested(value: Value) -> bool:
    return any(x.op.name == "concat" and x.attrs["axis"] == value.attrs["axis"] for x in value.operands)


@CANONICALIZE.rule("dim", "dim of a known size -> full")
def _known_dim(value: Value) -> Value | None:
    size = value.attrs["value"]
    return size_as_number(size, value) if isinstance(size, int) else None


@CANONICALIZE.rule(lambda op: op.commutative, "constant op x -> x op constant")
def _constant_right(value: Value) -> Value | None:
    a, b = value.operands
    if _constness(a) <= _constness(b):
        return None
    return make(value.op, (b, a), value.attrs)


def _constness(x: Value) -> int:
    return ("constant", "full").index(x.op.name) + 1 if x.op.name in ("constant", "full") else 0


# --- broadcasts ----------------------------------------------------------------------------------


@CANONICALIZE.rule("broadcast", "broadcast of x with axes of size 1 -> broadcast of x without them")
def _broadcast_of_ones(value: Value) -> Value | None:
    (x,), dims = value.operands, value.attrs["dims"]
    kept = [k for k, d in enumerate(x.tensor.shape) if d != 1]
    if len(kept) == x.tensor.rank:
        return None
    squeezed = OPS["reshape"](x, shape=tuple(x.tensor.shape[k] for k in kept))
    return make(value.op, (squeezed,), {"shape": value.attrs["shape"], "dims": compose(dims, kept)})


@CANONICALIZE.rule("broadcast", "broadcast that adds axes of size 1 only -> reshape")
def _broadcast_to_ones(value: Value) -> Value | None:
    added = complement(value.attrs["dims"], value.tensor.rank)
    if all(value.tensor.shape[k] == 1 for k in added):
        return OPS["reshape"](value.operands[0], shape=value.tensor.shape)
    return None


def is_elementwise(op: Op) -> bool:
    """Whether each element of the result comes from the operands' elements at the same index."""
    return op.elementwise or op.name == "cast"


@CANONICALIZE.rule(is_elementwise, "f(broadcast(x), full, ...) -> broadcast(f(x, full, ...))")
def _sink_broadcast(value: Value) -> Value | None:
    """The elementwise op computes one element for each that it computed before and its repetitions."""
    moving = [x for x in value.operands if not splat(x)]
    if not moving or any(x.op.name != "broadcast" for x in moving):
        return None
    dims, shape = moving[0].attrs["dims"], moving[0].operands[0].tensor.shape
    if any(x.attrs["dims"] != dims for x in moving):
        return None
    inner = [full(shape, value_of(x), x.tensor.dtype) if splat(x) else x.operands[0] for x in value.operands]
    return OPS["broadcast"](make(value.op, inner, value.attrs), shape=value.tensor.shape, dims=dims)


@CANONICALIZE.rule(is_elementwise, "f(reshape(x), full, ...) -> reshape(f(x, full, ...)), of axes of size 1")
def _sink_unit_reshape(value: Value) -> Value | None:
    """Axes of size 1 are added as late as possible, so that they meet what removes them again."""
    moving = [x for x in value.operands if not splat(x)]
    if not moving or any(not adds_ones(x) for x in moving):
        return None
    shape = moving[0].operands[0].tensor.shape
    if any(x.operands[0].tensor.shape != shape for x in moving):
        return None
    inner = [full(shape, value_of(x), x.tensor.dtype) if splat(x) else x.operands[0] for x in value.operands]
    return OPS["reshape"](make(value.op, inner, value.attrs), shape=value.tensor.shape)


def adds_ones(x: Value) -> bool:
    """Whether `x` is a reshape that only adds or removes axes of size 1."""
    if x.op.name != "reshape":
        return False
    return [d for d in x.tensor.shape if d != 1] == [d for d in x.operands[0].tensor.shape if d != 1]


@CANONICALIZE.rule(
    ("sum", "amax", "amin", "any", "all"), "reduce(broadcast(x)) -> broadcast(reduce(x)) [* count]", exact=False
)
def _reduced_broadcast(value: Value) -> Value | None:
    (x,), axes = value.operands, value.attrs["axes"]
    if x.op.name != "broadcast":
        return None
    dims, inner = x.attrs["dims"], x.operands[0]
    repeated = [a for a in axes if a not in dims]
    count = product(x.tensor.shape[a] for a in repeated)
    if not repeated or value.op.name != "sum" and not (isinstance(count, int) and count > 0):
        return None
    own = tuple(k for k, d in enumerate(dims) if d in axes)
    result = make(value.op, (inner,), {"axes": own}) if own else inner
    if value.op.name == "sum" and count == 0:
        return full_like(value.tensor, 0)
    if value.op.name == "sum":
        result = result * size_as_number(count, result)
    left = complement(axes, x.tensor.rank)
    kept = tuple(left.index(d) for d in dims if d not in axes)
    return OPS["broadcast"](result, shape=value.tensor.shape, dims=kept)


def size_as_number(count: Dim, like: Value) -> Value:
    """A number of elements as a tensor like another one."""
    dtype = like.tensor.dtype
    if isinstance(count, int):
        return full(like.tensor.shape, OPS["dim"].reference(count, dtype).item(), dtype)
    return broadcast_to(OPS["dim"](value=count, dtype=dtype), like.tensor.shape)


@CANONICALIZE.rule(("sum", "prod", "amax", "amin"), "reduce(full) -> full", exact=False)
def _reduced_full(value: Value) -> Value | None:
    (x,) = value.operands
    if not splat(x):
        return None
    if value.op.name in ("amax", "amin"):
        return full_like(value.tensor, value_of(x))
    count = product(x.tensor.shape[a] for a in value.attrs["axes"])
    if value.op.name == "sum" and count == 0:
        return full_like(value.tensor, 0)
    if value.op.name == "sum":
        number = full_like(value.tensor, value_of(x))
        return number * size_as_number(count, number)
    return full_like(value.tensor, 1) if value_of(x) == 1 and value.op.name == "prod" else None


@CANONICALIZE.rule("reshape", "reshape(broadcast(x)) -> broadcast(reshape(x))")
def _reshaped_broadcast(value: Value) -> Value | None:
    """Where each group of axes that the reshape joins or splits is repeated as a whole, or not at all."""
    (x,) = value.operands
    if x.op.name != "broadcast":
        return None
    groups = regroup(x.tensor.shape, value.tensor.shape)
    if groups is None:
        return None
    dims = x.attrs["dims"]
    kept: list[int] = []
    for old, new in groups:
        significant = [k for k in old if x.tensor.shape[k] != 1]
        if significant and all(k in dims for k in significant):
            kept += new
        elif any(k in dims for k in significant):
            return None
    shape = tuple(value.tensor.shape[k] for k in kept)
    inner = OPS["reshape"](x.operands[0], shape=shape)
    return OPS["broadcast"](inner, shape=value.tensor.shape, dims=tuple(kept))


def regroup(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]] | None:
    """The shortest runs of axes of two shapes that hold equally many elements; None if one is empty."""
    if 0 in old:
        return None
    a, b = _prefix_sizes(old), _prefix_sizes(new)
    cuts = [(0, 0)]
    for i in range(1, len(a)):
        j = next((j for j in range(cuts[-1][1] + 1, len(b)) if equal(a[i], b[j])), None)
        if j is not None:
            cuts.append((i, j))
    cuts[max(1, len(cuts) - 1):] = [(len(old), len(new))]  # what is left has size 1
    return [(list(range(i, p)), list(range(j, q))) for (i, j), (p, q) in pairwise(cuts)]


def _prefix_sizes(shape: Shape) -> list[Dim]:
    sizes: list[Dim] = [1]
    for d in shape:
        sizes.append(sizes[-1] * d)
    return sizes


@CANONICALIZE.rule("transpose", "transpose(broadcast(x)) -> broadcast(transpose(x))")
def _transposed_broadcast(value: Value) -> Value | None:
    (x,), perm = value.operands, value.attrs["perm"]
    if x.op.name != "broadcast":
        return None
    dims = [perm.index(d) for d in x.attrs["dims"]]
    order = tuple(sorted(range(len(dims)), key=dims.__getitem__))
    inner = OPS["transpose"](x.operands[0], perm=order)
    return OPS["broadcast"](inner, shape=value.tensor.shape, dims=tuple(sorted(dims)))


@CANONICALIZE.rule("reverse", "reverse(broadcast(x)) -> broadcast(reverse(x))")
def _reversed_broadcast(value: Value) -> Value | None:
    (x,), axes = value.operands, value.attrs["axes"]
    if x.op.name != "broadcast":
        return None
    own = tuple(k for k, d in enumerate(x.attrs["dims"]) if d in axes)
    return make(x.op, (OPS["reverse"](x.operands[0], axes=own),), x.attrs)


# --- slices --------------------------------------------------------------------------------------


@CANONICALIZE.rule("slice", "slice(broadcast(x)) -> broadcast(slice(x))")
def _sliced_broadcast(value: Value) -> Value | None:
    (x,) = value.operands
    if x.op.name != "broadcast":
        return None
    dims = x.attrs["dims"]
    own = {name: tuple(attr[d] for d in dims) for name, attr in value.attrs.items()}
    return make(x.op, (make(value.op, x.operands, own),), {"shape": value.tensor.shape, "dims": dims})


@CANONICALIZE.rule("slice", "slice(slice(x)) -> slice(x)")
def _sliced_slice(value: Value) -> Value | None:
    (x,), outer = value.operands, value.attrs
    if x.op.name != "slice":
        return None
    start = tuple(a + b * s for a, s, b in zip(x.attrs["start"], x.attrs["step"], outer["start"]))
    step = tuple(a * b for a, b in zip(x.attrs["step"], outer["step"]))
    return make(value.op, x.operands, {"start": start, "shape": outer["shape"], "step": step})


@CANONICALIZE.rule("slice", "slice(pad(x)) -> slice(x), inside x")
def _sliced_pad(value: Value) -> Value | None:
    (x,), attrs = value.operands, value.attrs
    if x.op.name != "pad" or any(x.attrs["interior"]):
        return None
    low, inner = x.attrs["low"], x.operands[0].tensor.shape
    start = tuple(a - b for a, b in zip(attrs["start"], low))
    last = [a + (n - 1) * s for a, n, s in zip(start, attrs["shape"], attrs["step"])]
    inside = all(at_most(0, a) and at_most(b + 1, n) for a, b, n in zip(start, last, inner))
    return make(value.op, x.operands, {**attrs, "start": start}) if inside else None


@CANONICALIZE.rule("slice", "slice(concat(x, y, ...)) -> slice(x), inside x")
def _sliced_concat(value: Value) -> Value | None:
    (x,), attrs = value.operands, value.attrs
    if x.op.name != "concat":
        return None
    axis = x.attrs["axis"]
    n, start = attrs["shape"][axis], attrs["start"][axis]
    end = start + (n - 1) * attrs["step"][axis] + 1
    first: Dim = 0
    for part in x.operands:
        extent = part.tensor.shape[axis]
        if at_most(first, start) and at_most(end, first + extent) and at_most(start, end):
            moved = (*attrs["start"][:axis], start - first, *attrs["start"][axis + 1:])
            return make(value.op, (part,), {**attrs, "start": moved})
        first = first + extent
    return None


@CANONICALIZE.rule("pad", "pad(pad(x)) -> pad(x)")
def _padded_pad(value: Value) -> Value | None:
    (x,), outer = value.operands, value.attrs
    if x.op.name != "pad" or any(outer["interior"]) or repr(outer["value"]) != repr(x.attrs["value"]):
        return None
    low, high = (tuple(a + b for a, b in zip(x.attrs[k], outer[k])) for k in ("low", "high"))
    return make(value.op, x.operands, {**x.attrs, "low": low, "high": high})


# --- contractions --------------------------------------------------------------------------------


@CANONICALIZE.rule("dot", "dot(transpose(x), y) -> dot(x, y), on x's own axes")
def _dot_of_transposed(value: Value) -> Value | None:
    """Where the result's axes keep their order."""
    for side in (0, 1):
        x = value.operands[side]
        if x.op.name != "transpose":
            continue
        perm = x.attrs["perm"]
        contract, batch = list(value.attrs["contract"]), list(value.attrs["batch"])
        free = complement((*contract[side], *batch[side]), x.tensor.rank)
        if list(compose(perm, free)) != sorted(compose(perm, free)):
            continue
        contract[side], batch[side] = compose(perm, contract[side]), compose(perm, batch[side])
        operands = list(value.operands)
        operands[side] = x.operands[0]
        return make(value.op, operands, {"contract": tuple(contract), "batch": tuple(batch)})
    return None


def _swapped_dot(dot: Value, perm: Axes) -> Value | None:
    """A dot whose result is transposed by `perm`, with its operands exchanged; None for other `perm`."""
    (a, b), contract, batch = dot.operands, dot.attrs["contract"], dot.attrs["batch"]
    shared = len(batch[0])
    left = a.tensor.rank - shared - len(contract[0])
    swapped = (*range(shared), *range(shared + left, dot.tensor.rank), *range(shared, shared + left))
    if perm != swapped:
        return None
    return make(dot.op, (b, a), {"contract": contract[::-1], "batch": batch[::-1]}, loc=dot.locs)


# --- moves that pay only if the operand has no other reader ----------------------------------------


def hoist_reshapes(graph: Graph) -> Graph:
    """Move reshapes above elementwise ops, and transposes into the dot they follow.

    Only past values that nothing else reads, so that nothing is computed twice; and a reshape only
    where it ends on results of reductions and contractions, on inputs, and on broadcasts of these.
    """
    order = list(graph)
    readers, roots = users(order), set(graph.roots)
    alone = {v for v in order if len(readers[v]) == 1 and v not in roots}
    shapes: dict[Value, Shape] = {}
    for value in order:
        if value.op.name == "reshape" and not adds_ones(value):
            cone = _cone(value, alone)
            shapes.update(dict.fromkeys(cone, value.tensor.shape))
    new: dict[Value, Value] = {}
    for value in order:
        with source_location(value.locs):
            new[value] = _hoisted(value, shapes, new, alone)
    return graph.with_roots([new[v] for v in graph.roots])


def _cone(reshape: Value, alone: set[Value]) -> list[Value]:
    """The elementwise values that a reshape may move above; none if one of their operands cannot take it."""
    cone: list[Value] = []
    pending = list(reshape.operands)
    while pending:
        x = pending.pop()
        if is_elementwise(x.op) and x in alone:
            cone.append(x)
            pending.extend(x.operands)
        elif not _takes_reshape(x, reshape.tensor.shape):
            return []
    return cone


def _takes_reshape(x: Value, shape: Shape) -> bool:
    if x.op.name == "broadcast":
        return _reshaped_broadcast(OPS["reshape"](x, shape=shape)) is not None
    return splat(x) or x.op.kind in ("leaf", "view", "reduce", "contract", "opaque")


def _hoisted(value: Value, shapes: dict[Value, Shape], new: dict[Value, Value], alone: set[Value]) -> Value:
    if value in shapes:
        shape = shapes[value]
        operands = [new[o] if o in shapes else OPS["reshape"](new[o], shape=shape) for o in value.operands]
        return make(value.op, operands, value.attrs, loc=value.locs)
    if value.op.name == "reshape" and value.operands[0] in shapes:
        return new[value.operands[0]]
    if value.op.name == "transpose" and value.operands[0].op.name == "dot" and value.operands[0] in alone:
        swapped = _swapped_dot(new[value.operands[0]], value.attrs["perm"])
        if swapped is not None:
            return swapped
    return value.with_operands([new[o] for o in value.operands])


def canonicalize(graph: Graph) -> Graph:
    """The graph in canonical form; the same object if it is."""
    new = rewrite(graph, CANONICALIZE)
    hoisted = hoist_reshapes(new)
    return new if hoisted is new else rewrite(hoisted, CANONICALIZE)
