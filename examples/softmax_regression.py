"""Declare, differentiate, compile, train, ship: softmax regression on scikit-learn's digits."""

import os
import tempfile

import numpy as np
from sklearn.datasets import load_digits

import graphwright as gw

images, labels = load_digits(return_X_y=True)
images, labels = (images / 16).astype(np.float32), labels.astype(np.int64)
learned, test = slice(0, 1400), slice(1400, None)

x = gw.placeholder("x", "float32", ("N", 64))
y = gw.placeholder("y", "int64", ("N",))
W = gw.Variable(np.zeros((64, 10), np.float32), name="W")
b = gw.Variable(np.zeros(10, np.float32), name="b")

logits = x @ W + b
loss = gw.nn.cross_entropy(logits, y)
dW, db = gw.grad(loss, [W, b])
train = gw.function([x, y], loss, updates={W: W - 0.5 * dW, b: b - 0.5 * db}, name="train")
predict = gw.function([x], gw.argmax(logits, axis=-1), name="predict")

for epoch in range(10):
    losses = [train(images[k : k + 50], labels[k : k + 50]) for k in range(0, 1400, 50)]
    print(f"epoch {epoch}: loss {np.mean(losses):.3f}")
print(f"test accuracy {np.mean(predict(images[test]) == labels[test]):.1%}")
print(f"scratch memory: {train.memory()} bytes, {train.memory(N=50):,} for 50 images")

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "digits.gwa")
    gw.export(path, {"train": train, "predict": predict})
    model = gw.load(path)  # here, or where there is no compiler
    assert np.array_equal(model.predict(images[test]), predict(images[test]))
    print(f"one step more, from the artifact: loss {model.train(images[:50], labels[:50]):.3f}")
