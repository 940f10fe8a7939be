"""Random graphs: the interpreter, unoptimized and optimized code, and the scheduled loops must agree."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from differential import check_graph, reduce_graph
from generate import LARGE, SMALL, Draw, random_graph
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from graphwright.ir.graph import Graph
from graphwright.ir.verify import verify_graph
from graphwright.runtime.threads import get_num_threads, set_num_threads

SIZES: tuple[Mapping[str, int], ...] = (
    {"N": 7, "M": 9}, {"N": 1, "M": 1}, {"N": 0, "M": 3}, {"N": 5, "M": 0}, {"N": 33, "M": 17}, SMALL,
)  # fmt: skip
STEPS = st.randoms(use_true_random=False)
# A failure is reduced by `reduce_graph`, which knows more about graphs than Hypothesis's shrinker.
random_graphs = partial(
    settings, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def careful(tmp_path_factory: Any) -> Iterator[None]:
    """Every pass is verified; the user's cache is not filled; the number of threads is restored."""
    threads = get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHWRIGHT_VERIFY", "1")
        patch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
    set_num_threads(threads)


def explained(graph: Graph, check: Callable[[Graph], None]) -> None:
    """Check a graph; a failure shows the smallest graph found that fails in the same way."""
    fault = _fault(graph, check)
    if fault is None:
        return

    def fails(candidate: Graph) -> bool:
        other = _fault(candidate, check)
        return type(other) is type(fault) and _gist(other) == _gist(fault)

    raise AssertionError(f"{fault}\n\nreduced to\n{reduce_graph(graph, fails)}\nfrom\n{graph}") from fault


def _fault(graph: Graph, check: Callable[[Graph], None]) -> Exception | None:
    try:
        check(graph)
    except Exception as error:
        return error
    return None


def _gist(error: Exception | None) -> str:
    return str(error).strip()[:24]


@random_graphs(max_examples=190)
@given(STEPS)
def test_small_graphs_at_many_sizes(steps: random.Random) -> None:
    explained(random_graph(Draw(steps.randint)), partial(check_graph, sizes=SIZES))


@random_graphs(max_examples=60)
@given(STEPS)
def test_large_graphs_on_one_thread_and_two(steps: random.Random) -> None:
    graph = random_graph(Draw(steps.randint), LARGE, limit=100_000, steps=8)
    explained(graph, partial(check_graph, sizes=(LARGE,), threads=True))


@pytest.mark.parametrize("seed", range(20))
def test_the_generator_makes_well_formed_graphs(seed: int) -> None:
    graph = random_graph(Draw.seeded(seed))
    verify_graph(graph)
    assert graph.outputs
    assert str(random_graph(Draw.seeded(seed))) == str(graph)


def test_reducing_keeps_what_fails() -> None:
    def fails(graph: Graph) -> bool:
        return any(v.op.name == "tanh" for v in graph)

    graph = next(g for g in map(_seeded, range(200)) if fails(g))
    reduced = reduce_graph(graph, fails)
    assert [v.op.name for v in reduced if v.operands] == ["tanh"]
    verify_graph(reduced)


def _seeded(seed: int) -> Graph:
    return random_graph(Draw.seeded(seed))
