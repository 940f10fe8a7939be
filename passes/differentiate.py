"""Reverse-mode differentiation: a graph's gradients as more values of the same graph.

Cotangents are accumulated from the loss back to what it depends on, by each op's VJP, which is
written in the IR's own arithmetic: gradients can be differentiated again.

A branch that `where` does not take must not poison a gradient. Its cotangent is exactly 0, but an
infinite or NaN local derivative would turn that into ``0 * inf = NaN``. So cotangents that come
out of a `where` are *masked*, and behind them an elementwise op's contribution is
``masked(vjp, cotangent)``: 0 where the cotangent is, yet linear in it when it is differentiated
again (a cotangent of a branch taken may be 0 by chance). A value that also reaches the loss another
way is not masked: there its NaN is the truth.

Loops and branches have rules of their own, in `passes.control_gradients`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Literal, NoReturn

from ..errors import DifferentiationError, DTypeError, ShapeError
from ..ir.broadcasting import full, same_type
from ..ir.graph import Value, source_location, topological
from ..ir.op import OPS
from ..ir.region import topological_until
from ..ir.types import TensorType, TupleType

__all__ = ["gradients", "no_derivative", "pullback", "require_float", "require_type", "since"]

_LINEAR = frozenset({"add", "sub", "neg", "where", "cast", "stop_gradient"})
"""Elementwise ops whose VJP gives 0 for a cotangent of 0, whatever the operands are."""


def gradients(
    loss: Value,
    wrt: Sequence[Value],
    cotangent: Value | None = None,
    on_disconnected: Literal["raise", "zero"] = "raise",
    prepare: Callable[[Value], Value] | None = None,
) -> list[Value]:
    """The gradients of a value by others.

    Parameters
    ----------
    loss : a floating-point scalar; of any shape if a cotangent is given.
    wrt : floating-point values that it depends on.
    cotangent : what the gradient is multiplied by (from the left), of the loss's type; 1 if not given.
    on_disconnected : what a value gets that the loss does not depend on: an error, or zeros.
    prepare : a rewrite of the loss that precedes differentiation, such as into stable forms.

    Returns
    -------
    One value per element of `wrt`, of its type. Each knows the source line of the forward value that
    it comes from, marked as a gradient of its op.

    Raises
    ------
    DifferentiationError
        If the loss is no scalar, something is not floating-point, an op on the way has no
        derivative, or a value is disconnected.
    """
    seed = _seed(loss, cotangent)
    for value in wrt:
        require_float(value)
    if prepare is not None:
        loss = prepare(loss)
    order = topological([loss])
    found = _Backward(order, wrt).run([(loss, seed)])
    return [_gradient(value, found, order, on_disconnected) for value in wrt]


def pullback(
    outputs: Sequence[Value], cotangents: Sequence[Value], wrt: Sequence[Value], masked: bool = False
) -> list[Value | None]:
    """The product of cotangents of several values with their Jacobian by others; None where there is no dependence.

    Parameters
    ----------
    masked : whether the cotangents come out of a `where`: a 0 then stays 0, whatever the derivatives are.
    """
    found = _Backward(topological(outputs), wrt).run(list(zip(outputs, cotangents, strict=True)), masked)
    return [found.get(value) for value in wrt]


def require_float(value: Value, preposition: str = "by ") -> None:
    """Refuse what cannot be differentiated by (or cannot be differentiated).

    Raises
    ------
    DifferentiationError
        If the value is no floating-point tensor.
    """
    if not isinstance(value.type, TensorType) or not value.tensor.dtype.is_float:
        raise DifferentiationError(
            f"cannot differentiate {preposition}{_describe(value)}: only floating-point values have gradients"
        )


def since(value: Value, earlier: Value) -> list[Value]:
    """What a value is computed from and an earlier one may be read by, operands first."""
    return topological_until([value], (), earlier.serial)


def no_derivative(
    value: Value, why: str = "cannot stand between the loss and what it is differentiated by"
) -> NoReturn:
    """Raise: an op on the way has no derivative."""
    raise DifferentiationError(
        f"{_describe(value)} has no derivative\n"
        f"  {value.op.name} {why}; stop_gradient makes its operand a constant"
    )


def require_type(what: str, value: Value, derivative: Value) -> None:
    """Require that a rule gave a cotangent or tangent of the type of its value."""
    if not same_type(derivative.tensor, value.tensor):
        raise DifferentiationError(f"the {what} of {_describe(value)} came out as {derivative.type}")


def _seed(loss: Value, cotangent: Value | None) -> Value:
    if not isinstance(loss.type, TensorType) or not loss.tensor.dtype.is_float:
        raise DifferentiationError(
            f"cannot differentiate {_describe(loss)}: only floating-point values have gradients"
        )
    if cotangent is None:
        if loss.tensor.shape:
            raise DifferentiationError(
                f"cannot differentiate {_describe(loss)}: it is not a scalar\n"
                "  sum or average it, or give the cotangent to multiply its gradient by"
            )
        return full((), 1, loss.tensor.dtype)
    if not same_type(cotangent.tensor, loss.tensor):
        error = DTypeError if cotangent.tensor.dtype != loss.tensor.dtype else ShapeError
        raise error(f"the cotangent has type {cotangent.type}, it must have that of {_describe(loss)}")
    return cotangent


def _describe(value: Value) -> str:
    name = repr(value.attrs["name"]) if "name" in value.attrs else f"the result of {value.op.name}"
    place = f" at {value.loc.file}:{value.loc.line}" if value.loc else ""
    return f"{name} of type {value.type}{place}"


def _gradient(
    value: Value, found: dict[Value, Value], order: Collection[Value], on_disconnected: str
) -> Value:
    if value in found:
        return found[value]
    if on_disconnected == "raise" and value not in order:
        raise DifferentiationError(
            f"the loss does not depend on {_describe(value)}\n"
            "  leave it out, or ask for zeros with on_disconnected='zero'"
        )
    return full(value.tensor.shape, 0, value.tensor.dtype)


class _Backward:
    """One walk from the loss back: the cotangent of each value that depends on `wrt`."""

    def __init__(self, order: Sequence[Value], wrt: Sequence[Value]) -> None:
        self.order = order
        self.cotangents: dict[Value, Value] = {}
        self.parts: dict[Value, list[Value | None]] = {}  # cotangents of the items of values with several results
        self.plain: set[Value] = set()  # cotangents with a part that came through no `where`
        self.active = set(wrt)
        for value in order:
            if any(o in self.active for o in value.operands):
                self.active.add(value)

    def run(self, seeds: Sequence[tuple[Value, Value]], masked: bool = False) -> dict[Value, Value]:
        """Cotangents by value; those of `wrt` are the gradients."""
        for value, seed in seeds:
            if value in self.active:
                self._accumulate(value, seed)
                if not masked:
                    self.plain.add(value)
        for value in reversed(self.order):
            reached = value in self.cotangents or value in self.parts
            if reached and any(o in self.active for o in value.operands):
                with source_location(tuple(loc.as_gradient(value.op.name) for loc in value.locs)):
                    self._step(value)
        return self.cotangents

    def _step(self, value: Value) -> None:
        if value.op.name == "item":
            self._add_part(value.operands[0], value.attrs["index"], self.cotangents[value], value in self.plain)
        elif value.op.name == "masked":
            self._pull_back_masked(value, self.cotangents[value])
        elif value in self.parts:
            self._pull_back_region(value, self.parts[value])
        else:
            self._pull_back(value, self.cotangents[value])

    def _add_part(self, value: Value, index: int, part: Value, plain: bool) -> None:
        assert isinstance(value.type, TupleType)
        self.parts.setdefault(value, [None] * len(value.type.items))[index] = part
        if plain:
            self.plain.add(value)

    def _pull_back_region(self, value: Value, parts: Sequence[Value | None]) -> None:
        """Add to the operands' cotangents what those of an op's several results contribute."""
        from .control_gradients import region_cotangents

        wanted = [o in self.active and o.tensor.dtype.is_float for o in value.operands]
        masked = value not in self.plain
        for operand, part in zip(value.operands, region_cotangents(value, parts, wanted, masked), strict=True):
            if part is not None and operand in self.active:
                if not masked:
                    self.plain.add(operand)
                self._accumulate(operand, part)

    def _pull_back(self, value: Value, ct: Value) -> None:
        """Add to the operands' cotangents what a value's own contributes."""
        if value.op.vjp is None:
            no_derivative(value)
        masked = value not in self.plain
        contributions = value.op.vjp(ct, value, *value.operands, **value.attrs)
        for operand, part in zip(value.operands, contributions, strict=True):
            if part is None or operand not in self.active:
                continue
            if masked and value.op.elementwise and not _keeps_zero(value):
                part = OPS["masked"](part, ct)
            if not masked and value.op.name != "where":
                self.plain.add(operand)
            self._accumulate(operand, part)

    def _pull_back_masked(self, value: Value, ct: Value) -> None:
        """Of ``masked(part, guard)``: where the guard is 0, the part depends on nothing but the guard."""
        part, guard = value.operands
        nothing = OPS["eq"](guard, 0)
        if part in self.active:
            self._accumulate(part, OPS["where"](nothing, 0, ct))
        if guard in self.active:
            by_guard = _Backward(since(part, guard), [guard]).run([(part, ct)]).get(guard)
            if by_guard is not None:
                self._accumulate(guard, OPS["where"](nothing, OPS["masked"](by_guard, ct), 0))

    def _accumulate(self, operand: Value, part: Value) -> None:
        require_type("cotangent", operand, part)
        before = self.cotangents.get(operand)
        self.cotangents[operand] = part if before is None else before + part


def _keeps_zero(value: Value) -> bool:
    """Whether a VJP is 0 for a cotangent of 0: nothing that may be infinite multiplies it."""
    if value.op.name in _LINEAR:
        return True
    factors = {"mul": value.operands, "div": value.operands[1:]}.get(value.op.name, ())
    return any(_finite_constant(f) for f in factors)


def _finite_constant(x: Value) -> bool:
    return x.op.name == "full" and x.attrs["value"] != 0 and math.isfinite(x.attrs["value"])
