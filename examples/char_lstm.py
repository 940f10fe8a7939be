"""A character model: LSTM or GRU on Shakespeare's plays, in bits per character, and text sampled in one compiled call.

    python examples/char_lstm.py --data tinyshakespeare.txt --cell gru --plot curve.png
"""

import argparse
import time
from pathlib import Path

import numpy as np

import graphwright as gw
from graphwright import nn

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "tinyshakespeare.txt"
RHYME = "the rain in spain stays mainly in the plain. a cat sat on a mat and a rat ran at that.\n" * 100


class CharModel(nn.Module):
    """The next character's scores from the characters before; in training, the state goes on from call to call."""

    def __init__(self, cell: str, vocabulary: int, hidden: int, batch: int) -> None:
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.embed = nn.Embedding(vocabulary, 64, rng=0)
        self.rnn = kind(64, hidden, stateful=batch, rng=1)
        self.out = nn.Linear(hidden, vocabulary, rng=2)

    def forward(self, chars, state=None):
        y, state = self.rnn(self.embed(chars), state)
        return self.out(y), state

    def start(self, batch):
        """A state of zeros."""
        parts = tuple(gw.zeros((1, batch, self.rnn.hidden_size)) for _ in self.rnn.state_names)
        return parts if len(parts) > 1 else parts[0]


def cross_entropy(logits, targets):
    return nn.cross_entropy(gw.flatten(logits, 0, 1), gw.flatten(targets))


def trainer(model, batch, steps):
    """One step of truncated backpropagation through time."""
    x, y = gw.placeholder("x", "int64", ("T", batch)), gw.placeholder("y", "int64", ("T", batch))
    with nn.training() as updates:
        loss = cross_entropy(model(x)[0], y)
    gradients = gw.optim.clip_by_norm(gw.grad(loss, model.parameters()), 1.0)
    rate = gw.optim.cosine(4e-3, steps, 4e-4)
    updates.update(gw.optim.AdamW(rate).updates(gradients, model.parameters()))
    return gw.function([x, y], loss, updates=updates, name="train")


def measure(model):
    """The mean loss of texts side by side, each from its beginning."""
    x, y = gw.placeholder("x", "int64", ("T", "N")), gw.placeholder("y", "int64", ("T", "N"))
    return gw.function([x, y], cross_entropy(model(x, model.start("N"))[0], y), name="measure")


def sampler(model, temperature):
    """A text as long as the random numbers given: the whole loop is one native call."""
    first, u = gw.placeholder("first", "int64", ()), gw.placeholder("u", "float32", ("T",))

    def step(carry, u):
        char, state = carry
        logits, state = model(gw.reshape(char, (1, 1)), state)
        below = gw.cumulative_sum(nn.softmax(logits[0, 0] / temperature)) < u
        char = gw.minimum(gw.sum(below.astype("int64")), logits.shape[-1] - 1)
        return (char, state), char

    _, chars = gw.scan(step, (first, model.start(1)), u)
    return gw.function([first, u], chars, name="sample")


def side_by_side(codes, batch):
    """The text in columns, and the same one character later."""
    length = (len(codes) - 1) // batch
    columns = [codes[k : k + length * batch].reshape(batch, length).T for k in (0, 1)]
    return [np.ascontiguousarray(c) for c in columns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED, help="a text file; without one, a rhyme")
    parser.add_argument("--cell", choices=("lstm", "gru"), default="lstm")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a small model, a few steps")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the loss")
    args = parser.parse_args()
    text = args.data.read_text() if args.data.exists() else RHYME
    text, hidden, epochs = (text[:8000], 32, 1) if args.quick else (text, args.hidden, args.epochs)
    letters = sorted(set(text))
    codes = np.array([letters.index(c) for c in text])
    cut, T, batch = len(codes) * 9 // 10, 50, 8 if args.quick else 32
    x, y = side_by_side(codes[:cut], batch)
    rows = range(0, len(x) - T + 1, T)

    model = CharModel(args.cell, len(letters), hidden, batch)
    train, test, sample = trainer(model, batch, epochs * len(rows)), measure(model), sampler(model, 0.7)
    size = sum(p.value.size for p in model.parameters())
    print(f"{args.cell} of {hidden}: {len(text):,} characters, {size:,} parameters, {len(rows) * epochs} steps")
    losses, start = [], time.perf_counter()
    for epoch in range(epochs):
        model.rnn.reset_state()
        losses += [float(train(x[k : k + T], y[k : k + T])) for k in rows]
        bits = float(test(*side_by_side(codes[cut:], 10))) / np.log(2)
        mean = np.mean(losses[-len(rows):]) / np.log(2)
        print(f"epoch {epoch + 1}: {mean:.3f} bits per character in training, {bits:.3f} on text not seen, "
              f"{time.perf_counter() - start:.0f} s")
    u = np.random.default_rng(0).random(100 if args.quick else 600, np.float32)
    print("".join(letters[c] for c in sample(letters.index("\n"), u)))
    if args.plot:
        import matplotlib.pyplot as plt

        plt.plot(np.convolve(losses, np.ones(20) / 20, "valid") / np.log(2))
        plt.xlabel("step"), plt.ylabel("bits per character"), plt.savefig(args.plot)


if __name__ == "__main__":
    main()
