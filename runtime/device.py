"""What runs a program on a device that has memory of its own, as a list of kernel launches.

The device itself is behind the `Device` protocol. Variables stay in its memory between calls: each
has a `Mirror` there, shared by all functions on that device, which is renewed when the variable's
value on the host has changed, and written back when a call has updated it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import ArgumentError, DimensionError
from .arguments import as_array
from .buffers import Array, Cell
from .shapes import Binder
from .signature import Formula, Signature, compile_formula
from .structure import unflattener

__all__ = ["Device", "DeviceExecutable", "LaunchPlan", "Launch", "Place"]

Memory = Any
"""A flat array in the device's memory."""


class Device(Protocol):
    """A device: memory, copies, and launches of its kernels by name.

    Attributes
    ----------
    mirrors : the variables that it holds.
    """

    mirrors: weakref.WeakKeyDictionary[Cell, Mirror]

    def empty(self, count: int, dtype: np.dtype[Any]) -> Memory: ...

    def view(self, memory: Memory, offset: int, count: int, dtype: np.dtype[Any]) -> Memory:
        """A part of memory of bytes, as elements of a dtype."""

    def shaped(self, memory: Memory, shape: tuple[int, ...]) -> Memory:
        """A flat array, or its beginning, as a row-major one of a shape."""

    def write(self, memory: Memory, host: Array) -> None:
        """Copy a flat array of the same size to the device."""

    def read(self, memory: Memory, host: Array) -> None:
        """Copy to a flat array of the host, once all launches before are done."""

    def launch(self, function: str, blocks: int, threads: int, arguments: Sequence[Any]) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where a buffer lives: an input, state, output or constant by number, or an offset in the arena."""

    kind: str
    where: Formula
    dtype: str
    count: Formula


@dataclass(frozen=True)
class Launch:
    """One launch: the grid's size, the block's, names of the buffers, and dimensions passed after them.

    The function takes flat arrays, or, with `shapes`, arrays of those.
    """

    function: str
    blocks: Formula
    threads: int
    buffers: tuple[str, ...]
    symbols: tuple[str, ...]
    shapes: tuple[tuple[Formula, ...], ...] | None = None


@dataclass(frozen=True)
class LaunchPlan:
    """What a call does: launches in order, over buffers in their places."""

    launches: tuple[Launch, ...]
    places: Mapping[str, Place]
    constants: tuple[Array, ...] = field(default=())


class Mirror:
    """A variable in a device's memory, and the host's value that it was last equal to."""

    def __init__(self, cell: Cell, device: Device) -> None:
        self.memory = device.empty(max(cell.array.size, 1), cell.dtype)
        self.known: Array | None = None

    def renew(self, cell: Cell, device: Device) -> None:
        """Copy the value to the device if the host's is another."""
        if self.known is None or not np.array_equal(_bytes(self.known), _bytes(cell.array)):
            self.known = cell.array.copy()
            if cell.array.size:
                device.write(self.memory, self.known.reshape(-1))


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)  # in which a NaN equals itself


class DeviceExecutable:
    """A function of arrays that runs on a device; called as `runtime.executable.Executable` is.

    Parameters
    ----------
    plan : what a call launches.
    device : where.
    signature : what the function takes and gives.
    cells : storage of its states, in the signature's order.

    Raises
    ------
    DimensionError
        If a cell does not fit the signature, or the inputs do not determine a dimension.
    """

    def __init__(self, plan: LaunchPlan, device: Device, signature: Signature, cells: Sequence[Cell] = ()) -> None:
        self.plan, self.device, self.signature, self.cells = plan, device, signature, tuple(cells)
        for slot, cell in zip(signature.states, self.cells, strict=True):
            if cell.dtype.name != slot.dtype or len(cell.shape) != len(slot.shape):
                raise DimensionError(f"{signature.name}: variable {slot} cannot use {cell!r}")
        self._binder = Binder(signature, [c.shape for c in self.cells])
        self._unflatten = unflattener(signature.structure)
        symbols = signature.symbols
        self._blocks = [compile_formula(step.blocks, symbols) for step in plan.launches]
        self._shapes = [
            None if step.shapes is None else [[compile_formula(d, symbols) for d in shape] for shape in step.shapes]
            for step in plan.launches
        ]
        self._counts = {n: compile_formula(p.count, symbols) for n, p in plan.places.items()}
        self._where = {n: compile_formula(p.where, symbols) for n, p in plan.places.items()}
        self._lock = threading.Lock()
        self._arena: tuple[int, Memory] = (-1, None)
        self._constants: list[Memory] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function on arrays of the host; results are new arrays of the host.

        Raises
        ------
        ArgumentError
            If an argument is missing, or its dtype, rank or a fixed dimension is wrong.
        DimensionError
            If two inputs give one symbolic dimension different sizes.

        Whenever it raises one of these, no variable has changed.
        """
        arrays = self._arguments(args, kwargs)
        plan = self._binder.plan([x.shape for x in arrays])
        with ExitStack() as held:
            held.enter_context(self._lock)
            for cell in sorted(set(self.cells), key=id):
                held.enter_context(cell.lock)
            try:
                outputs, updates = self._run(arrays, plan.dims, plan.outputs, plan.arena)
            except BaseException:
                for cell in self.cells:  # what the device holds may be half an update
                    self.device.mirrors.pop(cell, None)
                raise
            for cell, value in updates:
                cell.array[...] = value
                cell.touch()
        return self._unflatten(outputs)

    def memory(self, **dims: int) -> int | str:
        """Peak scratch memory in bytes, for given symbolic dimensions; without any, the formula.

        Raises
        ------
        DimensionError
            If a dimension is missing or unknown.
        """
        if not dims:
            return self.signature.arena_text
        if set(dims) != set(self.signature.symbols):
            wanted = ", ".join(self.signature.symbols) or "(none)"
            raise DimensionError(f"{self.signature.name}: memory() needs the dimensions {wanted}")
        return self._binder.plan_for([dims[s] for s in self.signature.symbols]).arena

    def _arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Array]:
        name, slots = self.signature.name, self.signature.inputs
        names = [slot.name for slot in slots]
        given = dict(zip(names, args, strict=False))
        wrong = [k for k in kwargs if k not in names or k in given]
        given.update(kwargs)
        if len(args) > len(slots) or wrong or len(given) < len(slots):
            raise ArgumentError(
                f"{name} takes {len(slots)} inputs ({', '.join(names) or 'none'}), "
                f"but got {len(args)} and {', '.join(kwargs) or 'none'} by name"
            )
        return [
            as_array(given[slot.name], np.dtype(slot.dtype), f"{name}: input {slot}", ArgumentError) for slot in slots
        ]

    def _run(
        self, arrays: Sequence[Array], dims: Sequence[int], shapes: Sequence[tuple[int, ...]], arena: int
    ) -> tuple[list[Array], list[tuple[Cell, Array]]]:
        """Outputs, and new values of the variables, which are not stored yet."""
        memories = self._memories(arrays, dims, shapes, arena)
        buffers = {n: self._buffer(n, memories, dims) for n in self.plan.places}
        for k, step in enumerate(self.plan.launches):
            count = self._blocks[k](dims)
            if count > 0:
                arguments = self._launch_arguments(k, buffers, dims)
                self.device.launch(step.function, count, step.threads, arguments)
        slots = self.signature.outputs
        outputs = [
            self._fetch(memory, shape, np.dtype(slot.dtype))
            for memory, shape, slot in zip(memories["output"], shapes, slots, strict=True)
        ]
        updates = []
        for i in self.signature.updated:
            cell = self.cells[i]
            value = self._fetch(memories["state"][i], cell.shape, cell.dtype)
            self.device.mirrors[cell].known = value
            updates.append((cell, value))
        return outputs, updates

    def _launch_arguments(self, k: int, buffers: Mapping[str, Memory], dims: Sequence[int]) -> list[Any]:
        """What the function of a launch takes."""
        step, shapes = self.plan.launches[k], self._shapes[k]
        arrays = [buffers[b] for b in step.buffers]
        if shapes is not None:
            arrays = [self.device.shaped(a, tuple(d(dims) for d in s)) for a, s in zip(arrays, shapes, strict=True)]
        values = dict(zip(self.signature.symbols, dims, strict=True))
        return [*arrays, *(np.int64(values[s]) for s in step.symbols)]

    def _memories(
        self, arrays: Sequence[Array], dims: Sequence[int], shapes: Sequence[tuple[int, ...]], arena: int
    ) -> dict[str, list[Memory]]:
        """The device's memory of each kind of place."""
        device = self.device
        if self._constants is None:
            self._constants = [self._upload(x) for x in self.plan.constants]
        if self._arena[0] < arena:
            self._arena = arena, device.empty(max(arena, 1), np.dtype(np.uint8))
        states = []
        for cell in self.cells:
            mirror = device.mirrors.get(cell)
            if mirror is None:
                mirror = device.mirrors[cell] = Mirror(cell, device)
            mirror.renew(cell, device)
            states.append(mirror.memory)
        outputs = [
            device.empty(max(int(np.prod(shape, dtype=np.int64)), 1), np.dtype(slot.dtype))
            for shape, slot in zip(shapes, self.signature.outputs, strict=True)
        ]
        inputs = [self._upload(x) for x in arrays]
        return {"input": inputs, "state": states, "output": outputs, "constant": self._constants}

    def _upload(self, host: Array) -> Memory:
        memory = self.device.empty(max(host.size, 1), host.dtype)
        if host.size:
            self.device.write(memory, host.reshape(-1))
        return memory

    def _fetch(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        host = np.empty(shape, dtype)
        if host.size:
            self.device.read(memory, host.reshape(-1))
        return host

    def _buffer(self, name: str, memories: Mapping[str, list[Memory]], dims: Sequence[int]) -> Memory:
        place = self.plan.places[name]
        where = self._where[name](dims)
        if place.kind != "arena":
            return memories[place.kind][where]
        count = self._counts[name](dims)
        if count == 0:
            return self.device.empty(1, np.dtype(place.dtype))
        return self.device.view(self._arena[1], where, count, np.dtype(place.dtype))
