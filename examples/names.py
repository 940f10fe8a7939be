"""First names, letter by letter: sequences of different lengths in one batch, and a hundred new names in one call.

    python examples/names.py --data names.txt
"""

import argparse
from pathlib import Path

import numpy as np

import graphwright as gw
from graphwright import nn

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "names.txt"
FEW = [
    "emma", "olivia", "ava", "isabella", "sophia", "mia", "amelia", "harper", "evelyn", "abigail", "emily", "ella",
    "noah", "liam", "mason", "jacob", "william", "ethan", "james", "alexander", "michael", "benjamin",
]  # fmt: skip
LETTERS = ".abcdefghijklmnopqrstuvwxyz"  # the dot begins and ends a name


class Names(nn.Module):
    """The next letter's scores from the letters before."""

    def __init__(self, hidden: int) -> None:
        self.embed = nn.Embedding(27, 24, rng=0)
        self.rnn = nn.LSTM(24, hidden, rng=1)
        self.out = nn.Linear(hidden, 27, rng=2)

    def forward(self, letters, state=None, lengths=None):
        y, state = self.rnn(self.embed(letters), state, lengths)
        return self.out(y), state


def padded(names):
    """Letters in columns with dots around them, and the lengths."""
    lengths = np.array([len(n) + 1 for n in names])
    codes = np.zeros((lengths.max() + 1, len(names)), np.int64)
    for k, name in enumerate(names):
        codes[1 : len(name) + 1, k] = [LETTERS.index(c) for c in name]
    return codes, lengths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED, help="a name a line; without a file, a few names")
    parser.add_argument("--quick", action="store_true", help="a small model, few steps")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the loss")
    args = parser.parse_args()
    names = args.data.read_text().split() if args.data.exists() else FEW * 20
    rng = np.random.default_rng(0)
    rng.shuffle(names)
    held, known = names[: len(names) // 10], names[len(names) // 10 :]
    steps, hidden = (40, 32) if args.quick else (2000, 128)

    model = Names(hidden)
    codes, lengths = gw.placeholder("codes", "int64", ("T", "N")), gw.placeholder("lengths", "int64", ("N",))
    logits, _ = model(codes[:-1], lengths=lengths)
    losses = nn.cross_entropy(gw.flatten(logits, 0, 1), gw.flatten(codes[1:]), reduction="none")
    inside = gw.arange(codes.shape[0] - 1)[:, None] < lengths
    loss = gw.sum(gw.where(gw.flatten(inside), losses, 0)) / gw.sum(lengths).astype("float32")
    optimizer = gw.optim.AdamW(gw.optim.cosine(5e-3, steps, 1e-4))
    train = gw.function([codes, lengths], loss, updates=optimizer.updates(loss, model.parameters()), name="train")
    test = gw.function([codes, lengths], loss, name="test")

    u = gw.placeholder("u", "float32", ("T", "N"))

    def step(carry, u):
        letter, state = carry
        logits, state = model(letter[None], state)
        below = gw.cumulative_sum(nn.softmax(logits[0]), axis=1) < u[:, None]
        letter = gw.minimum(gw.sum(below.astype("int64"), axis=1), 26)
        return (letter, state), letter

    zero = gw.zeros((1, u.shape[1], hidden))
    _, letters = gw.scan(step, (gw.zeros((u.shape[1],), "int64"), (zero, zero)), u)
    sample = gw.function([u], letters, name="sample")

    curve = []
    for k in range(steps):
        curve.append(float(train(*padded([known[i] for i in rng.integers(0, len(known), 64)]))))
        if (k + 1) % (steps // 4) == 0:
            print(f"step {k + 1}: {np.mean(curve[-steps // 4 :]):.3f} nats a letter, "
                  f"{float(test(*padded(held))):.3f} on names not seen")
    made = sample(rng.random((20, 100), np.float32)).T
    new = sorted({"".join(LETTERS[c] for c in name).partition(".")[0] for name in made} - set(names))
    print(f"{len(new)} of 100 sampled names are new:", *new[:24])
    if args.plot:
        import matplotlib.pyplot as plt

        plt.plot(curve), plt.xlabel("step"), plt.ylabel("nats a letter"), plt.savefig(args.plot)


if __name__ == "__main__":
    main()
