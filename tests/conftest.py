"""Golden files: texts that are compared whole, and rewritten by ``pytest --update-golden``; a registry of ops
that tests may extend."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphwright.ir.graph import _interned

# tests never touch the user's own cache of compiled code
os.environ.setdefault("GRAPHWRIGHT_CACHE_DIR", str(Path(__file__).parent.parent / "build" / "test-cache"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")


@pytest.fixture(autouse=True, scope="module")
def fresh_values_of_a_module() -> None:
    """Fixtures of a whole module are made before those of its first test."""
    _interned.clear()


@pytest.fixture(autouse=True)
def fresh_values(fresh_values_of_a_module: None) -> None:
    """No value of another test is found by hash-consing, which would lend its source lines to this one."""
    _interned.clear()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """``golden(path, text)``: assert that a file holds exactly this text."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.write_text(text)
        assert path.exists(), f"{path.name} is missing; make it with --update-golden and read it"
        assert text == path.read_text(), f"{path.name} has changed; if that is right, use --update-golden"

    return check


@pytest.fixture
def registry() -> Iterator[None]:
    """Ops that a test defines are gone after it."""
    from graphwright.frontends import extend
    from graphwright.ir.op import OPS

    known = set(OPS)
    yield
    for name in set(OPS) - known:
        del OPS[name]
        extend._expressions.pop(name, None)
