"""Formulas written as in a book, and computed exactly where NumPy overflows."""

import numpy as np

import graphwright as gw

x = gw.placeholder("x", "float32", ("N",))
naive = {
    "log(1 + exp x)": gw.log(1 + gw.exp(x)),
    "log(sigmoid x)": gw.log(1 / (1 + gw.exp(-x))),
    "where(x < 1, x, sqrt(x - 1))": gw.where(x < 1, x, gw.sqrt(x - 1)),
}
points = np.array([-800, -1, 0, 1, 800], np.float32)
print("x".ljust(40), points)
for text, tensor in naive.items():
    slope = gw.grad(gw.sum(tensor), x)
    values, slopes = gw.function([x], (tensor, slope))(points)
    print(text.ljust(40), values)
    print(f"  its derivative".ljust(40), slopes)
    assert np.isfinite(values).all()

softplus = gw.function([x], naive["log(1 + exp x)"], name="softplus")
print(softplus.ir("graph"))
print(softplus.ir("optimized"))
