"""Custom ops on CUDA: a user's own kernel, launched as it stands beside the generated ones."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from ...ir.loops import Foreign
from ...ir.op import OPS

__all__ = ["foreign_function", "foreign_text"]


def foreign_function(op: str) -> Any:
    """The op's kernel as a ``@cuda.jit`` function."""
    from .functions import cuda

    return cuda.jit(_plain(op))


def foreign_text(s: Foreign, name: str) -> str:
    """The op's kernel, as far as its source is at hand, under the name by which it is launched."""
    arguments = ", ".join(b.name for b in (*s.outputs, *s.inputs))
    head = f"# {name}({arguments}): the kernel of the custom op {s.op}, one thread per element of {s.outputs[0].name}"
    try:
        source = textwrap.dedent(inspect.getsource(_plain(s.op))).rstrip()
    except (OSError, TypeError):  # typed into an interpreter, or made by a program
        return f"{head};\n# its source is not at hand\n"
    return "\n".join([head, *([] if source.startswith("@") else ["@cuda.jit"]), source]) + "\n"


def _plain(op: str) -> Callable[..., None]:
    """The Python function itself, also if the user has decorated it."""
    kernel = OPS[op].kernels["cuda"]
    function: Callable[..., None] = getattr(kernel, "py_func", kernel)
    return function
