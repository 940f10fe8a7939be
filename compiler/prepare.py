"""States that a program has beside its graph's: their memory, and the code that computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.buffers import Cell
from ..runtime.executable import Executable
from ..runtime.preparation import Preparation
from ..runtime.signature import Signature

if TYPE_CHECKING:
    from .driver import Lowered

__all__ = ["prepared"]


def prepared(
    lowered: Lowered, signature: Signature, cells: Sequence[Cell]
) -> tuple[tuple[Cell, ...], Preparation | None]:
    """The cells of a program's states that follow the graph's, and what brings them up to date.

    Parameters
    ----------
    signature : the program's.
    cells : of the graph's states.
    """
    from .driver import CpuLowered, native_entry, preparation_code

    slots = signature.states[len(cells) :]
    if not slots:
        return (), None
    assert isinstance(lowered, CpuLowered)
    made = tuple(Cell(s.name, np.broadcast_to(np.zeros((), s.dtype), s.static_shape or ())) for s in slots)
    image, own = preparation_code(lowered)
    known = {slot.name: cell for slot, cell in zip(signature.states, (*cells, *made))}
    mine = [known[slot.name] for slot in own.states]
    run = Executable(image, own.name, own, mine, native_entry())
    return made, Preparation(run, mine[: len(mine) - len(made)])
