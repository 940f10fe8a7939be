"""The graph-to-graph passes: by structure, from texts, and by values against the unchanged graph."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from graphwright.errors import GraphError, VerifyError
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import as_dtype
from graphwright.ir.graph import Graph, Literal, Value, make, topological
from graphwright.ir.interpreter import interpret
from graphwright.ir.ops import OPS
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph
from graphwright.ir.verify import verify_graph
from graphwright.passes.canonicalize import canonicalize, hoist_reshapes, regroup
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.cse import cse, structure
from graphwright.passes.dce import dce
from graphwright.passes.differentiate import gradients
from graphwright.passes.fold import LIMIT, fold
from graphwright.passes.fuse_loops import fuse_loops
from graphwright.passes.hoist import hoist
from graphwright.passes.lay_out import lay_out
from graphwright.passes.manager import Pass, Pipeline
from graphwright.passes.merge_loops import merge_loops
from graphwright.passes.one_hot import one_hot
from graphwright.passes.pack_loops import pack_loops
from graphwright.passes.prune_loops import prune_loops
from graphwright.passes.simplify import simplify
from graphwright.passes.sink import sink
from graphwright.passes.stabilize import stabilize, stabilize_values
from graphwright.passes.unroll import unroll

PASSES = {f.__name__: f for f in (
    canonicalize, fold, simplify, stabilize, cse, dce, merge_loops, prune_loops, hoist, sink, fuse_loops,
    lay_out, one_hot, unroll,
)} | {"pack_loops": functools.partial(pack_loops, cpu=CpuModel())}  # fmt: skip
f32, f64, i64, bool_ = map(as_dtype, ("float32", "float64", "int64", "bool"))
N = symbol("N")
SIZES = {"N": 4, "K": 3, "T": 3}


def arg(name="x", shape=(3,), dtype=f32):
    return OPS["input"](name=name, shape=shape, dtype=dtype)


def graph_of(*roots):
    leaves = tuple(v for v in topological(roots) if v.op.name == "input")
    return Graph("f", leaves, (), roots)


def names_of(graph):
    return [v.op.name for v in graph if v.op.kind != "leaf"]


def random_inputs(values, seed=0):
    rng = np.random.default_rng(seed)
    arrays = []
    for v in values:
        shape = [d if isinstance(d, int) else SIZES[str(d)] for d in v.shape]
        numbers = rng.normal(size=shape)
        arrays.append(numbers > 0 if v.dtype.is_bool else (4 * numbers).astype(v.dtype.numpy))
    return arrays


def check_values(before, after):
    """Both graphs compute the same on random inputs."""
    inputs, states = random_inputs(before.inputs), random_inputs(before.states, 1)
    for a, b in zip(interpret(before, inputs, states), interpret(after, inputs, states), strict=True):
        for p, q in zip(a, b, strict=True):
            assert p.dtype == q.dtype and p.shape == q.shape
            np.testing.assert_allclose(p, q, rtol=2e-4, atol=2e-4)


# --- texts ---------------------------------------------------------------------------------------


def text_cases():
    for path in sorted(Path(__file__).parent.joinpath("filecheck").glob("*.gwir")):
        if path.stem not in PASSES:
            continue
        for case in re.split(r"^// --- ", path.read_text(), flags=re.MULTILINE)[1:]:
            title, texts = case.split("\n", 1)
            before, after = texts.split("// =>\n")
            yield pytest.param(path.stem, before, after, id=f"{path.stem}: {title}")


@pytest.mark.parametrize("name, before, after", [*text_cases()])
def test_text(name, before, after):
    run, given, expected = PASSES[name], parse_graph(before), parse_graph(after)
    result = run(given)
    verify_graph(result)
    if any(v.regions for v in result):  # regions are compared by their texts
        assert print_graph(result, locations=False) == print_graph(expected, locations=False)
    else:
        assert result.outputs == expected.outputs, f"\n{result}\nwanted\n{expected}"
        assert result.updates == expected.updates, f"\n{result}\nwanted\n{expected}"
    assert run(result) is result
    check_values(given, result)


# --- canonicalize --------------------------------------------------------------------------------


@pytest.mark.parametrize("old, new, groups", [
    ((2, 3), (6,), [([0, 1], [0])]),
    ((2, 3, 4), (6, 4), [([0, 1], [0]), ([2], [1])]),
    ((N, 6), (N, 2, 3), [([0], [0]), ([1], [1, 2])]),
    ((1, N), (N,), [([0, 1], [0])]),
    ((N, 1), (N,), [([0, 1], [0])]),
    ((), (1, 1), [([], [0, 1])]),
    ((4, 6), (8, 3), [([0, 1], [0, 1])]),
    ((0, 3), (3, 0), None),
])
def test_axes_are_regrouped(old, new, groups):
    assert regroup(old, new) == groups


@pytest.mark.parametrize("shape", [(2, 3, 20), (6, 4, 5), (6, 20), (2, 3, 4, 5, 1)])
@pytest.mark.parametrize("dims", [(0, 1), (2, 3), (1, 2), (1,), (3,), ()])
def test_reshaped_broadcasts_keep_their_values(shape, dims):
    x = arg(shape=tuple((2, 3, 4, 5)[k] for k in dims))
    g = graph_of(OPS["reshape"](OPS["broadcast"](x, shape=(2, 3, 4, 5), dims=dims), shape=shape))
    check_values(g, canonicalize(g))


def test_a_value_with_other_readers_is_not_reshaped_twice():
    h = OPS["tanh"](OPS["sum"](arg(shape=(3, 4, 5, 2)), axes=(3,)))
    flat = OPS["reshape"](h, shape=(3, 20))
    g = graph_of(flat, h * h)
    assert hoist_reshapes(g) is g
    alone = graph_of(flat)
    assert names_of(hoist_reshapes(alone)) == ["sum", "reshape", "tanh"]
    check_values(alone, canonicalize(alone))


def test_a_graph_without_inputs_becomes_canonical():
    g = graph_of(OPS["reshape"](OPS["full"](shape=(2, 3), value=1.0, dtype=f32), shape=(6,)))
    assert canonicalize(g).outputs == (OPS["full"](shape=(6,), value=1.0, dtype=f32),)


def test_concatenated_parts_are_merged():
    x, y = arg("x", (2,)), arg("y", (3,))
    empty = OPS["full"](shape=(0,), value=1.0, dtype=f32)
    g = graph_of(OPS["concat"](OPS["concat"](x, empty, axis=0), y, axis=0))
    assert canonicalize(g).outputs == (OPS["concat"](x, y, axis=0),)
    check_values(g, canonicalize(g))
    ones = OPS["full"](shape=(2,), value=1.0, dtype=f32)
    assert canonicalize(graph_of(OPS["concat"](ones, ones, axis=0))).outputs[0].op.name == "full"


@pytest.mark.parametrize("perm", [(1, 0, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("side", [0, 1])
def test_contractions_absorb_transposes(perm, side):
    x, y = arg("x", (4, 4, 4)), arg("y", (4, 4, 4))
    turned = OPS["transpose"]((x, y)[side], perm=perm)
    operands = (turned, y) if side == 0 else (x, turned)
    g = graph_of(OPS["dot"](*operands, contract=((2,), (1,)), batch=((0,), (0,))))
    assert names_of(canonicalize(g)) == ["dot"]
    check_values(g, canonicalize(g))


def test_powers_of_half_keep_infinities_and_signed_zeros():
    x = arg(shape=(6,), dtype=f64)
    g = graph_of(OPS["pow"](x, 0.5))
    given = [np.array([-np.inf, np.inf, -0.0, 0.0, 2.0, np.nan])]
    a, b = interpret(g, given)[0][0], interpret(canonicalize(g), given)[0][0]
    np.testing.assert_array_equal(a, b)
    assert not np.signbit(b[2]) and "pow" not in names_of(canonicalize(g))


# --- fold ----------------------------------------------------------------------------------------


def test_large_results_are_not_folded():
    n = LIMIT // 4 + 1
    big = OPS["constant"](value=Literal(np.arange(n, dtype=np.float32)))
    g = graph_of(OPS["exp"](big))
    assert fold(g) is g
    small = OPS["constant"](value=Literal(np.arange(4, dtype=np.float32)))
    assert names_of(fold(graph_of(OPS["exp"](small)))) == []


def test_huge_splats_are_not_expanded():
    huge = OPS["full"](shape=(10**6, 10**6), value=2.0, dtype=f32)
    root = fold(graph_of(OPS["sqrt"](huge * 8.0))).outputs[0]
    assert root.op.name == "full" and root.attrs["value"] == 4.0


def test_folding_computes_in_the_dtype():
    third = fold(graph_of(OPS["div"](OPS["full"](shape=(), value=1.0, dtype=f32), 3.0))).outputs[0]
    assert third.attrs["value"] == float(np.float32(1) / np.float32(3))


def test_division_by_zero_folds_to_infinity():
    root = fold(graph_of(OPS["div"](OPS["full"](shape=(), value=1.0, dtype=f32), 0.0))).outputs[0]
    assert root.attrs["value"] == np.inf


# --- stabilize -----------------------------------------------------------------------------------

FAR = (-800.0, -30.0, -1e-3, 0.0, 1e-3, 30.0, 800.0)


def exp(x):
    return OPS["exp"](x)


def log(x):
    return OPS["log"](x)


def naive_sigmoid(x):
    return 1 / (1 + exp(-x))


def other_sigmoid(x):
    return exp(x) / (1 + exp(x))


def softplus(x):
    return np.logaddexp(0, x)


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


ELEMENTWISE = {
    "log(1 + exp x)": (lambda x: log(1 + exp(x)), softplus, sigmoid),
    "log1p(exp x)": (lambda x: OPS["log1p"](exp(x)), softplus, sigmoid),
    "log(exp(x) + 1)": (lambda x: log(exp(x) + 1), softplus, sigmoid),
    "log(sigmoid)": (lambda x: log(OPS["sigmoid"](x)), lambda x: -softplus(-x), lambda x: sigmoid(-x)),
    "log(naive sigmoid)": (lambda x: log(naive_sigmoid(x)), lambda x: -softplus(-x), lambda x: sigmoid(-x)),
    "log(other sigmoid)": (lambda x: log(other_sigmoid(x)), lambda x: -softplus(-x), lambda x: sigmoid(-x)),
    "log(1 - sigmoid)": (lambda x: log(1 - OPS["sigmoid"](x)), lambda x: -softplus(x), lambda x: -sigmoid(x)),
    "log(1 - naive sigmoid)": (lambda x: log(1 - naive_sigmoid(x)), lambda x: -softplus(x), lambda x: -sigmoid(x)),
    "log(1 - other sigmoid)": (lambda x: log(1 - other_sigmoid(x)), lambda x: -softplus(x), lambda x: -sigmoid(x)),
    "log1p(-sigmoid)": (lambda x: OPS["log1p"](-naive_sigmoid(x)), lambda x: -softplus(x), lambda x: -sigmoid(x)),
    "logit(sigmoid)": (lambda x: log(naive_sigmoid(x) / (1 - naive_sigmoid(x))), lambda x: x, lambda x: 1 + 0 * x),
    "naive sigmoid": (naive_sigmoid, sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "other sigmoid": (other_sigmoid, sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "naive tanh": (
        lambda x: (exp(x) - exp(-x)) / (exp(x) + exp(-x)), np.tanh, lambda x: 4 * sigmoid(2 * x) * sigmoid(-2 * x),
    ),
    "tanh by exp(2x)": (
        lambda x: (exp(2 * x) - 1) / (exp(2 * x) + 1), np.tanh, lambda x: 4 * sigmoid(2 * x) * sigmoid(-2 * x),
    ),
    "log(cosh)": (lambda x: log(OPS["cosh"](x)), lambda x: np.logaddexp(x, -x) - np.log(2), np.tanh),
    "swish": (lambda x: x / (1 + exp(-x)), lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
    "relu + log1p": (
        lambda x: OPS["max"](x, 0) + OPS["log1p"](exp(-OPS["abs"](x))), softplus, sigmoid,
    ),
    "log(exp(x) / (exp(x) + 3))": (
        lambda x: log(exp(x) / (exp(x) + 3)), lambda x: -softplus(np.log(3) - x), lambda x: sigmoid(np.log(3) - x),
    ),
}


def value_and_gradient(naive, x):
    """Stabilized value and gradient of the sum, at the array `x`."""
    v = arg(shape=x.shape, dtype=as_dtype(x.dtype))
    out = naive(v)
    loss = OPS["sum"](out, axes=tuple(range(len(out.shape))))
    (slope,) = gradients(loss, [v], prepare=lambda y: stabilize_values([y], keep=[v])[0])
    g = stabilize(Graph("f", (v,), (), (out, slope)))
    return interpret(g, [x])[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_naive_functions_are_exact_far_out(name, dtype):
    naive, value, slope = ELEMENTWISE[name]
    exact = np.array(FAR)
    a, b = value_and_gradient(naive, exact.astype(dtype))
    tolerance = 2e-6 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(a, value(exact), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(b, slope(exact), rtol=tolerance, atol=tolerance)


def rows(x, axis):
    """The sum along an axis, with that axis kept as 1 and repeated."""
    shape = tuple(1 if k == axis else d for k, d in enumerate(x.shape))
    return OPS["reshape"](OPS["sum"](x, axes=(axis,)), shape=shape)


SOFTMAX = {
    "exp / sum": lambda x, a: exp(x) / rows(exp(x), a),
    "exp * (1 / sum)": lambda x, a: exp(x) * (1 / rows(exp(x), a)),
    "exp * reciprocal(sum)": lambda x, a: exp(x) * OPS["reciprocal"](rows(exp(x), a)),
    "exp / sum * 1": lambda x, a: 1.0 * (exp(x) / (rows(exp(x), a) - 0.0)),
}
LOG_SOFTMAX = {
    **{f"log({name})": (lambda x, a, f=f: log(f(x, a))) for name, f in SOFTMAX.items()},
    "x - log(sum(exp x))": lambda x, a: x - log(rows(exp(x), a)),
    "log(exp x) - log(sum(exp x))": lambda x, a: log(exp(x)) - log(rows(exp(x), a)),
    "-log(sum(exp x) / exp x)": lambda x, a: -log(rows(exp(x), a) / exp(x)),
    "log of the transposed": lambda x, a: OPS["transpose"](
        log(OPS["transpose"](exp(x) / rows(exp(x), a), perm=(1, 0))), perm=(1, 0)
    ),
}
LOGITS = np.array([[800.0, -800.0, 0.0, 1.0], [-800.0, -800.0, -799.0, -801.0], [3.0, 3.0, 3.0, 3.0]])


def exact_log_softmax(x, axis):
    return x - np.logaddexp.reduce(x, axis, keepdims=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", LOG_SOFTMAX)
def test_log_softmax_in_every_spelling(name, axis, dtype):
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    weights = np.arange(12.0).reshape(3, 4)

    def weighted(x):
        return LOG_SOFTMAX[name](x, axis) * OPS["constant"](value=Literal(weights.astype(dtype)))

    a, b = value_and_gradient(weighted, LOGITS.astype(dtype))
    expected = exact_log_softmax(LOGITS, axis)
    np.testing.assert_allclose(a, weights * expected, rtol=tolerance, atol=tolerance)
    slope = weights - np.exp(expected) * weights.sum(axis, keepdims=True)
    np.testing.assert_allclose(b, slope, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_in_every_spelling(name, axis, dtype):
    weights = np.arange(12.0).reshape(3, 4)

    def weighted(x):
        return SOFTMAX[name](x, axis) * OPS["constant"](value=Literal(weights.astype(dtype)))

    a, b = value_and_gradient(weighted, LOGITS.astype(dtype))
    p = np.exp(exact_log_softmax(LOGITS, axis))
    np.testing.assert_allclose(a, weights * p, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b, p * (weights - (weights * p).sum(axis, keepdims=True)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scaled", [
    lambda s: log(s), lambda s: log(s / 4), lambda s: log(s * 0.3), lambda s: log(OPS["reshape"](s, shape=(3, 1))),
    lambda s: -log(1 / s), lambda s: log(2.5 / s),
], ids=["log(sum)", "log(mean)", "log(0.3 sum)", "log(reshape(sum))", "-log(1 / sum)", "log(2.5 / sum)"])
def test_log_sum_exp(scaled, dtype):
    def naive(x):
        return scaled(OPS["sum"](exp(x), axes=(1,)))

    a, b = value_and_gradient(naive, LOGITS.astype(dtype))
    moderate = value_and_gradient(naive, (LOGITS - LOGITS.max(1, keepdims=True)).astype(dtype))[0]
    sign = -1 if np.sum(value_and_gradient(naive, np.zeros((3, 4), dtype))[1]) < 0 else 1
    shift = sign * LOGITS.max(1)
    np.testing.assert_allclose(a.ravel(), moderate.ravel() + shift, rtol=1e-6)
    np.testing.assert_allclose(b, sign * np.exp(exact_log_softmax(LOGITS, 1)), rtol=1e-5, atol=1e-6)


def test_rows_of_minus_infinity_keep_their_meaning():
    x = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [np.nan, 0.0], [1.0, -np.inf]])
    v = arg(shape=(4, 2), dtype=f64)
    g = graph_of(log(OPS["sum"](exp(v), axes=(1,))))
    a, b = interpret(g, [x])[0][0], interpret(stabilize(g), [x])[0][0]
    np.testing.assert_array_equal(a, b)


def test_sums_of_nothing_need_no_shift():
    x = arg(shape=(3, 0), dtype=f64)
    g = graph_of(log(OPS["sum"](exp(x), axes=(1,))), exp(x) / rows(exp(x), 1))
    a, b = interpret(stabilize(g), [np.zeros((3, 0))])[0]
    np.testing.assert_array_equal(a, np.full(3, -np.inf))
    assert b.shape == (3, 0)


@pytest.mark.parametrize("naive", [*LOG_SOFTMAX.values(), *SOFTMAX.values()])
def test_stable_forms_are_left_alone(naive):
    x = arg(shape=(3, 4))
    once = stabilize(graph_of(naive(x, 1)))
    assert stabilize(once) is once
    after = simplify(once)  # without stop_gradient
    assert stabilize(after) is after
    check_values(once, after)


def test_the_log_of_picked_probabilities_is_stable():
    x, label = arg(shape=(3, 4), dtype=f64), arg("label", (2,), i64)
    p = exp(x) / rows(exp(x), 1)
    g = graph_of(log(OPS["take"](p, label, axis=1)))
    out = interpret(stabilize(g), [LOGITS, np.array([1, 2])])[0][0]
    np.testing.assert_allclose(out, exact_log_softmax(LOGITS, 1)[:, [1, 2]])


def test_a_symbolic_mean_of_exponentials_is_stable():
    x = arg(shape=(N,), dtype=f64)
    mean = OPS["sum"](exp(x), axes=(0,)) / OPS["dim"](value=N, dtype=f64)
    out = interpret(stabilize(graph_of(log(mean))), [np.array([800.0, 800.0])])[0][0]
    np.testing.assert_allclose(out, 800.0)


# --- cse and dce ---------------------------------------------------------------------------------


def test_cse_leaves_a_shared_graph_alone():
    x, y = arg("x"), arg("y")
    g = graph_of(x * y + exp(x * y) * 2.0)
    assert cse(g) is g


def test_equal_regions_have_one_structure():
    def region(name, f):
        x = arg(name)
        return Graph("body", (x,), (), (f(x),))

    a, b, c = region("x", exp), region("y", exp), region("x", log)
    assert structure(a) == structure(b) != structure(c)


def fused(body, x, name="parameter"):
    parameter = arg(name, x.shape, x.dtype)
    return make(OPS["fusion"], (x,), {"reason": ""}, (Graph("region", (parameter,), (), (body(parameter),)),))


def test_equal_regions_are_shared():
    x = arg()
    two = Graph("f", (x,), (), (fused(exp, x, "a"), fused(exp, x, "b")))
    assert two.outputs[0] is not two.outputs[1]
    assert fused(exp, x, "a") is two.outputs[0]
    shared = cse(two)
    assert shared.outputs[0] is shared.outputs[1]
    check_values(two, shared)


def test_regions_are_rewritten_too():
    x = arg()
    g = graph_of(fused(lambda p: OPS["neg"](-exp(p)), x))
    new = canonicalize(g)
    assert names_of(new.outputs[0].regions[0]) == ["exp"]
    check_values(g, new)
    assert canonicalize(new) is new


def test_dce_forgets_the_names_of_dead_values():
    x = arg()
    live, dead = exp(x), log(x)
    g = Graph("f", (x,), (), (live,), (), {live: "y", dead: "z"})
    assert dce(g).names == {live: "y"}
    lean = dce(g)
    assert lean.outputs == (live,) and dce(lean) is lean


# --- the manager ---------------------------------------------------------------------------------


def test_a_pipeline_runs_in_order_and_reports():
    x = arg()
    g = graph_of(OPS["square"](OPS["neg"](-x)) * -1)
    pipeline = Pipeline([
        Pass("canonicalize", canonicalize, establishes=("canonical",), why="one spelling"),
        Pass("simplify", simplify, requires=("canonical",), why="fewer ops"),
    ])
    result = pipeline.run(g)
    assert result.ir.outputs == (-(x * x),)
    assert result.properties == {"canonical"}
    first, second = result.reports
    assert (first.name, first.before, first.after, first.changed) == ("canonicalize", 6, 4, True)
    assert first.fired.fired["square(x) -> x * x"] == 1 and second.fired.fired["x * -1 -> neg(x)"] == 1
    assert first.seconds >= 0 and first.text is None
    assert str(pipeline).splitlines()[0].split() == ["canonicalize", "one", "spelling"]
    assert "6 -> 4 nodes" in str(result)
    assert len(pipeline.until("canonicalize")) == 1 and len(pipeline + pipeline) == 4


def test_a_wrong_order_is_refused_when_it_is_written():
    need = Pass("simplify", simplify, requires=("canonical",))
    make_ = Pass("canonicalize", canonicalize, establishes=("canonical",))
    spoil = Pass("fuse", dce, invalidates=("canonical",))
    with pytest.raises(GraphError, match="pass 'simplify' requires canonical"):
        Pipeline([need, make_])
    with pytest.raises(GraphError, match="or one invalidates"):
        Pipeline([make_, spoil, need])
    assert len(Pipeline([need], given=["canonical"])) == 1
    with pytest.raises(GraphError, match="no pass 'nosuch'"):
        Pipeline([make_]).until("nosuch")


def test_a_pass_that_breaks_the_graph_is_named():
    def breaks(g):
        return Graph(g.name, (), (), g.outputs)

    pipeline = Pipeline([Pass("dce", dce), Pass("breaks", breaks)])
    g = graph_of(exp(arg()))
    with pytest.raises(VerifyError, match="pass 'breaks'"):
        pipeline.run(g, verifiers={Graph: verify_graph}, verify=True)
    assert pipeline.run(g, verifiers={Graph: verify_graph}, verify=False).ir.inputs == ()


def test_the_environment_turns_verification_on(monkeypatch):
    seen = []
    pipeline, g = Pipeline([Pass("dce", dce)]), graph_of(exp(arg()))
    for setting in ("0", "1"):
        monkeypatch.setenv("GRAPHWRIGHT_VERIFY", setting)
        pipeline.run(g, verifiers={Graph: seen.append})
    assert len(seen) == 2


def test_texts_are_made_only_when_a_dump_is_asked_for():
    g, dumped = graph_of(OPS["square"](arg())), []
    pipeline = Pipeline([Pass("canonicalize", canonicalize)])
    result = pipeline.run(g, dump=lambda *row: dumped.append(row))
    assert [row[:2] for row in dumped] == [(0, "input"), (1, "canonicalize")]
    assert "square" in dumped[0][2] and "mul" in dumped[1][2]
    assert result.reports[0].text is None
    assert "mul" in pipeline.run(g, snapshots=True).reports[0].text


# --- all together --------------------------------------------------------------------------------


def random_graph(seed):
    """A few dozen random ops on small floats, with shapes that meet."""
    rng = np.random.default_rng(seed)
    pool = [arg("x", (2, 3), f64), arg("y", (2, 3), f64), arg("z", (3,), f64)]
    unary = ("neg", "abs", "square", "sigmoid", "tanh", "softplus", "relu", "stop_gradient")
    for _ in range(30):
        a = pool[rng.integers(len(pool))]
        same = [v for v in pool if v.shape == a.shape]
        b = same[rng.integers(len(same))]
        rank = len(a.shape)
        made: list[Value] = [
            OPS[unary[rng.integers(len(unary))]](a),
            OPS[("add", "sub", "mul", "max", "min")[rng.integers(5)]](a, b),
            OPS["where"](a < b, a, b),
            a * float(rng.integers(-2, 3)),
            OPS["div"](a, 4.0),
            OPS["reshape"](a, shape=(*a.shape[::-1], 1)),
            OPS["transpose"](a, perm=tuple(int(k) for k in rng.permutation(rank))),
            OPS["reverse"](a, axes=tuple(range(rank))),
        ]
        if rank:
            made += [OPS["sum"](a, axes=(0,)), OPS["amax"](a, axes=(rank - 1,))]
        if rank < 3:
            made.append(OPS["broadcast"](a, shape=(2, *a.shape), dims=tuple(range(1, rank + 1))))
        if rank and a.shape[0] > 1 and rank < 4:
            halves = [(0,) * rank, (1,) + (0,) * (rank - 1)]
            part = (1, *a.shape[1:])
            cut = [OPS["slice"](a, start=s, shape=part, step=(1,) * rank) for s in halves]
            made += [OPS["concat"](*cut, axis=0), cut[1]]
        pool.append(made[rng.integers(len(made))])
    roots = tuple(pool[-3:])
    return Graph("random", tuple(pool[:3]), (), roots)


@pytest.mark.parametrize("seed", range(40))
def test_all_passes_keep_the_values_of_random_graphs(seed):
    g = random_graph(seed)
    inputs = [x * 0.1 for x in random_inputs(g.inputs, seed)]
    wanted = interpret(g, inputs)[0]
    for run in (*PASSES.values(), canonicalize, cse):
        g = run(g)
        verify_graph(g)
        for a, b in zip(wanted, interpret(g, inputs)[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
