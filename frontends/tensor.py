"""Tensors: handles of graph values, with operators; placeholders, and variables with their memory."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Union

import numpy as np

from ..errors import DTypeError, GraphError, GraphwrightError, UpdateError
from ..ir.broadcasting import as_value, full
from ..ir.dims import Dim, Poly, symbol
from ..ir.dtypes import DTYPES, DType, as_dtype, int64
from ..ir.graph import Value, make
from ..ir.op import OPS, Op
from ..ir.ops import leaf  # noqa: F401  (fills the registry)
from ..ir.types import Shape
from ..runtime.buffers import Cell
from .shapes import as_dim, check_name, fail
from .source import is_tracing, located

__all__ = [
    "ArrayLike", "Tensor", "Variable", "apply", "cell_of", "let_advance", "placeholder", "successors", "to_array",
    "to_value",
]

ArrayLike = Union["Tensor", Poly, np.ndarray[Any, Any], Sequence[Any], bool, int, float]
"""What functions take for a tensor: a tensor, an array, a number, or a dimension."""


def to_array(x: object, dtype: DType | None = None) -> np.ndarray[Any, Any]:
    """An array of a supported dtype; Python floats and lists of them become float32 by default."""
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:
        if isinstance(error, GraphwrightError):
            raise
        fail("array", GraphError, f"a {type(x).__name__} that is no array", (), "rows need one length, and numbers")
    if array.dtype.kind not in "biufc":
        advice = f"the supported dtypes are {', '.join(DTYPES)}"
        what = f"an array of {array.dtype.name}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
        fail("array", DTypeError, f"{what} holds no numbers", (), advice)
    if dtype is None and array.dtype == np.float64 and not isinstance(x, (np.ndarray, np.generic)):
        array = array.astype(np.float32)
    return array.astype((dtype or as_dtype(array.dtype)).numpy, copy=False)


def dim_value(dim: Dim, dtype: DType = int64) -> Value:
    """A dimension as a 0-d value."""
    return full((), dim, dtype) if isinstance(dim, int) else make(OPS["dim"], (), {"value": dim, "dtype": dtype})


def to_value(x: object, dtype: DType | None = None) -> Value:
    """The graph value of anything array-like; `dtype` is that of values made from numbers and arrays."""
    if isinstance(x, Tensor):
        return x._value
    if isinstance(x, Value):
        return x
    if isinstance(x, Poly):
        return dim_value(x, dtype or int64)
    if isinstance(x, (bool, int, float)):
        return as_value(x, dtype)
    if isinstance(x, (list, tuple)) and any(isinstance(item, Tensor) for item in x):
        from .array_api import stack

        return stack(x)._value
    return as_value(to_array(x, dtype))


def apply(op: Op | str, *operands: object, **attrs: Any) -> Tensor:
    """Apply an op to tensors and what may stand for them: arrays, numbers, dimensions.

    Dimensions, like Python numbers, take the dtype of the tensors they meet.
    """
    op = OPS[op] if isinstance(op, str) else op
    values = [
        x._value if isinstance(x, Tensor) else to_value(x) if isinstance(x, (list, tuple)) else x for x in operands
    ]
    if any(isinstance(x, Poly) for x in values):
        dtypes = [x.tensor.dtype for x in values if isinstance(x, Value) and not x.tensor.dtype.is_bool]
        values = [dim_value(x, dtypes[-1] if dtypes else int64) if isinstance(x, Poly) else x for x in values]
    return Tensor(op(*values, **attrs))  # type: ignore[arg-type]


def _binary(name: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The methods of an operator: ``self op other`` and ``other op self``."""

    @located
    def method(self: Tensor, other: ArrayLike) -> Tensor:
        return apply(name, self, other)

    @located
    def reflected(self: Tensor, other: ArrayLike) -> Tensor:
        return apply(name, other, self)

    return method, reflected


def _unary(name: str) -> Callable[[Tensor], Tensor]:
    @located
    def method(self: Tensor) -> Tensor:
        return apply(name, self)

    return method


def _forbidden(what: str, advice: str) -> Callable[..., Any]:
    """A method that Python would call to look at values which are not there yet."""

    @located
    def method(self: Tensor, *_: object, **__: object) -> NoReturn:
        fail("Tensor", GraphError, f"a symbolic tensor has no value yet, so {what} is impossible", [self], advice)

    return method


def _method(name: str) -> Callable[..., Tensor]:
    """A method that is the array function of the same name."""

    @located
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        from . import array_api

        result: Tensor = getattr(array_api, name)(self, *args, **kwargs)
        return result

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``gw.{name}(self, ...)``."
    return method


def _with_sizes(name: str) -> Callable[..., Tensor]:
    """A method whose sizes may be given as one sequence or one by one."""

    @located
    def method(self: Tensor, *sizes: Any) -> Tensor:
        from . import array_api

        spec = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        result: Tensor = getattr(array_api, name)(self, spec)
        return result

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``gw.{name}(self, sizes)``."
    return method


_EVALUATE = "compile it with gw.function, or evaluate it with tensor.eval({placeholder: array})"


class Tensor:
    """A node of a symbolic graph; it has a type, and a value only when a compiled function runs.

    Make tensors with `placeholder`, `Variable`, and the functions of this package; operators,
    slicing and the usual methods work as on NumPy arrays. Python numbers do not change a tensor's
    dtype; dtypes promote as the Python Array API standard says.
    """

    __slots__ = ("_value", "__weakref__")
    __array_ufunc__ = None  # NumPy arrays leave mixed expressions to the tensor
    __array_priority__ = 1000

    def __init__(self, value: Value) -> None:
        self._value = value

    # --- type ------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """Dimensions: integers, or symbolic ones that take part in arithmetic."""
        return self._value.tensor.shape

    @property
    def dtype(self) -> DType:
        return self._value.tensor.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return self._value.tensor.size

    def __repr__(self) -> str:
        return f"<{self._describe()}{self._where()}>"

    def _describe(self) -> str:
        name = self._value.attrs.get("name", "")
        kind = "placeholder" if self._value.op.name == "input" else f"Tensor {self._value.op.name}"
        return f"{kind} {name}: {self._value.type}" if name else f"{kind}: {self._value.type}"

    def _where(self) -> str:
        loc = self._value.loc
        return f" at {os.path.basename(loc.file)}:{loc.line}" if loc else ""

    # --- operators -------------------------------------------------------------------------------

    __add__, __radd__ = _binary("add")
    __sub__, __rsub__ = _binary("sub")
    __mul__, __rmul__ = _binary("mul")
    __truediv__, __rtruediv__ = _binary("div")
    __floordiv__, __rfloordiv__ = _binary("floordiv")
    __mod__, __rmod__ = _binary("mod")
    __pow__, __rpow__ = _binary("pow")
    __and__, __rand__ = _binary("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor")
    __lshift__, __rlshift__ = _binary("bitwise_left_shift")
    __rshift__, __rrshift__ = _binary("bitwise_right_shift")
    __lt__, __gt__ = _binary("lt")[0], _binary("gt")[0]
    __le__, __ge__ = _binary("le")[0], _binary("ge")[0]
    __eq__ = _binary("eq")[0]  # type: ignore[assignment]
    __ne__ = _binary("ne")[0]  # type: ignore[assignment]
    __hash__ = object.__hash__  # by identity: tensors are keys of updates and givens
    __neg__, __abs__, __invert__ = _unary("neg"), _unary("abs"), _unary("bitwise_invert")

    def __pos__(self) -> Tensor:
        return self

    @located
    def __matmul__(self, other: ArrayLike) -> Tensor:
        from . import array_api

        return array_api.matmul(self, other)

    @located
    def __rmatmul__(self, other: ArrayLike) -> Tensor:
        from . import array_api

        return array_api.matmul(other, self)

    @located
    def __getitem__(self, key: Any) -> Tensor:
        from .indexing import index

        return index(self, key)

    # --- what a symbolic tensor cannot do --------------------------------------------------------

    __bool__ = _forbidden("a truth value", "use gw.where(condition, a, b) to choose; " + _EVALUATE)
    __float__ = _forbidden("float()", _EVALUATE)
    __int__ = _forbidden("int()", _EVALUATE)
    __index__ = _forbidden("an index", "use gw.take(x, indices, axis) to index by a tensor; " + _EVALUATE)
    __complex__ = _forbidden("complex()", _EVALUATE)
    __iter__ = _forbidden("iteration", "use gw.unstack(x) for the parts along an axis of known size")
    __contains__ = _forbidden("`in`", "use gw.any(x == value)")
    __array__ = _forbidden("conversion to a NumPy array", _EVALUATE)
    __setitem__ = _forbidden("assignment to elements", "build a new tensor with gw.where, or update a Variable")

    @located
    def __len__(self) -> int:
        if self.ndim and isinstance(self.shape[0], int):
            return self.shape[0]
        fail("len", GraphError, "the first dimension is not a known integer", [self], "use x.shape[0]")

    # --- methods ---------------------------------------------------------------------------------

    @property
    @located
    def T(self) -> Tensor:
        """The transpose of a matrix; for other ranks, all axes reversed."""
        from . import array_api

        return array_api.permute_dims(self, tuple(range(self.ndim))[::-1])

    @property
    @located
    def mT(self) -> Tensor:
        """The transpose of the last two axes."""
        from . import array_api

        return array_api.matrix_transpose(self)

    sum, prod, mean, std, var = map(_method, ("sum", "prod", "mean", "std", "var"))
    max, min, argmax, argmin = map(_method, ("max", "min", "argmax", "argmin"))
    any, all, astype, clip, take = map(_method, ("any", "all", "astype", "clip", "take"))
    squeeze, expand_dims, flip, roll, repeat = map(_method, ("squeeze", "expand_dims", "flip", "roll", "repeat"))
    reshape, permute_dims, broadcast_to = map(_with_sizes, ("reshape", "permute_dims", "broadcast_to"))

    def transpose(self, *axes: Any) -> Tensor:
        """All axes reversed, or in the order given."""
        return self.permute_dims(*axes) if axes else self.T

    def eval(self, feeds: Mapping[Tensor, object] | None = None, target: str = "cpu") -> Any:
        """The value, given arrays for the placeholders it depends on.

        For one-off use; compile with `gw.function` what runs repeatedly.
        """
        from .function import evaluate

        return evaluate(self, feeds or {}, target)


# --- placeholders --------------------------------------------------------------------------------


@located
def placeholder(name: str, dtype: object = "float32", shape: object = ()) -> Tensor:
    """An argument of functions to be.

    Parameters
    ----------
    name : an identifier; the argument's name at a call.
    dtype : a dtype, by name or as NumPy's.
    shape : one entry per axis: an integer; a name such as ``"N"`` for a dimension that is known
        at a call, the same wherever the name stands; an expression such as ``"2*N"``; or None for
        a dimension of its own, named ``<name>_<axis>``.

    Raises
    ------
    GraphError
        If the name is no identifier.
    DTypeError
        If the dtype is not supported.
    DimensionError
        If a dimension is none of the above, negative, or too large.
    """
    name = check_name(name, "placeholder")
    if isinstance(shape, (str, Poly)) or not isinstance(shape, Iterable):
        shape = (shape,)
    what = f"placeholder {name!r}"
    dims = tuple(symbol(f"{name}_{k}") if d is None else as_dim(d, what) for k, d in enumerate(shape))
    return Tensor(make(OPS["input"], (), {"name": name, "shape": dims, "dtype": as_dtype(dtype)}))


# --- variables -----------------------------------------------------------------------------------

_states: weakref.WeakValueDictionary[str, Value] = weakref.WeakValueDictionary()
_cells: weakref.WeakKeyDictionary[Value, Cell] = weakref.WeakKeyDictionary()
_successors: weakref.WeakKeyDictionary[Value, Callable[[Value], Value]] = weakref.WeakKeyDictionary()
_numbers = itertools.count()


def cell_of(state: Value) -> Cell:
    """The memory of a variable, given the value that stands for it in graphs."""
    return _cells[state]


def let_advance(variable: Variable, successor: Callable[[Value], Value]) -> None:
    """Let a variable change by itself, to the `successor` of its value, at each execution that computes with it."""
    _successors[variable._value] = successor


def successors(order: Iterable[Value]) -> Iterator[tuple[Value, Value]]:
    """The variables among the operands of some values that advance by themselves, with their next values."""
    states = dict.fromkeys(o for v in order for o in v.operands if o in _successors)
    return ((state, _successors[state](state)) for state in states)


class Variable(Tensor):
    """Mutable state that functions read and update, with memory of its own.

    Parameters
    ----------
    init : the first value; it is copied.
    name : shown in IR text and in artifacts (default: ``v0``, ``v1``, ...).
    dtype : default: that of `init`; float32 for Python floats.

    Raises
    ------
    DTypeError
        If the dtype is not supported.
    """

    __slots__ = ("name", "_cell")

    @located
    def __init__(self, init: object, name: str | None = None, dtype: object = None) -> None:
        self.name = f"v{next(_numbers)}" if name is None else check_name(name, "Variable")
        if isinstance(init, Tensor):
            fail("Variable", GraphError, "the initial value must be an array", [init], _EVALUATE)
        array = np.array(to_array(init, None if dtype is None else as_dtype(dtype)), order="C")
        # Two live variables may share a name; their values in graphs must differ.
        unique = next(n for n in _candidates(self.name) if n not in _states)
        attrs = {"name": unique, "shape": array.shape, "dtype": as_dtype(array.dtype)}
        super().__init__(make(OPS["state"], (), attrs))
        self._cell = Cell(self.name, array)
        _states[unique], _cells[self._value] = self._value, self._cell

    @property
    def value(self) -> np.ndarray[Any, Any]:
        """A copy of the current value."""
        return self._cell.value

    @located
    def assign(self, value: object) -> None:
        """Replace the value.

        Raises
        ------
        UpdateError
            If the shape or dtype is another. The old value is then unchanged.
        """
        if isinstance(value, Tensor):
            fail(
                "assign", UpdateError, f"variable {self.name!r} needs an array, got a symbolic tensor", [value],
                "use gw.function(..., updates={variable: tensor})",
            )
        if is_tracing():
            fail(
                "assign", UpdateError, f"variable {self.name!r} is assigned in the body of a loop or branch, "
                "which runs once, when the graph is built", [self],
                "carry what changes, and use gw.function(..., updates=...)",
            )
        self._cell.assign(value)

    def _describe(self) -> str:
        return f"Variable {self.name}: {self._value.type}"


def _candidates(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{k}" for k in itertools.count(1))
