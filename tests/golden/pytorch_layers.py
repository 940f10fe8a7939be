"""Writes pytorch_layers.json, what test_layers.py compares with; needs PyTorch: ``python pytorch_layers.py``."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LENGTHS = [5, 2, 1, 4]
X2, X3, X4 = (4, 6), (5, 4, 3), (2, 4, 4, 3)


def packed(layer, x, *state):
    """A recurrent layer on sequences of different lengths."""
    sequences = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    y, last = layer(sequences, *([state[0] if len(state) == 1 else state] if state else []))
    return pad_packed_sequence(y, total_length=x.shape[0])[0], last


def stated(layer, x, *state):
    return layer(x, state[0] if len(state) == 1 else state)


def attended(layer, q, k, v):
    keys = torch.arange(k.shape[1])[None] >= torch.tensor([[3], [4]])  # True: padding, in PyTorch
    return layer(q, k, v, key_padding_mask=keys, need_weights=False)[0]


def causal(layer, x):
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    return layer(x, x, x, attn_mask=mask, need_weights=False)[0]


def batches(layer, x):
    """Two steps of training, the second of which is compared; the state after them."""
    layer(x * 2 + 1)
    return layer(x)


CASES = {
    "linear": (lambda: nn.Linear(6, 3), [X2]),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), [(2, 4, 9)]),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=(1, 2), groups=2), [X4]),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 3, 3, stride=2, padding=1), [(2, 4, 5)]),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), [X4]),
    "batch_norm_training": (lambda: nn.BatchNorm2d(4), [X4], batches),
    "batch_norm_average": (lambda: nn.BatchNorm1d(6, momentum=None), [X2], batches),
    "batch_norm_evaluation": (lambda: nn.BatchNorm2d(4).eval(), [X4]),
    "layer_norm": (lambda: nn.LayerNorm((4, 3)), [X3]),
    "group_norm": (lambda: nn.GroupNorm(2, 4), [X4]),
    "rms_norm": (lambda: nn.RMSNorm(3, eps=1e-6), [X3]),
    "rnn": (lambda: nn.RNN(3, 4), [X3]),
    "rnn_relu": (lambda: nn.RNN(3, 4, 2, nonlinearity="relu", batch_first=True), [X3]),
    "rnn_packed": (lambda: nn.RNN(3, 4, bidirectional=True), [X3], packed),
    "lstm": (lambda: nn.LSTM(3, 4), [X3]),
    "lstm_stacked": (lambda: nn.LSTM(3, 4, 2, bidirectional=True), [X3, (4, 4, 4), (4, 4, 4)], stated),
    "lstm_projected": (lambda: nn.LSTM(3, 4, 2, proj_size=2), [X3, (2, 4, 2), (2, 4, 4)], stated),
    "lstm_packed": (lambda: nn.LSTM(3, 4, 2, bidirectional=True), [X3, (4, 4, 4), (4, 4, 4)], packed),
    "lstm_projected_packed": (lambda: nn.LSTM(3, 4, bidirectional=True, proj_size=2), [X3], packed),
    "gru": (lambda: nn.GRU(3, 4, bias=False), [X3]),
    "gru_stacked": (lambda: nn.GRU(3, 4, 2, bidirectional=True), [X3, (4, 4, 4)], stated),
    "gru_packed": (lambda: nn.GRU(3, 4, 2, bidirectional=True), [X3], packed),
    "rnn_cell": (lambda: nn.RNNCell(6, 4), [X2, (4, 4)]),
    "lstm_cell": (lambda: nn.LSTMCell(6, 4), [X2, (4, 4), (4, 4)], stated),
    "gru_cell": (lambda: nn.GRUCell(6, 4), [X2, (4, 4)]),
    "attention": (lambda: nn.MultiheadAttention(6, 2, batch_first=True), [(2, 5, 6), (2, 4, 6), (2, 4, 6)], attended),
    "attention_causal": (lambda: nn.MultiheadAttention(6, 3, bias=False, batch_first=True), [(2, 5, 6)], causal),
    "encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), [(2, 5, 6)]),
    "encoder_norm_first": (
        lambda: nn.TransformerEncoderLayer(6, 3, 8, 0.0, "gelu", batch_first=True, norm_first=True), [(2, 5, 6)]
    ),
}  # fmt: skip


def flat(result):
    return [x for part in result for x in flat(part)] if isinstance(result, (tuple, list)) else [result]


def randomized(layer, rng):
    """All parameters and statistics drawn anew, so that none is zero or one."""
    for name, value in layer.state_dict().items():
        if value.is_floating_point():
            low = 0.5 if "var" in name else -0.7
            value.copy_(torch.tensor(rng.uniform(low, 0.9, tuple(value.shape))))
    return layer


def record(make, inputs, call=lambda layer, *x: layer(*x), *, rng):
    layer = randomized(make().double(), rng)
    state = {name: value.tolist() for name, value in layer.state_dict().items()}
    if inputs == "indices":
        indices = torch.tensor([[1, 2, 0], [2, 2, 4]])
        leaves, outputs = [], flat(layer(indices))
        given = [indices.tolist()]
    else:
        leaves = [torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in inputs]
        given, outputs = [x.tolist() for x in leaves], flat(call(layer, *leaves))
    loss = sum((y * torch.cos(torch.arange(y.numel()).double()).reshape(y.shape)).sum() for y in outputs)
    gradients = torch.autograd.grad(loss, [*leaves, *layer.parameters()])
    after = {name: value.tolist() for name, value in layer.state_dict().items()}
    return {
        "state": state, "inputs": given, "outputs": [y.tolist() for y in outputs],
        "by_inputs": [g.tolist() for g in gradients[: len(leaves)]],
        "by_parameters": {n: g.tolist() for (n, _), g in zip(layer.named_parameters(), gradients[len(leaves) :])},
        "after": {name: value for name, value in after.items() if value != state[name]},
    }  # fmt: skip


def main():
    rng = np.random.default_rng(7)
    found = {name: record(*case, rng=rng) for name, case in CASES.items()}
    found["embedding"] = record(lambda: nn.Embedding(5, 3, padding_idx=2), "indices", rng=rng)
    text = json.dumps(json.loads(json.dumps(found), parse_float=lambda s: float(f"{float(s):.11g}")))
    Path(__file__).with_suffix(".json").write_text(text)


if __name__ == "__main__":
    main()
