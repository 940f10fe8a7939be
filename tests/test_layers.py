"""Layers against PyTorch's (`golden/pytorch_layers.py`), outputs and gradients; what it has not against NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphwright as gw
from graphwright import nn
from graphwright.runtime.structure import flatten

GOLDEN = json.loads((Path(__file__).parent / "golden" / "pytorch_layers.json").read_text())
LENGTHS = np.array([5, 2, 1, 4])
F64 = {"dtype": "float64"}

Call = Callable[..., Any]


def _plain(layer: nn.Module, *x: gw.Tensor) -> Any:
    return layer(*x)


def _stated(layer: nn.Module, x: gw.Tensor, *state: gw.Tensor) -> Any:
    return layer(x, state if len(state) > 1 else state[0])


def _packed(layer: nn.Module, x: gw.Tensor, *state: gw.Tensor) -> Any:
    return layer(x, state or None, lengths=LENGTHS)


def _batches(layer: nn.Module, x: gw.Tensor) -> Any:
    with nn.training():  # the second call goes on from the statistics of the first
        layer(x * 2 + 1)
        return layer(x)


def _attended(layer: nn.Module, q: gw.Tensor, k: gw.Tensor, v: gw.Tensor) -> Any:
    return layer(q, k, v, key_mask=np.arange(4)[None] < np.array([[3], [4]]))


CASES: dict[str, tuple[Callable[[], nn.Module], Call]] = {
    "linear": (lambda: nn.Linear(6, 3, **F64), _plain),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, **F64), _plain),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=(1, 2), groups=2, **F64), _plain),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 3, 3, stride=2, padding=1, **F64), _plain),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, **F64), _plain),
    "batch_norm_training": (lambda: nn.BatchNorm2d(4, **F64), _batches),
    "batch_norm_average": (lambda: nn.BatchNorm1d(6, momentum=None, **F64), _batches),
    "batch_norm_evaluation": (lambda: nn.BatchNorm2d(4, **F64), _plain),
    "layer_norm": (lambda: nn.LayerNorm((4, 3), **F64), _plain),
    "group_norm": (lambda: nn.GroupNorm(2, 4, **F64), _plain),
    "rms_norm": (lambda: nn.RMSNorm(3, **F64), _plain),
    "rnn": (lambda: nn.RNN(3, 4, **F64), _plain),
    "rnn_relu": (lambda: nn.RNN(3, 4, 2, nonlinearity="relu", batch_first=True, **F64), _plain),
    "rnn_packed": (lambda: nn.RNN(3, 4, bidirectional=True, **F64), _packed),
    "lstm": (lambda: nn.LSTM(3, 4, **F64), _plain),
    "lstm_stacked": (lambda: nn.LSTM(3, 4, 2, bidirectional=True, **F64), _stated),
    "lstm_projected": (lambda: nn.LSTM(3, 4, 2, proj_size=2, **F64), _stated),
    "lstm_packed": (lambda: nn.LSTM(3, 4, 2, bidirectional=True, **F64), _packed),
    "lstm_projected_packed": (lambda: nn.LSTM(3, 4, bidirectional=True, proj_size=2, **F64), _packed),
    "gru": (lambda: nn.GRU(3, 4, bias=False, **F64), _plain),
    "gru_stacked": (lambda: nn.GRU(3, 4, 2, bidirectional=True, **F64), _stated),
    "gru_packed": (lambda: nn.GRU(3, 4, 2, bidirectional=True, **F64), _packed),
    "rnn_cell": (lambda: nn.RNNCell(6, 4, **F64), _stated),
    "lstm_cell": (lambda: nn.LSTMCell(6, 4, **F64), _stated),
    "gru_cell": (lambda: nn.GRUCell(6, 4, **F64), _stated),
    "attention": (lambda: nn.MultiheadAttention(6, 2, **F64), _attended),
    "attention_causal": (
        lambda: nn.MultiheadAttention(6, 3, bias=False, **F64), lambda layer, x: layer(x, is_causal=True)
    ),
    "encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 8, **F64), _plain),
    "encoder_norm_first": (
        lambda: nn.TransformerEncoderLayer(6, 3, 8, activation="gelu", norm_first=True, **F64), _plain
    ),
    "embedding": (lambda: nn.Embedding(5, 3, padding_idx=2, **F64), _plain),
}  # fmt: skip


def loaded(layer: nn.Module, state: dict[str, Any]) -> nn.Module:
    own = layer.state_dict()
    layer.load_state_dict({name: np.array(v, own[name].dtype if name in own else None) for name, v in state.items()})
    return layer


def compiled(layer: nn.Module, call: Call, inputs: list[np.ndarray[Any, Any]]) -> gw.Function:
    """Outputs, gradients by inputs and by parameters; the loss weighs all elements differently."""
    xs = [gw.placeholder(f"x{k}", x.dtype, x.shape) for k, x in enumerate(inputs)]
    outputs, _ = flatten(call(layer, *xs))
    weights = [np.cos(np.arange(y.size)).reshape(y.shape) for y in outputs]
    loss = sum(gw.sum(y * w) for y, w in zip(outputs, weights))
    floats = [x for x in xs if x.dtype.is_float]
    gradients = gw.grad(loss, [floats, layer.parameters()])
    return gw.function(xs, [outputs, *gradients], updates=layer.updates())


@pytest.mark.parametrize("name", CASES)
def test_layers_are_those_of_pytorch(name: str) -> None:
    make, call = CASES[name]
    expected = GOLDEN[name]
    layer = loaded(make(), expected["state"])
    inputs = [np.array(x) for x in expected["inputs"]]
    outputs, by_inputs, by_parameters = compiled(layer, call, inputs)(*inputs)
    close = {"rtol": 1e-8, "atol": 1e-9}
    for found, wanted in zip(outputs, expected["outputs"], strict=True):
        np.testing.assert_allclose(found, wanted, **close)
    for found, wanted in zip(by_inputs, expected["by_inputs"], strict=True):
        np.testing.assert_allclose(found, wanted, **close)
    found_by_name = dict(zip([n for n, _ in layer.named_parameters()], by_parameters, strict=True))
    assert set(found_by_name) == set(expected["by_parameters"])
    for parameter, wanted in expected["by_parameters"].items():
        np.testing.assert_allclose(found_by_name[parameter], wanted, **close, err_msg=parameter)
    after = layer.state_dict()
    for buffer, wanted in expected["after"].items():
        np.testing.assert_allclose(after[buffer], wanted, **close, err_msg=buffer)
    unchanged = set(expected["state"]) - set(expected["after"])
    assert all(np.array_equal(after[n], np.array(expected["state"][n])) for n in unchanged)
    assert bool(expected["after"]) == name.startswith(("batch_norm_training", "batch_norm_average"))


# --- what PyTorch has not ------------------------------------------------------------------------


def _sigmoid(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return 1 / (1 + np.exp(-x))


def _random(layer: nn.Module, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    state = {name: rng.normal(size=v.shape) for name, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    return state


def test_peepholes_follow_their_paper() -> None:
    layer = nn.LSTM(3, 4, peepholes=True, **F64)
    s = _random(layer)
    x = np.random.default_rng(1).normal(size=(5, 2, 3))
    (y, h, c), *_ = compiled(layer, _plain, [x])(x)
    state = cell = np.zeros((2, 4))
    p, b = s["weight_c_l0"], s["bias_ih_l0"] + s["bias_hh_l0"]
    for t in range(5):
        i, f, g, o = np.split(x[t] @ s["weight_ih_l0"].T + state @ s["weight_hh_l0"].T + b, 4, axis=1)
        old = cell
        cell = _sigmoid(f + p[1] * old) * old + _sigmoid(i + p[0] * old) * np.tanh(g)
        state = _sigmoid(o + p[2] * cell) * np.tanh(cell)
        np.testing.assert_allclose(y[t], state)
    np.testing.assert_allclose([h[0], c[0]], [state, cell])


@pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
def test_gru_with_reset_before_the_product(cell: bool) -> None:
    kind = nn.GRUCell if cell else nn.GRU
    layer = kind(3, 4, reset_after=False, **F64)
    w = dict(zip(["W", "U", "b", "c"], _random(layer).values()))
    x, h = np.random.default_rng(1).normal(size=(3, 2, 3)), np.zeros((2, 4))
    inputs = [x[0], h] if cell else [x]
    (y, *_), *_ = compiled(layer, _plain, inputs)(*inputs)
    for t in range(1 if cell else 3):
        a_r, a_u, a_n = np.split(x[t] @ w["W"].T + w["b"] + w["c"], 3, axis=1)
        b_r, b_u = np.split(h @ w["U"][:8].T, 2, axis=1)
        r, u = _sigmoid(a_r + b_r), _sigmoid(a_u + b_u)
        h = (1 - u) * np.tanh(a_n + (r * h) @ w["U"][8:].T) + u * h
        np.testing.assert_allclose(y if cell else y[t], h)


def test_a_kept_state_continues_the_sequence() -> None:
    whole, kept = nn.LSTM(3, 4, 2), nn.LSTM(3, 4, 2, stateful=2)
    kept.load_state_dict(whole.state_dict())
    x = gw.placeholder("x", "float32", ("T", 2, 3))
    data = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    expected = gw.function([x], whole(x)[0])(data)
    step = gw.function([x], kept(x)[0], updates=kept.updates())
    for _ in range(2):
        parts = [step(data[k : k + 2]) for k in (0, 2, 4)]
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-5, atol=1e-6)
        kept.reset_state()
    assert set(kept.state_dict()) == set(whole.state_dict())


def test_trees_grow_from_their_leaves() -> None:
    layer = nn.TreeLSTM(3, 4, **F64)
    s = _random(layer)
    x = np.random.default_rng(1).normal(size=(6, 3))
    children = np.array([[1, 2, 4], [3, -1, -1], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    xs, below = gw.placeholder("xs", "float64", ("n", 3)), gw.placeholder("below", "int64", ("n", "k"))
    h, c = layer(xs, below, 3)
    gradient = gw.grad(gw.sum(h[0] * h[0]), xs)
    found_h, found_c, slope = gw.function([xs, below], [h, c, gradient])(x, children)

    def grown(node: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        inner = [grown(k) for k in children[node] if k >= 0]
        i, o, u, f = np.split(s["weight_x"] @ x[node] + s["bias"], 4)
        ui, uo, uu, uf = np.split(s["weight_h"], 4)
        total = sum((h for h, _ in inner), np.zeros(4))
        c = _sigmoid(i + ui @ total) * np.tanh(u + uu @ total)
        c = c + sum((_sigmoid(f + uf @ h) * cell for h, cell in inner), np.zeros(4))
        return _sigmoid(o + uo @ total) * np.tanh(c), c

    for node in range(6):
        expected_h, expected_c = grown(node)
        np.testing.assert_allclose(found_h[node], expected_h)
        np.testing.assert_allclose(found_c[node], expected_c)
    assert (slope[:5] != 0).all() and (slope[5] == 0).all()  # the last node is a tree of its own


def test_layers_work_with_every_batch_and_length() -> None:
    layer = nn.GRU(3, 4, bidirectional=True, batch_first=True)
    x, lengths = gw.placeholder("x", "float32", ("N", "T", 3)), gw.placeholder("lengths", "int64", ("N",))
    f = gw.function([x, lengths], layer(x, lengths=lengths)[0])
    data = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    ends = np.array([6, 3, 1, 0])
    together = f(data, ends)
    for k, n in enumerate(ends):
        assert (together[k, n:] == 0).all()
        np.testing.assert_allclose(f(data[k : k + 1, :n], ends[k : k + 1])[0], together[k, :n], rtol=1e-5, atol=1e-6)


def _halved(x: gw.Tensor) -> gw.Tensor:
    return x * 0.5


def test_dropout_stands_between_recurrent_layers() -> None:
    both = nn.GRU(3, 4, 2, dropout=_halved, **F64)
    parts = [nn.GRU(3, 4, **F64), nn.GRU(4, 4, **F64)]
    for k, part in enumerate(parts):
        part.load_state_dict({n[:-1] + "0": v for n, v in both.state_dict().items() if n.endswith(str(k))})
    x = gw.placeholder("x", "float64", (5, 2, 3))
    f = gw.function([x], [both(x)[0], parts[1](_halved(parts[0](x)[0]))[0]])
    found, expected = f(np.random.default_rng(0).normal(size=(5, 2, 3)))
    np.testing.assert_allclose(found, expected)


def test_dropout_stands_where_pytorch_has_it_in_an_encoder() -> None:
    seen = []

    def observe(x: gw.Tensor) -> gw.Tensor:
        seen.append(x.shape)
        return x

    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=observe)
    layer(gw.placeholder("x", "float32", ("N", 5, 6)))
    assert [s[1:] for s in seen] == [(2, 5, 5), (5, 6), (5, 8), (5, 6)]  # weights, attention, hidden, result
