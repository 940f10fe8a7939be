"""Forward-mode differentiation: tangents of values as more values of the same graph.

Where each tangent comes from, the first that holds: from the record's `jvp`; of an elementwise op, whose Jacobian is
diagonal, from its `vjp` with the tangent in the cotangent's place; of any other op, by transposing its `vjp`, which is
linear in the cotangent (J. Townsend's observation of 2017 that two reverse modes make a forward one). So an op that
has a gradient has a tangent.

Loops and branches have rules of their own, in `passes.control_tangents`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ..ir.broadcasting import full
from ..ir.graph import Value, source_location, topological
from ..ir.op import OPS, ZERO_GRADIENT
from ..ir.region import stand_in, substitute_values, topological_until
from ..ir.types import TensorType
from .differentiate import no_derivative, pullback, require_type, since

__all__ = ["pushforward", "transpose", "zero_like"]

Tangents = Sequence[Value | None]


def pushforward(outputs: Sequence[Value], wrt: Sequence[Value], tangents: Tangents) -> list[Value | None]:
    """The product of the Jacobian of values by others with tangents of these; None where it is 0 by structure.

    Where one of `wrt` depends on another, its tangent is added to what comes from that: the transpose of `pullback`.

    Raises
    ------
    DifferentiationError
        If an op on the way has no derivative.
    """
    return _Forward(wrt, tangents).run(outputs)


class _Forward:
    """One walk from what has a tangent to all that depends on it."""

    def __init__(self, wrt: Sequence[Value], tangents: Tangents) -> None:
        self.given: dict[Value, Value] = {}
        for value, tangent in zip(wrt, tangents, strict=True):
            if tangent is not None:
                before = self.given.get(value)
                self.given[value] = tangent if before is None else before + tangent
        self.found: dict[Value, Value] = {}
        self.parts: dict[Value, Tangents] = {}  # tangents of the results of values with several

    def run(self, outputs: Sequence[Value], order: Sequence[Value] | None = None) -> list[Value | None]:
        for value in topological(outputs) if order is None else order:
            with source_location(tuple(loc.as_gradient(value.op.name) for loc in value.locs)):
                tangent = self._tangent(value)
                if value in self.given:
                    tangent = self.given[value] if tangent is None else tangent + self.given[value]
            if tangent is not None:
                require_type("tangent", value, tangent)
                self.found[value] = tangent
        return [self.found.get(value) for value in outputs]

    def _tangent(self, value: Value) -> Value | None:
        if value.op.name == "item":
            parts = self.parts.get(value.operands[0])
            return parts[value.attrs["index"]] if parts else None
        tangents = [self.found.get(o) for o in value.operands]
        if all(t is None for t in tangents):
            return None
        if not isinstance(value.type, TensorType):
            from .control_tangents import region_tangents

            self.parts[value] = region_tangents(value, tangents)
            return None
        if value.op.name == "masked":
            return _through_mask(value, *tangents)
        return _through(value, tangents) if value.type.dtype.is_float else None


def _through_mask(value: Value, tangent: Value | None, move: Value | None) -> Value:
    """Of ``masked(part, guard)``: where the guard is 0, the part depends on nothing but the guard."""
    part, guard = value.operands
    by_guard = None
    if move is not None:
        (by_guard,) = _Forward([guard], [move]).run([part], since(part, guard))
    there = tangent or zero_like(value.tensor)
    still = zero_like(value.tensor) if by_guard is None or move is None else OPS["masked"](by_guard, move)
    return OPS["where"](OPS["eq"](guard, 0), still, there)


def _through(value: Value, tangents: Tangents) -> Value | None:
    """The tangent of an op's result from those of its operands."""
    op = value.op
    if op.vjp is ZERO_GRADIENT:
        return None
    if op.jvp is not None:
        return op.jvp(value, tangents)
    if op.vjp is None:
        no_derivative(value)
    return _diagonal(value, tangents) if op.elementwise else _transposed(value, tangents)


def _diagonal(value: Value, tangents: Tangents) -> Value | None:
    assert value.op.vjp is not None
    terms = []
    for k, tangent in enumerate(tangents):
        if tangent is not None:
            terms.append(value.op.vjp(tangent, value, *value.operands, **value.attrs)[k])
    found = [t for t in terms if t is not None]
    return functools.reduce(lambda a, b: a + b, found) if found else None


def _transposed(value: Value, tangents: Tangents) -> Value | None:
    """The transpose of the VJP in its cotangent, built on stand-ins, so that it costs what the VJP is long."""
    assert value.op.vjp is not None
    operands = [stand_in("x", o.tensor) for o in value.operands]
    result, cotangent = stand_in("y", value.tensor), stand_in("g", value.tensor)
    contributions = value.op.vjp(cotangent, result, *operands, **value.attrs)
    pairs = [(c, t) for c, t in zip(contributions, tangents) if c is not None and t is not None]
    found = transpose([c for c, _ in pairs], [t for _, t in pairs], [cotangent], value)
    actual = dict(zip([*operands, result], [*value.operands, value]))
    return None if found[0] is None else substitute_values([found[0]], actual)[0]


def transpose(outputs: Sequence[Value], tangents: Sequence[Value], wrt: Sequence[Value], value: Value) -> Tangents:
    """Of a linear function, its transpose: the pullback, which must not read the function's operands.

    Parameters
    ----------
    wrt : stand-ins for the operands, on which the outputs depend linearly.
    value : whose derivative it is, for errors.
    """
    found = pullback(outputs, tangents, wrt)
    given = [*tangents, *value.operands]
    if any(g is not None and set(wrt) & set(topological_until([g], given)) for g in found):
        no_derivative(value, "has a gradient that is not linear in the cotangent, so it has none in forward mode")
    return found


def zero_like(t: TensorType) -> Value:
    """A tangent of 0."""
    return full(t.shape, 0, t.dtype)
