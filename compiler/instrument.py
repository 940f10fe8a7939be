"""Programs that report on themselves: one more variable, which only whoever instruments them knows of."""

from __future__ import annotations

from dataclasses import replace as with_fields

import numpy as np

from ..ir.dtypes import int64
from ..ir.loops import Buffer
from ..ir.program import Program
from ..ir.program import Slot as ProgramSlot
from ..runtime.buffers import Cell
from ..runtime.signature import Signature, Slot

__all__ = ["report_cell", "with_report", "with_report_slot"]


def with_report(program: Program, name: str, length: int) -> Program:
    """The program with a variable ``i64[length]`` after all others; no kernel is given it yet."""
    slot = ProgramSlot(Buffer(name, int64, (length,)), "state")
    given = [k for k, s in enumerate(program.slots) if s.kind in ("input", "state")]
    k = given[-1] + 1 if given else 0
    return with_fields(program, slots=(*program.slots[:k], slot, *program.slots[k:]))


def with_report_slot(signature: Signature, name: str, length: int) -> Signature:
    """The signature of such a program, given that of the plain one."""
    states = (*signature.states, Slot(name, "int64", (length,)))
    return with_fields(signature, states=states, updated=(*signature.updated, len(states) - 1))


def report_cell(name: str, length: int) -> Cell:
    """Memory for the report."""
    return Cell(name, np.zeros(length, np.int64))
