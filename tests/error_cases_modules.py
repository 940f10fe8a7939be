"""Misuse of modules and layers: a part of the table in ``error_cases.py``."""

from __future__ import annotations

from error_cases import case

INPUT = """
x = gw.placeholder("x", "float32", ("N", 784))
"""
SEQUENCE = """
x = gw.placeholder("x", "float32", ("T", "N", 8))
"""


def module(name: str, title: str, code: str, before: str = INPUT) -> None:
    case("modules", name, title, before.strip("\n") + "\n" + code.strip("\n"))


module("features", "An input with another number of features", """
hidden, out = nn.Linear(784, 100), nn.Linear(128, 10)
y = out(nn.relu(hidden(x)))
""")
module("channels-last", "Channels in the wrong place", """
images = gw.placeholder("images", "float32", ("N", 28, 28, 3))
y = nn.Conv2d(3, 16, 3)(images)
""", "")
module("rank", "A sequence without its batch axis", """
y, _ = nn.LSTM(8, 16)(x[:, 0])
""", SEQUENCE)
module("norm-rank", "Two axes for a norm of images", """
y = nn.BatchNorm2d(784)(x)
""")
module("embedding-floats", "Words that are floats", """
y = nn.Embedding(1000, 16)(x)
""")
module("initial-state", "A first state without its layers axis", """
h = gw.placeholder("h", "float32", ("N", 16))
y, _ = nn.GRU(8, 16)(x, h)
""", SEQUENCE)
module("one-state-of-two", "One state for an LSTM, which has two", """
h = gw.placeholder("h", "float32", (1, "N", 16))
y, _ = nn.LSTM(8, 16)(x, [h])
""", SEQUENCE)
module("kept-state", "A batch of any size with a kept state", """
rnn = nn.RNN(8, 16, stateful=32)
y, _ = rnn(x)
""", SEQUENCE)
module("kept-bidirectional", "A kept state in both directions", """
rnn = nn.LSTM(8, 16, bidirectional=True, stateful=32)
""", "")
module("lengths", "Lengths that are not one for each sequence", """
lengths = gw.placeholder("lengths", "int64", ("T",))
y, _ = nn.LSTM(8, 16)(x, lengths=lengths)
""", SEQUENCE)
module("heads", "Features that do not divide into heads", """
attention = nn.MultiheadAttention(100, 8)
""", "")
module("key-mask", "A mask of numbers", """
e = gw.placeholder("e", "float32", ("N", "L", 64))
mask = gw.placeholder("mask", "float32", ("N", "L"))
y = nn.MultiheadAttention(64, 8)(e, key_mask=mask)
""", "")
module("size", "A size that is no integer", """
layer = nn.Linear(784, 100.0)
""", "")
module("sequential", "A part that is no module", """
model = nn.Sequential(nn.Linear(784, 100), "relu", nn.Linear(100, 10))
""", "")
module("no-forward", "A module without forward", """
class Net(nn.Module):
    def __init__(self):
        self.out = nn.Linear(784, 10)

    def call(self, x):
        return self.out(x)

y = Net()(x)
""")
module("state-dict", "The state of another model", """
small = nn.Sequential(nn.Linear(784, 10))
large = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
large.load_state_dict(small.state_dict())
""", "")
module("two-names", "Two layers with the same names in one artifact", """
first, second = nn.Linear(784, 100), nn.Linear(100, 10)
predict = gw.function([x], second(nn.relu(first(x))), name="predict")
gw.export("model.gwa", {"predict": predict})
""")
module("init-fan", "Glorot's initializer for a vector", """
layer = nn.Linear(784, 100, bias_init=nn.init.glorot_uniform())
""", "")
