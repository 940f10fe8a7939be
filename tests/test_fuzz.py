"""The fuzzer: it agrees with correct code, and writes what it finds as a small graph that can be run again."""

from __future__ import annotations

import re
from pathlib import Path

import fuzz
import pytest
from fuzz import Failure, Plan, Worker
from generate import Draw, random_graph

from graphwright.frontends import cli
from graphwright.ir.graph import Graph
from graphwright.ir.parser import parse_graph


class Suspicious:
    """In place of a worker: every graph with a `tanh` is wrong."""

    def check(self, graph: Graph, plan: Plan) -> Failure | None:
        wrong = any(v.op.name == "tanh" for v in graph)
        return Failure("code: AssertionError", f"wrong, result 0 at {dict(plan.sizes[-1])}") if wrong else None

    def close(self) -> None:
        """There is no process."""


def test_graphs_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--seed", "10", "--count", "2", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("2 graphs in ")
    assert not list(tmp_path.iterdir())


def test_a_failure_is_written_as_a_small_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "Worker", Suspicious)
    assert fuzz.main(["--seed", "3", "--count", "60", "--out", str(tmp_path)]) == 1
    files = sorted(tmp_path.iterdir())
    assert re.search(rf"^{len(files)} failures\n  {len(files)} x code: AssertionError$", capsys.readouterr().out, re.M)
    for path in files:
        text = path.read_text()
        assert [v.op.name for v in parse_graph(text) if v.operands] == ["tanh"]
        replay = re.search(r"^// replay:   graphwright (.*)$", text, re.M)
        assert replay and cli.main(replay[1].replace(path.name, str(path)).split()) == 0
    assert fuzz.main([str(files[0])]) == 1


def test_a_seed_is_a_graph_and_a_plan() -> None:
    plans = [Plan.of(seed) for seed in range(10)]
    assert [str(p.graph()) for p in plans[:3]] == [str(Plan.of(p.seed).graph()) for p in plans[:3]]
    assert plans == [Plan.of(seed) for seed in range(10)]
    assert sum(p.large for p in plans) == 2 and sum(p.artifact for p in plans) == 1


def test_a_worker_that_hangs_or_dies_is_replaced() -> None:
    worker = Worker(patience=0.0)
    graph = random_graph(Draw.seeded(1), steps=2)
    try:
        failure = worker.check(graph, Plan.of(1))
        assert failure and failure.kind == "hang"
        worker._process.kill()
        worker.patience = 60.0
        failure = worker.check(graph, Plan.of(1))
        assert failure and failure.kind == "crash"
        assert worker.check(graph, Plan.of(1)) is None
    finally:
        worker.close()


def test_the_kind_of_a_failure_is_the_check_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter([ValueError("wrong"), ValueError("wrong"), ValueError("once")])

    def check(graph: Graph, plan: Plan) -> None:
        fault = next(faults, None)
        if fault is not None:
            raise fault

    monkeypatch.setattr(fuzz, "CHECKS", {"text": fuzz.check_text, "mine": check})
    graph = random_graph(Draw.seeded(1), steps=2)
    assert fuzz.failure_of(graph, Plan.of(1)) == Failure("mine: ValueError", "wrong")
    once = fuzz.failure_of(graph, Plan.of(1))
    assert once and once.message.startswith("once\nChecked again in the same process, it passes")
    assert fuzz.failure_of(graph, Plan.of(1)) is None
