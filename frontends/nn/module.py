"""Modules: objects that hold variables, and build graph when they are called on tensors."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...errors import ArtifactError, GraphError, UpdateError
from ...runtime.files import replace_file
from ...runtime.safetensors import decode, encode
from ..shapes import check_name, fail
from ..source import located
from ..tensor import Tensor, Variable

if TYPE_CHECKING:
    from .summary import Summary

__all__ = ["Buffer", "Module", "training"]

Updates = dict[Variable, Tensor]
M = TypeVar("M", bound="Module")


class Buffer(Variable):
    """A variable of a module that is no parameter: the calls of the module change it, no optimizer does.

    Parameters
    ----------
    init, name, dtype : as of `Variable`.
    persistent : whether it is part of the state dict.
    """

    __slots__ = ("persistent",)

    def __init__(self, init: object, name: str | None = None, dtype: object = None, persistent: bool = True) -> None:
        super().__init__(init, name, dtype)
        self.persistent = persistent


class _Frame:
    """What holds during a call, or in a block of `training`: the mode, and the new values of buffers so far."""

    def __init__(self, mode: bool, updates: Updates, module: Module | None = None) -> None:
        self.mode, self.updates, self.module = mode, updates, module


class _Frames(threading.local):
    def __init__(self) -> None:
        self.stack: list[_Frame] = []
        self.observers: list[Any] = []


_frames = _Frames()


@contextmanager
def training(mode: bool = True) -> Iterator[Updates]:
    """A block in which modules are called for training: batch statistics are used, dropout drops.

    It gives a dict that the calls fill with the new values of buffers, such as the running statistics of
    batch normalization: pass them on as updates of the function that trains::

        with gw.nn.training() as updates:
            loss = gw.nn.cross_entropy(model(x), y)
        updates.update(optimizer.updates(loss, model.parameters()))
        train = gw.function([x, y], loss, updates=updates)

    A buffer that several calls change is changed by one after the other. With ``mode=False`` calls are for
    evaluation, as they are outside of any block.
    """
    updates: Updates = {}
    _frames.stack.append(_Frame(bool(mode), updates))
    try:
        yield updates
    finally:
        _frames.stack.pop()


class Module:
    """A part of a model: it holds variables and further modules as attributes, also in lists, tuples and dicts.

    A subclass makes them in ``__init__``, and its ``forward`` builds graph from tensors. A module is called as
    a function; all calls share the variables::

        class Net(gw.nn.Module):
            def __init__(self):
                self.hidden = gw.nn.Linear(784, 100)
                self.out = gw.nn.Linear(100, 10)

            def forward(self, x):
                return self.out(gw.nn.relu(self.hidden(x)))

    Names have dots (``hidden.weight``). The variables are named after them when the module is first called, with
    ``_`` for the dots (``hidden_weight``), and the name given by `named` before it.

    Whether a call is for training is decided by what is nearest: the argument ``training=`` of the call; the mode
    that `train` or `eval` gave the module; the call around it; the block `training` around it; else it is for
    evaluation.
    """

    _mode: bool | None = None
    _name: str = ""

    # --- calls -----------------------------------------------------------------------------------

    @located
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Build the module's graph; `training` tells the mode."""
        fail(type(self).__name__, GraphError, "the module has no method forward", (), "define it: it builds the graph")

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        around = _frames.stack[-1] if _frames.stack else _Frame(False, {})
        if around.module is None:
            self._name_variables()
        modes = (training, self._mode, around.mode)
        frame = _Frame(next(m for m in modes if m is not None), around.updates, self)
        _frames.stack.append(frame)
        try:
            result = self.forward(*args, **kwargs)
        finally:
            _frames.stack.pop()
        for observe in _frames.observers:
            observe(self, result)
        return result

    @property
    def training(self) -> bool:
        """In ``forward``: whether this call is for training."""
        frame = _frames.stack[-1] if _frames.stack else None
        if frame is not None and frame.module is self:
            return frame.mode
        return bool(self._mode)

    def train(self: M, mode: bool | None = True) -> M:
        """Let calls of this module, and of what it calls, be for training (or not; None: as the call around)."""
        self._mode = mode
        return self

    def eval(self: M) -> M:
        """Let calls of this module, and of what it calls, be for evaluation, also within a model that is trained."""
        return self.train(False)

    # --- buffers ---------------------------------------------------------------------------------

    def current(self, buffer: Variable) -> Tensor:
        """In ``forward``: the value of a buffer, after the changes of calls before this one."""
        return _frames.stack[-1].updates.get(buffer, buffer) if _frames.stack else buffer

    @located
    def update(self, buffer: Variable, value: Tensor) -> None:
        """In ``forward``: change a buffer whenever a function with these updates runs."""
        if not _frames.stack:
            fail(type(self).__name__, GraphError, "update works in forward only", [value], "call the module itself")
        _frames.stack[-1].updates[buffer] = value
        self.__dict__["_changed"] = {**self.__dict__.get("_changed", {}), buffer: value}

    def updates(self) -> Updates:
        """The new values of buffers by the latest call that changes them, of this module and all in it."""
        return {b: value for _, m in self.named_modules() for b, value in m.__dict__.get("_changed", {}).items()}

    # --- names -----------------------------------------------------------------------------------

    def named(self: M, name: str) -> M:
        """Put a name before those of the variables, so that two models in one program have different ones.

        Raises
        ------
        GraphError
            If it is no identifier.
        """
        self._name = check_name(name, type(self).__name__)
        return self

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module (under the name ``""``) and all in it, each once, with dotted names."""
        seen: set[int] = set()
        return ((path, found) for path, found in _walk("", self, seen) if isinstance(found, Module))

    def _named_variables(self) -> Iterator[tuple[str, Variable]]:
        seen: set[int] = set()
        return ((path, found) for path, found in _walk("", self, seen) if isinstance(found, Variable))

    def named_parameters(self) -> Iterator[tuple[str, Variable]]:
        """The variables that are trained, each once, with dotted names."""
        found = self._named_variables()  # a random generator is neither parameter nor buffer
        return ((path, v) for path, v in found if v.dtype.is_float and not isinstance(v, Buffer))

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """The variables that calls change, with dotted names."""
        return ((path, v) for path, v in self._named_variables() if isinstance(v, Buffer))

    def parameters(self) -> list[Variable]:
        """The variables that are trained: what optimizers take."""
        return [v for _, v in self.named_parameters()]

    def _name_variables(self) -> None:
        """Name variables after their places, once: functions may have been compiled with their names."""
        for path, module in self.named_modules():
            if "_is_named" in module.__dict__:
                continue
            module.__dict__["_is_named"] = True
            for own, variable in _own_variables(module):
                variable.name = variable._cell.name = self._identifier(f"{path}.{own}")

    def _identifier(self, path: str) -> str:
        name = re.sub(r"\W+", "_", f"{self._name}.{path}", flags=re.ASCII).strip("_")
        return f"{type(self).__name__.lower()}_{name}" if name[:1].isdigit() else name

    # --- states ----------------------------------------------------------------------------------

    def _state(self) -> dict[str, Variable]:
        return {path: v for path, v in self._named_variables() if getattr(v, "persistent", True)}

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the values of parameters and buffers, by dotted name."""
        return {path: v.value for path, v in self._state().items()}

    @located
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Give parameters and buffers the values of a state dict.

        Parameters
        ----------
        state : arrays by dotted name.
        strict : refuse missing and unexpected names; otherwise they are left alone.

        Raises
        ------
        UpdateError
            If a name is missing or unexpected, or a shape or dtype is another. Nothing has changed then.
        """
        own, problems = self._state(), []
        if strict:
            problems += [f"{name!r} is missing" for name in own if name not in state]
            problems += [f"{name!r} is unexpected" for name in state if name not in own]
        shared = {name: np.asarray(state[name]) for name in own if name in state}
        for name, array in shared.items():
            v = own[name]
            if array.shape != v.shape or array.dtype != v.dtype.numpy:
                wanted, found = f"{v.dtype.name}{list(v.shape)}", f"{array.dtype.name}{list(array.shape)}"
                problems.append(f"{name!r} is {found}, the module has {wanted}")
        if problems:
            shown = problems[:8] + [f"... and {len(problems) - 8} more"] * (len(problems) > 8)
            shown.append("give the state of a module built in the same way" + ", or strict=False" * strict)
            what = f"{len(problems)} entries do not fit, so that nothing was loaded"
            fail(f"{type(self).__name__}.load_state_dict", UpdateError, what, (), "\n  ".join(shown))
        for name, array in shared.items():
            own[name].assign(array)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state dict to a safetensors file, which replaces one of this name only when it is whole.

        Raises
        ------
        OSError
            If the file cannot be written; one that stood there is unchanged.
        """
        replace_file(os.path.abspath(path), encode(self.state_dict()))

    @located
    def load(self, path: str | os.PathLike[str], strict: bool = True) -> None:
        """Read a safetensors file into parameters and buffers; see `load_state_dict`.

        Raises
        ------
        ArtifactError
            If the file is damaged.
        UpdateError
            If it is of another module. Nothing has changed then.
        """
        with open(path, "rb") as file:
            data = file.read()
        try:
            state = decode(data)
        except ArtifactError as error:
            raise ArtifactError(f"{os.fspath(path)}: {error}") from None
        self.load_state_dict(state, strict)

    # --- looks -----------------------------------------------------------------------------------

    def summary(self, *inputs: Any, **kwargs: Any) -> Summary:
        """A table of the modules with their outputs' shapes and numbers of parameters.

        Parameters
        ----------
        inputs : for each argument its shape (of float32; sizes may be names, ``("N", 784)``), or a tensor.
        kwargs : further arguments of the call, as they are.
        """
        from .summary import summarize

        return summarize(self, inputs, kwargs)

    def describe(self) -> str:
        """The settings that stand between the parentheses of the module's text."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"


def _walk(path: str, found: Any, seen: set[int]) -> Iterator[tuple[str, Variable | Module]]:
    """Variables and modules in anything, each once, in the order in which they were given."""
    if isinstance(found, (Variable, Module)):
        if id(found) in seen:
            return
        seen.add(id(found))
        yield path, found
    for name, child in _children(found):
        yield from _walk(f"{path}.{name}" if path else name, child, seen)


def _children(found: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Module):
        yield from ((name, child) for name, child in vars(found).items() if name != "_changed")
    elif isinstance(found, (list, tuple)):
        yield from ((str(k), child) for k, child in enumerate(found))
    elif isinstance(found, dict):
        yield from ((str(key), child) for key, child in found.items())


def _own_variables(module: Module) -> Iterator[tuple[str, Variable]]:
    """Those that are in no module in it."""
    seen: set[int] = set()
    stack = list(_children(module))[::-1]
    while stack:
        path, found = stack.pop()
        if isinstance(found, Variable) and id(found) not in seen:
            seen.add(id(found))
            yield path, found
        elif isinstance(found, (list, tuple, dict)):
            stack += [(f"{path}.{name}", child) for name, child in _children(found)][::-1]
