"""Scans in pieces: the one scan, or several that run one after the other for what the gradient needs.

A scan with checkpoints is a scan over segments, of which the gradient keeps the carries only, whose body is the
scan of a segment. What is left over at the end, less than a segment, is a scan of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..ir.dims import Dim, dim_max, dim_min, floordiv, isqrt
from ..ir.dtypes import int64
from ..ir.graph import Graph, Value, make
from ..ir.op import OPS
from ..ir.ops.movement import slice_axis
from ..ir.region import Trace

__all__ = ["LoopBody", "segments"]

Results = tuple[list[Value], list[Value]]
Part = tuple[Dim, Callable[[Sequence[Value], Sequence[Value], Dim], Results]]


@dataclass(frozen=True)
class LoopBody:
    """What is the same for all pieces of a scan: its region, the numbers of its operands, what it captures."""

    region: Graph
    carries: int
    sequences: int
    captures: list[Value]
    reverse: bool
    unroll: int
    checkpoint: bool = False

    def scan(self, carries: Sequence[Value], sequences: Sequence[Value], length: Dim) -> Results:
        """The final carries and the stacked outputs."""
        attrs = {
            **OPS["scan"].attrs, "carries": self.carries, "sequences": self.sequences, "length": length,
            "reverse": self.reverse, "unroll": self.unroll, "checkpoint": self.checkpoint,
        }
        loop = make(OPS["scan"], [*carries, *sequences, *self.captures], attrs, (self.region,))
        results = [OPS["item"](loop, index=k) for k in range(len(self.region.outputs))]
        return results[:self.carries], results[self.carries:]


def segments(
    body: LoopBody, carries: Sequence[Value], sequences: Sequence[Value], n: Dim, checkpoint: int | str | None,
    truncate: int | None,
) -> Results:
    """A scan with checkpoints every so many steps (``"sqrt"``: the root of all), and a gradient of the last so many."""
    if truncate is None:
        return _checkpointed(body, carries, sequences, n, checkpoint)
    tail = dim_min(n, truncate)
    if tail == n:
        return _checkpointed(body, carries, sequences, n, checkpoint)

    def constant(first: Sequence[Value], xs: Sequence[Value], length: Dim) -> Results:
        last, outputs = body.scan(first, xs, length)
        stop = OPS["stop_gradient"]
        return [stop(v) for v in last], [stop(v) for v in outputs]

    def differentiable(first: Sequence[Value], xs: Sequence[Value], length: Dim) -> Results:
        if not isinstance(n, int):  # there may be no step before
            few = OPS["le"](OPS["dim"](value=n, dtype=int64), truncate)
            first = [OPS["where"](few, a, b) for a, b in zip(carries, first)]
        return _checkpointed(body, first, xs, length, checkpoint)

    return _two_parts(body, carries, sequences, (n - tail, constant), (tail, differentiable))


def _checkpointed(
    body: LoopBody, carries: Sequence[Value], sequences: Sequence[Value], n: Dim, checkpoint: int | str | None
) -> Results:
    if checkpoint is None:
        return body.scan(carries, sequences, n)
    size: Dim = dim_max(1, isqrt(n)) if checkpoint == "sqrt" else int(checkpoint)
    count = floordiv(n, size)

    def whole(first: Sequence[Value], xs: Sequence[Value], length: Dim) -> Results:
        return _scan_of_scans(body, first, xs, count, size)

    return _two_parts(body, carries, sequences, (count * size, whole), (n - count * size, body.scan))


def _two_parts(
    body: LoopBody, carries: Sequence[Value], sequences: Sequence[Value], first: Part, second: Part
) -> Results:
    """Two scans, one after the other in the order of the steps; a part of length 0 is left out."""
    parts = [part for part in (first, second) if part[0] != 0] or [second]
    total = parts[0][0] + parts[-1][0]
    outputs: list[list[Value]] = []
    done: Dim = 0
    for length, run in parts:
        start = total - done - length if body.reverse else done
        rows = [slice_axis(x, 0, start, length) if len(parts) > 1 else x for x in sequences]
        carries, stacked = run(carries, rows, length)
        outputs.append(stacked)
        done = done + length
    if len(outputs) == 1:
        return list(carries), outputs[0]
    ordered = outputs[::-1] if body.reverse else outputs
    return list(carries), [OPS["concat"](*pieces, axis=0) for pieces in zip(*ordered)]


def _scan_of_scans(
    body: LoopBody, carries: Sequence[Value], sequences: Sequence[Value], count: Dim, size: Dim
) -> Results:
    """`count` segments of `size` steps."""
    trace = Trace()
    before = trace.inputs_like("c", [v.tensor for v in carries])
    rows = trace.inputs_like("x", [v.tensor.with_shape((size, *v.shape[1:])) for v in sequences])
    last, outputs = body.scan(before, rows, size)
    (region,), captures = trace.close({"region": [*last, *outputs]})
    outer = replace(body, region=region, captures=captures, unroll=1, checkpoint=True)
    split = [OPS["reshape"](x, shape=(count, size, *x.shape[1:])) for x in sequences]
    last, stacked = outer.scan(carries, split, count)
    return last, [OPS["reshape"](y, shape=(count * size, *y.shape[2:])) for y in stacked]
