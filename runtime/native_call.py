"""The native way of a call: a function in machine code that Python calls as one of its own built-ins.

Checking arguments, making outputs and entering the program in Python costs several microseconds; in
machine code it costs a fraction of one. One such function, ``gw_call2`` of
``compiler/llvm/native_call.py``, serves every compiled program: it is driven by a *table* of numbers
and addresses. What it cannot do itself (named arguments, conversions, sizes it has not met, whatever is
wrong) it leaves to the general way, a `general.GeneralCall`, before anything is changed.

It reads objects of CPython and NumPy at fixed offsets. These are checked when the process first asks for
it; where they are others (free-threaded and debug builds, other interpreters), every call goes the
general way.

A table consists of 64-bit words: those that `HEAD` names, then what the head points to. `rows` has 7
words for each input: its dtype object and its rank; then, of a number that may stand for it, the type if
it is NumPy's, the bytes of a float (0 for an integer), the magnitude below which a Python float fits, and
the least and greatest Python integer that fit. `results` has the dtype object and the rank of each
output; `cells` the address of each state; `methods` the `acquire` and `release` of each lock; `ranges` begin
and end of each state that is updated, `stamps` the address of the count of its changes.
A call is native only while the word `seen` is equal to the one at `generation` (`runtime.preparation`).

`plans` is an array of *plans*, each at the hash of the sizes it is for. A plan has the bytes of scratch
memory (-1 if there is none at this place); the sizes of all axes of all inputs; the values of the
symbols; the bytes of each input; and for each output its bytes and its sizes.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .buffers import Array, Block, address_of, generation, lasting_empty
from .image import LoadedImage
from .recycling import RECYCLED
from .shapes import Plan, Shape
from .signature import INT64_MAX, Signature
from .threads import ready_address

if TYPE_CHECKING:
    from .general import GeneralCall

__all__ = [
    "API", "CALL", "ENTRIES", "GIVE", "HEAD", "MULTIPLIER", "ROW_WORDS", "TAKE",
    "NativeArena", "PlanTable", "is_supported", "native_call",
]  # fmt: skip

CALL, TAKE, GIVE = ENTRIES = ("gw_call2", "gw_take2", "gw_give2")  # the number is that of the layout

HEAD = (
    "inputs", "axes", "states", "outputs", "symbols", "locks", "blocks", "nesting", "words", "mask", "width",
    "native", "context", "ready", "rows", "results", "cells", "methods", "ranges", "plans",
    "arena", "api", "general", "build", "failed", "generation", "seen", "stamps",
)  # fmt: skip
API = (
    "array_type", "float_type", "int_type", "none", "byte_dtype", "new_array", "set_base", "incref", "decref",
    "save_thread", "restore_thread", "vectorcall", "new_tuple", "set_tuple", "new_list", "set_list",
    "new_int", "int_value",
)  # fmt: skip
ROW_WORDS = 7
_LEAF, _TUPLE, _LIST, _BUILT, _NONE = range(5)  # how outputs are nested
_PLANS, MULTIPLIER = 64, 0x9E3779B97F4A7C15  # 2**64 / golden ratio, as in Fibonacci hashing
_KEPT_BLOCKS = 8
_BLOCK_HEAD = 64  # bytes before a block, where its size stands
_STACK_WORDS = 2048  # a call with more buffers and axes takes the general way
_VERSIONS = (1, 2)  # of NumPy's binary interface

Words = NDArray[np.int64]


class PlanTable:
    """The plans that the native entry of one function knows, at most 64; new ones overwrite old ones.

    Attributes
    ----------
    address : of the array of plans.
    width : words of a plan.
    mask : the last place.
    """

    def __init__(self, signature: Signature) -> None:
        slots = (*signature.inputs, *signature.outputs)
        self.width = 1 + sum(1 + len(s.shape) for s in slots) + len(signature.symbols)
        self.mask = _PLANS - 1 if signature.symbols else 0
        self._words = np.full((self.mask + 1) * self.width, -1, np.int64)
        self._bytes = memoryview(self._words.data).cast("B")
        self.address = address_of(self._words)
        self._itemsizes = [slot.itemsize for slot in signature.inputs]
        self._known: dict[int, Plan] = {}

    def add(self, shapes: Sequence[Shape], plan: Plan) -> None:
        """Let native calls with inputs of these shapes find their plan; of large results, the general way makes one."""
        if max(plan.sizes, default=0) >= RECYCLED:
            return
        sizes = [size for shape in shapes for size in shape]
        value = 0
        for size in sizes:
            value = (value + size) * MULTIPLIER % 2**64
        place = value >> 58 & self.mask
        if self._known.get(place) is plan:
            return
        nbytes = [math.prod(s) * size for s, size in zip(shapes, self._itemsizes, strict=True)]
        outputs = [n for size, shape in zip(plan.sizes, plan.outputs, strict=True) for n in (size, *shape)]
        words = np.array([plan.arena, *sizes, *plan.dims, *nbytes, *outputs], np.int64)
        first = 8 * self.width * place
        # One step for the interpreter: native calls read plans only while they hold its lock.
        self._bytes[first : first + words.nbytes] = words.tobytes()
        self._known[place] = plan


class NativeArena:
    """Scratch memory that native and general calls share; the interface of `buffers.Arena`.

    Free blocks stand in a pool that machine code takes from and gives to; it never makes or releases one. A native
    call that finds none which is large enough becomes a general call, and that makes one.
    """

    def __init__(self, image: LoadedImage) -> None:
        self._image = image
        self._take = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(image.address(TAKE))
        self._give = ctypes.PYFUNCTYPE(None, *[ctypes.c_void_p] * 2)(image.address(GIVE))

    def take(self, nbytes: int) -> Block:
        """A block of at least `nbytes`, aligned."""
        found = self._take(_pool_address(), nbytes)
        if found is None:
            small = self._take(_pool_address(), 0)
            _blocks.pop(small, None)
            memory = lasting_empty((nbytes + _BLOCK_HEAD,), np.uint8)
            memory[:8] = memoryview(nbytes.to_bytes(8, "little"))
            found = address_of(memory) + _BLOCK_HEAD
            _blocks[found] = memory
        return nbytes, found, None

    def give(self, block: Block) -> None:
        """Hand back what `take` gave."""
        if len(_blocks) > _KEPT_BLOCKS:
            del _blocks[block[1]]
        else:
            self._give(_pool_address(), block[1])


_blocks: dict[int, Array] = {}
"""All blocks of scratch memory, in the pool or in use, by address; the pool has room for as many as are kept."""


class _Table(np.ndarray[Any, Any]):
    """A table, with the objects that it refers to."""

    keep: tuple[Any, ...]


def native_call(
    image: LoadedImage, general: GeneralCall, doc: str = ""
) -> Callable[..., Any] | None:
    """The native entry of a function, or None if it cannot have one here.

    Parameters
    ----------
    image : holds `ENTRIES`.
    general : the general way, which takes the same arguments.
    """
    if CALL not in image.entries or not is_supported():
        return None
    fields, rest, kept = _contents(general)
    if fields["words"] > _STACK_WORDS:
        return None
    table = np.zeros(len(HEAD) + sum(map(len, rest.values())), np.int64).view(_Table)
    base, end = address_of(table), len(HEAD)
    for name, words in rest.items():
        fields[name] = base + 8 * end
        table[end : end + len(words)] = words
        end += len(words)
    table[: len(HEAD)] = [fields[name] for name in HEAD]
    method = _Method(b"call", image.address(CALL), _FASTCALL | _KEYWORDS, doc.encode() or None)
    table.keep = image, method, general, kept
    made: Callable[..., Any] = _new_function()(ctypes.addressof(method), table, None)
    return made


def _contents(general: GeneralCall) -> tuple[dict[str, int], dict[str, list[int]], list[Any]]:
    """The fields of a table's head, the arrays that follow it, and objects to keep alive with it."""
    signature = general.signature
    assert general.plans is not None
    counts = {
        "inputs": len(signature.inputs), "axes": sum(len(s.shape) for s in signature.inputs),
        "states": len(signature.states), "outputs": len(signature.outputs), "symbols": len(signature.symbols),
        "locks": len(general.locked), "blocks": len(signature.updated),
    }  # fmt: skip
    dtypes = [np.dtype(s.dtype) for s in (*signature.inputs, *signature.outputs)]
    methods = [m for cell in general.locked for m in (cell.lock.acquire, cell.lock.release)]
    updated = [general.cells[i].array for i in signature.updated]
    ranges = [(address_of(a), address_of(a) + a.nbytes) for a in updated]
    n = len(signature.inputs)
    rest = {
        "rows": [w for s, t in zip(signature.inputs, dtypes) for w in _input_row(t, len(s.shape))],
        "results": [w for s, t in zip(signature.outputs, dtypes[n:]) for w in (id(t), len(s.shape))],
        "cells": [address_of(c.array) for c in general.cells],
        "methods": [id(m) for m in methods],
        "stamps": [address_of(general.cells[i].stamp) for i in signature.updated],
        "ranges": [w for pair in ranges for w in pair],
    }
    build, failed = general.unflatten, general.fail
    seen = generation if general.preparation is None else general.preparation.seen
    fields = counts | {
        "nesting": _nesting(signature), "native": general.address, "context": general.context or 0,
        "ready": ready_address(general.threaded), "plans": general.plans.address,
        "mask": general.plans.mask, "width": general.plans.width,
        "arena": _pool_address(), "api": _api_address(), "general": id(general), "build": id(build),
        "failed": id(failed), "words": _stack_words(counts),
        "generation": address_of(generation), "seen": address_of(seen),
    }  # fmt: skip
    return fields, rest, [dtypes, methods, updated, build, failed, seen]


def _stack_words(counts: dict[str, int]) -> int:
    """Stack that a call needs: numbers given for inputs, sizes, symbols, buffers, and outputs."""
    return 2 * counts["inputs"] + counts["axes"] + counts["symbols"] + counts["states"] + 2 * counts["outputs"]


def _input_row(dtype: np.dtype[Any], ndim: int) -> tuple[int, ...]:
    limit, low, high = 0.0, 0, -1
    if ndim == 0 and dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        high = 2 ** (np.finfo(dtype).nmant + 1)  # up to here, all integers are exact
        low = -high
    elif ndim == 0 and dtype.kind in "iu":
        low, high = int(np.iinfo(dtype).min), min(int(np.iinfo(dtype).max), INT64_MAX)
    scalar = 0 if ndim else id(dtype.type)
    size = dtype.itemsize if dtype.kind == "f" else 0
    return id(dtype), ndim, scalar, size, int(np.float64(limit).view(np.int64)), low, high


def _nesting(signature: Signature) -> int:
    structure = signature.structure
    if structure == "*":
        return _LEAF
    if list(structure) == ["none"]:
        return _NONE
    plain = all(child == "*" for child in structure[1:])
    return {"tuple": _TUPLE, "list": _LIST}.get(structure[0], _BUILT) if plain else _BUILT


# --- the interpreter and NumPy, as machine code sees them ------------------------------------------

_FASTCALL, _KEYWORDS = 0x80, 0x02  # METH_FASTCALL, METH_KEYWORDS


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p),
    )  # fmt: skip


@lru_cache(maxsize=1)
def is_supported() -> bool:
    """Whether objects of this interpreter and of NumPy look as the native entry expects."""
    if sys.implementation.name != "cpython" or getattr(sys, "abiflags", "?") != "" or sys.byteorder != "little":
        return False
    if ctypes.sizeof(ctypes.c_void_p) != 8 or hasattr(sys, "gettotalrefcount"):
        return False
    return _array_fits() and _numbers_fit() and _api() is not None


def _words_at(thing: Any, count: int) -> list[int]:
    return list((ctypes.c_int64 * count).from_address(id(thing)))


def _array_fits() -> bool:
    """PyArrayObject: type, data, rank, sizes, dtype and flags stand where they are looked for."""
    x = np.zeros((3, 5), np.float32)
    for array, flags in ((x, 0x101), (x.T, 0x100)):
        words = _words_at(array, 9)
        sizes = tuple((ctypes.c_int64 * 2).from_address(words[4]))
        found = words[1], words[2], words[3] & 0xFFFFFFFF, sizes, words[7], words[8] & 0x101
        if found != (id(np.ndarray), array.ctypes.data, 2, array.shape, id(array.dtype), flags):
            return False
    return True


def _numbers_fit() -> bool:
    """PyFloatObject and NumPy's scalars: the value follows the head of two words."""
    numbers = (1.5, np.float64(1.5), np.float32(1.5), np.int64(-7), np.uint8(7), np.True_)
    for number in numbers:
        value = np.asarray(number)
        found = ctypes.string_at(id(number) + 16, value.nbytes)
        if _words_at(number, 2)[1] != id(type(number)) or found != value.tobytes():
            return False
    return True


@lru_cache(maxsize=1)
def _api() -> Words | None:
    """Addresses in the order of `API`; None if some function is missing."""
    names = {
        "incref": "Py_IncRef", "decref": "Py_DecRef", "save_thread": "PyEval_SaveThread",
        "restore_thread": "PyEval_RestoreThread", "vectorcall": "PyObject_Vectorcall", "new_tuple": "PyTuple_New",
        "set_tuple": "PyTuple_SetItem", "new_list": "PyList_New", "set_list": "PyList_SetItem",
        "new_int": "PyLong_FromLongLong",
        "int_value": "PyLong_AsLongLongAndOverflow",
    }  # fmt: skip
    try:
        numpy = _numpy_functions()
        found = {name: _address(getattr(ctypes.pythonapi, symbol)) for name, symbol in names.items()}
    except (AttributeError, KeyError, ValueError):
        return None
    if numpy[2] != id(np.ndarray):
        return None
    found |= {"array_type": id(np.ndarray), "float_type": id(float), "int_type": id(int), "none": id(None)}
    found |= {"byte_dtype": id(np.dtype(np.uint8)), "new_array": numpy[94], "set_base": numpy[282]}
    return np.array([found[name] for name in API], np.int64)


def _numpy_functions() -> Any:
    """NumPy's table of functions, whose numbers never change (numpy/core/code_generators/numpy_api.py)."""
    name = "numpy._core._multiarray_umath"
    module = sys.modules[name if name in sys.modules else "numpy.core._multiarray_umath"]
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    address = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))(module._ARRAY_API, None)
    table = (ctypes.c_int64 * 283).from_address(address)
    version = ctypes.CFUNCTYPE(ctypes.c_uint)(table[0])() >> 24  # PyArray_GetNDArrayCVersion
    if version not in _VERSIONS:
        raise ValueError(f"NumPy's binary interface has version {version}")
    return table


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@lru_cache(maxsize=1)
def _new_function() -> Callable[[int, Any, Any], Any]:
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
    return prototype(("PyCFunction_NewEx", ctypes.pythonapi))


def _api_address() -> int:
    api = _api()
    assert api is not None, "is_supported() was asked before"
    return address_of(api)


@lru_cache(maxsize=1)
def _pool() -> Array:
    """The number of blocks of scratch memory that nobody uses, and their addresses."""
    return np.zeros(1 + _KEPT_BLOCKS, np.int64)


def _pool_address() -> int:
    return address_of(_pool())
