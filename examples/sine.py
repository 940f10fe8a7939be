"""A network that has seen sin(x) continues it: first it reads, then is fed its own predictions, in one compiled call.

    python examples/sine.py --plot sine.png
"""

import argparse

import numpy as np

import graphwright as gw
from graphwright import nn


class Wave(nn.Module):
    """The next value from the values before."""

    def __init__(self, hidden: int) -> None:
        self.rnn = nn.GRU(1, hidden, rng=0)
        self.out = nn.Linear(hidden, 1, rng=1)

    def forward(self, x, state=None):
        y, state = self.rnn(x, state)
        return self.out(y), state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the continuation")
    args = parser.parse_args()
    rng, wave = np.random.default_rng(0), Wave(32)

    x, y = gw.placeholder("x", "float32", ("T", "N", 1)), gw.placeholder("y", "float32", ("T", "N", 1))
    loss = nn.mse_loss(wave(x)[0], y)
    steps = 150 if args.quick else 1500
    optimizer = gw.optim.Adam(gw.optim.cosine(1e-2, steps, 1e-4))
    train = gw.function([x, y], loss, updates=optimizer.updates(loss, wave.parameters()), name="train")

    predicted, state = wave(x)
    count = gw.placeholder("count", "float32", ("S",))  # as long as the continuation shall be

    def step(carry, _):
        value, state = carry
        value, state = wave(value, state)
        return (value, state), value[0]

    last = predicted[predicted.shape[0] - 1 :]
    _, ahead = gw.scan(step, (last, state), count)
    proceed = gw.function([x, count], (last, ahead), name="proceed")

    for k in range(steps):  # pieces of sin(t) for t up to 8 pi
        begin = rng.uniform(0, 8 * np.pi - 8, 32)
        t = begin + 0.2 * np.arange(41)[:, None]
        piece = np.sin(t).astype(np.float32)[..., None]
        value = train(piece[:-1], piece[1:])
        if k % (steps // 5) == 0 or k == steps - 1:
            print(f"step {k}: squared error {value:.6f}")
    t = 8 * np.pi - 8 + 0.2 * np.arange(40 + 101)  # beyond the range that was trained
    truth = np.sin(t).astype(np.float32)
    first, rest = proceed(truth[:40, None, None], np.zeros(100, np.float32))
    ahead = np.concatenate([first[0, 0], rest[:, 0, 0]])
    error = np.abs(ahead - truth[40:])
    print(f"continued over {0.2 * 101 / (2 * np.pi):.1f} periods: error {error[:31].max():.3f} at most in the first, "
          f"{error.max():.3f} in all")
    if args.plot:
        import matplotlib.pyplot as plt

        plt.plot(t, truth, label="sin"), plt.plot(t[40:], ahead, label="continued")
        plt.legend(), plt.savefig(args.plot)


if __name__ == "__main__":
    main()
