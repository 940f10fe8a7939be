"""Formulas written as in a book, and computed exactly where NumPy overflows."""

import numpy as np

import graphwright as gw

x = gw.placeholder("x", "float32", ("N",))
naive = {
    "log(1 + exp x)": gw.log(1 + gw.exp(x)),
    "log(sigmoid x)": gw.log(1 / (1 + gw.exp(-x))),
    "where(x < 1, x, sqrt(x - 1))": gw.where(x < 1, x, gw.sqrt(x - 1)),
}
points = np.array([-800, -1, 0, 0.5, 800], np.float32)
np.set_printoptions(precision=4, suppress=True, linewidth=120)
print("x".ljust(30), points)
for text, tensor in naive.items():
    slope = gw.grad(gw.sum(tensor), x)
    values, slopes = gw.function([x], (tensor, slope))(points)
    print(text.ljust(30), values)
    print("  its derivative".ljust(30), slopes)
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()

softplus = gw.function([x], naive["log(1 + exp x)"], name="softplus")
print(softplus.ir("graph"))
print(softplus.ir("optimized"))
