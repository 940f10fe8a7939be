"""A tagger in both directions: the part of speech of each word of made-up sentences, where it hangs on later words.

Each word of the language is both a noun and a verb; which it is shows in the words around it, before or after. One
direction alone cannot know.

    python examples/tagger.py --plot accuracy.png
"""

import argparse

import numpy as np

import graphwright as gw
from graphwright import nn

STEMS = ["walk", "run", "talk", "cook", "play", "work", "dance", "drink", "look", "call", "help", "plan"]
WORDS = ["", "the", "they", "fast", "is", *STEMS]
TAGS = ["", "article", "pronoun", "adverb", "copula", "noun", "verb"]


def sentence(rng):
    """Words and tags of one to three of: (the) NOUN is fast, (they) VERB fast."""
    words, tags = [], []
    for _ in range(rng.integers(1, 4)):
        noun, lead = rng.integers(0, 2, 2)
        stem = int(rng.integers(5, len(WORDS)))
        words += [1 if noun else 2] * lead + [stem] + ([4, 3] if noun else [3])
        tags += [1 if noun else 2] * lead + ([5, 4, 3] if noun else [6, 3])
    return words, tags


def batch(rng, count):
    """Sentences in columns, filled up with 0, their tags and their lengths."""
    pairs = [sentence(rng) for _ in range(count)]
    lengths = np.array([len(words) for words, _ in pairs])
    codes = np.zeros((2, lengths.max(), count), np.int64)
    for k, (words, tags) in enumerate(pairs):
        codes[:, : lengths[k], k] = words, tags
    return codes[0], codes[1], lengths


class Tagger(nn.Module):
    """Scores of tags for each word."""

    def __init__(self, hidden: int, bidirectional: bool) -> None:
        self.embed = nn.Embedding(len(WORDS), 8, padding_idx=0, rng=0)
        self.rnn = nn.LSTM(8, hidden, bidirectional=bidirectional, rng=1)
        self.out = nn.Linear(hidden * (1 + bidirectional), len(TAGS), rng=2)

    def forward(self, words, lengths):
        return self.out(self.rnn(self.embed(words), lengths=lengths)[0])


def run(bidirectional, steps):
    """Train a tagger; the part of the words not seen before that it tags rightly, as training goes on."""
    model, rng = Tagger(32, bidirectional), np.random.default_rng(0)
    words, tags = (gw.placeholder(name, "int64", ("T", "N")) for name in ("words", "tags"))
    lengths = gw.placeholder("lengths", "int64", ("N",))
    scores, inside = model(words, lengths), (tags > 0).astype("float32")
    losses = nn.cross_entropy(gw.flatten(scores, 0, 1), gw.flatten(tags), reduction="none")
    loss = gw.sum(losses * gw.flatten(inside)) / gw.sum(inside)
    right = (gw.argmax(scores, axis=-1) == tags).astype("float32")
    updates = gw.optim.Adam(1e-2).updates(loss, model.parameters())
    train = gw.function([words, tags, lengths], loss, updates=updates, name="train")
    test = gw.function([words, tags, lengths], gw.sum(right * inside) / gw.sum(inside), name="test")
    held, curve = batch(np.random.default_rng(1), 500), []
    for k in range(steps):
        train(*batch(rng, 32))
        if k % 10 == 9:
            curve.append(float(test(*held)))
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the accuracies")
    args = parser.parse_args()
    curves = {name: run(both, 60 if args.quick else 300) for name, both in (("forward", False), ("both", True))}
    for name, curve in curves.items():
        print(f"{name} direction{'s' * (name == 'both')}: {curve[-1]:.1%} of the words are tagged rightly")
    assert curves["both"][-1] > curves["forward"][-1]
    if args.plot:
        import matplotlib.pyplot as plt

        for name, curve in curves.items():
            plt.plot(10 * np.arange(1, len(curve) + 1), curve, label=name)
        plt.xlabel("step"), plt.ylabel("accuracy"), plt.legend(), plt.savefig(args.plot)


if __name__ == "__main__":
    main()
