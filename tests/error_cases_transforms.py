"""Misuse of forward mode, Jacobians and maps: a part of the table in ``error_cases.py``."""

from __future__ import annotations

from error_cases import case

TENSORS = """
x = gw.placeholder("x", "float32", ("N", 3))
h = gw.placeholder("h", "float32", (3,))
"""


def transform(name: str, title: str, code: str) -> None:
    case("transforms", name, title, TENSORS.strip("\n") + "\n" + code.strip("\n"))


# --- tangents ------------------------------------------------------------------------------------

transform("tangent-shape", "A tangent of the wrong shape", """
t = gw.jvp(gw.tanh(h), h, x)
""")
transform("tangent-dtype", "A tangent of the wrong dtype", """
t = gw.jvp(gw.tanh(h), h, np.ones(3))
""")
transform("tangent-structure", "Tangents that are nested in another way", """
y, t = gw.jvp(lambda a, b: a["w"] * b, ({"w": h}, h), (h, h))
""")
transform("tangent-missing", "Too few tangents", """
y, t = gw.jvp(lambda a, b: a * b, (h, h), (h,))
""")
transform("jvp-by-integers", "A derivative in a direction of integers", """
y, t = gw.jvp(lambda i: x[i], (gw.argmax(h),), (1,))
""")
transform("jvp-no-derivative", "A tangent through an op without a derivative", """
t = gw.jvp(gw.nextafter(h, h + 1), h, h)
""")
transform("jvp-own-gradient", "A tangent through a gradient of one's own that is not linear", """
clipped = gw.custom_gradient(lambda v: (v * 1, lambda d: gw.clip(d, -1, 1)))
t = gw.jvp(clipped(h), h, h)
""")
transform("hvp-several", "The Hessian of several values", """
p = gw.hvp(lambda v: (v[0], v[1]), h, h)
""")
transform("hessian-not-a-scalar", "The Hessian of a vector", """
m = gw.hessian(gw.tanh(h), h)
""")
transform("jacobian-mode", "A mode that does not exist", """
m = gw.jacobian(gw.tanh(h), h, mode="backward")
""")
transform("jacobian-of-integers", "The Jacobian of integers", """
m = gw.jacobian(gw.argmax(x, axis=1), x)
""")

# --- maps ----------------------------------------------------------------------------------------

transform("map-sizes", "Mapped axes of different sizes", """
y = gw.vmap(lambda a, b: a @ b)(x, gw.zeros((4, 3)))
""")
transform("map-axis", "A mapped axis that an argument does not have", """
y = gw.vmap(lambda a, b: a * b, in_axes=(0, 1))(x, h)
""")
transform("map-out-axis", "A mapped axis that a result cannot have", """
y = gw.vmap(gw.sum, out_axes=1)(x)
""")
transform("map-axes-count", "Axes for another number of arguments", """
y = gw.vmap(lambda a, b: a * b, in_axes=(0,))(x, h)
""")
transform("map-axes-structure", "Axes that are nested in another way", """
y = gw.vmap(lambda p: p["w"], in_axes=({"v": 0},))({"w": x})
""")
transform("map-nothing", "A map of nothing", """
y = gw.vmap(gw.tanh, in_axes=None)(x)
""")
transform("map-result-none", "A mapped result said to be the same for all", """
y = gw.vmap(gw.tanh, out_axes=None)(x)
""")
transform("map-no-function", "A map of what is no function", """
y = gw.vmap(gw.tanh(x))(x)
""")
transform("map-scalar", "A map over a number", """
y = gw.vmap(lambda a, s: a * s)(x, 2.0)
""")
transform("map-no-rule", "A map of an op without a batching rule", """
copied = gw.custom_op("copied", lambda v: (v.dtype, v.shape), lambda out, v: None, arity=1)
y = gw.vmap(copied)(x)
""")
