"""Faults of the compiler itself: the error names the pass, and a file with its input replays it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ..errors import CompileError, GraphwrightError, VerifyError

__all__ = ["internal_failure", "reproducible"]

_REFUSALS = (VerifyError, CompileError)
"""Of our own errors those that may be the compiler's fault; others tell what the user got wrong."""


def internal_failure(
    step: str, ir: Any, name: str, command: str, error: Exception, folder: str | os.PathLike[str] | None = None
) -> NoReturn:
    """Raise the error of a step that failed, with a file from which it fails again.

    Parameters
    ----------
    step : what failed: ``"pass 'fuse'"``.
    ir : what it was given; its text is written.
    name : the first part of the file's name.
    command : replays it, with ``{}`` where the file's name stands.
    error : what it raised; an error that tells of a mistake of the user's is raised as it is.
    folder : where the file is written; by default that for temporary files.

    Raises
    ------
    VerifyError
        If the step left a malformed IR.
    CompileError
        If it failed in any other way.
    """
    kind: type[GraphwrightError] = CompileError
    problem = f"{step} failed: {type(error).__name__}: {error}"
    if isinstance(error, GraphwrightError):
        if error.reproducer or not isinstance(error, _REFUSALS):
            raise error
        problem, kind = str(error), type(error)
    path = _write(f"{ir}\n", name, folder)
    advice = f"a fault of the compiler, not of your program; replay it with: {command.format(path)}"
    made = kind(f"{problem}\n  {advice}")
    made.reproducer = path
    raise made from error


@contextmanager
def reproducible(
    step: str, ir: Any, name: str, command: str, folder: str | os.PathLike[str] | None
) -> Iterator[None]:
    """`internal_failure`, of what the block raises."""
    try:
        yield
    except Exception as error:
        internal_failure(step, ir, name, command, error, folder)


def _write(text: str, name: str, folder: str | os.PathLike[str] | None) -> str:
    if folder is None:
        handle, path = tempfile.mkstemp(".gwir", f"graphwright-{name}-")
        os.close(handle)
    else:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = os.path.join(os.path.abspath(folder), f"{name}.gwir")
    Path(path).write_text(text.rstrip("\n") + "\n", encoding="utf-8", newline="\n")
    return path
