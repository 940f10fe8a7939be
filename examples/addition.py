"""Addition as translation: a network with attention reads "57+8" and writes "65", digit by digit, in one compiled loop.

    python examples/addition.py --plot attention.png
"""

import argparse

import numpy as np

import graphwright as gw
from graphwright import nn

SIGNS = "0123456789+ $"  # a blank fills up, the dollar begins an answer
DIGITS, ASKED, ANSWERED = 3, 7, 4


class Adder(nn.Module):
    """An encoder in both directions; a decoder that looks at its states (Luong et al. 2015, dot product)."""

    def __init__(self, hidden: int) -> None:
        self.embed = nn.Embedding(len(SIGNS), 16, rng=0)
        self.encoder = nn.GRU(16, hidden, bidirectional=True, rng=1)
        self.bridge = nn.Linear(2 * hidden, hidden, rng=2)
        self.decoder = nn.GRUCell(16, hidden, rng=3)
        self.mix = nn.Linear(2 * hidden, hidden, rng=4)
        self.out = nn.Linear(hidden, len(SIGNS), rng=5)

    def read(self, question):
        """What the decoder looks at ``[T, N, H]``, and its first state."""
        states, last = self.encoder(self.embed(question))
        memory = gw.tanh(self.bridge(states))
        return memory, gw.tanh(self.bridge(gw.concat([last[0], last[1]], axis=-1)))

    def write(self, memory, state, sign):
        """One step: the new state, the next sign's scores, and where it looked."""
        state = self.decoder(self.embed(sign), state)
        looks = nn.softmax(gw.sum(memory * state, axis=-1), axis=0)
        seen = gw.sum(memory * looks[:, :, None], axis=0)
        return state, self.out(gw.tanh(self.mix(gw.concat([state, seen], axis=-1)))), looks

    def forward(self, question, answer):
        """Scores of an answer's signs, each from the right ones before it."""
        memory, state = self.read(question)

        def step(state, sign):
            state, scores, _ = self.write(memory, state, sign)
            return state, scores

        return gw.scan(step, state, answer[:-1])[1]

    def solve(self, question):
        """The answer, each sign from the network's own before it, and the attention."""
        memory, state = self.read(question)

        def step(carry, _):
            state, sign = carry
            state, scores, looks = self.write(memory, state, sign)
            sign = gw.argmax(scores, axis=-1)
            return (state, sign), (sign, looks)

        begin = gw.full((question.shape[1],), SIGNS.index("$"), "int64")
        return gw.scan(step, (state, begin), length=ANSWERED)[1]


def problems(rng, count):
    """Questions ``[7, N]`` and answers with the sign before them ``[5, N]``."""
    a, b = rng.integers(0, 10 ** rng.integers(1, DIGITS + 1, (2, count)))
    asked = [f"{p}+{q}".ljust(ASKED) for p, q in zip(a, b)]
    answered = ["$" + str(p + q).ljust(ANSWERED) for p, q in zip(a, b)]
    return [np.array([[SIGNS.index(c) for c in text] for text in texts]).T.copy() for texts in (asked, answered)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--plot", metavar="FILE.png", help="draw where the decoder looks")
    args = parser.parse_args()
    steps, adder = 60 if args.quick else 4000, Adder(32 if args.quick else 128)
    rng = np.random.default_rng(0)

    question, answer = gw.placeholder("question", "int64", ("T", "N")), gw.placeholder("answer", "int64", (5, "N"))
    loss = nn.cross_entropy(gw.flatten(adder(question, answer), 0, 1), gw.flatten(answer[1:]))
    gradients = gw.optim.clip_by_norm(gw.grad(loss, adder.parameters()), 1.0)
    updates = gw.optim.AdamW(gw.optim.cosine(3e-3, steps, 1e-5)).updates(gradients, adder.parameters())
    train = gw.function([question, answer], loss, updates=updates, name="train")
    solve = gw.function([question], adder.solve(question), name="solve")

    asked, wanted = problems(np.random.default_rng(1), 1000)
    for k in range(steps):
        value = train(*problems(rng, 128))
        if (k + 1) % (steps // 4) == 0:
            right = (solve(asked)[0] == wanted[1:]).all(axis=0).mean()
            print(f"step {k + 1}: loss {value:.4f}, {right:.1%} of 1,000 sums are right")
    found, looks = solve(asked)
    for k in range(5):
        print("".join(SIGNS[c] for c in asked[:, k]), "=", "".join(SIGNS[c] for c in found[:, k]))
    if args.plot:
        import matplotlib.pyplot as plt

        plt.imshow(looks[:, :, 0], cmap="gray_r")
        plt.xticks(range(ASKED), [SIGNS[c] for c in asked[:, 0]])
        plt.yticks(range(ANSWERED), [SIGNS[c] for c in found[:, 0]])
        plt.savefig(args.plot)


if __name__ == "__main__":
    main()
