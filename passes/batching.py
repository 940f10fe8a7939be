"""Batching: a value of a loop's body for all steps at once, with the steps as its first axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.dims import Dim
from ..ir.graph import Value, source_location
from ..ir.op import OPS

__all__ = ["Batching"]


class Batching:
    """Values outside of a loop that stand for values of its body.

    Parameters
    ----------
    length : the number of steps.
    known : what inputs of the body are outside: a value, and whether it has the steps as its first axis.
    """

    def __init__(self, length: Dim, known: dict[Value, tuple[Value, bool]]) -> None:
        self.length = length
        self.known = dict(known)

    def __call__(self, v: Value) -> tuple[Value, bool] | None:
        """The value outside, and whether it has the steps as its first axis; None if it cannot be had."""
        if v not in self.known:
            operands = [self(o) for o in v.operands]
            if None in operands or v.op.name in ("input", "state") or v.regions:
                return None
            found = self._apply(v, [o for o in operands if o is not None])
            if found is None:
                return None
            self.known[v] = found
        return self.known[v]

    def stacked(self, v: Value) -> Value | None:
        """The value outside with the steps as its first axis."""
        found = self(v)
        return None if found is None else self._all_steps(*found)

    def _all_steps(self, x: Value, batched: bool) -> Value:
        if batched:
            return x
        shape = x.tensor.shape
        return OPS["broadcast"](x, shape=(self.length, *shape), dims=tuple(range(1, len(shape) + 1)))

    def _apply(self, v: Value, operands: list[tuple[Value, bool]]) -> tuple[Value, bool] | None:
        values = [x for x, _ in operands]
        if not any(batched for _, batched in operands):
            return v.with_operands(values), False
        with source_location(v.locs):
            if v.op.elementwise:
                return v.op(*(self._all_steps(*o) for o in operands), **v.attrs), True
            if v.op.name == "dot":
                return self._dot(v, operands), True
            rule = _RULES.get(v.op.name)
            if rule is None or len(operands) != 1:
                return None
            return v.op(values[0], **{**v.attrs, **rule(self.length, v)}), True

    def _dot(self, v: Value, operands: list[tuple[Value, bool]]) -> Value:
        """The steps are rows of the one operand that has them; if both have, it is one product per step."""
        (a, a_steps), (b, b_steps) = operands
        (ca, cb), (ba, bb) = v.attrs["contract"], v.attrs["batch"]
        if ba or a_steps and b_steps:
            a, b = self._all_steps(a, a_steps), self._all_steps(b, b_steps)
            contract, batch = (_shift(ca), _shift(cb)), ((0, *_shift(ba)), (0, *_shift(bb)))
            return OPS["dot"](a, b, contract=contract, batch=batch)
        if a_steps:
            return self._rows(a, ca, b, cb)
        rows = self._rows(b, cb, a, ca)  # steps, free axes of b, free axes of a
        n, m = b.tensor.rank - 1 - len(cb), a.tensor.rank - len(ca)
        return OPS["transpose"](rows, perm=(0, *range(n + 1, n + m + 1), *range(1, n + 1))) if n and m else rows

    def _rows(self, a: Value, ca: Sequence[int], b: Value, cb: Sequence[int]) -> Value:
        shape = a.tensor.shape
        if len(shape) == 3 and tuple(ca) == (1,):  # one matrix with the rows of all steps
            flat = OPS["reshape"](a, shape=(shape[0] * shape[1], shape[2]))
            product = OPS["dot"](flat, b, contract=((1,), tuple(cb)))
            return OPS["reshape"](product, shape=(*shape[:2], *product.tensor.shape[1:]))
        return OPS["dot"](a, b, contract=(_shift(ca), tuple(cb)))


def _shift(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(k + 1 for k in axes)


_RULES: dict[str, Callable[[Dim, Value], dict[str, object]]] = {
    "cast": lambda n, v: {},
    "broadcast": lambda n, v: {"shape": (n, *v.tensor.shape), "dims": (0, *_shift(v.attrs["dims"]))},
    "transpose": lambda n, v: {"perm": (0, *_shift(v.attrs["perm"]))},
    "reshape": lambda n, v: {"shape": (n, *v.tensor.shape)},
    "reverse": lambda n, v: {"axes": _shift(v.attrs["axes"])},
    "slice": lambda n, v: {
        "start": (0, *v.attrs["start"]), "shape": (n, *v.tensor.shape), "step": (1, *v.attrs["step"]),
    },
    **dict.fromkeys(("sum", "amax", "amin", "prod"), lambda n, v: {"axes": _shift(v.attrs["axes"])}),
}
"""For ops of one operand that may have the steps as its first axis, the attributes that change."""
