"""A compiled function that can be called: native code, its signature, and its variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import DimensionError
from .buffers import Array, Cell
from .general import GeneralCall
from .image import Image, LoadedImage
from .native_call import CALL, is_supported, native_call
from .preparation import Preparation
from .signature import Signature

__all__ = ["Executable"]

_CALL = """Run the function.

Parameters
----------
args, kwargs : one array for each input, of its exact dtype; for a few numbers also Python
    numbers and lists.

Returns
-------
New arrays, nested as the function's definition says.

Raises
------
ArgumentError
    If an argument is missing, or its dtype, rank or a fixed dimension is wrong.
DimensionError
    If two inputs give one symbolic dimension different sizes, or a size is negative.

Whenever it raises one of these, no variable has changed.
"""


class Executable:
    """A function of arrays; calling it runs machine code.

    Parameters
    ----------
    image : the code.
    entry : the function's name in the image.
    signature : what it takes and gives.
    cells : storage of its states, in the signature's order; may be shared with other functions.
    shared : an image with the native entry from Python (`native_call`), if `image` itself has none.
    preparation : brings those cells up to date that are computed of the others.

    Attributes
    ----------
    general : the general way of a call, in Python.
    native : whether calls go through the native entry first.

    Raises
    ------
    DimensionError
        If a cell does not fit the signature, or the inputs do not determine a dimension.
    KeyError
        If the image has no such entry.
    """

    # A slot that the interpreter finds when an instance is called: no Python frame before the entry.
    __slots__ = {"__call__": _CALL, "__dict__": "", "__weakref__": ""}
    __call__: Callable[..., Any]

    def __init__(
        self, image: Image | LoadedImage, entry: str, signature: Signature, cells: Sequence[Cell] = (),
        shared: LoadedImage | None = None, preparation: Preparation | None = None,
    ) -> None:  # fmt: skip
        self.signature = signature
        self.cells = tuple(cells)
        self.image = image if isinstance(image, LoadedImage) else LoadedImage(image)
        if CALL in self.image.entries:
            shared = self.image
        self.general = GeneralCall(
            self.image, entry, signature, self.cells, shared if shared and is_supported() else None, preparation
        )
        made = native_call(shared, self.general, _CALL) if shared else None
        self.native = made is not None
        self.__call__ = made or self.general.__call__

    def memory(self, **dims: int) -> int | str:
        """Peak scratch memory in bytes, for given symbolic dimensions; without any, the formula.

        Raises
        ------
        DimensionError
            If a dimension is missing or unknown, or a size is negative or too large.
        """
        if not dims:
            return self.signature.arena_text
        symbols = self.signature.symbols
        if set(dims) != set(symbols):
            raise DimensionError(
                f"{self.signature.name}: memory() needs the dimensions {', '.join(symbols) or '(none)'}, "
                f"not {', '.join(sorted(dims))}"
            )
        return self.general.binder.plan_for([dims[s] for s in symbols]).arena

    def arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Array]:
        """The arguments of a call as arrays, in the signature's order; raises what a call would raise."""
        return self.general.arguments(args, kwargs)

    def __repr__(self) -> str:
        return f"<Executable {self.signature}, {'native' if self.native else 'general'} entry>"
