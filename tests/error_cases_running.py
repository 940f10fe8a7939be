"""Misuse once a graph is built: functions, calls, variables, artifacts, texts, debug modes, commands.

The second half of the table in ``error_cases.py``.
"""

from __future__ import annotations

from error_cases import case

# --- functions and updates -----------------------------------------------------------------------

case("functions", "inputs-no-list", "Inputs that are no list", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function(x, x + 1)
""")
case("functions", "input-not-listed", "A placeholder that is not among the inputs", """
x = gw.placeholder("x", "float32", ("N",))
y = gw.placeholder("y", "float32", ("N",))
f = gw.function([x], x + y)
""")
case("functions", "variable-as-input", "A variable as an input", """
x = gw.placeholder("x", "float32", ("N",))
w = gw.Variable(np.float32(1), name="w")
f = gw.function([x, w], x * w)
""")
case("functions", "intermediate-as-input", "A computed tensor as an input", """
x = gw.placeholder("x", "float32", ("N",))
h = x + 1
f = gw.function([h], h * 2)
""")
case("functions", "input-twice", "An input listed twice", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x, x], x + 1)
""")
case("functions", "same-name", "Two placeholders of one name", """
a = gw.placeholder("x", "float32", ("N",))
b = gw.placeholder("x", "float32", ("M",))
f = gw.function([a, b], gw.sum(a) + gw.sum(b))
""")
case("functions", "output-text", "An output that is no tensor", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], {"result": "x"})
""")
case("functions", "unknown-target", "A target that does not exist", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x + 1, target="gpu")
""")
case("functions", "duration", "A duration without a unit that is known", """
x = gw.placeholder("x", "float32", ("N", 8))
w = gw.Variable(np.ones((8, 16), np.float32), name="w")
f = gw.function([x], x @ w, tune="half a minute")
""")
case("functions", "unknown-option", "An option that does not exist", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x + 1, optimise=False)
""")
case("functions", "update-of-tensor", "An update of a placeholder", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], updates={x: x + 1})
""")
case("functions", "update-by-name", "An update by name", """
w = gw.Variable(np.float32(1), name="w")
f = gw.function([], updates={"w": w + 1})
""")
case("functions", "update-shape", "An update of another shape", """
x = gw.placeholder("x", "float32", ("N", 3))
w = gw.Variable(np.zeros(3, np.float32), name="w")
f = gw.function([x], updates={w: w - x})
""")
case("functions", "update-dtype", "An update of another dtype", """
rate = gw.Variable(np.float64(0.1), name="rate")
w = gw.Variable(np.zeros(3, np.float32), name="w")
f = gw.function([], updates={w: w - rate})
""")
case("functions", "two-updates", "Two updates of one variable", """
w = gw.Variable(np.float32(1), name="w")
f = gw.function([], updates=[(w, w + 1), (w, w * 2)])
""")
case("functions", "given-type", "A given of another type", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.placeholder("y", "float32", (4,))
f = gw.function([y], gw.sum(x), givens={x: y})
""")
case("functions", "unknown-stage", "A stage that does not exist", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x + 1)
f.ir("optimised")
""")
case("functions", "unknown-pass", "A pass that does not exist", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x + 1)
f.diff("fusion")
""")
case("functions", "memory-dimension", "The memory without a dimension", """
x = gw.placeholder("x", "float32", ("N", "M"))
f = gw.function([x], gw.sum(x @ x.T))
f.memory(N=10)
""")

# --- calls ---------------------------------------------------------------------------------------

ADD = """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.placeholder("y", "float32", ("N", 4))
add = gw.function([x, y], x + y, name="add")
ones = np.ones((2, 4), np.float32)
"""
case("calls", "missing", "An argument is missing", f"{ADD}add(ones)\n")
case("calls", "extra", "An argument too many", f"{ADD}add(ones, ones, ones)\n")
case("calls", "unknown", "An argument that does not exist", f"{ADD}add(ones, z=ones)\n")
case("calls", "twice", "An argument given twice", f"{ADD}add(ones, ones, x=ones)\n")
case("calls", "dtype", "An array of another dtype", f"{ADD}add(np.ones((2, 4)), ones)\n")
case("calls", "integers", "An array of integers for floats", f"{ADD}add(np.ones((2, 4), int), ones)\n")
case("calls", "rank", "An array of another rank", f"{ADD}add(ones[0], ones)\n")
case("calls", "size", "An array of another size", f"{ADD}add(ones[:, :3], ones)\n")
case("calls", "text", "An argument that is no array", f'{ADD}add("ones", ones)\n')
case("calls", "none", "None as an argument", f"{ADD}add(None, ones)\n")
case("calls", "tensor", "A tensor as an argument", f"{ADD}add(x, ones)\n")
case("calls", "float-list", "Floats where integers are needed", """
i = gw.placeholder("i", "int64", ("N",))
f = gw.function([i], i + 1, name="f")
f([1, 2.5])
""")
case("calls", "eval-missing", "`eval` without an input", """
x = gw.placeholder("x", "float32", ("N",))
(x + 1).eval()
""")

# --- variables -----------------------------------------------------------------------------------

case("variables", "assign-shape", "A value of another shape", """
w = gw.Variable(np.zeros((4, 2), np.float32), name="w")
w.assign(np.zeros((2, 4), np.float32))
""")
case("variables", "assign-dtype", "A value of another dtype", """
w = gw.Variable(np.zeros(3, np.float32), name="w")
w.assign(np.zeros(3))
""")
case("variables", "assign-tensor", "A tensor as the value", """
x = gw.placeholder("x", "float32", (3,))
w = gw.Variable(np.zeros(3, np.float32), name="w")
w.assign(w + x)
""")
case("variables", "initial-tensor", "A tensor as the initial value", """
w = gw.Variable(gw.zeros(3), name="w")
""")
case("variables", "initial-text", "An initial value that is no number", """
w = gw.Variable("zeros", name="w")
""")
case("variables", "name", "A name that is no identifier", """
w = gw.Variable(np.zeros(3, np.float32), name="layer 1")
""")

# --- ops of one's own ----------------------------------------------------------------------------

case("extensions", "unsupported-function", "A SymPy function that is not supported", """
import sympy
s = sympy.Symbol("s")
f = gw.elementwise("my_gamma", sympy.gamma(s))
""")
case("extensions", "name-taken", "A name that exists", """
import sympy
s = sympy.Symbol("s")
f = gw.elementwise("exp", s + 1)
""")
case("extensions", "custom-shape", "A custom op that refuses its operand", """
def infer(x):
    if len(x.shape) != 2:
        raise ValueError("needs a matrix")
    return x.dtype, x.shape

op = gw.custom_op("of_matrices", infer, lambda out, x: None)
y = op(gw.placeholder("x", "float32", ("N",)))
""")

# --- artifacts -----------------------------------------------------------------------------------

EXPORT = """
x = gw.placeholder("x", "float32", ("N", 3))
w = gw.Variable(np.ones(3, np.float32), name="w")
scale = gw.function([x], x * w, name="scale")
gw.export("model.gwa", {"scale": scale})
"""
case("artifacts", "export-tensor", "A tensor instead of a function", """
x = gw.placeholder("x", "float32", ("N",))
gw.export("model.gwa", {"double": x * 2})
""")
case("artifacts", "export-nothing", "An artifact of nothing", """
gw.export("model.gwa", {})
""")
case("artifacts", "export-folder", "A folder that does not exist", """
x = gw.placeholder("x", "float32", ("N",))
double = gw.function([x], x * 2, name="double")
gw.export("models/double.gwa", {"double": double})
""")
case("artifacts", "export-interpreted", "A function that is not compiled", """
x = gw.placeholder("x", "float32", ("N",))
double = gw.function([x], x * 2, target="interpreter", name="double")
gw.export("model.gwa", {"double": double})
""")
case("artifacts", "load-truncated", "A file that ends early", f"""{EXPORT}
data = Path("model.gwa").read_bytes()
Path("model.gwa").write_bytes(data[:-20])
gw.load("model.gwa")
""")
case("artifacts", "load-altered", "A file in which a byte has changed", f"""{EXPORT}
data = Path("model.gwa").read_bytes()
Path("model.gwa").write_bytes(data.replace(b"mul %x", b"add %x"))
gw.load("model.gwa")
""")
case("artifacts", "load-other-file", "A file that is no artifact", """
Path("model.gwa").write_text("weights")
gw.load("model.gwa")
""")
case("artifacts", "call-dtype", "An entry point called with another dtype", f"""{EXPORT}
model = gw.load("model.gwa")
model.scale(np.ones((2, 3)))
""")
case("artifacts", "assign-unknown", "A variable that the artifact does not have", f"""{EXPORT}
model = gw.load("model.gwa")
model.variables["W"] = np.ones(3, np.float32)
""")

# --- IR texts ------------------------------------------------------------------------------------


def text(body: str, parser: str = "parse_graph") -> str:
    """A snippet that parses the text of a graph."""
    return f'from graphwright.ir.parser import {parser}\n{parser}("""graphwright.graph v1\n{body.strip()}\n""")\n'


case("texts", "version", "A text of another version", """
from graphwright.ir.parser import parse_graph
parse_graph("graphwright.graph v9")
""")
case("texts", "syntax", "A text that is not in the language", text("""
func @f(%x: f32[N]) -> (f32[N]) {
  %0 = exp %x f32[N]
  return %0
}
"""))
case("texts", "unknown-op", "An op that does not exist", text("""
func @f(%x: f32[N]) -> (f32[N]) {
  %0 = exponential %x : f32[N]
  return %0
}
"""))
case("texts", "fill-too-large", "A literal that its dtype cannot hold", text("""
func @f() -> (i8[3]) {
  %0 = full {value = 300} : i8[3]
  return %0
}
"""))
case("texts", "unknown-value", "A value that is not defined", text("""
func @f(%x: f32[N]) -> (f32[N]) {
  %0 = exp %y : f32[N]
  return %0
}
"""))
case("texts", "wrong-type", "A type that the op does not have", text("""
func @f(%x: f32[N, 4]) -> (f32[N]) {
  %0 = sum %x {axes = (1)} : f32[4]
  return %0
}
"""))
case("texts", "dtype", "A dtype that does not exist", text("""
func @f(%x: f16[N]) -> (f16[N]) {
  return %x
}
"""))

# --- debug modes ---------------------------------------------------------------------------------

case("debugging", "nan", "An op makes NaN", """
x = gw.placeholder("x", "float32", ("N",))
y = gw.sum(gw.log(x - 1))
f = gw.function([x], y, name="f", debug="nan")
f(np.array([2.0, 1.5, 0.5], np.float32))
""")
case("debugging", "infinity", "An op makes an infinity", """
x = gw.placeholder("x", "float32", ("N",))
y = gw.exp(x) * 0.5
f = gw.function([x], y, name="f", debug="nan")
f(np.array([1.0, 100.0], np.float32))
""")
case("debugging", "nan-input", "An argument holds NaN", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x * 2, name="f", debug="nan")
f(np.array([1.0, np.nan], np.float32))
""")
case("debugging", "unknown-mode", "A mode that does not exist", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x * 2, debug="asan")
""")
case("debugging", "target", "A debug mode for the interpreter", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x * 2, debug="nan", target="interpreter")
""")
case("debugging", "not-watched", "Watched values of a function that watches none", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], gw.watch(x * 2, "doubled"), name="f")
f.watched
""")
case("debugging", "watch-text", "A watched value that is no tensor", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x * 2, watch={"h": "x"})
""")

# --- the command line ----------------------------------------------------------------------------

GRAPH = 'Path("f.gwir").write_text("""graphwright.graph v1\n{}\n""")\n'
EXP = GRAPH.format("func @f(%x: f32[N]) -> (f32[N]) {\n  %0 = exp %x : f32[N]\n  return %0\n}")

case("commands", "no-file", "A file that does not exist", "", "graphwright opt f.gwir --passes=cse")
case("commands", "no-text", "A file that holds no IR", """
Path("f.gwir").write_text("x + 1")
""", "graphwright opt f.gwir --passes=cse")
case("commands", "parse", "A mistake in a text", EXP.replace("%x :", "%z :"), "graphwright opt f.gwir")
case("commands", "pass", "A pass that does not exist", EXP, "graphwright opt f.gwir --passes=fusion")
case("commands", "order", "Passes in an impossible order", EXP, "graphwright opt f.gwir --passes=plan-memory")
case("commands", "duration", "A duration of which the unit is missing", "", "graphwright tune train.py --time 30")
case("commands", "dims", "A dimension that the graph does not have", EXP, "graphwright run f.gwir --dims M=3")
case("commands", "input", "An input that the graph does not have", EXP, "graphwright run f.gwir --input y=1.0")
case("commands", "script", "A script that fails", """
Path("train.py").write_text("import graphwright as gw\\n1 / 0\\n")
""", "graphwright ir train.py")
case("commands", "no-function", "A script without a function", """
Path("train.py").write_text("import graphwright as gw\\n")
""", "graphwright ir train.py")
case("commands", "entry", "An entry point that does not exist", EXPORT, "graphwright run model.gwa predict")
case("commands", "kernel", "A kernel that does not exist", EXPORT, "graphwright explain model.gwa --kernel relu")
case("commands", "no-artifact", "A file that is no artifact", """
Path("model.gwa").write_text("weights")
""", "graphwright inspect model.gwa")
