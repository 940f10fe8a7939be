"""Random graphs, as many as time allows: ``python -m tests.fuzz --minutes 2 --seed 0`` (see docs/reliability.md).

A process of its own checks the graphs, so that neither a crash of compiled code nor an endless loop ends the run.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the tests are no package

from differential import Case, check_graph, reduce_graph
from generate import LARGE, SMALL, Draw, arrays_for, random_graph

from graphwright.compiler.driver import Compiled
from graphwright.compiler.export import write_artifact
from graphwright.errors import DimensionError
from graphwright.ir.graph import Graph
from graphwright.ir.interpreter import interpret
from graphwright.ir.ops import OPS
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph
from graphwright.passes.manager import PassReport
from graphwright.passes.pipelines import GRAPH
from graphwright.runtime.artifact import load

__all__ = ["Failure", "Plan", "Worker", "fuzz", "main", "recheck"]

Sizes = Mapping[str, int]
EDGES: tuple[Sizes, ...] = ({"N": 1, "M": 1}, {"N": 0, "M": 3}, {"N": 5, "M": 0}, {"N": 1, "M": 0}, {"N": 0, "M": 1})
PATIENCE = 120.0
"""Seconds that the checks of one graph may take, and that a failure is reduced for."""
RENEWAL = 400
"""Graphs after which the process that checks them is replaced: code that was loaded stays in its memory."""


@dataclass(frozen=True)
class Plan:
    """What is done with the graph of one seed.

    Attributes
    ----------
    sizes : of the symbolic dimensions, one after another.
    large : two threads are compared with one, at sizes that are worth it.
    artifact : the code is also written to a file, and loaded from there.
    """

    seed: int
    sizes: tuple[Sizes, ...]
    large: bool
    artifact: bool

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = random.Random(seed)
        drawn = [{name: rng.randint(1, most) for name, most in SMALL.items()} for _ in range(2)]
        large = seed % 5 == 4
        return cls(seed, (LARGE,) if large else (rng.choice(EDGES), *drawn), large, seed % 10 == 0)

    def graph(self) -> Graph:
        draw = Draw.seeded(self.seed)
        return random_graph(draw, LARGE, limit=100_000, steps=8) if self.large else random_graph(draw)


@dataclass(frozen=True)
class Failure:
    """The check that failed, with the class of its exception; and the message."""

    kind: str
    message: str

    def like(self, other: Failure | None) -> bool:
        """Whether it is probably the same fault."""
        return other is not None and self.kind == other.kind and self.message[:24] == other.message[:24]


# --- the checks ----------------------------------------------------------------------------------


def check_text(graph: Graph, plan: Plan) -> None:
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text, "the text of the parsed graph is another"


def check_code(graph: Graph, plan: Plan) -> None:
    check_graph(graph, plan.sizes, plan.seed, threads=plan.large)


def check_passes(graph: Graph, plan: Plan) -> None:
    """The graph after each pass: it reads back as it prints, and means the same to the interpreter."""
    stages: list[tuple[str, Graph]] = []

    def observe(ir: Any, report: PassReport | None) -> None:
        if report is not None and report.changed:
            stages.append((report.name, ir))

    GRAPH.run(graph, observe=observe)
    sizes = {name: min(size, 9) for name, size in plan.sizes[-1].items()}
    inputs, states = arrays_for(graph.inputs, sizes, plan.seed), arrays_for(graph.states, sizes, plan.seed + 1)
    case = Case(graph)
    try:
        expected = case.expected(inputs, states, sizes)
    except DimensionError:
        return
    for name, stage in stages:
        try:
            check_text(stage, plan)
            outputs, new = interpret(stage, inputs, states)
            expected.check([*outputs, *new], f"at {sizes}")
        except Exception as error:
            raise AssertionError(f"after {name}: {str(error).strip()}") from error


def check_artifact(graph: Graph, plan: Plan) -> None:
    """Code and states from a file do what they do here, to the bit."""
    if not plan.artifact:
        return
    case, sizes = Case(graph), plan.sizes[-1]
    inputs, states = arrays_for(graph.inputs, sizes, plan.seed), arrays_for(graph.states, sizes, plan.seed + 1)
    made = case.compiled["optimized"]
    entry = Compiled(made.lowered, made.image, made.signature, case.cells(states)).entry()
    try:
        here = case.run("optimized", inputs, states)
    except DimensionError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gwa"
        write_artifact(path, {"main": entry})
        model = load(path)
    there = [*model.entries["main"](*inputs), *(model.variables[v.attrs["name"]] for v in graph.states)]
    for k, (a, b) in enumerate(zip(here, there, strict=True)):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        assert same, f"result {k} of the artifact is another at {dict(sizes)}"


CHECKS: dict[str, Callable[[Graph, Plan], None]] = {
    "text": check_text, "passes": check_passes, "code": check_code, "artifact": check_artifact,
}  # fmt: skip


def failure_of(graph: Graph, plan: Plan) -> Failure | None:
    """The first check that fails; whether it fails again says if the fault lies in the graph or in the process."""
    for name, check in CHECKS.items():
        try:
            check(graph, plan)
        except Exception as error:
            again = _passes(check, graph, plan)
            note = "\nChecked again in the same process, it passes." if again else ""
            return Failure(f"{name}: {type(error).__name__}", str(error).strip() + note)
    return None


def _passes(check: Callable[[Graph, Plan], None], graph: Graph, plan: Plan) -> bool:
    try:
        check(graph, plan)
    except Exception:
        return False
    return True


# --- the process that checks ----------------------------------------------------------------------


class Worker:
    """Checks graphs in another process, which is replaced if it dies or takes too long."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._served = 0

    def check(self, graph: Graph, plan: Plan) -> Failure | None:
        """The first check that fails, or how the process ended."""
        self._served += 1
        if self._served > RENEWAL:
            self.close()
            self._start()
        text = print_graph(graph)
        try:
            self._connection.send((text, plan))
            if self._connection.poll(self.patience):
                found: Failure | None = self._connection.recv()
                return found
            failure = Failure("hang", f"not done within {self.patience:.0f} s")
        except (EOFError, ConnectionError):
            self._process.join()
            failure = Failure("crash", f"the process ended with {self._process.exitcode}")
        self.close()
        self._start()
        return failure

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Any) -> None:
    np.seterr(all="ignore")
    faulthandler.enable()  # a crash says where
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    while True:
        try:
            text, plan = connection.recv()
        except EOFError:
            return
        try:
            graph = parse_graph(text)
        except Exception as error:
            connection.send(Failure(f"text: {type(error).__name__}", str(error)))
        else:
            connection.send(failure_of(graph, plan))


# --- failures -------------------------------------------------------------------------------------


def reduced(worker: Worker, graph: Graph, plan: Plan, failure: Failure) -> tuple[Graph, Plan, Failure]:
    """A smaller graph, and one size, that fail in the same way; the search ends after some time."""
    deadline = time.monotonic() + PATIENCE
    for sizes in plan.sizes:
        alone = replace(plan, sizes=(sizes,))
        if len(plan.sizes) > 1 and failure.like(worker.check(graph, alone)):
            plan = alone
            break
    last = failure

    def fails(candidate: Graph) -> bool:
        nonlocal last
        if time.monotonic() > deadline:
            return False
        found = worker.check(candidate, plan)
        if found is None or not failure.like(found):
            return False
        last = found
        return True

    return reduce_graph(graph, fails), plan, last


def reproducer(graph: Graph, plan: Plan, failure: Failure) -> str:
    """The text of a graph, with what is wrong and how to see it again in comments."""
    named = re.search(r"at (\{[^}]*\})", failure.message)
    found = dict(re.findall(r"'(\w+)': (\d+)", named[1])) if named else plan.sizes[-1]
    sizes = ",".join(f"{name}={size}" for name, size in found.items() if name in graph.symbols)
    lines = [
        f"seed {plan.seed}: {failure.kind}",
        f"again:    python -m tests.fuzz --seed {plan.seed} --count 1, or with this file's name",
        f"replay:   graphwright run seed-{plan.seed}.gwir{f' --dims {sizes}' if sizes else ''}",
        "",
        *failure.message.splitlines()[:20],
    ]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines) + print_graph(graph)


def recheck(paths: Sequence[Path]) -> int:
    """Check written failures again; the number of those that still fail."""
    failures = 0
    with _environment(), contextlib.closing(Worker()) as worker:
        for path in paths:
            text = path.read_text()
            seed, sizes = re.search(r"^// seed (\d+)", text), re.search(r"^// replay: .* --dims (\S+)", text, re.M)
            plan = Plan.of(int(seed[1]) if seed else 0)
            named = re.findall(r"(\w+)=(\d+)", sizes[1] if sizes else "")
            plan = replace(plan, sizes=({name: int(size) for name, size in named},), artifact=True)
            failure = worker.check(parse_graph(text), plan)
            failures += failure is not None
            print(f"{path}: {f'{failure.kind}: {failure.message[:200]}' if failure else 'passes'}")
    return failures


# --- the loop -------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What a run has seen."""

    graphs: int
    seconds: float
    failures: Counter[str]
    ops: Counter[str]

    def __str__(self) -> str:
        missing = sorted(set(OPS) - set(self.ops))
        rate = self.graphs / max(self.seconds, 1e-9)
        return "\n".join([
            f"{self.graphs} graphs in {self.seconds:.0f} s, {rate:.1f} a second",
            f"{len(OPS) - len(missing)} of {len(OPS)} ops" + (f", without {', '.join(missing)}" if missing else ""),
            f"{self.failures.total()} failures",
            *(f"  {count} x {kind}" for kind, count in self.failures.most_common()),
        ])  # fmt: skip


def fuzz(seed: int, minutes: float, count: int | None, out: Path) -> Tally:
    """Check the graphs of one seed after another, until the time is over or `count` graphs are done."""
    start = time.monotonic()
    tally = Tally(0, 0.0, Counter(), Counter())
    with _environment():
        worker = Worker()
        try:
            while tally.graphs != count and time.monotonic() - start < 60 * minutes:
                _one(worker, Plan.of(seed + tally.graphs), tally, out)
                tally.graphs += 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        finally:
            worker.close()
    tally.seconds = time.monotonic() - start
    return tally


def _one(worker: Worker, plan: Plan, tally: Tally, out: Path) -> None:
    try:
        graph = plan.graph()
    except Exception as error:  # there is nothing to reduce: the ops' type rules or derivatives refuse
        tally.failures[f"generator: {type(error).__name__}"] += 1
        print(f"seed {plan.seed}: no graph: {error!r}", flush=True)
        return
    tally.ops.update(v.op.name for v in graph)
    failure = worker.check(graph, plan)
    if failure is None:
        return
    tally.failures[failure.kind] += 1
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"seed-{plan.seed}.gwir"
    path.write_text(reproducer(graph, plan, failure))  # whole, should reducing be interrupted
    path.write_text(reproducer(*reduced(worker, graph, plan, failure)))
    print(f"seed {plan.seed}: {failure.kind}: {failure.message[:200]}\n  {path}", flush=True)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Every pass is verified; the user's cache is not filled."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(GRAPHWRIGHT_VERIFY="1", GRAPHWRIGHT_CACHE_DIR=cache)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def main(argv: list[str] | None = None) -> int:
    """The command line; 1 if any graph failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Compile and compare random graphs.")
    parser.add_argument("--minutes", type=float, help="how long (default: 2, or as long as --count takes)")
    parser.add_argument("--count", type=int, help="how many graphs at most")
    parser.add_argument("--seed", type=int, default=0, help="of the first graph; each next one has the next")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where failures are written")
    parser.add_argument("file", type=Path, nargs="*", help="failures that were written: only these are checked")
    args = parser.parse_args(argv)
    if args.file:
        return 1 if recheck(args.file) else 0
    minutes = args.minutes if args.minutes is not None else 2.0 if args.count is None else float("inf")
    tally = fuzz(args.seed, minutes, args.count, args.out)
    print(tally)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
