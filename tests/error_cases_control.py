"""Misuse of loops, branches, and derivatives of functions: a part of the table in ``error_cases.py``."""

from __future__ import annotations

from error_cases import case

SEQUENCE = """
x = gw.placeholder("x", "float32", ("T", 3))
h = gw.placeholder("h", "float32", (3,))
"""


def control(name: str, title: str, code: str) -> None:
    case("control", name, title, SEQUENCE.strip("\n") + "\n" + code.strip("\n"))


# --- scan ----------------------------------------------------------------------------------------

control("carry-shape", "A carry that changes its shape", """
def step(c, e):
    return c @ gw.ones((3, 4)), None

last, _ = gw.scan(step, h, x)
""")
control("carry-dtype", "A carry that changes its dtype", """
def step(carry, e):
    return {"h": carry["h"] + e, "n": carry["n"] + e[0]}, None

last, _ = gw.scan(step, {"h": h, "n": 0}, x)
""")
control("carry-structure", "A carry that changes its structure", """
def step(carry, e):
    return [carry["h"] + e], carry["h"]

last, ys = gw.scan(step, {"h": h}, x)
""")
control("no-pair", "A step that returns its carry alone", """
last = gw.scan(lambda c, e: c + e, h, x)
""")
control("lengths", "Sequences of different lengths", """
y = gw.placeholder("y", "float32", ("S", 3))
last, _ = gw.scan(lambda c, e: (c + e[0] * e[1], None), h, (x, y))
""")
control("length-contradicts", "A length that the sequences do not have", """
y = gw.placeholder("y", "float32", (5, 3))
last, _ = gw.scan(lambda c, e: (c + e, None), h, y, length=4)
""")
control("negative-length", "A negative length", """
last, _ = gw.scan(lambda c, _: (c * 2, None), h, length=-1)
""")
control("negative-when-run", "A length that is negative when the function runs", """
last, _ = gw.scan(lambda c, _: (c * 2, None), h, length=x.shape[0] - 2)
f = gw.function([x, h], last)
f(np.ones((1, 3), np.float32), np.ones(3, np.float32))
""")
control("associative-of-nothing", "Partial results of no elements", """
f = gw.function([x], gw.associative_scan(lambda a, b: a + b, x))
f(np.ones((0, 3), np.float32))
""")
control("no-length", "Neither sequences nor a length", """
last, _ = gw.scan(lambda c, _: (c * 2, None), h)
""")
control("scalar-sequence", "A sequence without axes", """
last, _ = gw.scan(lambda c, e: (c * e, None), h, h[0])
""")
control("wrong-checkpoint", "A distance of checkpoints that is none", """
last, _ = gw.scan(lambda c, e: (c + e, None), h, x, checkpoint=0)
""")
control("error-in-a-step", "A mistake inside of a step", """
def step(c, e):
    wrong = c @ gw.ones((4, 3))
    return wrong, None

last, _ = gw.scan(step, h, x)
""")
control("no-function", "A step that is no function", """
last, _ = gw.scan(h, h, x)
""")
control("leaves-its-body", "A tensor of a step that is used outside of it", """
seen = []

def step(c, e):
    seen.append(c * e)
    return c + e, None

last, _ = gw.scan(step, h, x)
f = gw.function([x, h], [last, seen[0]])
""")
control("assigned-in-a-body", "A variable that a step assigns", """
v = gw.Variable(np.zeros(3, np.float32), name="v")

def step(c, e):
    v.assign(np.ones(3, np.float32))
    return c + v, None

last, _ = gw.scan(step, h, x)
""")

# --- while, branches -----------------------------------------------------------------------------

control("condition-no-bool", "A condition that is no bool", """
last = gw.while_loop(lambda c: c.sum(), lambda c: c * 2, h)
""")
control("condition-no-scalar", "A condition with axes", """
last = gw.while_loop(lambda c: c < 3, lambda c: c * 2, h)
""")
control("while-carry", "A while loop whose carry changes its shape", """
last = gw.while_loop(lambda c: c.sum() < 9, lambda c: gw.stack([c, c]), h)
""")
control("unbounded-gradient", "The gradient of an unbounded while loop", """
last = gw.while_loop(lambda c: c.sum() < 9, lambda c: c * 2, h)
g = gw.grad(last.sum(), h)
""")
control("fori-float", "A counted loop to a number that is no integer", """
last = gw.fori(0, h.sum(), lambda i, c: c * 2, h)
""")
control("branch-types", "Branches of different types", """
y = gw.cond(h.sum() > 0, lambda: h, lambda: h.sum())
""")
control("branch-structures", "Branches of different structures", """
y = gw.cond(h.sum() > 0, lambda: (h, h), lambda: h)
""")
control("predicate", "A predicate with axes", """
y = gw.cond(h > 0, lambda: h, lambda: -h)
""")
control("index-float", "The index of a switch that is no integer", """
y = gw.switch(h[0], [lambda: h, lambda: -h])
""")
control("no-branches", "A switch without branches", """
y = gw.switch(gw.argmax(h), [])
""")

# --- derivatives of functions --------------------------------------------------------------------

control("own-gradient-captures", "A gradient by what a gradient of one's own does not cover", """
w = gw.Variable(np.ones(3, np.float32), name="w")

@gw.custom_gradient
def scaled(v):
    return v * w, lambda d: d

g = gw.grad(scaled(h).sum(), w)
""")
control("own-gradient-shape", "A gradient of one's own of the wrong shape", """
@gw.custom_gradient
def scaled(v):
    return v * 2, lambda d: d.sum()

y = scaled(h)
""")
control("own-gradient-missing", "A gradient of one's own that is not returned", """
y = gw.custom_gradient(lambda v: v * 2)(h)
""")
control("vjp-cotangent", "A cotangent of the wrong shape", """
y, pull = gw.vjp(gw.tanh, h)
g = pull(x)
""")
control("vjp-integers", "A vjp by integers", """
y, pull = gw.vjp(lambda i: x[i], gw.argmax(h))
""")
