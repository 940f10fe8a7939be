"""A new elementwise op from a SymPy expression: with derivatives of any order, and fused like any other."""

import numpy as np
import sympy

import graphwright as gw

s = sympy.Symbol("s")
mish = gw.elementwise("mish", s * sympy.tanh(sympy.log(1 + sympy.exp(s))))

x = gw.placeholder("x", "float64", ("N", 8))
W = gw.Variable(np.eye(8), name="W")
y = mish(x @ W)
first = gw.grad(gw.sum(y), x)
second = gw.grad(gw.sum(first), x)
f = gw.function([x], (y, first, second), name="f")

points = np.linspace(-3, 3, 16).reshape(2, 8)
value, slope, curvature = f(points)
step = 1e-4
above, below = f(points + step), f(points - step)
assert np.allclose(slope, (above[0] - below[0]) / (2 * step), atol=1e-7)
assert np.allclose(curvature, (above[1] - below[1]) / (2 * step), atol=1e-7)
print(gw.function([x], y, name="layer").ir("optimized"))
