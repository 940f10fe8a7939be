"""A table of a model: its modules, the shapes they give, and the numbers of their parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.structure import flatten
from ..tensor import Tensor, placeholder
from .module import Buffer, Module, _frames, training

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True)
class Summary:
    """One row a call, in the order of the model; it prints as a table.

    Attributes
    ----------
    rows : name, kind, shapes of the outputs, and the number of parameters of the module's own.
    parameters, buffers : numbers of elements of all parameters, and of all buffers.
    """

    rows: tuple[tuple[str, str, str, int], ...]
    parameters: int
    buffers: int

    def __str__(self) -> str:
        head = ("name", "module", "output", "parameters")
        table = [head, *((*row[:3], f"{row[3]:,}" if row[3] else "-") for row in self.rows)]
        widths = [max(len(row[k]) for row in table) for k in range(4)]
        lines = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(row[:3], widths)), row[3].rjust(widths[3])]) for row in table
        ]
        rule = "-" * len(lines[0])
        total = f"{self.parameters:,} parameters" + f", {self.buffers:,} elements of buffers" * bool(self.buffers)
        return "\n".join([lines[0], rule, *lines[1:], rule, total])

    def __repr__(self) -> str:
        return str(self)


def summarize(module: Module, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Summary:
    """The summary of a call on placeholders of these shapes; see `Module.summary`."""
    arguments = [
        x if isinstance(x, Tensor) else placeholder(f"input{k}", "float32", x) for k, x in enumerate(inputs)
    ]
    shapes: dict[int, list[str]] = {}

    def observe(called: Module, result: Any) -> None:
        shapes.setdefault(id(called), []).append(_shapes(result))

    before = [(m, m.__dict__.get("_changed")) for _, m in module.named_modules()]
    _frames.observers.append(observe)
    try:
        with training(False):
            module(*arguments, **kwargs)
    finally:
        _frames.observers.pop()
        for m, changed in before:  # what this call would change is not for a function of the user's
            m.__dict__["_changed"] = changed or {}
    rows, counted = [], set()
    for path, found in module.named_modules():
        own = [v for v in _direct(found) if id(v) not in counted]
        counted.update(map(id, own))
        outputs = " | ".join(dict.fromkeys(shapes.get(id(found), ["not called"])))
        rows.append((path or type(module).__name__, repr(found), outputs, _count(own)))
    return Summary(
        tuple(rows), _count(module.parameters()), _count([b for _, b in module.named_buffers()])
    )


def _direct(module: Module) -> list[Tensor]:
    inner = {id(v) for _, m in module.named_modules() if m is not module for v in m.parameters()}
    return [v for v in module.parameters() if id(v) not in inner and not isinstance(v, Buffer)]


def _count(variables: Sequence[Tensor]) -> int:
    return sum(math.prod(v.shape) for v in variables)


def _shapes(result: Any) -> str:
    leaves, _ = flatten(result)
    return ", ".join(f"[{', '.join(map(str, x.shape))}]" for x in leaves if isinstance(x, Tensor))
