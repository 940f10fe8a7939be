"""Recurrent layers: RNN, LSTM, GRU; stacked, in both directions, of sequences of different lengths, with kept state.

Names, layouts and the order of gates are PyTorch's: ``weight_ih_l0 [gates * H, in]`` for the input of layer 0,
``weight_hh_l0 [gates * H, H]`` for its state, ``..._reverse`` for the other direction. The products of all steps with
the input are one product before the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.dims import Dim, equal
from ...ir.dtypes import as_dtype
from ...ir.types import shape_text
from .. import array_api
from ..array_api import arange, asarray, concat, permute_dims, stack, tanh, where, zeros
from ..control import scan
from ..shapes import fail
from ..source import located
from ..tensor import ArrayLike, Tensor, Variable
from . import init as initial
from .activations import relu, sigmoid
from .convolution import linear
from .layers import check_features, sizes
from .module import Buffer, Module

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]

States = tuple[Tensor, ...]


def _parts(z: Tensor, count: int, size: int) -> list[Tensor]:
    """Gates of one size, side by side along the last axis."""
    return [z[..., k * size : (k + 1) * size] for k in range(count)]


# --- one step ------------------------------------------------------------------------------------


class _Kind(Module):
    """What the layer and the cell of a kind share: parameters, and one step.

    Attributes
    ----------
    gates : number of blocks of rows of a weight.
    state_names : the states; the first one is the output.
    """

    gates = 1
    state_names: tuple[str, ...] = ("h",)
    hidden_size: int
    proj_size = 0

    def input_bias(self, w: SimpleNamespace) -> Tensor | None:
        """What of the biases is added to the input's product."""
        return None if w.bias_ih is None else w.bias_ih + w.bias_hh

    def step(self, z: Tensor, states: States, w: SimpleNamespace) -> States:
        """New states from the input's product with the weights, and the states before."""
        raise NotImplementedError

    def make_weights(
        self, suffix: str, inputs: int, bias: bool, init: Sequence[initial.Initializer | None],
        rng: np.random.Generator, dtype: object,
    ) -> None:  # fmt: skip
        """Parameters of one layer in one direction; each gate's block is initialized by itself."""
        rows, outputs = self.gates * self.hidden_size, self.proj_size or self.hidden_size
        makers = (init[0] or initial.glorot_uniform(), init[1] or initial.orthogonal())
        for name, columns, make in zip(("weight_ih", "weight_hh"), (inputs, outputs), makers):
            blocks = [make((self.hidden_size, columns), rng) for _ in range(self.gates)]
            self.add(name + suffix, np.concatenate(blocks), dtype)
        if bias:
            self.add("bias_ih" + suffix, self.first_bias(), dtype)
            self.add("bias_hh" + suffix, np.zeros(rows), dtype)
        if self.proj_size:
            values = initial.glorot_uniform()((self.proj_size, self.hidden_size), rng)
            self.add("weight_hr" + suffix, values, dtype)

    def first_bias(self) -> np.ndarray[Any, Any]:
        return np.zeros(self.gates * self.hidden_size)

    def add(self, name: str, values: np.ndarray[Any, Any], dtype: object) -> None:
        setattr(self, name, Variable(values, name=name, dtype=as_dtype(dtype)))

    def weights(self, suffix: str = "") -> SimpleNamespace:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_c")
        return SimpleNamespace(**{name: getattr(self, name + suffix, None) for name in names})

    def state_size(self, name: str) -> int:
        return self.proj_size if name == "h" and self.proj_size else self.hidden_size


class _RNN(_Kind):
    activation: Callable[[Tensor], Tensor] = staticmethod(tanh)

    def step(self, z: Tensor, states: States, w: SimpleNamespace) -> States:
        return (self.activation(z + linear(states[0], w.weight_hh)),)

    def choose(self, nonlinearity: str) -> None:
        choices = {"tanh": tanh, "relu": relu}
        if nonlinearity not in choices:
            fail(type(self).__name__, GraphError, f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        self.activation = choices[nonlinearity]


class _LSTM(_Kind):
    gates = 4
    state_names = ("h", "c")
    forget_bias = 1.0

    def first_bias(self) -> np.ndarray[Any, Any]:
        bias = super().first_bias()
        bias[self.hidden_size : 2 * self.hidden_size] = self.forget_bias
        return bias

    def make_weights(self, suffix: str, *args: Any) -> None:
        super().make_weights(suffix, *args)
        if self.peepholes:
            self.add("weight_c" + suffix, np.zeros((3, self.hidden_size)), args[-1])

    peepholes = False

    def step(self, z: Tensor, states: States, w: SimpleNamespace) -> States:
        h, c = states
        i, f, g, o = _parts(z + linear(h, w.weight_hh), 4, self.hidden_size)
        if w.weight_c is not None:
            i, f = i + w.weight_c[0] * c, f + w.weight_c[1] * c
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        if w.weight_c is not None:
            o = o + w.weight_c[2] * c
        h = sigmoid(o) * tanh(c)
        return (h if w.weight_hr is None else linear(h, w.weight_hr)), c


class _GRU(_Kind):
    gates = 3
    reset_after = True

    def input_bias(self, w: SimpleNamespace) -> Tensor | None:
        if w.bias_ih is None or not self.reset_after:
            return super().input_bias(w)
        n = 2 * self.hidden_size
        return concat([w.bias_ih[:n] + w.bias_hh[:n], w.bias_ih[n:]])

    def step(self, z: Tensor, states: States, w: SimpleNamespace) -> States:
        (h,), size = states, self.hidden_size
        a_r, a_u, a_n = _parts(z, 3, size)
        if self.reset_after:
            b_r, b_u, b_n = _parts(linear(h, w.weight_hh), 3, size)
            r, u = sigmoid(a_r + b_r), sigmoid(a_u + b_u)
            new = tanh(a_n + r * (b_n if w.bias_hh is None else b_n + w.bias_hh[2 * size :]))
        else:
            b_r, b_u = _parts(linear(h, w.weight_hh[: 2 * size]), 2, size)
            r, u = sigmoid(a_r + b_r), sigmoid(a_u + b_u)
            new = tanh(a_n + linear(r * h, w.weight_hh[2 * size :]))
        return ((1 - u) * new + u * h,)


# --- layers --------------------------------------------------------------------------------------


class _Layer(_Kind):
    """Sequences ``[T, N, in]`` through one or more layers of a kind."""

    @located
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        bidirectional: bool = False, *, dropout: Callable[[Tensor], Tensor] | None = None, stateful: int | None = None,
        input_init: initial.Initializer | None = None, hidden_init: initial.Initializer | None = None,
        rng: initial.Seed = None, dtype: object = "float32",
    ) -> None:  # fmt: skip
        name, self.dtype = type(self).__name__, as_dtype(dtype)
        sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        self.input_size, self.hidden_size, self.num_layers = int(input_size), int(hidden_size), int(num_layers)
        self.batch_first, self.bidirectional, self.dropout = batch_first, bidirectional, dropout
        rng, inputs = initial.generator(rng), self.input_size
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                self.make_weights(suffix, inputs, bias, (input_init, hidden_init), rng, dtype)
            inputs = (1 + bidirectional) * (self.proj_size or self.hidden_size)
        self.states: dict[str, Buffer] = {}
        self.stateful = stateful
        if stateful is not None:
            self._keep_states(stateful)

    def _keep_states(self, batch: int) -> None:
        sizes(type(self).__name__, stateful=batch)
        if self.bidirectional:
            fail(type(self).__name__, GraphError, "a state that is kept has one direction",
                 advice="what comes after a sequence is not known yet: leave out bidirectional or stateful")
        for name in self.state_names:
            first = np.zeros((self.num_layers, batch, self.state_size(name)))
            self.states[name] = Buffer(first, f"state_{name}", self.dtype, persistent=False)

    def reset_state(self) -> None:
        """Begin anew: the kept state becomes zeros."""
        for buffer in self.states.values():
            buffer.assign(np.zeros(buffer.shape, buffer.dtype.numpy))

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", *[f"_l{layer}_reverse"] * self.bidirectional]

    @located
    def forward(
        self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None,
    ) -> tuple[Tensor, Any]:
        x = asarray(x)
        check_features(self, x, -1, self.input_size, (3,))
        if x.dtype != self.dtype:
            fail(repr(self), DTypeError, f"needs an input of {self.dtype!r}, got {x.dtype!r}", [x], "cast with astype")
        x = permute_dims(x, (1, 0, 2)) if self.batch_first else x
        before = self._first_states(x.shape[1], state)
        mask = None if lengths is None else self._mask(x, lengths)
        finals: list[States] = []
        for layer in range(self.num_layers):
            x, outputs = (x if layer == 0 or self.dropout is None else self.dropout(x)), []
            for suffix in self._suffixes(layer):
                first = tuple(s[len(finals)] for s in before)
                y, last = self._run(x, first, mask, self.weights(suffix), suffix.endswith("reverse"))
                outputs.append(y)
                finals.append(last)
            x = outputs[0] if len(outputs) == 1 else concat(outputs, -1)
        after = tuple(stack(list(column)) for column in zip(*finals))
        for buffer, value in zip(self.states.values(), after) if state is None else ():
            self.update(buffer, value)
        return permute_dims(x, (1, 0, 2)) if self.batch_first else x, after[0] if len(after) == 1 else after

    def _run(
        self, x: Tensor, first: States, mask: Tensor | None, w: SimpleNamespace, reverse: bool,
    ) -> tuple[Tensor, States]:
        """One layer in one direction: its outputs and its last states."""
        z = linear(x, w.weight_ih, self.input_bias(w))  # of all steps, before the loop

        def step(states: States, element: Any) -> tuple[States, Tensor]:
            if mask is None:
                new = self.step(element, states, w)
                return new, new[0]
            z, alive = element
            new = self.step(z, states, w)
            return tuple(where(alive, a, b) for a, b in zip(new, states)), where(alive, new[0], 0)

        last, y = scan(step, first, z if mask is None else (z, mask), reverse=reverse)
        return y, last

    def _mask(self, x: Tensor, lengths: ArrayLike) -> Tensor:
        lengths = asarray(lengths)
        if not lengths.dtype.is_integer:
            fail(repr(self), DTypeError, f"lengths must be integers, got {lengths.dtype!r}", [lengths])
        if lengths.ndim != 1 or not equal(lengths.shape[0], x.shape[1]):
            fail(repr(self), ShapeError, f"lengths are [{shape_text(lengths.shape)}], one for each of the "
                 f"{x.shape[1]} sequences is needed", [x, lengths])
        steps = arange(x.shape[0], dtype=lengths.dtype)
        return array_api.expand_dims(steps, (1, 2)) < array_api.expand_dims(lengths, (0, 2))

    def _first_states(self, batch: Dim, given: Any) -> States:
        """The states before the first step, each ``[layers * directions, N, H]``."""
        count = self.num_layers * (1 + self.bidirectional)
        shapes = [(count, batch, self.state_size(name)) for name in self.state_names]
        if given is None and not self.states:
            return tuple(zeros(shape, self.dtype) for shape in shapes)
        if given is None:
            if not equal(batch, self.stateful):
                fail(repr(self), ShapeError, f"the batch has {batch} sequences, the kept state is of {self.stateful}",
                     advice="give the placeholder this size, or give a state")
            return tuple(self.current(b) for b in self.states.values())
        states = (given,) if len(shapes) == 1 and not isinstance(given, (tuple, list)) else tuple(given)
        if len(states) != len(shapes):
            fail(repr(self), GraphError, f"the state has {len(states)} parts, not {len(shapes)}",
                 advice=f"give ({', '.join(self.state_names)})")
        return tuple(self._checked(name, s, shape) for name, s, shape in zip(self.state_names, states, shapes))

    def _checked(self, name: str, given: ArrayLike, shape: tuple[Dim, ...]) -> Tensor:
        state = asarray(given)
        if state.dtype != self.dtype or state.ndim != 3 or not all(map(equal, state.shape, shape)):
            error = DTypeError if state.dtype != self.dtype else ShapeError
            wanted, got = (f"{t.name}[{shape_text(s)}]" for t, s in ((self.dtype, shape), (state.dtype, state.shape)))
            fail(repr(self), error, f"state {name} must be {wanted}, got {got}", [state],
                 "its axes are layers * directions, batch, features")
        return state

    def describe(self) -> str:
        extra = {"num_layers": 1, "batch_first": False, "bidirectional": False, "proj_size": 0, "stateful": None}
        set_ = [f"{key}={getattr(self, key)}" for key, usual in extra.items() if getattr(self, key) != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *set_])


_PARAMETERS = """
    Parameters
    ----------
    input_size, hidden_size : features of the input, and of the state.
    num_layers : layers on top of each other.
    bias : whether biases are added.
    batch_first : whether sequences are ``[N, T, ...]`` instead of ``[T, N, ...]``.
    bidirectional : a second direction, from the end; its outputs are beside those of the first.
    dropout : applied to what one layer gives the next: ``nn.Dropout(p, rng=...)``.
    stateful : a batch size, to keep the state in buffers from one call of a function to the next (pass
        `Module.updates` to it; `reset_state` begins anew).
    input_init, hidden_init : initializers of a gate's block of the weights; default: Glorot's, and orthogonal.
    rng : a generator or seed for them; default: the shared one (`nn.init.seed`).

    Called with ``(x, state=None, lengths=None)``: the sequences, the states before the first step (default: zeros)
    ``[layers * directions, N, H]``, and the number of elements of each sequence (default: all). Beyond its end a
    sequence's state stays as it is, and its output is 0; the other direction begins at its end.

    Returns the outputs ``[T, N, directions * H]`` and the states after the last step.
    """


class RNN(_Layer, _RNN):
    __doc__ = "``h = tanh(W_ih x + b_ih + W_hh h + b_hh)``; or relu, by `nonlinearity` (Elman 1990)." + _PARAMETERS

    @located
    def __init__(self, *args: Any, nonlinearity: str = "tanh", **keywords: Any) -> None:
        self.choose(nonlinearity)
        super().__init__(*args, **keywords)


class LSTM(_Layer, _LSTM):
    __doc__ = (
        """Long short-term memory (Hochreiter and Schmidhuber 1997), with forget gates (Gers et al. 2000).

    Gates are i, f, g, o: ``c = sigmoid(f) * c + sigmoid(i) * tanh(g)`` and ``h = sigmoid(o) * tanh(c)``. The state is
    ``(h, c)``. Besides: `proj_size`, the features of h after a projection ``weight_hr`` (Sak et al. 2014);
    `peepholes`, whether i and f see the old c, and o the new one, by ``weight_c [3, H]`` (Gers and Schmidhuber 2000);
    `forget_bias`, the first bias of f (1: Jozefowicz et al. 2015).
    """
        + _PARAMETERS
    )

    @located
    def __init__(
        self, *args: Any, proj_size: int = 0, peepholes: bool = False, forget_bias: float = 1.0, **keywords: Any,
    ) -> None:
        sizes("LSTM", 0, proj_size=proj_size)
        self.proj_size, self.peepholes, self.forget_bias = int(proj_size), bool(peepholes), forget_bias
        super().__init__(*args, **keywords)


class GRU(_Layer, _GRU):
    __doc__ = (
        """Gated recurrent units (Cho et al. 2014).

    Gates are r, u, n: ``h = (1 - u) * n + u * h``, where with `reset_after` ``n = tanh(W x + b + r * (U h + b'))``, as
    PyTorch and cuDNN have it, and without ``n = tanh(W x + b + U (r * h) + b')``, as in the paper.
    """
        + _PARAMETERS
    )

    @located
    def __init__(self, *args: Any, reset_after: bool = True, **keywords: Any) -> None:
        self.reset_after = reset_after
        super().__init__(*args, **keywords)


# --- cells ---------------------------------------------------------------------------------------


class _Cell(_Kind):
    """One step on ``[N, in]``, to be used in loops of one's own; names are those of the layers without ``_l0``."""

    @located
    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, input_init: initial.Initializer | None = None,
        hidden_init: initial.Initializer | None = None, rng: initial.Seed = None, dtype: object = "float32",
    ) -> None:  # fmt: skip
        sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = int(input_size), int(hidden_size)
        self.make_weights("", self.input_size, bias, (input_init, hidden_init), initial.generator(rng), dtype)

    @located
    def forward(self, x: ArrayLike, state: Any) -> Any:
        """The new state, nested as the old one."""
        x, w = asarray(x), self.weights()
        check_features(self, x, -1, self.input_size)
        states = tuple(map(asarray, state)) if len(self.state_names) > 1 else (asarray(state),)
        new = self.step(linear(x, w.weight_ih, self.input_bias(w)), states, w)
        return new if len(new) > 1 else new[0]

    def describe(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


class RNNCell(_Cell, _RNN):
    """One step of `RNN`: called with ``(x, h)``, gives h."""

    @located
    def __init__(self, *args: Any, nonlinearity: str = "tanh", **keywords: Any) -> None:
        self.choose(nonlinearity)
        super().__init__(*args, **keywords)


class LSTMCell(_Cell, _LSTM):
    """One step of `LSTM`: called with ``(x, (h, c))``, gives ``(h, c)``."""


class GRUCell(_Cell, _GRU):
    """One step of `GRU`: called with ``(x, h)``, gives h."""

    @located
    def __init__(self, *args: Any, reset_after: bool = True, **keywords: Any) -> None:
        self.reset_after = reset_after
        super().__init__(*args, **keywords)
