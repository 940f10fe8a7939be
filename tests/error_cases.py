"""Misuse as a new user would write it, one snippet an error: the table behind ``docs/errors.md``.

A snippet runs as the file ``user.py`` in an empty folder, with ``np``, ``gw``, ``nn`` and ``Path`` imported; its
last statement fails. One with a command prepares files, and the command fails.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CASES", "GROUPS", "Case"]


@dataclass(frozen=True)
class Case:
    """One mistake: its group, a name for tests, a title, Python code, and perhaps a command after it."""

    group: str
    id: str
    title: str
    code: str
    command: str = ""


GROUPS = {
    "graphs": "Building graphs",
    "indexing": "Indexing",
    "elementwise": "Shapes: elementwise ops",
    "linalg": "Shapes: products of matrices",
    "reductions": "Shapes: reductions",
    "movement": "Shapes: reshaping and joining",
    "gather": "Shapes: gather and scatter",
    "windows": "Shapes: convolution and pooling",
    "layers": "Shapes: functions of networks, and losses",
    "modules": "Modules",
    "dtypes": "Dtypes",
    "dimensions": "Symbolic dimensions",
    "gradients": "Gradients",
    "control": "Loops and branches",
    "random": "Random numbers",
    "transforms": "Forward mode, Jacobians and maps",
    "functions": "Functions and updates",
    "calls": "Calls",
    "variables": "Variables",
    "extensions": "Ops of your own",
    "artifacts": "Artifacts",
    "texts": "IR texts",
    "debugging": "Debug modes",
    "commands": "The command line",
}

CASES: list[Case] = []


def case(group: str, name: str, title: str, code: str, command: str = "") -> None:
    CASES.append(Case(group, name, title, code.strip("\n") + "\n", command))


# --- building graphs -----------------------------------------------------------------------------

case("graphs", "tensor-as-bool", "A tensor as a condition", """
x = gw.placeholder("x", "float32", ())
if x > 0:
    y = gw.sqrt(x)
""")
case("graphs", "tensor-as-float", "A tensor as a number", """
x = gw.placeholder("x", "float32", ("N",))
print(float(gw.sum(x)))
""")
case("graphs", "tensor-as-array", "A tensor in a NumPy function", """
x = gw.placeholder("x", "float32", ("N",))
y = np.asarray(x)
""")
case("graphs", "iteration", "A loop over a tensor", """
x = gw.placeholder("x", "float32", ("N", 3))
for row in x:
    print(row)
""")
case("graphs", "len", "The length of a tensor", """
x = gw.placeholder("x", "float32", ("N", 3))
n = len(x)
""")
case("graphs", "item-assignment", "Assignment to an element", """
x = gw.placeholder("x", "float32", (3,))
x[0] = 1.0
""")
case("graphs", "strange-operand", "An operand that is no tensor", """
x = gw.placeholder("x", "float32", (3,))
y = x + "1"
""")
case("graphs", "none-operand", "None as an operand", """
x = gw.placeholder("x", "float32", (3,))
y = x * None
""")
case("graphs", "bad-name", "A name that is no identifier", """
x = gw.placeholder("my input", "float32", (3,))
""")
case("graphs", "too-few-operands", "An operand that is missing", """
x = gw.placeholder("x", "float32", (3,))
y = gw.add(x)
""")
case("graphs", "ragged-list", "Rows of unequal length", """
x = gw.asarray([[1.0, 2.0], [3.0]])
""")

# --- indexing ------------------------------------------------------------------------------------

case("indexing", "index-out-of-range", "A column that does not exist", """
x = gw.placeholder("x", "float32", ("N", 4))
y = x[:, 4]
""")
case("indexing", "too-many-indices", "More indices than axes", """
x = gw.placeholder("x", "float32", ("N", 4))
y = x[0, 0, 0]
""")
case("indexing", "float-index", "A float as an index", """
x = gw.placeholder("x", "float32", ("N", 4))
y = x[4 / 2]
""")
case("indexing", "bool-mask", "A mask as an index", """
x = gw.placeholder("x", "float32", ("N",))
y = x[x > 0]
""")
case("indexing", "backward-slice", "A slice that runs backward in part", """
x = gw.placeholder("x", "float32", ("N",))
y = x[5:1:-1]
""")
case("indexing", "tensor-slice-bound", "A tensor as the bound of a slice", """
x = gw.placeholder("x", "float32", (8,))
start = gw.placeholder("start", "int64", ())
y = x[start:]
""")

# --- shapes --------------------------------------------------------------------------------------

case("elementwise", "broadcast", "Shapes that do not broadcast", """
x = gw.placeholder("x", "float32", ("N", 4))
b = gw.Variable(np.zeros(3, np.float32), name="b")
y = x + b
""")
case("elementwise", "two-symbols", "Dimensions that may differ", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.placeholder("y", "float32", ("M", 4))
z = x * y
""")
case("elementwise", "where-shapes", "Branches of `where` that do not fit", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.where(x > 0, x, np.zeros(5, np.float32))
""")
case("linalg", "matmul", "The weights the wrong way round", """
x = gw.placeholder("x", "float32", ("N", 784))
W = gw.Variable(np.zeros((10, 784), np.float32), name="W")
y = x @ W
""")
case("linalg", "matmul-scalar", "A matrix product with a number", """
x = gw.placeholder("x", "float32", ("N", 4))
y = x @ 2.0
""")
case("linalg", "matmul-batches", "Batches of different sizes", """
a = gw.placeholder("a", "float32", (2, 3, 4))
b = gw.placeholder("b", "float32", (3, 4, 5))
c = gw.matmul(a, b)
""")
case("linalg", "tensordot", "Axes of different sizes", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.tensordot(x, x, ([0], [1]))
""")
case("linalg", "einsum-output", "An unknown letter in `einsum`", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.einsum("ij,ij->k", x, x)
""")
case("linalg", "einsum-sizes", "A letter with two sizes in `einsum`", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.einsum("ij,jk->ik", x, x)
""")
case("reductions", "axis", "An axis that does not exist", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.sum(x, axis=2)
""")
case("reductions", "axis-twice", "An axis given twice", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.mean(x, axis=(1, -1))
""")
case("reductions", "axis-float", "An axis that is no integer", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.sum(x, axis=1.0)
""")
case("reductions", "empty-max", "The maximum of nothing", """
x = gw.placeholder("x", "float32", (0, 3))
y = gw.max(x, axis=0)
""")
case("movement", "reshape", "A reshape that changes the size", """
x = gw.placeholder("x", "float32", ("N", 28, 28))
y = gw.reshape(x, (-1, 700))
""")
case("movement", "reshape-two", "Two unknown sizes in a reshape", """
x = gw.placeholder("x", "float32", ("N", 4))
y = x.reshape(-1, -1)
""")
case("movement", "permutation", "Axes that are no permutation", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.permute_dims(x, (0, 0))
""")
case("movement", "broadcast-to", "A shape that cannot be broadcast to", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.broadcast_to(x, ("N", 5))
""")
case("movement", "concat", "Parts that do not fit together", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.placeholder("y", "float32", ("M", 5))
z = gw.concat([x, y])
""")
case("movement", "stack", "A stack of different shapes", """
x = gw.placeholder("x", "float32", ("N",))
y = gw.placeholder("y", "float32", ("M",))
z = gw.stack([x, y])
""")
case("movement", "squeeze", "A squeeze of an axis that is longer than 1", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.squeeze(x, 1)
""")
case("movement", "split", "A split into unequal parts", """
x = gw.placeholder("x", "float32", ("N", 4))
a, b, c = gw.split(x, 3, axis=1)
""")
case("movement", "pad", "Paddings for another rank", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.pad(x, ((1, 1), (1, 1), (1, 1)))
""")
case("gather", "take-axis", "`take` without an axis", """
x = gw.placeholder("x", "float32", ("N", 4))
i = gw.placeholder("i", "int64", ("K",))
y = gw.take(x, i)
""")
case("gather", "take-along-axis", "Indices of another rank", """
x = gw.placeholder("x", "float32", ("N", 4))
i = gw.placeholder("i", "int64", ("N",))
y = gw.take_along_axis(x, i, 1)
""")
case("gather", "embedding", "An embedding table that is no matrix", """
words = gw.placeholder("words", "int64", ("N", "L"))
table = gw.Variable(np.zeros(1000, np.float32), name="table")
y = nn.embedding(words, table)
""")
case("windows", "conv-channels", "A kernel for other channels", """
image = gw.placeholder("image", "float32", ("N", 3, 32, 32))
W = gw.Variable(np.zeros((16, 1, 3, 3), np.float32), name="W")
y = nn.conv2d(image, W)
""")
case("windows", "conv-rank", "Images without a channel axis", """
image = gw.placeholder("image", "float32", ("N", 28, 28))
W = gw.Variable(np.zeros((16, 1, 3, 3), np.float32), name="W")
y = nn.conv2d(image, W)
""")
case("windows", "conv-too-large", "A kernel larger than the image", """
image = gw.placeholder("image", "float32", ("N", 1, 2, 2))
W = gw.Variable(np.zeros((16, 1, 5, 5), np.float32), name="W")
y = nn.conv2d(image, W)
""")
case("windows", "conv-padding", "A padding that does not exist", """
image = gw.placeholder("image", "float32", ("N", 1, 8, 8))
W = gw.Variable(np.zeros((16, 1, 3, 3), np.float32), name="W")
y = nn.conv2d(image, W, padding="full")
""")
case("windows", "conv-stride", "A stride of zero", """
image = gw.placeholder("image", "float32", ("N", 1, 8, 8))
W = gw.Variable(np.zeros((16, 1, 3, 3), np.float32), name="W")
y = nn.conv2d(image, W, stride=0)
""")
case("windows", "pool-rank", "Pooling of a matrix", """
x = gw.placeholder("x", "float32", ("N", 784))
y = nn.max_pool2d(x, 2)
""")
case("layers", "cross-entropy-labels", "Labels that are floats", """
logits = gw.placeholder("logits", "float32", ("N", 10))
labels = gw.placeholder("labels", "float32", ("N",))
loss = nn.cross_entropy(logits, labels)
""")
case("layers", "cross-entropy-shape", "Labels with an axis too many", """
logits = gw.placeholder("logits", "float32", ("N", 10))
labels = gw.placeholder("labels", "int64", ("N", 1))
loss = nn.cross_entropy(logits, labels)
""")
case("layers", "mse-shape", "A loss that would broadcast", """
y = gw.placeholder("y", "float32", ("N",))
prediction = gw.placeholder("prediction", "float32", ("N", 1))
loss = nn.mse_loss(prediction, y)
""")
case("layers", "reduction-name", "A reduction that does not exist", """
x = gw.placeholder("x", "float32", ("N",))
loss = nn.mse_loss(x, x, "average")
""")
case("layers", "layer-norm", "A normalized shape that does not fit", """
x = gw.placeholder("x", "float32", ("N", 64))
y = nn.layer_norm(x, 32)
""")
case("layers", "attention", "Queries and keys of different sizes", """
q = gw.placeholder("q", "float32", ("N", "L", 64))
k = gw.placeholder("k", "float32", ("N", "L", 32))
y = nn.scaled_dot_product_attention(q, k, k)
""")

# --- dtypes --------------------------------------------------------------------------------------

case("dtypes", "exp-of-integers", "A function of floats, of integers", """
i = gw.placeholder("i", "int64", ("N",))
y = gw.exp(i)
""")
case("dtypes", "integer-division", "A division of integers", """
i = gw.placeholder("i", "int64", ("N",))
y = i / 2
""")
case("dtypes", "float-and-integers", "A float added to integers", """
i = gw.placeholder("i", "int64", ("N",))
y = i + 0.5
""")
case("dtypes", "integer-too-large", "A number that the dtype cannot hold", """
i = gw.placeholder("i", "int8", ("N",))
y = i + 1000
""")
case("dtypes", "fill-too-large", "A fill value that the dtype cannot hold", """
x = gw.full((2, 3), 300, dtype="int8")
""")
case("dtypes", "no-common-dtype", "Dtypes without a common one", """
i = gw.placeholder("i", "int64", ("N",))
u = gw.placeholder("u", "uint64", ("N",))
y = i + u
""")
case("dtypes", "mean-of-integers", "A mean of integers", """
i = gw.placeholder("i", "int64", ("N",))
y = gw.mean(i)
""")
case("dtypes", "condition", "A condition that is not bool", """
x = gw.placeholder("x", "float32", ("N",))
i = gw.placeholder("i", "int64", ("N",))
y = gw.where(i, x, 0.0)
""")
case("dtypes", "logic-of-numbers", "Logic of numbers", """
x = gw.placeholder("x", "float32", ("N",))
y = gw.logical_and(x, x > 0)
""")
case("dtypes", "bits-of-floats", "Bits of a float", """
x = gw.placeholder("x", "float32", ("N",))
y = (x > 0) & x
""")
case("dtypes", "float-indices", "Indices that are floats", """
x = gw.placeholder("x", "float32", ("N", 4))
i = gw.placeholder("i", "float32", ("K",))
y = gw.take(x, i, axis=0)
""")
case("dtypes", "unknown-dtype", "A dtype that is not supported", """
x = gw.placeholder("x", "complex64", ("N",))
""")
case("dtypes", "string-array", "An array of strings", """
x = gw.asarray(np.array(["a", "b"]))
""")

# --- symbolic dimensions -------------------------------------------------------------------------

case("dimensions", "negative", "A negative size", """
x = gw.placeholder("x", "float32", (-1, 4))
""")
case("dimensions", "huge", "A size beyond 63 bits", """
x = gw.placeholder("x", "float32", (2**70,))
""")
case("dimensions", "overflow", "A tensor beyond all memory", """
x = gw.zeros((2**40, 2**40))
""")
case("dimensions", "float-size", "A size that is no integer", """
x = gw.placeholder("x", "float32", (7 / 2,))
""")
case("dimensions", "bad-expression", "An expression that is no dimension", """
x = gw.placeholder("x", "float32", ("N/2",))
""")
case("dimensions", "bool-size", "A bool as a size", """
x = gw.zeros((True, 3))
""")
case("dimensions", "undetermined", "A dimension that no input determines", """
x = gw.placeholder("x", "float32", ("N", 2))
f = gw.function([x], gw.zeros(("K", 2)))
""")
case("calls", "contradiction", "Arguments that contradict each other", """
x = gw.placeholder("x", "float32", ("N", 4))
y = gw.placeholder("y", "float32", ("N",))
f = gw.function([x, y], gw.sum(x, axis=1) + y, name="f")
f(np.ones((8, 4), np.float32), np.ones(7, np.float32))
""")
case("dimensions", "impossible", "A size at which an op of the graph is impossible", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], x[2], name="third")
f(np.ones(2, np.float32))
""")
case("dimensions", "empty", "The maximum of an empty array", """
x = gw.placeholder("x", "float32", ("N",))
f = gw.function([x], gw.max(x), name="largest")
f(np.ones(0, np.float32))
""")

# --- gradients -----------------------------------------------------------------------------------

case("gradients", "not-a-scalar", "The gradient of a matrix", """
x = gw.placeholder("x", "float32", ("N", 4))
g = gw.grad(x * x, x)
""")
case("gradients", "by-integers", "A gradient by integers", """
i = gw.placeholder("i", "int64", ("N",))
loss = gw.sum(gw.astype(i, "float32"))
g = gw.grad(loss, i)
""")
case("gradients", "of-integers", "A gradient of an integer", """
x = gw.placeholder("x", "float32", ("N",))
g = gw.grad(gw.argmax(x), x)
""")
case("gradients", "disconnected", "A loss that does not depend on the weights", """
x = gw.placeholder("x", "float32", ("N",))
w = gw.Variable(np.ones(3, np.float32), name="w")
g = gw.grad(gw.sum(x), w)
""")
case("gradients", "no-derivative", "An op without a derivative", """
x = gw.placeholder("x", "float32", ("N",))
loss = gw.sum(gw.nextafter(x, x + 1))
g = gw.grad(loss, x)
""")
case("gradients", "cotangent", "A cotangent of another shape", """
x = gw.placeholder("x", "float32", ("N", 4))
g = gw.grad(x * x, x, cotangent=np.ones(3, np.float32))
""")
case("gradients", "by-array", "A gradient by an array", """
w = np.ones(3, np.float32)
loss = gw.sum(gw.asarray(w) ** 2)
g = gw.grad(loss, w)
""")
