"""Compiled code against the reference: every op of the registry, all its samples in one function each."""

from __future__ import annotations

import numpy as np
import pytest
from checks import Case, assert_close, cases, input_value, sampled_ops

from graphwright.compiler.driver import compile_graph
from graphwright.ir.graph import Graph, make
from graphwright.ir.ops import OPS

EXTREMES = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 3.7, 1e-30])


def run_together(found: list[Case]) -> None:
    """Compile all cases as one function, run it, compare each result."""
    inputs = [
        [input_value(f"x{n}_{k}", x.shape, x.dtype) for k, x in enumerate(case.operands)]
        for n, case in enumerate(found)
    ]
    outputs = [make(case.op, xs, {**case.op.attrs, **case.attrs}) for case, xs in zip(found, inputs)]
    graph = Graph("test", tuple(x for xs in inputs for x in xs), (), tuple(outputs))
    structure = ["list", *["*"] * len(outputs)]
    results = compile_graph(graph, structure=structure).executable(*(x for c in found for x in c.operands))
    for case, result in zip(found, results, strict=True):
        assert_close(result, case.expected(), case)


@pytest.mark.parametrize("name", sampled_ops())
def test_samples(name: str) -> None:
    run_together(list(cases(OPS[name])))


ELEMENTWISE = [n for n in sampled_ops() if OPS[n].elementwise and n not in ("where", "clip", "nextafter")]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_extremes(name: str) -> None:
    """NaN, infinities and signed zeros, in vector lanes and in the scalar rest of the loop alike."""
    op = OPS[name]
    found = []
    for dtype in (np.float32, np.float64):
        x = EXTREMES.astype(dtype)
        if name in ("sin", "cos", "tan"):  # `expand_math` states how far their range reduction reaches
            x = x[~(np.isfinite(x) & (np.abs(x) > 1e6))]
        arity = len(next(iter(op.samples())).operands)
        operands = (x,) if arity == 1 else tuple(a.ravel() for a in np.meshgrid(x, x))
        case = Case(op, operands, {})
        try:
            op.infer_type(case.values(), {})
        except TypeError:
            continue
        found.append(case)
    if found:
        run_together(found)
