"""A variational autoencoder (Kingma and Welling 2014) of scikit-learn's digits: compress to two numbers, draw new ones.

    python examples/vae.py --plot digits.png
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import graphwright as gw
from graphwright import nn


class VAE(nn.Module):
    """An encoder to the mean and the logarithm of the variance of a code, and a decoder to logits of pixels."""

    def __init__(self, hidden: int, code: int) -> None:
        self.encoder = nn.Sequential(nn.Linear(64, hidden, rng=0), nn.ReLU(), nn.Linear(hidden, 2 * code, rng=1))
        self.decoder = nn.Sequential(nn.Linear(code, hidden, rng=2), nn.ReLU(), nn.Linear(hidden, 64, rng=3))

    def forward(self, x, noise):
        mean, logvar = gw.split(self.encoder(x), 2, axis=-1)
        return self.decoder(mean + gw.exp(logvar / 2) * noise), mean, logvar


def bound(x, logits, mean, logvar):
    """The negative evidence lower bound for an image: reconstruction, and distance from the normal distribution."""
    reconstruction = gw.sum(nn.binary_cross_entropy_with_logits(logits, x, reduction="none"), axis=-1)
    divergence = 0.5 * gw.sum(mean * mean + gw.exp(logvar) - 1 - logvar, axis=-1)
    return gw.mean(reconstruction + divergence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few epochs")
    parser.add_argument("--plot", metavar="FILE.png", help="draw digits from a grid of codes")
    args = parser.parse_args()
    images = (load_digits().data / 16).astype(np.float32)
    rng, code, batch, epochs = np.random.default_rng(0), 2, 64, 4 if args.quick else 100
    known, held = images[:1500], images[1500:]

    vae = VAE(64 if args.quick else 256, code)
    x, noise = gw.placeholder("x", "float32", ("N", 64)), gw.placeholder("noise", "float32", ("N", code))
    loss = bound(x, *vae(x, noise))
    train = gw.function([x, noise], loss, updates=gw.optim.Adam(2e-3).updates(loss, vae.parameters()), name="train")
    test = gw.function([x, noise], loss, name="test")
    draw = gw.function([noise], nn.sigmoid(vae.decoder(noise)), name="draw")

    def normal(count):
        return rng.standard_normal((count, code), np.float32)

    for epoch in range(epochs):
        order = rng.permutation(len(known))
        losses = [train(known[order[k : k + batch]], normal(batch)) for k in range(0, len(known) - batch + 1, batch)]
        if (epoch + 1) % (epochs // 4) == 0:
            value = np.mean([test(held, normal(len(held))) for _ in range(10)])
            print(f"epoch {epoch + 1}: bound {np.mean(losses):.2f} nats an image, {value:.2f} on images not seen")
    for row in draw(normal(2)).reshape(2, 8, 8):
        print("\n".join("".join(" .:-=+*#%@"[int(9.99 * p)] * 2 for p in line) for line in row), end="\n\n")
    if args.plot:
        import matplotlib.pyplot as plt

        grid = np.stack(np.meshgrid(np.linspace(-2, 2, 12), np.linspace(-2, 2, 12)), -1).astype(np.float32)
        pictures = draw(grid.reshape(-1, 2)).reshape(12, 12, 8, 8).transpose(0, 2, 1, 3).reshape(96, 96)
        plt.imshow(pictures, cmap="gray"), plt.axis("off"), plt.savefig(args.plot)


if __name__ == "__main__":
    main()
