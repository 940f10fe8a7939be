"""How Graphwright's cost grows with the work: time per element, compile time per node, arena over what is alive.

::

    python -m benchmarks.scaling --only elements,arena --out build/bench

Time per element should be flat once a call's overhead no longer counts, compile time linear in the number of nodes,
and the arena at most 1.1 times the most bytes that are alive at once. Everything is compiled with an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import plots
from .machine import describe
from .workload import workloads

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
WIDTH = 256  # columns of rows and matrices
SAMPLE_SECONDS = 0.3

gw: Any = None


def _elements(most: int) -> dict[str, Any]:
    """Seconds of calls over numbers of elements: one compilation for all of them."""
    x = gw.placeholder("x", "float32", ("N",))
    rows = gw.placeholder("x", "float32", ("N", WIDTH))
    w = gw.Variable(np.full((WIDTH, WIDTH), 1 / WIDTH, np.float32), name="w")
    cases: dict[str, tuple[Any, int, float]] = {  # a function, elements in a row, work of an element
        "map: gelu": (gw.function([x], gw.nn.gelu(x)), 1, 1),
        "row kernel: softmax of 256": (gw.function([rows], gw.nn.softmax(rows)), WIDTH, 1),
        "reduction: sum": (gw.function([x], gw.sum(x)), 1, 1),
        "matrix product: [N, 256] @ [256, 256]": (gw.function([rows], rows @ w), WIDTH, 2 * WIDTH / 1000),
    }
    found: dict[str, Any] = {}
    for name, (f, row, work) in cases.items():
        points = []
        for exponent in range(6, 17):
            count = max(1, round(10 ** (exponent / 2) / row)) * row
            if count <= most:
                data = np.ones(count if row == 1 else (count // row, row), np.float32)
                points.append({"elements": count, "work": count * work, "seconds": _seconds(lambda f=f, d=data: f(d))})
        found[name] = points
        _say(name, [f"{p['elements']}: {1e9 * p['seconds'] / p['work']:.3g} ns" for p in points])
    return found


def _seconds(call: Callable[[], object]) -> float:
    """The lower quartile of many calls: the machine has other things to do as well."""
    call()
    start, times = time.perf_counter(), []
    while len(times) < 5 or (time.perf_counter() < start + SAMPLE_SECONDS and len(times) < 10_000):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.quantiles(times, n=4)[0]


def _chain(count: int) -> Any:
    x = gw.placeholder("x", "float32", ("N",))
    h = x
    for k in range(count // 2):
        h = gw.tanh(h) + x if k % 2 else gw.abs(h) * x
    return gw.function([x], h, name="chain")


def _wide(count: int) -> Any:
    x = gw.placeholder("x", "float32", ("N",))
    terms = [gw.tanh(x * float(k + 1)) for k in range(count // 3)]
    while len(terms) > 1:
        terms = [sum(pair[1:], pair[0]) for pair in (terms[i:i + 2] for i in range(0, len(terms), 2))]
    return gw.function([x], terms[0], name="wide")


def _network(layers: int) -> Any:
    """A training step of layers that are all alike, as most of a deep network's are."""
    x, y = gw.placeholder("x", "float32", ("N", 32)), gw.placeholder("y", "float32", ("N", 32))
    parameters, h = [], x
    for k in range(layers):
        w = gw.Variable(np.eye(32, dtype=np.float32), name=f"w{k}")
        b = gw.Variable(np.zeros(32, np.float32), name=f"b{k}")
        parameters += [w, b]
        h = h + gw.tanh(h @ w + b)
    loss = gw.mean((h - y) * (h - y))
    gradients = gw.grad(loss, parameters)
    return gw.function([x, y], loss, updates={p: p - 0.01 * g for p, g in zip(parameters, gradients)}, name="network")


def _nodes(most: int) -> dict[str, Any]:
    """Seconds to declare, differentiate and compile graphs over their numbers of nodes."""
    cases: dict[str, tuple[Callable[[int], Any], Sequence[int]]] = {
        "chain": (_chain, (100, 300, 1000, 3000, 10_000, 20_000)),
        "wide graph": (_wide, (100, 300, 1000, 3000, 10_000, 20_000)),
        "training step of up to 200 layers": (_network, (5, 15, 50, 100, 200)),
    }
    found: dict[str, Any] = {}
    for name, (make, sizes) in cases.items():
        found[name] = []
        for size in sizes:
            if size * (20 if make is _network else 1) <= most:  # a layer and its gradient are some 20 nodes
                start = time.perf_counter()
                f = make(size)
                seconds = time.perf_counter() - start
                nodes, kernels = sum(1 for _ in f.graph), len(f.compiled.lowered.program.kernels)
                found[name].append({"size": size, "nodes": nodes, "kernels": kernels, "seconds": seconds})
                _say(f"{name} of {size}", [f"{nodes} nodes, {kernels} kernels, {seconds:.2f} s"])
    return found


def most_alive(program: Any, dims: dict[str, int]) -> int:
    """The most bytes of temporaries and workspaces in use at a moment of the program; no arena can be smaller.

    A temporary is in use from the first to the last moment that touches it, and while a loop runs that touches it
    from outside. Where a kernel writes into the memory of an operand that dies with it, the two are one. Each begins at
    a multiple of the alignment.
    """
    from graphwright.ir.dims import align, evaluate
    from graphwright.ir.program import ALIGNMENT, nbytes, timeline, workspace_buffers

    def space(buffer: Any) -> int:
        return align(evaluate(nbytes(buffer), dims), ALIGNMENT)

    temps = {s.buffer.name: s for s in program.slots if s.kind == "temp" and s.alias is None}
    places = {n: (evaluate(s.offset, dims), space(s.buffer)) for n, s in temps.items()}
    moments = timeline(program.steps)
    lives = moments.lives(lambda name: program.place(name)[0])
    most = 0
    for k, (_, call) in enumerate(moments.touched):
        alive: dict[int, int] = {}
        for offset, size in (places[n] for n, (first, last) in lives.items() if n in places and first <= k <= last):
            alive[offset] = max(alive.get(offset, 0), size)
        workspaces = workspace_buffers(call.kernel) if call else ()
        most = max(most, sum(alive.values()) + sum(map(space, workspaces)))
    return most


def _arena() -> list[dict[str, Any]]:
    """The arena of the workloads that have temporaries, for any batch size and for a known one."""
    from .peers import graphwright

    graphwright.gw = gw
    found = []
    for workload in workloads():
        parameters, inputs = workload.data()
        for peer in graphwright.PEERS:
            f, _ = peer.function(workload, parameters, inputs)
            arena = peer.memory(f, workload, inputs)
            bound = most_alive(f.compiled.lowered.program, peer.dims(workload, inputs))
            if bound and (workload.batched or not peer.symbolic):
                name = f"{workload.name}{', batch N' if peer.symbolic else ''}"
                found.append({"name": name, "arena": arena, "bound": bound})
                _say(name, [f"arena {arena}, alive {bound}, {arena / bound:.3f}"])
    return found


@contextmanager
def _empty_cache() -> Iterator[None]:
    before = os.environ.get("GRAPHWRIGHT_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as cache:
        os.environ["GRAPHWRIGHT_CACHE_DIR"] = cache
        try:
            yield
        finally:
            del os.environ["GRAPHWRIGHT_CACHE_DIR"]
            if before is not None:
                os.environ["GRAPHWRIGHT_CACHE_DIR"] = before


def _say(name: str, lines: Sequence[str]) -> None:
    print(f"{name}: {', '.join(lines)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write ``scaling.json`` and its plots."""
    global gw
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="elements,nodes,arena", metavar="A,B", help="of elements, nodes, arena")
    parser.add_argument("--out", default=str(_ROOT / "build" / "bench"), help="folder for the results (build/bench)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most-elements", type=int, default=10**8)
    parser.add_argument("--most-nodes", type=int, default=20_000)
    options = parser.parse_args(arguments)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    measures: dict[str, Callable[[], Any]] = {
        "elements": lambda: _elements(options.most_elements), "nodes": lambda: _nodes(options.most_nodes),
        "arena": _arena,
    }
    chosen = options.only.split(",")
    for name in chosen:
        if name not in measures:
            raise SystemExit(f"no measure {name!r}; there are {', '.join(measures)}")
    file = out / "scaling.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    with _empty_cache():
        import graphwright as gw

        gw.set_num_threads(options.threads)
        found |= {"machine": describe(), "threads": options.threads} | {name: measures[name]() for name in chosen}
    file.write_text(json.dumps(found, indent=1) + "\n")
    print("written:", file, *plots.scaling(found, out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
