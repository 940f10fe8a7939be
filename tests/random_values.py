"""Random typed values over the whole registry, known well enough to compare results (`generate` makes graphs).

Each value comes with bounds of its elements that hold for every size, so that functions stay in their
domain and nothing overflows; with the number of binary places after the point where its float
arithmetic is exact, so that comparisons, roundings and positions of maxima are only taken where every
order of evaluation agrees; and with whether its gradient is as robust.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from graphwright.ir.broadcasting import broadcast_shapes, full
from graphwright.ir.dims import Dim, at_most, equal, evaluate, floordiv, product, symbol
from graphwright.ir.dtypes import DTYPES, DType, bool_, float32, float64, int32, int64, uint8, uint32
from graphwright.ir.graph import Literal, Value, make
from graphwright.ir.ops import OPS
from graphwright.ir.types import Shape

__all__ = ["Builder", "Draw", "Known", "Skip", "sample_array"]

T = TypeVar("T")
N, M = symbol("N"), symbol("M")
FLOAT_LIMIT = 2.0  # inputs are multiples of 1/8 in [-2, 2]
LIGHT = 3_000_000  # scalar operations of a contraction

# Domains, and how the range follows: "up" and "down" for monotone functions, else the range itself.
UNARY: dict[str, tuple[float, float, Any]] = {
    "exp": (-8, 5, "up"), "exp2": (-8, 7, "up"), "expm1": (-8, 5, "up"), "log": (0.1, math.inf, "up"),
    "log1p": (-0.9, math.inf, "up"), "log2": (0.1, math.inf, "up"), "log10": (0.1, math.inf, "up"),
    "sqrt": (0.1, math.inf, "up"), "sigmoid": (-30, 30, "up"), "softplus": (-30, 30, "up"),
    "erf": (-5, 5, "up"), "tanh": (-20, 20, "up"), "atan": (-99, 99, "up"), "asinh": (-99, 99, "up"),
    "sinh": (-5, 5, "up"), "acosh": (1.25, math.inf, "up"), "asin": (-0.9, 0.9, "up"),
    "acos": (-0.9, 0.9, "down"), "atanh": (-0.9, 0.9, "up"), "reciprocal": (0.25, math.inf, "down"),
    "tan": (-1.2, 1.2, "up"), "sin": (-50, 50, (-1, 1)), "cos": (-50, 50, (-1, 1)), "cosh": (-5, 5, (1, 75)),
}  # fmt: skip
ROUNDING = ("floor", "ceil", "trunc", "round", "sign")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
INT_BINARY = (
    "add", "sub", "mul", "floordiv", "mod", "max", "min", "bitwise_and", "bitwise_or", "bitwise_xor",
)  # fmt: skip


class Skip(Exception):
    """The drawn step does not apply to the values there are."""


class Draw:
    """Random choices by ``integer(low, high)``, bounds included: Hypothesis's or a seeded generator's."""

    def __init__(self, integer: Callable[[int, int], int]) -> None:
        self.integer = integer

    @classmethod
    def seeded(cls, seed: int) -> Draw:
        return cls(random.Random(seed).randint)

    def pick(self, options: Sequence[T]) -> T:
        if not options:
            raise Skip
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent

    def subset(self, options: Sequence[T], percent: int = 50) -> tuple[T, ...]:
        return tuple(o for o in options if self.chance(percent))


@dataclass(frozen=True, eq=False)
class Known:
    """A value and what is known of its elements; `frac` None: rounded, else multiples of ``2**-frac``."""

    value: Value
    low: float
    high: float
    frac: int | None
    smooth: bool

    @property
    def shape(self) -> Shape:
        return self.value.tensor.shape

    @property
    def dtype(self) -> DType:
        return self.value.tensor.dtype

    @property
    def bound(self) -> float:
        return max(abs(self.low), abs(self.high))

    @property
    def exact(self) -> bool:
        return self.frac is not None and (not self.dtype.is_float or self.bound * 2.0**self.frac <= 2**22)


class Builder:
    """Draws one value after another."""

    def __init__(self, draw: Draw, sizes: Mapping[str, int], limit: int) -> None:
        self.draw = draw
        self.sizes = sizes
        self.limit = limit
        self.values: list[Known] = []
        self.inputs: list[Value] = []
        self.states: list[Value] = []
        self.generators: list[Any] = []
        self.symbolic = draw.chance(75)
        self.float = float64 if draw.chance(20) else float32

    # --- bookkeeping ---

    def note(self, value: Value, low: float, high: float, frac: int | None, smooth: bool = True) -> Known:
        if self.elements(value.tensor.shape) > self.limit:
            raise Skip
        if not value.tensor.dtype.is_float:
            frac = 0
        known = Known(value, float(low), float(high), frac, smooth)
        if not known.exact:
            known = Known(value, float(low), float(high), None, smooth)
        self.values.append(known)
        return known

    def like(self, value: Value, *sources: Known) -> Known:
        """Elements of the result are elements of the sources."""
        fracs = [s.frac for s in sources]
        frac = None if None in fracs else max(f for f in fracs if f is not None)
        low, high = min(s.low for s in sources), max(s.high for s in sources)
        return self.note(value, low, high, frac, all(s.smooth for s in sources))

    def elements(self, shape: Shape) -> int:
        return evaluate(product(shape), self.sizes)

    def dim(self) -> Dim:
        if self.symbolic and self.draw.chance(50):
            return self.draw.pick([N, N, N, M, M, N + 1, 2 * N, N * M])
        return self.draw.pick([3, 4, 1, 2, 8, 5, 7, 16, 17, 33, 0])

    def shape(self, rank: int) -> Shape:
        for _ in range(4):
            dims = tuple(self.dim() for _ in range(rank))
            if self.elements(dims) <= self.limit:
                return dims
        return (3,) * rank

    def leaf(self, dtype: DType, shape: Shape, state: bool = False) -> Known:
        among = self.states if state else self.inputs
        attrs = {"name": f"{'s' if state else 'x'}{len(among)}", "shape": shape, "dtype": dtype}
        value = OPS["state" if state else "input"](**attrs)
        among.append(value)
        low, high = bounds_of_inputs(dtype)
        return self.note(value, low, high, 3)

    def known(self, kinds: str = "f", test: Callable[[Known], bool] = lambda k: True) -> Known:
        """One of the values, later ones more often."""
        fits = [k for k in self.values if k.dtype.kind in kinds and test(k)]
        recent = fits[-4:]
        k = self.draw.pick(recent if self.draw.chance(60) else fits)
        return self.tame(k) if k.dtype.is_float and k.bound > 64 else k

    def tame(self, k: Known) -> Known:
        """Scaled down by a power of two, exactly."""
        power = math.ceil(math.log2(k.bound / 4))
        factor = 2.0**-power
        frac = None if k.frac is None else k.frac + power
        return self.note(k.value * factor, k.low * factor, k.high * factor, frac, k.smooth)

    def partner(self, k: Known) -> Known:
        """A value that broadcasts with `k`, or a number."""
        def fits(o: Known) -> bool:
            shape = broadcast_shapes(k.shape, o.shape)
            return o.dtype == k.dtype and shape is not None and self.elements(shape) <= self.limit

        if self.draw.chance(75):
            return self.known(k.dtype.kind, fits)
        number = self.draw.pick([1, 2, 0, 3] if k.dtype.is_integer else [0.5, 1.0, 2.0, -1.0, 0.0, -0.5])
        return self.note(full((), number, k.dtype), number, number, 1)

    def fit(self, k: Known, low: float, high: float) -> Known:
        """`k`, brought into a domain."""
        if low <= k.low and k.high <= high:
            return k
        if self.draw.chance(30):
            top = high if math.isfinite(high) else max(k.high, low + 1)
            return self.note(OPS["clip"](k.value, low, top), low, top, None, k.smooth and k.exact)
        if math.isinf(high):
            positive = OPS["softplus"](k.value) if self.draw.chance(50) else OPS["square"](k.value)
            return self.note(positive + low, low, low + max(k.bound + 1, k.bound**2), None, k.smooth)
        middle, half = (low + high) / 2, (high - low) / 2
        return self.note(OPS["tanh"](k.value) * half + middle, low, high, None, k.smooth)

    # --- elementwise ---

    def unary(self) -> None:
        name = self.draw.pick(sorted(UNARY))
        low, high, how = UNARY[name]
        k = self.fit(self.known(), low, high)
        ends = [float(OPS[name].reference(np.float64(x))) for x in (k.low, k.high)]
        bottom, top = how if isinstance(how, tuple) else ends if how == "up" else ends[::-1]
        self.note(OPS[name](k.value), bottom, top, None, k.smooth)

    def exact_unary(self) -> None:
        k = self.known()
        name = self.draw.pick(["neg", "abs", "relu", "square", "stop_gradient"])
        value = OPS[name](k.value)
        if name == "square":
            self.note(value, 0, k.bound**2, None if k.frac is None else 2 * k.frac, k.smooth)
        elif name == "stop_gradient":
            self.like(value, k)
        else:
            smooth = k.smooth and (name == "neg" or k.exact)
            self.note(value, 0 if name != "neg" else -k.bound, k.bound, k.frac, smooth)

    def rounding(self) -> None:
        k = self.known("f", lambda k: k.exact)
        self.note(OPS[self.draw.pick(ROUNDING)](k.value), math.floor(k.low) - 1, math.ceil(k.high) + 1, 0, k.smooth)

    def arithmetic(self) -> None:
        a = self.known()
        b = self.partner(a)
        if self.draw.chance(50):
            a, b = b, a
        name = self.draw.pick(["add", "mul", "sub", "max", "min"])
        value, smooth = OPS[name](a.value, b.value), a.smooth and b.smooth
        exact = a.frac is not None and b.frac is not None
        if name == "mul":
            bound, frac = a.bound * b.bound, (a.frac or 0) + (b.frac or 0)
        else:
            bound, frac = a.bound + b.bound, max(a.frac or 0, b.frac or 0)
        robust = name in ("add", "mul", "sub") or a.exact and b.exact
        self.note(value, -bound, bound, frac if exact else None, smooth and robust)

    def transcendental_binary(self) -> None:
        a = self.known()
        b = self.partner(a)
        name = self.draw.pick(["div", "atan2", "hypot", "pow", "logaddexp"])
        if name in ("div", "atan2"):
            b = self.fit(b, 0.25, math.inf)
            bound = a.bound * 4 if name == "div" else math.pi
        elif name == "pow":
            a, b = self.fit(a, 0.25, 3), self.fit(b, -3, 3)
            bound = 64
        else:
            a = self.fit(a, 0.25, math.inf) if name == "hypot" else a
            bound = a.bound + b.bound + 1
        self.note(OPS[name](a.value, b.value), -bound, bound, None, a.smooth and b.smooth)

    def signs(self) -> None:
        """Functions of a sign, whose argument is never zero; and the next float."""
        name = self.draw.pick(["copysign", "signbit", "nextafter"])
        k = self.known("f", lambda k: k.exact)
        if name == "nextafter":
            b = self.draw.pick([o for o in self.values if o.dtype == k.dtype and o.exact and o.shape == k.shape])
            self.note(OPS[name](k.value, b.value), k.low - 1e-5, k.high + 1e-5, None, False)
            return
        half = 2.0 ** -((k.frac or 0) + 1)
        odd = self.note(k.value + half, k.low + half, k.high + half, (k.frac or 0) + 1, k.smooth)
        if not odd.exact:
            raise Skip
        if name == "signbit":
            self.note(OPS[name](odd.value), 0, 1, 0)
        else:
            a = self.partner(odd)
            self.note(OPS[name](a.value, odd.value), -a.bound, a.bound, a.frac, a.smooth and a.exact)

    def float_division(self) -> None:
        a = self.known("f", lambda k: k.exact)
        number = self.draw.pick([1.0, 2.0, 0.5, -1.0, 0.25])
        name = self.draw.pick(["floordiv", "mod"])
        bound = a.bound / abs(number) + 1 if name == "floordiv" else abs(number)
        frac = 0 if name == "floordiv" else max(a.frac or 0, 2)
        self.note(OPS[name](a.value, number), -bound, bound, frac, a.smooth)

    def integers(self) -> None:
        a = self.known("iu")
        name = self.draw.pick([*INT_BINARY, "shift", "unary", "pow"])
        if name == "unary":
            value = OPS[self.draw.pick(["neg", "abs", "sign", "square", "relu", "bitwise_invert"])](a.value)
        elif name == "shift":
            amount = OPS["bitwise_and"](self.partner(a).value, 7)
            side = self.draw.pick(["left", "right"])
            value = OPS[f"bitwise_{side}_shift"](a.value, amount)
        elif name == "pow":
            value = OPS["pow"](a.value, OPS["bitwise_and"](self.partner(a).value, 3))
        else:
            value = OPS[name](a.value, self.partner(a).value)
        info = np.iinfo(value.tensor.dtype.numpy)
        self.note(value, info.min, info.max, 0)

    def comparison(self) -> None:
        a = self.known("fiu", lambda k: k.exact)
        if self.draw.chance(15):
            self.note(OPS[self.draw.pick(["isnan", "isinf", "isfinite"])](a.value), 0, 1, 0)
            return
        b = self.partner(a)
        if not b.exact:
            raise Skip
        self.note(OPS[self.draw.pick(COMPARISONS)](a.value, b.value), 0, 1, 0)

    def logic(self) -> None:
        a = self.known("b")
        name = self.draw.pick(["logical_and", "logical_or", "logical_xor", "logical_not", "any", "all"])
        if name == "logical_not":
            self.note(OPS[name](a.value), 0, 1, 0)
        elif name in ("any", "all"):
            self.note(OPS[name](a.value, axes=self.draw.subset(range(len(a.shape)))), 0, 1, 0)
        else:
            fits = [o for o in self.values if o.dtype.is_bool and broadcast_shapes(a.shape, o.shape) is not None]
            self.note(OPS[name](a.value, self.draw.pick(fits).value), 0, 1, 0)

    def where(self) -> None:
        c, a = self.known("b"), self.known("fiu")
        b = self.partner(a)
        shape = broadcast_shapes(a.shape, b.shape)
        if shape is None or broadcast_shapes(c.shape, shape) is None:
            raise Skip
        self.like(OPS["where"](c.value, a.value, b.value), a, b)

    def cast(self) -> None:
        to = self.draw.pick([float32, float64, int64, int32, uint8, bool_, DTYPES["int8"], DTYPES["uint32"]])
        k = self.known("fiub")
        if k.dtype.is_float and not to.is_float:
            low, high = bounds_of_inputs(to)
            if not k.exact:
                raise Skip
            value = OPS["clip"](k.value, low, high) if not to.is_bool else k.value
            self.note(OPS["cast"](value, dtype=to), low, high, 0)
        elif k.dtype.is_integer and to.is_float and k.bound > 99:
            self.note(OPS["cast"](OPS["mod"](k.value, 13), dtype=to), 0, 12, 0)
        else:
            low, high = (k.low, k.high) if to.is_float or k.dtype.is_bool else integer_range(to)
            self.note(OPS["cast"](k.value, dtype=to), low, high, k.frac, k.smooth)

    # --- movement ---

    def broadcast(self) -> None:
        k = self.known("fiub", lambda k: len(k.shape) < 4)
        at, extent = self.draw.integer(0, len(k.shape)), self.dim()
        shape = (*k.shape[:at], extent, *k.shape[at:])
        dims = tuple(d for d in range(len(shape)) if d != at)
        self.like(OPS["broadcast"](k.value, shape=shape, dims=dims), k)

    def reshape(self) -> None:
        k = self.known("fiub")
        s, how = k.shape, self.draw.pick(["merge", "flat", "one", "split", "drop"])
        at = self.draw.integer(0, max(len(s) - 1, 0))
        if how == "flat":
            new: Shape = (product(s),)
        elif how == "one":
            new = (*s[:at], 1, *s[at:])
        elif how == "merge" and at + 1 < len(s):
            new = (*s[:at], s[at] * s[at + 1], *s[at + 2 :])
        elif how == "split" and s and isinstance(s[at], int) and s[at] % 2 == 0:
            new = (*s[:at], *self.draw.pick([(2, s[at] // 2), (s[at] // 2, 2)]), *s[at + 1 :])
        else:
            new = tuple(d for d in s if d != 1)
        self.like(OPS["reshape"](k.value, shape=new), k)

    def transpose(self) -> None:
        k = self.known("fiub", lambda k: len(k.shape) > 1)
        rest, perm = list(range(len(k.shape))), []
        while rest:
            perm.append(rest.pop(self.draw.integer(0, len(rest) - 1)))
        self.like(OPS["transpose"](k.value, perm=tuple(perm)), k)

    def slice(self) -> None:
        k = self.known("fiub", lambda k: bool(k.shape))
        axis = self.draw.integer(0, len(k.shape) - 1)
        extent, rank = k.shape[axis], len(k.shape)
        if not at_most(1, extent) and isinstance(extent, int):
            raise Skip
        start, count, step = self.draw.pick([
            (1, extent - 1, 1), (0, extent - 1, 1), (0, floordiv(extent + 1, 2), 2), (extent - 1, 1, 1), (0, 0, 1),
            (floordiv(extent, 2), 1, 1),
        ])  # fmt: skip
        starts, shape, steps = [0] * rank, list(k.shape), [1] * rank
        starts[axis], shape[axis], steps[axis] = start, count, step
        self.like(OPS["slice"](k.value, start=tuple(starts), shape=tuple(shape), step=tuple(steps)), k)

    def pad(self) -> None:
        k = self.known("fiu")
        low, high, interior = (
            tuple(self.draw.pick([0, 0, 1, 2]) if j < 2 else self.draw.pick([0, 0, 0, 1]) for _ in k.shape)
            for j in range(3)
        )
        number = self.draw.pick([0, 0, 1])
        value = OPS["pad"](k.value, low=low, high=high, interior=interior, value=number)
        self.note(value, min(k.low, number), max(k.high, number), k.frac, k.smooth)

    def concat(self) -> None:
        k = self.known("fiub", lambda k: bool(k.shape))
        axis = self.draw.integer(0, len(k.shape) - 1)

        def fits(o: Known) -> bool:
            return len(o.shape) == len(k.shape) and o.dtype == k.dtype and all(
                i == axis or equal(p, q) for i, (p, q) in enumerate(zip(k.shape, o.shape))
            )

        parts = [k, *(self.known(k.dtype.kind, fits) for _ in range(self.draw.integer(1, 2)))]
        parts = [p for p in parts if fits(p)]
        self.like(OPS["concat"](*(p.value for p in parts), axis=axis), *parts)

    def reverse(self) -> None:
        k = self.known("fiub", lambda k: bool(k.shape))
        self.like(OPS["reverse"](k.value, axes=self.draw.subset(range(len(k.shape)))), k)

    # --- reductions and contractions ---

    def axes(self, k: Known) -> tuple[int, ...]:
        rank = len(k.shape)
        return self.draw.pick([(rank - 1,) if rank else (), self.draw.subset(range(rank)), tuple(range(rank))])

    def reduce(self) -> None:
        k = self.known("fiu")
        axes = self.axes(k)
        count = self.elements([k.shape[a] for a in axes])
        name = self.draw.pick(["sum", "sum", "amax", "amin", "prod"])
        if name in ("amax", "amin"):
            if any(k.shape[a] == 0 for a in axes):
                raise Skip
            self.note(OPS[name](k.value, axes=axes), k.low, k.high, k.frac, k.smooth and k.exact)
        elif not k.dtype.is_float:
            self.note(OPS[name](k.value, axes=axes), *integer_range(k.dtype), 0)
        elif name == "prod":
            k = self.fit(k, -1.25, 1.25) if count <= 8 else self.fit(k, 0.5, 1)
            self.note(OPS["prod"](k.value, axes=axes), -6, 6, None, k.smooth)
        else:
            bound = k.bound * max(count, 1)
            self.note(OPS["sum"](k.value, axes=axes), -bound, bound, k.frac, k.smooth)

    def cumulative(self) -> None:
        k = self.known("fiu", lambda k: bool(k.shape))
        axis, reverse = self.draw.integer(0, len(k.shape) - 1), self.draw.chance(50)
        count = max(self.elements(k.shape[axis : axis + 1]), 1)
        if k.dtype.is_float and self.draw.chance(50):
            k, a = self.fit(k, -2, 2), self.fit(k, -0.75, 0.75)
            value = OPS["recurrence"](a.value, k.value, axis=axis, reverse=reverse)
            self.note(value, -8, 8, None, k.smooth and a.smooth)
        else:
            bounds = (-k.bound * count, k.bound * count, k.frac) if k.dtype.is_float else (*integer_range(k.dtype), 0)
            self.note(OPS["cumsum"](k.value, axis=axis, reverse=reverse), *bounds, k.smooth)

    def position(self) -> None:
        k = self.known("fiu", lambda k: k.exact and bool(k.shape))
        axes = self.axes(k)
        if any(k.shape[a] == 0 for a in axes):
            raise Skip
        self.note(OPS[self.draw.pick(["argmax", "argmin"])](k.value, axes=axes), 0, 99999, 0)

    def dot(self) -> None:
        a = self.known("ffiu", lambda k: bool(k.shape))
        b = self.known(a.dtype.kind, lambda o: o.dtype == a.dtype and o is not a)
        contract: tuple[list[int], list[int]] = ([], [])
        batch: tuple[list[int], list[int]] = ([], [])
        for p in reversed(range(len(a.shape))):
            used = contract[1] + batch[1]
            fits = [q for q, d in enumerate(b.shape) if q not in used and equal(d, a.shape[p])]
            if fits and self.draw.chance(75):
                role = contract if self.draw.chance(70) else batch
                role[0].append(p)
                role[1].append(self.draw.pick(fits))
        self.product(a, b, contract, batch)

    def product(self, a: Known, b: Known, contract: Any, batch: Any) -> Known:
        roles: Any = {"contract": tuple(map(tuple, contract)), "batch": tuple(map(tuple, batch))}
        value = OPS["dot"](a.value, b.value, **roles)
        count = self.elements([a.shape[p] for p in contract[0]])
        if self.elements(value.tensor.shape) * count > LIGHT:
            raise Skip
        if not a.dtype.is_float:
            return self.note(value, *integer_range(a.dtype), 0)
        bound = a.bound * b.bound * max(count, 1)
        exact = a.frac is not None and b.frac is not None
        frac = (a.frac or 0) + (b.frac or 0) if exact else None
        return self.note(value, -bound, bound, frac, a.smooth and b.smooth)

    def dense(self) -> None:
        """A layer: a product with new weights, a bias, a function."""
        x = self.known("f", lambda k: bool(k.shape))
        units = self.dim()
        if self.elements((x.shape[-1], units)) > self.limit:
            raise Skip
        state = self.draw.chance(50)
        w = self.leaf(x.dtype, (x.shape[-1], units), state)
        y = self.product(x, w, ([len(x.shape) - 1], [0]), ([], []))
        b = self.leaf(x.dtype, (units,), state)
        z = self.note(y.value + b.value, -y.bound - 2, y.bound + 2, y.frac, y.smooth)
        if self.draw.chance(60):
            z = self.tame(z) if z.bound > 8 else z
            self.note(OPS["tanh"](z.value), -1, 1, None, z.smooth)

    def conv(self) -> None:
        axes, groups = self.draw.integer(1, 2), self.draw.pick([1, 1, 2])
        kernel = tuple(self.draw.pick([1, 2, 3]) for _ in range(axes))
        spatial = tuple(self.draw.pick([M, 8, 5] if self.symbolic else [8, 5, 6]) for _ in range(axes))
        lead = self.draw.pick([N, 1, 2] if self.symbolic else [2, 1])
        channels, outs = self.draw.pick([1, 2, 3]), self.draw.pick([1, 3, 4, 8])
        shape = (lead, channels * groups, *spatial)
        if self.elements(shape) * outs * 4 > self.limit:
            raise Skip
        same = [k for k in self.values if len(k.shape) == len(shape) and k.dtype == self.float
                and all(map(equal, k.shape[1:], shape[1:]))]
        x = self.draw.pick(same) if same else self.leaf(self.float, shape)
        w = self.leaf(x.dtype, (outs * groups, channels, *kernel))
        attrs = self.windows(axes, 2)
        value = OPS["conv"](x.value, w.value, groups=groups, **attrs)
        bound = x.bound * w.bound * channels * math.prod(kernel)
        frac = None if x.frac is None else x.frac + 3
        self.note(value, -bound, bound, frac, x.smooth)

    def windows(self, axes: int, pads: int) -> dict[str, Any]:
        return {
            "stride": tuple(self.draw.pick([1, 2, 3]) for _ in range(axes)),
            "padding": tuple((self.draw.integer(0, pads), self.draw.integer(0, pads)) for _ in range(axes)),
            "dilation": tuple(self.draw.pick([1, 1, 2]) for _ in range(axes)),
        }

    def pool(self) -> None:
        axes = self.draw.integer(1, 2)
        k = self.known("f", lambda k: len(k.shape) >= axes)
        for d in k.shape[-axes:]:
            if isinstance(d, int) and d < 5:
                raise Skip
        kernel = tuple(self.draw.pick([2, 3]) for _ in range(axes))
        attrs = {"kernel": kernel, **self.windows(axes, 1)}
        name = self.draw.pick(["window_max", "window_sum", "window_get"])
        bound = k.bound * (math.prod(kernel) if name == "window_sum" else 1)
        if name == "window_get":
            if not k.exact:
                raise Skip
            winner = OPS["window_argmax"](k.value, **attrs)
            self.note(OPS[name](k.value, winner, **attrs), -bound, bound, k.frac, k.smooth)
        else:
            smooth = k.smooth and (name == "window_sum" or k.exact)
            self.note(OPS[name](k.value, **attrs), -bound, bound, k.frac, smooth)

    # --- indexing ---

    def leaves(self) -> None:
        how = self.draw.pick(["full", "iota", "dim", "constant", "input", "state"])
        dtype = self.draw.pick([self.float, int64, self.float, bool_, uint8, int32])
        shape = self.shape(self.draw.integer(0, 3))
        if how == "full":
            self.note(full(shape, 1, dtype), 1, 1, 0)
        elif how == "iota" and shape and not dtype.is_bool and dtype != uint8:
            axis = self.draw.integer(0, len(shape) - 1)
            extent = max(1, self.elements(shape[axis : axis + 1]))
            self.note(OPS["iota"](shape=shape, axis=axis, dtype=dtype), 0, extent, 0)
        elif how == "dim" and self.symbolic and dtype in (self.float, int64):
            self.note(OPS["dim"](value=self.draw.pick([N, M, N * M + 1]), dtype=dtype), 0, 99999, 0)
        elif how == "constant":
            rng = np.random.default_rng(self.draw.integer(0, 99))
            array = sample_array(rng, dtype, (self.draw.pick([3, 4, 8, 1]),))
            self.note(make(OPS["constant"], (), {"value": Literal(array)}), *bounds_of_inputs(dtype), 3)
        else:
            self.leaf(dtype, shape, how == "state")

    # --- patterns of models ---

    def row(self) -> Known:
        k = self.known("f", lambda k: bool(k.shape) and bool(at_most(1, k.shape[-1])))
        return self.fit(k, -8, 8)

    def over_rows(self, name: str, x: Value) -> Value:
        last = x.tensor.rank - 1
        dims = tuple(range(last))
        return OPS["broadcast"](OPS[name](x, axes=(last,)), shape=x.tensor.shape, dims=dims)

    def softmax(self) -> None:
        k = self.row()
        x = k.value
        if self.draw.chance(50):
            x = x - self.over_rows("amax", x)
        e = OPS["exp"](x)
        p = e / self.over_rows("sum", e)
        if self.draw.chance(40):
            bound = k.high - k.low + math.log(self.elements(k.shape[-1:]) + 1)
            self.note(OPS["log"](p), -bound, 0, None, k.smooth)
        else:
            self.note(p, 0, 1, None, k.smooth)

    def logsumexp(self) -> None:
        k = self.row()
        value = OPS["log"](OPS["sum"](OPS["exp"](k.value), axes=(len(k.shape) - 1,)))
        bound = k.bound + math.log(self.elements(k.shape[-1:]) + 1)
        self.note(value, -bound, bound, None, k.smooth)

    def layer_norm(self) -> None:
        k = self.row()
        x, n = k.value, OPS["dim"](value=k.shape[-1], dtype=k.dtype)
        centered = x - self.over_rows("sum", x) / n
        variance = self.over_rows("sum", centered * centered) / n
        bound = 2 * k.bound / math.sqrt(0.1)
        self.note(centered / OPS["sqrt"](variance + 0.1), -bound, bound, None, k.smooth)

    def gelu(self) -> None:
        k = self.fit(self.known(), -8, 8)
        value = k.value * 0.5 * (OPS["erf"](k.value * math.sqrt(0.5)) + 1)
        self.note(value, -8, 8, None, k.smooth)


# --- dtypes -----------------------------------------------------------------------------------------


def integer_range(dtype: DType) -> tuple[int, int]:
    """All values of a dtype that is not floating."""
    if dtype.is_bool:
        return 0, 1
    info = np.iinfo(dtype.numpy)
    return int(info.min), int(info.max)


def bounds_of_inputs(dtype: DType) -> tuple[float, float]:
    """The least and the largest element of a random argument."""
    if dtype.is_float:
        return -FLOAT_LIMIT, FLOAT_LIMIT
    if dtype == uint32:  # keys of random numbers
        return 0, 2**32 - 1
    return {"b": (0, 1), "u": (0, 9), "i": (-5, 9)}[dtype.kind]


def sample_array(rng: np.random.Generator, dtype: DType, shape: Sequence[int]) -> np.ndarray:
    """Random elements within `bounds_of_inputs`; floats are multiples of 1/8."""
    low, high = bounds_of_inputs(dtype)
    scale = 8 if dtype.is_float else 1
    whole = rng.integers(int(low * scale), int(high * scale) + 1, tuple(shape))
    if dtype == uint32:
        whole = np.where(rng.integers(0, 4, tuple(shape)) > 0, whole, int(high))
    return np.asarray(whole / scale if scale > 1 else whole, dtype.numpy)
