"""Gradients are graphs, so they have gradients: Newton's method for logistic regression."""

import numpy as np

import graphwright as gw

rng = np.random.default_rng(0)
points = rng.standard_normal((500, 3))
truth = np.array([1.0, -2.0, 0.5])
labels = (rng.random(500) < 1 / (1 + np.exp(-points @ truth))).astype(np.float64)

x = gw.placeholder("x", "float64", ("N", 3))
y = gw.placeholder("y", "float64", ("N",))
w = gw.Variable(np.zeros(3), name="w")

z = x @ w
loss = gw.mean(gw.log(1 + gw.exp(z)) - y * z)
gradient = gw.grad(loss, w)
hessian = gw.stack([gw.grad(gradient[k], w) for k in range(3)])
derivatives = gw.function([x, y], (loss, gradient, hessian), name="derivatives")

for step in range(6):
    value, g, H = derivatives(points, labels)
    print(f"step {step}: loss {value:.12f}, |gradient| {np.abs(g).max():.1e}")
    w.assign(w.value - np.linalg.solve(H, g))
print("weights", w.value)
assert np.abs(derivatives(points, labels)[1]).max() < 1e-12
