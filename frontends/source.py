"""Which line of the user's program makes a value: the first frame outside this package."""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..errors import GraphError
from ..ir.graph import Loc, current_location, source_location

__all__ = ["is_tracing", "located", "tracing", "user_location"]

_PACKAGE = __name__.partition(".")[0]
_PROGRAMS = {f"{_PACKAGE}.frontends.demo"}  # written as a user would, though it is part of the package

F = TypeVar("F", bound=Callable[..., object])


def user_location() -> Loc | None:
    """The file (absolute path) and line of the innermost caller outside this package."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] != _PACKAGE or module in _PROGRAMS:
            file = frame.f_code.co_filename
            return Loc(file if file.startswith("<") else os.path.abspath(file), frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None


class _Tracing(threading.local):
    depth = 0


_tracing = _Tracing()


def is_tracing() -> bool:
    """Whether the body of a loop or branch is being traced in this Python thread."""
    return _tracing.depth > 0


@contextmanager
def tracing() -> Iterator[None]:
    """Run the body of a loop or branch: its values get the user's lines inside of it."""
    _tracing.depth += 1
    try:
        with source_location(None):
            yield
    finally:
        _tracing.depth -= 1


def _name_line(error: GraphError, loc: Loc | None) -> None:
    """Let an error name the user's line, if its message does not yet."""
    message = str(error)
    if loc is not None and f"{loc.file}:{loc.line}" not in message:
        head, newline, rest = message.partition("\n")
        where = "in the call at" if re.search(r" at \S+:\d+", head) else "at"  # it tells of another line
        error.args = (f"{head}  {where} {loc.file}:{loc.line}{newline}{rest}",)


def located(function: F) -> F:
    """Give the values that a public function makes the source line of its caller.

    A function called by another one of this package keeps the outer one's line.
    """

    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> object:
        if current_location() is not None:
            return function(*args, **kwargs)
        with source_location(loc := user_location()):
            try:
                return function(*args, **kwargs)
            except GraphError as error:
                _name_line(error, loc)
                raise

    return wrapper  # type: ignore[return-value]
