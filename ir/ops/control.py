"""Control flow: loops and branches whose bodies are graphs.

A body is a closed graph: what it reads of the graph around it (its *captures*) are operands of the op, in the
order of the body's last inputs. Symbolic dimensions of the graph around it may be used inside. All three ops
give several results, read with `item`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ..broadcasting import same_type
from ..dims import Dim, equal
from ..dtypes import bool_, int64
from ..graph import Graph
from ..op import REQUIRED, Body, Op, Typing, register
from ..types import TensorType, TupleType, Type

__all__ = ["scan", "switch", "while_"]


# --- what the three have in common ---------------------------------------------------------------


def _regions(t: Typing, names: Sequence[str]) -> Sequence[Graph]:
    """The op's regions, which must be as many as the names, read tensors, and keep no state."""
    if len(t.regions) != len(names):
        t.fail(GraphError, f"runs {len(names)} regions ({', '.join(names)}), got {len(t.regions)}")
    for name, region in zip(names, t.regions):
        if region.states or region.updates:
            t.fail(GraphError, f"its {name} has states or updates", "a region is a closed function of its inputs")
        if not all(isinstance(v.type, TensorType) for v in region.outputs):
            t.fail(GraphError, f"an output of its {name} is not one tensor")
    return t.regions


def _counts(t: Typing, *names: str) -> tuple[int, ...]:
    counts = tuple(t[name] for name in names)
    for name, count in zip(names, counts):
        if not isinstance(count, int) or count < 0:
            t.fail(GraphError, f"{name} = {count} is no number of operands")
    if sum(counts) > len(t.operands):
        t.fail(GraphError, f"{' and '.join(names)} need {sum(counts)} operands, got {len(t.operands)}")
    return counts


def _check_inputs(t: Typing, name: str, region: Graph, types: Sequence[TensorType], kinds: Sequence[str]) -> None:
    """Require that a region takes values of these types; `kinds` says what each of them is."""
    if len(region.inputs) != len(types):
        t.fail(GraphError, f"its {name} takes {len(region.inputs)} inputs, not {len(types)}")
    for value, wanted, kind in zip(region.inputs, types, kinds):
        if not same_type(value.tensor, wanted):
            _type_fault(t, f"the {kind} is {wanted}, its {name} takes {value.type}", value.tensor, wanted)


def _check_carries(t: Typing, name: str, region: Graph, carries: Sequence[TensorType]) -> None:
    """Require that a step gives carries of the types that it takes."""
    if len(region.outputs) < len(carries):
        t.fail(GraphError, f"its {name} gives {len(region.outputs)} values for {len(carries)} carries")
    for k, (before, value) in enumerate(zip(carries, region.outputs)):
        if not same_type(value.tensor, before):
            problem = f"carry {k} is {before} before a step and {value.type} after it"
            _type_fault(t, problem, value.tensor, before)


def _type_fault(t: Typing, problem: str, got: TensorType, wanted: TensorType) -> None:
    t.fail(DTypeError if got.dtype != wanted.dtype else ShapeError, problem)


def _stacked(types: Sequence[TensorType], length: Dim) -> tuple[TensorType, ...]:
    return tuple(t.with_shape((length, *t.shape)) for t in types)


def _output_types(region: Graph) -> tuple[TensorType, ...]:
    return tuple(v.tensor for v in region.outputs)


def _kinds(carries: int, sequences: int, total: int) -> list[str]:
    names = [f"carry {k}" for k in range(carries)] + [f"element of sequence {k}" for k in range(sequences)]
    return names + [f"capture {k}" for k in range(total - carries - sequences)]


# --- scan ----------------------------------------------------------------------------------------


def _infer_scan(t: Typing) -> Type:
    (body,) = _regions(t, ("body",))
    carries, sequences = _counts(t, "carries", "sequences")
    types, length = t.types, t["length"]
    t.require_at_most(0, length, f"the length {length} is negative")
    if t["counted"]:
        _check_steps(t, types[-1] if len(types) > carries + sequences else None)
        types = types[:-1]
    for k, x in enumerate(types[carries:carries + sequences]):
        if not x.rank or not equal(x.shape[0], length):
            t.fail(ShapeError, f"sequence {k} is {x}, its first axis must be the length {length}")
    elements = [x.with_shape(x.shape[1:]) for x in types[carries:carries + sequences]]
    inside = (*types[:carries], *elements, *types[carries + sequences:])
    _check_inputs(t, "body", body, inside, _kinds(carries, sequences, len(inside)))
    _check_carries(t, "body", body, types[:carries])
    _check_hints(t)
    return TupleType((*types[:carries], *_stacked(_output_types(body)[carries:], length)))


def _check_steps(t: Typing, steps: TensorType | None) -> None:
    if steps is None or steps.dtype != int64 or steps.shape:
        t.fail(DTypeError, f"the last operand, the number of steps, must be i64[], got {steps}")


def _check_hints(t: Typing) -> None:
    if not isinstance(t["unroll"], int) or t["unroll"] < 1:
        t.fail(GraphError, f"unroll = {t['unroll']!r} must be a positive integer")
    if not isinstance(t["checkpoint"], bool):
        t.fail(GraphError, f"checkpoint = {t['checkpoint']!r} must be true or false")


def _scan(*operands: Any, bodies: Sequence[Body], **attrs: Any) -> Any:
    (body,) = bodies
    n, m, length = attrs["carries"], attrs["sequences"], attrs["length"]
    steps = length
    if attrs["counted"]:
        *operands, count = operands  # type: ignore[assignment]
        steps = int(np.clip(count, 0, length))
    carries, sequences, captures = operands[:n], operands[n:n + m], operands[n + m:]
    outputs = [np.zeros((length, *shape), dtype) for dtype, shape in body.outputs[n:]]
    for i in reversed(range(steps)) if attrs["reverse"] else range(steps):
        results = body(*carries, *(x[i] for x in sequences), *captures)
        carries = results[:n]
        for output, row in zip(outputs, results[n:]):
            output[i] = row
    return (*carries, *outputs)


scan: Op = register(Op(
    "scan", "region", _infer_scan, _scan,
    attrs={
        "carries": REQUIRED, "sequences": 0, "length": REQUIRED, "reverse": False, "counted": False,
        "unroll": 1, "checkpoint": False,
    },
    doc="Runs its body for each index of the sequences, from the first or (`reverse`) from the last. Operands: the "
    "carries' initial values, the sequences, the captures; if `counted`, the number of steps to run (i64, the first "
    "ones of `length`). The body maps carries, one element of each sequence, captures to new carries and outputs. "
    "Results: the final carries; each output at its index of an array of `length` (zeros where no step ran). "
    "`unroll` is for the compiler; with `checkpoint` the gradient keeps the carries only, and computes all else of a "
    "step again.",
))


# --- while ---------------------------------------------------------------------------------------


def _infer_while(t: Typing) -> Type:
    condition, body = _regions(t, ("condition", "body"))
    (carries,), limit = _counts(t, "carries"), t["max_steps"]
    kinds = _kinds(carries, 0, len(t.operands))
    _check_inputs(t, "condition", condition, t.types, kinds)
    _check_inputs(t, "body", body, t.types, kinds)
    if [str(v.type) for v in condition.outputs] != [f"{bool_}[]"]:
        got = ", ".join(str(v.type) for v in condition.outputs) or "nothing"
        t.fail(DTypeError, f"its condition gives {got}, not one bool[]")
    _check_carries(t, "body", body, t.types[:carries])
    extra = _output_types(body)[carries:]
    if limit is None and extra:
        t.fail(GraphError, "a body with outputs at every step needs max_steps, the length of their arrays")
    results = (*t.types[:carries], TensorType(int64, ()))
    if limit is None:
        return TupleType(results)
    t.require_at_most(0, limit, f"max_steps {limit} is negative")
    return TupleType((*results, *_stacked(extra, limit)))


def _while(*operands: Any, bodies: Sequence[Body], carries: int, max_steps: int | None) -> Any:
    condition, body = bodies
    state, captures = operands[:carries], operands[carries:]
    outputs = [np.zeros((max_steps or 0, *shape), dtype) for dtype, shape in body.outputs[carries:]]
    step = 0
    while (max_steps is None or step < max_steps) and bool(condition(*state, *captures)[0]):
        results = body(*state, *captures)
        state = results[:carries]
        for output, row in zip(outputs, results[carries:]):
            output[step] = row
        step += 1
    return (*state, np.int64(step), *outputs)


while_: Op = register(Op(
    "while", "region", _infer_while, _while, attrs={"carries": REQUIRED, "max_steps": None},
    doc="Runs its body as long as its condition holds, at most `max_steps` times. Operands: the carries' initial "
    "values, the captures; both regions read carries and captures. The body gives new carries and, if there is "
    "`max_steps`, outputs. Results: the final carries; the number of steps (i64); each output of step i at index i of "
    "an array of `max_steps` (zeros where no step ran).",
))


# --- switch --------------------------------------------------------------------------------------


def _infer_switch(t: Typing) -> Type:
    if not t.operands or not t.types[0].dtype.is_integer or t.types[0].shape:
        got = t.types[0] if t.operands else "nothing"
        t.fail(DTypeError, f"the index must be an integer scalar, got {got}")
    if not t.regions:
        t.fail(GraphError, "has no branches")
    names = [f"branch {k}" for k in range(len(t.regions))]
    captures = t.types[1:]
    for name, region in zip(names, _regions(t, names)):
        _check_inputs(t, name, region, captures, _kinds(0, 0, len(captures)))
    first = _output_types(t.regions[0])
    for name, region in zip(names, t.regions):
        _check_branch(t, name, first, _output_types(region))
    return TupleType(first)


def _check_branch(t: Typing, name: str, first: Sequence[TensorType], types: Sequence[TensorType]) -> None:
    if len(first) != len(types):
        t.fail(GraphError, f"branch 0 gives {len(first)} results, {name} gives {len(types)}")
    for k, (a, b) in enumerate(zip(first, types)):
        if not same_type(a, b):
            _type_fault(t, f"result {k} is {a} in branch 0 and {b} in {name}", b, a)


def _switch(index: Any, *captures: Any, bodies: Sequence[Body]) -> Any:
    return bodies[int(np.clip(index, 0, len(bodies) - 1))](*captures)


switch: Op = register(Op(
    "switch", "region", _infer_switch, _switch,
    doc="Runs one of its branches, by an integer clamped to 0..n-1. Operands: the index, the captures, which every "
    "branch takes. Results: those of the branch.",
))
