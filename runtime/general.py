"""The general way of a call, in Python: it takes whatever can be taken, and says what is wrong with the rest.

A program's entry point is ``int32_t f(void *const *buffers, const int64_t *dims, void *arena,
void *context)``: buffers of the inputs, then the states, then the outputs; values of the symbolic
dimensions in sorted order; scratch memory; and the context of the thread pool (or null). States
are updated in place. It returns 0.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np

from ..errors import ArgumentError, DimensionError, GraphwrightError
from .arguments import as_array
from .buffers import Arena, Array, Cell, Overlap, address_of, aligned_empty
from .image import LoadedImage
from .native_call import NativeArena, PlanTable
from .preparation import Preparation
from .recycling import new_result
from .shapes import Binder, Plan
from .signature import Signature, Slot, evaluate
from .structure import unflattener
from .threads import WORKER, pool_context

__all__ = ["GeneralCall"]

_STAGED_BYTES = 1024  # smaller arrays are cheaper to copy than to take the address of
_STAGED_ARENA = 65536

_Native = ctypes.CFUNCTYPE(ctypes.c_int32)
_arena = Arena()


class GeneralCall:
    """A program, and how it is called. `executable.Executable` is what users call.

    Parameters
    ----------
    image : the code.
    entry : the function's name in the image.
    signature : what it takes and gives.
    cells : storage of its states, in the signature's order.
    shared : holds `native_call.ENTRIES` if the program has a native entry as well.
    preparation : of the states, those that are computed of the others.

    Attributes
    ----------
    plans : sizes of the last calls, for the native entry.
    """

    def __init__(
        self, image: LoadedImage, entry: str, signature: Signature, cells: tuple[Cell, ...],
        shared: LoadedImage | None, preparation: Preparation | None = None,
    ) -> None:  # fmt: skip
        self.preparation = preparation
        self.signature, self.cells, self.image = signature, cells, image
        self.address = image.address(entry)
        self.native = _Native(self.address)
        self.threaded = WORKER in image.entries
        self.small = _is_small(signature)
        _check_cells(signature, cells)
        self.binder = Binder(signature, [c.shape for c in cells])
        self.unflatten = unflattener(signature.structure)
        # Whoever updates holds the locks of all its cells, taken in one order everywhere.
        self.locked = tuple(sorted(set(cells), key=id)) if signature.updated else ()
        self.plans = PlanTable(signature) if shared else None
        self._arena = _arena if shared is None else NativeArena(shared)
        self._dtypes = tuple(np.dtype(s.dtype) for s in signature.inputs)
        self._outputs = tuple(np.dtype(s.dtype) for s in signature.outputs)
        self._overlap = Overlap([cells[i].array for i in signature.updated])
        self._plain = not self.threaded and not self.locked
        self._frames: list[_Frame] = []
        if self.small and self.plans is not None:
            shapes = [s.static_shape or () for s in signature.inputs]
            self.plans.add(shapes, self.binder.plan(shapes))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function; see `executable.Executable`."""
        if kwargs or len(args) != len(self._dtypes):
            args = self._arrange(args, kwargs)
        if self.preparation is not None:
            self.preparation.renew()
        try:
            frame = self._frames.pop()  # atomic: no two calls in flight share a frame
        except IndexError:
            frame = _Frame(self)
        try:
            run = self._run_small if self.small else self._run_any
            return self.unflatten(run(frame, args))
        finally:
            self._frames.append(frame)

    def arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Array]:
        """The arguments of a call as arrays, in the signature's order; raises what a call would raise."""
        arrays = self._convert(self._arrange(args, kwargs))
        self.binder.plan([x.shape for x in arrays])
        return arrays

    # --- the two ways of a call --------------------------------------------------------------------

    def _run_small(self, frame: _Frame, args: Sequence[Any]) -> list[Array]:
        """All inputs and outputs are small and of fixed shape: copy them in and out."""
        for (stage, dtype, shape, limit), x in zip(frame.staged, args):
            if type(x) is float and -limit < x < limit:  # the limit is 0 where no float may stand
                stage[()] = x
            elif type(x) is np.ndarray and x.dtype is dtype and x.shape == shape:
                stage[...] = x
            else:
                self._stage_slowly(frame, args)
                break
        if self._plain:
            status = frame.call()
            if status:
                self.fail(status)
        else:
            self._invoke(frame.call)
        return [out.copy() for out in frame.outputs]

    def _plan(self, arrays: Sequence[Array]) -> Plan:
        """The sizes of a call; the native entry will know them from now on."""
        shapes = [x.shape for x in arrays]
        plan = self.binder.plan(shapes)
        if self.plans is not None:
            self.plans.add(shapes, plan)
        return plan

    def _stage_slowly(self, frame: _Frame, args: Sequence[Any]) -> None:
        arrays = self._convert(args)
        self._plan(arrays)
        for (stage, *_), x in zip(frame.staged, arrays, strict=True):
            stage[...] = x

    def _run_any(self, frame: _Frame, args: Sequence[Any]) -> list[Array]:
        """Pass addresses of the inputs and of new outputs."""
        arrays = self._convert(args)
        plan = self._plan(arrays)
        pointers, overlap = frame.pointers, self._overlap
        for i, x in enumerate(arrays):
            address = address_of(x)
            if overlap and overlap.touches(address, x.nbytes):
                arrays[i] = x = x.copy()
                address = address_of(x)
            pointers[i] = address
        outputs = []
        slots = zip(self._outputs, plan.outputs, plan.sizes, strict=True)
        for i, (dtype, shape, nbytes) in enumerate(slots, len(arrays) + len(self.cells)):
            out, pointers[i] = new_result(shape, dtype, nbytes)
            outputs.append(out)
        frame.dims[:] = list(plan.dims)
        if not plan.arena:
            self._invoke(frame.call)
            return outputs
        block = self._arena.take(plan.arena)
        try:
            frame.arena.value = block[1]
            self._invoke(frame.call)
        finally:
            self._arena.give(block)
        return outputs

    def _invoke(self, call: Callable[[], int]) -> None:
        """Run the code, holding the locks of the variables if it updates any."""
        if self.threaded:
            pool_context(self.image)
        status = self._invoke_locked(call) if self.locked else call()
        if status:
            self.fail(status)

    @property
    def context(self) -> int | None:
        """The address of the context that the program takes."""
        return pool_context(self.image) if self.threaded else None

    def fail(self, status: int) -> NoReturn:
        raise GraphwrightError(f"{self.signature.name}: the compiled code returned error {status}")

    def _invoke_locked(self, call: Callable[[], int]) -> int:
        locks = [cell.lock for cell in self.locked]
        held = 0
        try:
            for lock in locks:
                lock.acquire()
                held += 1
            try:
                return call()
            finally:
                for i in self.signature.updated:
                    self.cells[i].touch()
        finally:
            for lock in locks[:held]:
                lock.release()

    # --- arguments ---------------------------------------------------------------------------------

    def _convert(self, args: Sequence[Any]) -> list[Array]:
        """The arguments as row-major arrays of the right dtypes; those that are so are not copied."""
        arrays = []
        for i, (x, dtype) in enumerate(zip(args, self._dtypes, strict=True)):
            if type(x) is np.ndarray and x.dtype is dtype:
                flags = x.flags
                if flags.c_contiguous and flags.aligned:
                    arrays.append(x)
                    continue
            what = f"{self.signature.name}: input {self.signature.inputs[i]}"
            arrays.append(as_array(x, dtype, what, ArgumentError))
        return arrays

    def _arrange(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Positional and named arguments in the signature's order."""
        name, slots = self.signature.name, self.signature.inputs
        names = [slot.name for slot in slots]
        if len(args) > len(slots):
            raise ArgumentError(f"{name} takes {len(slots)} inputs ({', '.join(names)}), but got {len(args)}")
        given = dict(zip(names, args, strict=False))
        for key, value in kwargs.items():
            if key not in names:
                raise ArgumentError(f"{name} has no input {key!r}; it has {', '.join(names) or 'none'}")
            if key in given:
                raise ArgumentError(f"{name} got input {key!r} twice")
            given[key] = value
        missing = [str(slot) for slot in slots if slot.name not in given]
        if missing:
            raise ArgumentError(f"{name} misses {len(missing)} of {len(slots)} inputs: {', '.join(missing)}")
        return tuple(given[n] for n in names)


class _Frame:
    """What one call in flight needs: the native arguments, and staged arrays of small functions."""

    __slots__ = ("_memory", "arena", "call", "dims", "outputs", "pointers", "staged")

    def __init__(self, program: GeneralCall) -> None:
        signature = program.signature
        count = len(signature.inputs) + len(signature.states) + len(signature.outputs)
        self.pointers = (ctypes.c_void_p * max(count, 1))()
        self.dims = (ctypes.c_int64 * len(signature.symbols))()
        self.arena = ctypes.c_void_p()
        self.staged: list[tuple[Array, np.dtype[Any], tuple[int, ...], float]] = []
        self.outputs: list[Array] = []
        for i, cell in enumerate(program.cells):
            self.pointers[len(signature.inputs) + i] = address_of(cell.array)
        if program.small:
            self._stage(signature)
        self.call: Callable[[], int] = partial(
            program.native, self.pointers, self.dims, self.arena, ctypes.c_void_p(program.context)
        )

    def _stage(self, signature: Signature) -> None:
        """Fixed memory for all inputs, outputs, and scratch."""
        inputs = [_new(slot) for slot in signature.inputs]
        self.staged = [(x, x.dtype, x.shape, _float_limit(x)) for x in inputs]
        self.outputs = [_new(slot) for slot in signature.outputs]
        self._memory = aligned_empty((evaluate(signature.arena, {}),), np.uint8)
        self.arena.value = address_of(self._memory)
        first = len(signature.inputs) + len(signature.states)
        for i, x in (*enumerate(inputs), *enumerate(self.outputs, first)):
            self.pointers[i] = address_of(x)


def _new(slot: Slot) -> Array:
    assert slot.static_shape is not None
    return aligned_empty(slot.static_shape, slot.dtype)


def _float_limit(stage: Array) -> float:
    """Python floats below this magnitude may be stored as they are."""
    return float(np.finfo(stage.dtype).max) if stage.dtype.kind == "f" and stage.ndim == 0 else 0.0


def _is_small(signature: Signature) -> bool:
    """Whether all sizes are fixed, and small enough for memory that a frame keeps."""
    shapes = [(s.static_shape, s.itemsize) for s in signature.inputs + signature.outputs]
    fixed = [
        math.prod(shape) * size for shape, size in shapes if shape is not None and min(shape, default=0) >= 0
    ]
    return (
        not signature.symbols
        and len(fixed) == len(shapes)
        and all(nbytes <= _STAGED_BYTES for nbytes in fixed)
        and isinstance(signature.arena, int)
        and 0 <= signature.arena <= _STAGED_ARENA
    )


def _check_cells(signature: Signature, cells: Sequence[Cell]) -> None:
    if len(cells) != len(signature.states):
        raise DimensionError(
            f"{signature.name} has {len(signature.states)} variables, but got {len(cells)} cells"
        )
    for slot, cell in zip(signature.states, cells, strict=True):
        fits = len(cell.shape) == len(slot.shape) and all(
            not isinstance(d, int) or d == n for d, n in zip(slot.shape, cell.shape, strict=True)
        )
        if not fits or cell.dtype.name != slot.dtype:
            raise DimensionError(
                f"{signature.name}: variable {slot} cannot use {cell!r}, which has another dtype or shape"
            )
